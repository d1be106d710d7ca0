//! What an action is given, and what actions have in common.

use crate::error::{Code, Error, Result};
use crate::id::hex;
use crate::record::network::NetworkName;
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
use crate::service::Service;
use crate::service::asked;
pub use crate::service::asked::decoded;
use crate::service::filter::Filter;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::sync::{Arc, mpsc};

/// One request, whose signature is right.
pub struct Call<'a> {
    /// The actions, on the caller's behalf.
    pub service: &'a Arc<Service>,
    /// What goes on after its answer.
    pub work: &'a Background,
    /// The network of an instance for which none is named; none has one without.
    pub network: Option<&'a NetworkName>,
    /// Its parameters, in the shape of the service's model.
    pub request: Value,
    /// The region that it was signed for.
    pub region: &'a str,
    /// The caller's uid in decimal, which is its account.
    pub account: String,
    /// The access key's id.
    pub access_key_id: &'a str,
    /// The request's body, where it is none of parameters.
    pub body: &'a [u8],
    /// The answer's body, where it is none of parameters.
    pub content: Cell<Vec<u8>>,
}

/// What goes on after an answer was given.
#[derive(Clone, Default)]
pub struct Background {
    all: Arc<()>,
    copies: Arc<()>,
}

/// Most images and snapshots that are made behind their answers at once. (EC2, "Amazon EBS quotas":
/// concurrent snapshot copies)
const MAX_COPIES: usize = 20;

impl Background {
    /// Whether all has ended.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.all) == 1
    }

    /// Goes on with something on a thread of its own.
    pub fn begin(&self, service: &Arc<Service>, work: impl FnOnce(&Service) + Send + 'static) {
        let (own, token) = (service.clone(), self.all.clone());
        let thread = std::thread::Builder::new().name("background".into());
        let spawned = thread.spawn(move || {
            work(&own);
            drop(token);
        });
        if let Err(cause) = spawned {
            service.warn(format_args!("there is no thread to go on with it: {cause}"));
        }
    }

    /// Goes on with the tasks that nobody does.
    pub fn attend(&self, service: &Arc<Service>) {
        for id in service.unattended_tasks().unwrap_or_default() {
            self.begin(service, move |service| {
                // If its record can't be written, it is begun again.
                let _ = service.do_task(&id);
            });
        }
    }
}

/// What does an action: the answer in the shape of the service's model.
pub type Action = fn(&Call<'_>) -> Result<Value>;

/// EC2 Filter.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FilterRequest {
    name: String,
    #[serde(default)]
    values: Vec<String>,
}

/// EC2 TagSpecification.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagSpecification {
    resource_type: String,
    #[serde(default)]
    tags: Vec<TagRequest>,
}

/// EC2 Tag, of which a value may be absent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagRequest {
    key: String,
    #[serde(default)]
    value: String,
}

/// Fewest and most objects of a page.
const PAGE: std::ops::RangeInclusive<u64> = 5..=1000;

/// Objects of a page of Auto Scaling's, where nothing is said, and at most.
const RECORDS: u64 = 50;
const MAX_RECORDS: u64 = 100;

impl Call<'_> {
    /// Goes on with something on a thread of its own. The service's end waits for it.
    pub fn background(&self, work: impl FnOnce(&Service) + Send + 'static) {
        self.work.begin(self.service, work);
    }

    /// Makes an image or a snapshot behind the answer, which is what `work` tells first: once it is
    /// there its state says the rest.
    ///
    /// # Errors
    /// The work's, before it has told anything. `ResourceLimitExceeded`: too many are being made.
    pub fn behind(
        &self,
        work: impl FnOnce(&Service, &mut dyn FnMut(String)) -> Result<()> + Send + 'static,
    ) -> Result<String> {
        let turn = self.work.copies.clone();
        // Counted with those of requests that come at the same time.
        if Arc::strong_count(&turn) > MAX_COPIES + 1 {
            let why = format!("{MAX_COPIES} images and snapshots are being made; wait for one");
            return Err(Error::refused(Code::ResourceLimitExceeded, why));
        }
        let (send, reported) = mpsc::channel();
        self.background(move |service| {
            let first = send.clone();
            let done = work(service, &mut |id| drop(first.send(Ok(id))));
            let _ = done.map_err(|error| send.send(Err(error)));
            drop(turn);
        });
        reported.recv().map_err(|_| Error::failure("it came to nothing before it was there"))?
    }

    /// The token of the request, with what it stands for: the request without it.
    pub fn client_token(&self) -> Option<ClientToken> {
        let token = self.request["ClientToken"].as_str()?.to_owned();
        let mut request = self.request.clone();
        request.as_object_mut().map(|request| request.shift_remove("ClientToken"));
        Some(ClientToken { token, request: hex(&Sha256::digest(request.to_string())) })
    }

    /// The region of that name as the service has it: none for the one at hand.
    pub fn other_region(&self, name: &str) -> Option<String> {
        (name != self.region).then(|| name.to_owned())
    }

    /// The request as a structure with what the action does.
    ///
    /// # Errors
    /// `UnsupportedOperation`: it asks for something that EC2 has and Spore has not.
    /// `MissingParameter`, `InvalidParameterValue`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T> {
        // What pages, filters and tags say is read apart; what is not wanted need not be there.
        let own = [
            "Filters",
            "MaxRecords",
            "MaxResults",
            "NextToken",
            "DryRun",
            "TagSpecifications",
            "ClientToken",
        ];
        asked::read(&self.request, &own)
    }

    fn part<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T> {
        let Some(value) = self.request.get(name) else { return Ok(T::default()) };
        T::deserialize(value).map_err(|error| {
            Error::refused(Code::InvalidParameterValue, format!("{name}: {error}"))
        })
    }

    /// Its `Filters`.
    ///
    /// # Errors
    /// `InvalidParameterValue`: one has no name.
    pub fn filters(&self) -> Result<Vec<Filter>> {
        let filters: Vec<FilterRequest> = self.part("Filters")?;
        Ok(filters.into_iter().map(|f| Filter { name: f.name, values: f.values }).collect())
    }

    /// The tags of its `TagSpecifications` that are for a resource of that type.
    ///
    /// # Errors
    /// `InvalidParameterValue`: there are some of a type that is not in `types`, which the action
    /// makes.
    pub fn tags(&self, resource_type: &str, types: &[&str]) -> Result<Vec<Tag>> {
        let specifications: Vec<TagSpecification> = self.part("TagSpecifications")?;
        let unknown = specifications.iter().find(|s| !types.contains(&s.resource_type.as_str()));
        if let Some(unknown) = unknown {
            let why = format!(
                "'{}' is not a type of resource that this action makes; it makes {}",
                unknown.resource_type.escape_debug(),
                types.join(", ")
            );
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        let own = specifications.into_iter().filter(|s| s.resource_type == resource_type);
        Ok(own
            .flat_map(|specification| specification.tags)
            .map(|tag| Tag { key: tag.key, value: tag.value })
            .collect())
    }

    /// An answer with a list, of which one page is told if the request says how large that is.
    /// `key` has what orders and tells the objects.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a page's size, `InvalidNextToken`,
    /// `InvalidParameterCombination`: those that are named have no pages.
    pub fn listed(
        &self,
        member: &str,
        ids: &[String],
        list: Vec<Value>,
        key: &str,
    ) -> Result<Value> {
        let key = |value: &Value| value[key].as_str().unwrap_or_default().to_owned();
        self.paged(member, ids, list, key, |page| Ok(page.into()))
    }

    /// An answer of Auto Scaling's with a list, a page of it by MaxRecords. `key` has what orders
    /// and tells the objects.
    ///
    /// # Errors
    /// `ValidationError` for a page's size, `InvalidNextToken`.
    pub fn records(&self, member: &str, mut list: Vec<Value>, key: &str) -> Result<Value> {
        list.sort_by_cached_key(|value| value[key].as_str().unwrap_or_default().to_owned());
        self.in_order(member, list)
    }

    /// As [`Call::records`], of a list that has its order.
    ///
    /// # Errors
    /// As there.
    pub fn in_order(&self, member: &str, mut list: Vec<Value>) -> Result<Value> {
        let most: Option<u64> = self.part("MaxRecords")?;
        let most = most.unwrap_or(RECORDS);
        if !(1..=MAX_RECORDS).contains(&most) {
            let why = format!("MaxRecords is {most}; it is 1 to {MAX_RECORDS}");
            return Err(Error::refused(Code::ValidationError, why));
        }
        let most = most as usize;
        let token: Option<String> = self.part("NextToken")?;
        // What comes and goes meanwhile shifts a page; no object is told of that nobody had.
        let from = match token {
            None => 0,
            Some(token) => {
                let text = URL_SAFE_NO_PAD.decode(&token).ok();
                let text = text.and_then(|text| String::from_utf8(text).ok());
                let at = text.and_then(|text| text.strip_prefix("from:")?.parse::<usize>().ok());
                at.ok_or_else(|| {
                    let why = "NextToken is of no answer from here";
                    Error::refused(Code::InvalidNextToken, why)
                })?
            }
        };
        let next = from.saturating_add(most);
        let more = list.len() > next;
        list = list.into_iter().skip(from).take(most).collect();
        let mut answer = json!({ member: list });
        if more {
            answer["NextToken"] = URL_SAFE_NO_PAD.encode(format!("from:{next}")).into();
        }
        Ok(answer)
    }

    /// As [`Call::listed`], of what becomes the list by `told` once its page is known: a page of
    /// instances is told by reservation.
    ///
    /// # Errors
    /// As [`Call::listed`]'s.
    pub fn paged<T>(
        &self,
        member: &str,
        ids: &[String],
        list: Vec<T>,
        key: impl Fn(&T) -> String,
        described: impl FnOnce(Vec<T>) -> Result<Value>,
    ) -> Result<Value> {
        let most: Option<u64> = self.part("MaxResults")?;
        let token: Option<String> = self.part("NextToken")?;
        if most.is_none() && token.is_none() {
            return Ok(json!({ member: described(list)? }));
        }
        let (page, next) = page(list, ids, most, token, key)?;
        let mut answer = json!({ member: described(page)? });
        if let Some(next) = next {
            answer["NextToken"] = next.into();
        }
        Ok(answer)
    }
}

fn page<T>(
    mut list: Vec<T>,
    ids: &[String],
    most: Option<u64>,
    token: Option<String>,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>)> {
    let refuse = |code, why: String| Err(Error::refused(code, why));
    if let Some(most) = most.filter(|most| !PAGE.contains(most)) {
        let why = format!("MaxResults is {most}; it is {} to {}", PAGE.start(), PAGE.end());
        return refuse(Code::InvalidParameterValue, why);
    }
    if !ids.is_empty() && most.is_some() {
        let why = "MaxResults can't be given with ids".to_owned();
        return refuse(Code::InvalidParameterCombination, why);
    }
    list.sort_by_cached_key(&key);
    if let Some(token) = token {
        let after =
            URL_SAFE_NO_PAD.decode(&token).ok().and_then(|text| String::from_utf8(text).ok());
        let Some(after) = after.as_deref().and_then(|text| text.strip_prefix("after:")) else {
            return refuse(
                Code::InvalidNextToken,
                "NextToken is of no answer from here".to_owned(),
            );
        };
        list.retain(|object| key(object).as_str() > after);
    }
    let most = most.unwrap_or(*PAGE.end()) as usize;
    let more = list.len() > most;
    list.truncate(most);
    let last = list.last().filter(|_| more).map(&key);
    Ok((list, last.map(|key| URL_SAFE_NO_PAD.encode(format!("after:{key}")))))
}

/// A value's JSON.
///
/// # Errors
/// It has none.
pub fn json_of(value: impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::failure(format!("cannot answer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    #[test]
    fn so_many_are_made_behind_their_answers_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let service = Service::open_within(home.path(), &Context::default()).unwrap();
        let (service, work) = (Arc::new(service), Background::default());
        let call = Call {
            service: &service,
            work: &work,
            network: None,
            request: Value::Null,
            region: "",
            account: String::new(),
            access_key_id: "",
            body: &[],
            content: Cell::default(),
        };
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let begin = || {
            let wait = wait.clone();
            call.behind(move |_, announce| {
                announce("begun".to_owned());
                let _ = wait.lock().unwrap().recv();
                Ok(())
            })
        };
        for _ in 0..MAX_COPIES {
            assert_eq!(begin().unwrap(), "begun");
        }
        assert_eq!(begin().unwrap_err().code(), Some(Code::ResourceLimitExceeded));
        assert!(!work.is_idle());
        drop(go_on);
        while !work.is_idle() {
            std::thread::yield_now();
        }
        assert_eq!(begin().unwrap(), "begun");
    }
}
