//! One request of a browser that has logged in.

use super::form::Form;
use super::monitor::Monitor;
use super::session::Session;
use super::view::{Done, Frame, section_of};
use crate::error::{Code, Error, Result};
use crate::http::front::Front;
use crate::service::shape::REGION;
use askama::Template;
use serde_json::{Value, json};

/// What a page is made from.
pub struct Visit<'a> {
    /// Does the actions.
    pub front: &'a Front,
    /// Has measured what instances use.
    pub monitor: &'a Monitor,
    /// Who asks.
    pub session: Session,
    /// The address's fields.
    pub query: Form,
    /// The form's fields.
    pub form: Form,
}

/// What a browser is answered.
pub enum Answer {
    /// A page.
    Page(String),
    /// Another address.
    SeeOther(String),
    /// A file that it keeps under that name.
    File {
        /// The name, which may be any text.
        name: String,
        /// What is in it.
        content: String,
    },
}

/// Most pages of a list.
const MAX_PAGES: usize = 100;

/// What may have been done: the word in the address, and the message.
const DONE: &[(&str, &str)] = &[
    ("start", "Starting."),
    ("stop", "Stopping."),
    ("reboot", "Rebooting."),
    ("terminate", "Terminated."),
    ("launch", "Launched."),
    ("image", "The image is being created:"),
    ("copy", "The copy was made:"),
    ("elsewhere", "The copy is being made in the other region."),
    ("permissions", "The permissions were saved:"),
    ("tag", "The tags were saved:"),
    ("deregister", "The image was deregistered. Its snapshots stay unless you had them deleted."),
    ("delete", "Deleted."),
    ("attach", "The volume is being attached."),
    ("did", "Done."),
    ("modify", "The volume is larger now."),
    ("snapshot", "The snapshot was made."),
    ("volume", "The volume was created."),
    ("create", "Created."),
    ("import", "The public key was imported."),
    ("authorize", "The rule was added."),
    ("desired", "The desired capacity was set."),
    ("limits", "The limits were set."),
    ("suspend", "Suspended."),
    ("resume", "Resumed."),
    ("refresh", "The instance refresh was started."),
    ("cancel", "The instance refresh was cancelled."),
];

impl Visit<'_> {
    /// Does an action of EC2's.
    ///
    /// # Errors
    /// The action's.
    pub fn perform(&self, action: &str, request: Value) -> Result<Value> {
        self.perform_of("ec2", action, request)
    }

    /// As [`Visit::perform`], of another service's.
    ///
    /// # Errors
    /// The action's.
    pub fn perform_of(&self, api: &str, action: &str, request: Value) -> Result<Value> {
        self.front.perform(api, action, request, &self.session.access_key_id)
    }

    /// The list that a describing action answers.
    ///
    /// # Errors
    /// The action's.
    pub fn listed(&self, action: &str, member: &str, request: Value) -> Result<Vec<Value>> {
        self.listed_of("ec2", action, member, request)
    }

    /// As [`Visit::listed`], of another service's: all pages.
    ///
    /// # Errors
    /// The action's.
    pub fn listed_of(
        &self,
        api: &str,
        action: &str,
        member: &str,
        request: Value,
    ) -> Result<Vec<Value>> {
        let (mut all, mut asked) = (Vec::new(), request);
        for _ in 0..MAX_PAGES {
            let mut answer = self.perform_of(api, action, asked.clone())?;
            if let Value::Array(list) = answer[member].take() {
                all.extend(list);
            }
            match answer["NextToken"].take() {
                Value::String(token) => asked["NextToken"] = token.into(),
                _ => break,
            }
        }
        Ok(all)
    }

    /// The instances, the youngest first.
    ///
    /// # Errors
    /// They can't be read, or there is none of that id.
    pub fn instances(&self, id: Option<&str>) -> Result<Vec<Value>> {
        let request = id.map_or_else(|| json!({}), |id| json!({ "InstanceIds": [id] }));
        let reservations = self.listed("DescribeInstances", "Reservations", request)?;
        let mut all: Vec<Value> = reservations
            .into_iter()
            .filter_map(|mut reservation| match reservation["Instances"].take() {
                Value::Array(instances) => Some(instances),
                _ => None,
            })
            .flatten()
            .collect();
        all.sort_by(|a, b| b["LaunchTime"].as_str().cmp(&a["LaunchTime"].as_str()));
        Ok(all)
    }

    /// What is around a page.
    pub fn frame(&self, section: &'static str, title: impl Into<String>) -> Frame {
        let id = self.query.text("id");
        let named = id.len() <= 64 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        let id = if named { id.to_owned() } else { String::new() };
        let text = DONE.iter().find(|(word, _)| *word == self.query.text("done"));
        let list = section_of(&id).unwrap_or("instances");
        Frame {
            title: title.into(),
            section,
            account: self.front.account(),
            region: REGION.to_owned(),
            csrf: self.session.csrf.clone(),
            done: text.map(|(_, text)| Done { text, href: format!("/console/{list}/{id}"), id }),
        }
    }
}

/// A template's page.
///
/// # Errors
/// It can't be written.
pub fn page(template: &impl Template) -> Result<Answer> {
    let failed = |error| Error::failure(format!("cannot write the page: {error}"));
    template.render().map(Answer::Page).map_err(failed)
}

/// There is no such page.
pub fn nowhere() -> Error {
    Error::refused(Code::InvalidAction, "the console has no such page")
}
