//! One request of a browser that has logged in.

use super::form::Form;
use super::session::Session;
use super::view::{Done, Frame};
use crate::error::{Code, Error, Result};
use crate::http::front::Front;
use crate::service::shape::REGION;
use askama::Template;
use serde_json::{Value, json};

/// What a page is made from.
pub struct Visit<'a> {
    /// Does the actions.
    pub front: &'a Front,
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
}

/// What may have been done: the word in the address, and the message.
const DONE: &[(&str, &str)] = &[
    ("start", "Starting."),
    ("stop", "Stopping."),
    ("reboot", "Rebooting."),
    ("terminate", "Terminated."),
    ("launch", "Launched."),
    ("image", "The image is being created:"),
    ("copy", "The copy was made:"),
    ("permissions", "The permissions were saved:"),
    ("tag", "The tags were saved:"),
    ("deregister", "The image was deregistered. Its snapshots stay unless you had them deleted."),
    ("delete", "Deleted."),
];

impl Visit<'_> {
    /// Does an action of EC2's.
    ///
    /// # Errors
    /// The action's.
    pub fn perform(&self, action: &str, request: Value) -> Result<Value> {
        self.front.perform(action, request, &self.session.access_key_id)
    }

    /// The list that a describing action answers.
    ///
    /// # Errors
    /// The action's.
    pub fn listed(&self, action: &str, member: &str, request: Value) -> Result<Vec<Value>> {
        match self.perform(action, request)?[member].take() {
            Value::Array(list) => Ok(list),
            _ => Ok(Vec::new()),
        }
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
        let list = if id.starts_with("ami-") { "images" } else { "instances" };
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
