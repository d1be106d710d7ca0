//! From a request to its answer.

use super::call::{Action, Background, Call};
use super::model::Model;
use super::signature::{self, Credential};
use super::xml::{self, Dialect};
use super::{autoscaling, ebs, ec2, query, rest, sts};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::record::network::NetworkName;
use crate::service::Service;
use crate::service::access::AccessKey;
use crate::service::shape::REGION;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How a service is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// By parameters, and in XML.
    Query(Dialect),
    /// By methods and paths, and in JSON.
    Rest,
}

/// One service of AWS's.
struct Api {
    /// Its name in a signature's scope.
    name: &'static str,
    protocol: Protocol,
    model: Model,
    actions: HashMap<&'static str, Action>,
}

/// All that requests are answered by.
pub struct Front {
    apis: Vec<Api>,
    home: PathBuf,
    context: Context,
    network: Option<NetworkName>,
    work: Background,
}

/// Who a request says to be from.
pub struct Caller {
    credential: Credential,
    key: AccessKey,
}

/// What a request asks for.
enum Asked {
    /// By its parameters.
    Query(Vec<(String, String)>),
    /// By its path.
    Rest(rest::Found, Box<Parts>, Bytes),
}

/// An action's answer.
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    headers: rest::Headers,
    body: Vec<u8>,
}

/// What a request came to, for the log.
pub struct Answered {
    /// The answer.
    pub response: Response<Bytes>,
    /// The action, if the request names one that there is.
    pub action: Option<String>,
    /// The code of its error.
    pub code: Option<Code>,
}

impl Front {
    /// Of the store at `home`, on behalf of whom `context` names. An instance for which no network
    /// is named gets `network`.
    pub fn new(home: PathBuf, context: Context, network: Option<NetworkName>) -> Self {
        let api = |name, protocol, model: &str, rows: Vec<&[(&'static str, Action)]>| Api {
            name,
            protocol,
            model: Model::parse(model),
            actions: rows.into_iter().flatten().copied().collect(),
        };
        let apis = vec![
            api("ec2", Protocol::Query(Dialect::Ec2), include_str!("model/ec2.json"), ec2::rows()),
            api(
                "autoscaling",
                Protocol::Query(Dialect::Query),
                include_str!("model/autoscaling.json"),
                autoscaling::rows(),
            ),
            api(
                "sts",
                Protocol::Query(Dialect::Query),
                include_str!("model/sts.json"),
                vec![sts::ROWS],
            ),
            api("ebs", Protocol::Rest, include_str!("model/ebs.json"), vec![ebs::ROWS]),
        ];
        Self { apis, home, context, network, work: Background::default() }
    }

    /// Who a request says to be from: an access key of the account's. Its body need not be there
    /// yet, and none is worth reading that has no such key.
    ///
    /// # Errors
    /// `AuthFailure`, `RequestExpired`.
    pub async fn caller(self: &Arc<Self>, parts: &Parts) -> Result<Caller> {
        let credential = signature::credential(parts)?;
        let (front, id) = (self.clone(), credential.access_key_id.clone());
        let key = blocking(move || front.open("")?.find_access_key(&id)).await?;
        let key = key.ok_or_else(|| {
            let why = "AWS was not able to validate the provided access credentials: no access key \
                       of this account has that id; 'spore key access ls' lists them";
            Error::refused(Code::AuthFailure, why)
        })?;
        Ok(Caller { credential, key })
    }

    /// The answer to a request of `caller`'s, whose body is whole.
    pub async fn answer(
        self: &Arc<Self>,
        parts: Parts,
        body: Bytes,
        caller: Result<Caller>,
    ) -> Answered {
        let request_id = request_id();
        let service = signature::service(&parts);
        let protocol = self.api(service.as_deref()).map(|api| api.protocol);
        let mut action = None;
        let done = match caller {
            Ok(caller) => self.authorized(parts, body, caller, &request_id, &mut action).await,
            Err(error) => Err(error),
        };
        let (code, reply) = match done {
            Ok(reply) => (None, reply),
            Err(error) => (Some(error.ec2_code()), fault(protocol, &error, &request_id)),
        };
        Answered { response: response(reply, &request_id), action, code }
    }

    /// On whose behalf it answers.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Goes on with what was asked of a service that has died.
    pub fn attend(&self) {
        // A store that can't be opened says so in each answer.
        if let Ok(service) = self.open("DescribeImportImageTasks") {
            self.work.attend(&service);
        }
    }

    /// The network of an instance for which none is named; none has one without.
    pub fn network(&self) -> Option<&NetworkName> {
        self.network.as_ref()
    }

    /// Whether nothing goes on that was asked for.
    pub fn is_idle(&self) -> bool {
        self.work.is_idle()
    }

    /// Does an action of a service for who is known by an access key; `request` is in the shape of
    /// the service's model.
    ///
    /// # Errors
    /// The action's.
    pub fn perform(
        &self,
        api: &str,
        name: &str,
        request: Value,
        access_key_id: &str,
    ) -> Result<Value> {
        let action = self.api(Some(api)).and_then(|api| api.actions.get(name));
        let missing = || Error::failure(format!("the action {name} has no row"));
        let service = self.open(name)?;
        action.ok_or_else(missing)?(&self.call(&service, request, (REGION, access_key_id)))
    }

    /// Makes something behind the answer for who is known by an access key, as an action of that
    /// name; its id.
    ///
    /// # Errors
    /// As [`Call::behind`]'s.
    pub fn behind(
        &self,
        name: &str,
        access_key_id: &str,
        work: impl FnOnce(&Service, &mut dyn FnMut(String)) -> Result<()> + Send + 'static,
    ) -> Result<String> {
        let service = self.open(name)?;
        self.call(&service, Value::Null, (REGION, access_key_id)).behind(work)
    }

    /// A request of who signed for a region by an access key.
    fn call<'a>(
        &'a self,
        service: &'a Arc<Service>,
        request: Value,
        (region, access_key_id): (&'a str, &'a str),
    ) -> Call<'a> {
        Call {
            service,
            work: &self.work,
            network: self.network.as_ref(),
            request,
            region,
            account: self.account(),
            access_key_id,
            body: &[],
            content: Cell::default(),
        }
    }

    /// The caller's account.
    pub fn account(&self) -> String {
        self.context.caller().to_string()
    }

    /// An access key of the caller's.
    ///
    /// # Errors
    /// It can't be read.
    pub fn access_key(&self, id: &str) -> Result<Option<AccessKey>> {
        self.open("")?.find_access_key(id)
    }

    /// The caller's first access key, which is made if there is none.
    ///
    /// # Errors
    /// None can be made.
    pub fn first_access_key(&self) -> Result<AccessKey> {
        self.open("CreateAccessKey")?.first_access_key()
    }

    fn api(&self, name: Option<&str>) -> Option<&Api> {
        self.apis.iter().find(|api| Some(api.name) == name)
    }

    /// The answer to a request, if it is signed by whom it says.
    async fn authorized(
        self: &Arc<Self>,
        parts: Parts,
        body: Bytes,
        Caller { credential, key }: Caller,
        request_id: &str,
        action: &mut Option<String>,
    ) -> Result<Reply> {
        let api = self.api(Some(&credential.service));
        let found = match api {
            Some(api) if api.protocol == Protocol::Rest => Some(rest::find(&api.model, &parts)),
            _ => None,
        };
        let unsigned = found.as_ref().and_then(Option::as_ref).is_some_and(|f| f.unsigned);
        signature::verify(&parts, (&body, unsigned), &credential, &key.secret_access_key)?;
        let (name, asked) = match found {
            Some(Some(found)) => (found.name.clone(), Asked::Rest(found, Box::new(parts), body)),
            Some(None) => {
                let why = "the service has nothing of that method and path";
                return Err(Error::refused(Code::InvalidAction, why));
            }
            None => {
                let parameters = parameters(&parts, &body)?;
                let find = |name: &str| {
                    let found = parameters.iter().find(|(key, _)| key == name);
                    found.map(|(_, value)| value.clone())
                };
                let Some(name) = find("Action") else {
                    let why = "the request has no parameter Action";
                    return Err(Error::refused(Code::MissingAction, why));
                };
                if let Some(api) = api {
                    check_version(api, find("Version").as_deref())?;
                }
                (name, Asked::Query(parameters))
            }
        };
        let Some(api) = api else {
            let why = format!("the service '{}' is not there", credential.service.escape_debug());
            return Err(Error::refused(Code::InvalidAction, why));
        };
        let Some((name, _)) = api.actions.get_key_value(name.as_str()) else {
            let shown: String = name.escape_debug().take(64).collect();
            let why = format!("The action {shown} is not there in Spore's {}", api.name);
            return Err(Error::refused(Code::InvalidAction, why));
        };
        *action = Some((*name).to_owned());
        let (front, name, request_id) = (self.clone(), *name, request_id.to_owned());
        blocking(move || front.act(name, &credential, &asked, &request_id)).await
    }

    /// Does an action; its answer.
    fn act(
        &self,
        name: &str,
        credential: &Credential,
        asked: &Asked,
        request_id: &str,
    ) -> Result<Reply> {
        let there = self.api(Some(&credential.service));
        let row =
            there.and_then(|api| Some((api, *api.actions.get(name)?, api.model.action(name)?)));
        let Some((api, action, operation)) = row else {
            return Err(Error::failure(format!("the action {name} has no row and model")));
        };
        let mut request = match asked {
            Asked::Query(parameters) => {
                query::request(&api.model, operation.input.as_deref(), parameters)?
            }
            Asked::Rest(found, parts, body) => {
                rest::request(&api.model, operation, found, (parts, body))?
            }
        };
        let dry_run = request.as_object_mut().and_then(|request| request.shift_remove("DryRun"));
        if dry_run == Some(Value::Bool(true)) {
            let why = "Request would have succeeded, but DryRun flag is set.";
            return Err(Error::refused(Code::DryRunOperation, why));
        }
        let service = self.open(name)?;
        let mut call =
            self.call(&service, request, (&credential.region, &credential.access_key_id));
        if let Asked::Rest(_, _, body) = asked {
            call.body = body;
        }
        let answer = action(&call)?;
        let (headers, body) = match api.protocol {
            Protocol::Query(dialect) => {
                let action = (name, operation);
                (Vec::new(), xml::answer(&api.model, dialect, action, &answer, request_id)?)
            }
            Protocol::Rest => rest::answer(&api.model, operation, (&answer, call.content.take()))?,
        };
        let status = StatusCode::from_u16(operation.status.unwrap_or(200)).unwrap_or_default();
        Ok(Reply { status, content_type: content_type(Some(api.protocol)), headers, body })
    }

    /// The actions, by an action's name.
    ///
    /// # Errors
    /// The store can't be opened.
    pub fn open(&self, verb: &str) -> Result<Arc<Service>> {
        let context = self.context.clone().by_verb(verb.to_owned());
        Service::open_within(&self.home, &context).map(Arc::new)
    }
}

/// Does what waits for files on another thread.
///
/// # Errors
/// The work's.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::failure("the action ended by a fault of Spore's")))
}

/// Clients of an older version find what they know; one from the future may want something else.
fn check_version(api: &Api, version: Option<&str>) -> Result<()> {
    let Some(version) = version else { return Ok(()) };
    let is_date = version.len() == 10 && version.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    if is_date && version <= api.model.version.as_str() {
        return Ok(());
    }
    let shown: String = version.escape_debug().take(40).collect();
    let why =
        format!("the version {shown} of {} is not there; there is {}", api.name, api.model.version);
    Err(Error::refused(Code::NoSuchVersion, why))
}

/// The parameters of a request: in its body, or in its query.
fn parameters(parts: &Parts, body: &[u8]) -> Result<Vec<(String, String)>> {
    let query = parts.uri.query().unwrap_or("").as_bytes();
    let pairs = match parts.method {
        Method::GET => form_urlencoded::parse(query).chain(form_urlencoded::parse(b"")),
        // Those of the signature may be in the query.
        Method::POST => form_urlencoded::parse(body).chain(form_urlencoded::parse(query)),
        _ => {
            let why = "a request is a GET or a POST";
            return Err(Error::refused(Code::MalformedQueryString, why));
        }
    };
    // One more than may be is refused by name.
    let pairs = pairs.take(query::MAX_PARAMETERS + PROTOCOL_PARAMETERS);
    Ok(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
}

/// Parameters that a request may have beside its action's, and one more.
const PROTOCOL_PARAMETERS: usize = 32;

/// A uuid. (RFC 9562, version 4)
fn request_id() -> String {
    let mut bytes = [0u8; 16];
    // One that is not random is still one.
    let _ = getrandom(&mut bytes[..], GetRandomFlags::empty());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::id::hex(&bytes);
    let part = |range| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn content_type(protocol: Option<Protocol>) -> &'static str {
    match protocol {
        Some(Protocol::Rest) => "application/json",
        _ => "text/xml;charset=UTF-8",
    }
}

/// What an error is answered with.
fn fault(protocol: Option<Protocol>, error: &Error, request_id: &str) -> Reply {
    let (status, headers, body) = match protocol.unwrap_or(Protocol::Query(Dialect::Ec2)) {
        Protocol::Query(dialect) => {
            let body = xml::fault(dialect, error, request_id).unwrap_or_default();
            (error.ec2_code().http_status(), Vec::new(), body)
        }
        Protocol::Rest => {
            let (kind, status, body) = rest::fault(error);
            (status, vec![("x-amzn-ErrorType".to_owned(), kind.to_owned())], body)
        }
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Reply { status, content_type: content_type(protocol), headers, body }
}

fn response(reply: Reply, request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    let own = [("x-amzn-requestid".to_owned(), request_id.to_owned())];
    for (name, value) in reply.headers.into_iter().chain(own) {
        let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value));
        if let (Ok(name), Ok(value)) = header {
            headers.insert(name, value);
        }
    }
    response
}
