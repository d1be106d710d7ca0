//! The console: pages for a browser, which do the same actions as the API.
//!
//! Who a browser is says its [`session`]; a page is made of records by [`view`]'s templates.

mod account;
mod command;
mod deed;
mod deeds;
pub mod form;
mod images;
mod launch;
mod mappings;
mod monitor;
mod objects;
mod pages;
mod places;
mod session;
pub mod terminal;
mod view;
mod visit;

use super::front::Front;
use crate::error::{Code, Error, Result};
use crate::id::hex;
use form::Form;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use monitor::Monitor;
use percent_encoding::percent_decode_str;
use session::Door;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use terminal::Terminal;
use visit::{Answer, Visit, nowhere, page};

/// The token of a link that is followed once.
pub use session::nonce as one_time;

/// What each answer says to the browser: nothing of another place is in the page, nor is the page
/// in one of another place.
const HEADERS: &[(HeaderName, &str)] = &[
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
];

/// Files of the pages: name, type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("console.css", "text/css; charset=utf-8", include_bytes!("static/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_bytes!("static/console.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("static/icon.svg")),
    ("terminal.js", "text/javascript; charset=utf-8", include_bytes!("static/terminal.js")),
    ("xterm.css", "text/css; charset=utf-8", include_bytes!("static/xterm/xterm.css")),
    ("xterm.js", "text/javascript; charset=utf-8", include_bytes!("static/xterm/xterm.js")),
    (
        "addon-canvas.js",
        "text/javascript; charset=utf-8",
        include_bytes!("static/xterm/addon-canvas.js"),
    ),
    ("addon-fit.js", "text/javascript; charset=utf-8", include_bytes!("static/xterm/addon-fit.js")),
];

/// The console of a service.
pub struct Console {
    front: Arc<Front>,
    door: Door,
    monitor: Arc<Monitor>,
    tls: bool,
}

impl Console {
    /// Of what `front` does. `link` is the token of a link that logs in.
    pub fn new(front: Arc<Front>, link: Option<String>, tls: bool) -> Self {
        Self { front, door: Door::new(link), monitor: Arc::default(), tls }
    }

    /// Measures what instances use, as long as browsers come and the service runs.
    pub async fn measure(&self) {
        self.monitor.clone().run(self.front.clone()).await;
    }

    /// Whether a request is for the console.
    pub fn is_for(parts: &Parts) -> bool {
        let path = parts.uri.path();
        path == "/console" || path.starts_with("/console/")
    }

    /// The answer to a request.
    pub fn answer(&self, parts: &Parts, body: &[u8]) -> Response<Bytes> {
        if !is_own_host(&parts.headers, self.tls) || !is_own_origin(&parts.headers) {
            return plain(StatusCode::FORBIDDEN, "This is not the console's address.");
        }
        if parts.method != Method::GET && parts.method != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "A page is got, or a form is posted.");
        }
        let path = parts.uri.path().strip_prefix("/console").unwrap_or_default();
        let part = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(part).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if let ["static", name] = path[..] {
            return file(name, &parts.headers);
        }
        let answered = match path[..] {
            ["login"] | ["open"] => self.enter(parts, body, path[0]),
            _ => self.known(parts, body, &path),
        };
        answered.unwrap_or_else(|error| plain(status(&error), error.message()))
    }

    /// The terminal that a request asks for, and what the browser is answered.
    pub fn terminal(&self, parts: &Parts) -> (Response<Bytes>, Option<Terminal>) {
        let no = |status, why: &str| (plain(status, why), None);
        let strange = !is_own_host(&parts.headers, self.tls) || !is_own_origin(&parts.headers);
        let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        let ["console", "instances", id, "console"] = path[..] else {
            return no(StatusCode::NOT_FOUND, "There is no terminal.");
        };
        match if strange { Ok(None) } else { terminal::open(&self.front, parts, id) } {
            Ok(Some((response, terminal))) => (response, Some(terminal)),
            Ok(None) => no(StatusCode::FORBIDDEN, "This is not the console's page."),
            Err(error) => no(status(&error), error.message()),
        }
    }

    /// Lets in who has a key, or follows the link.
    fn enter(&self, parts: &Parts, body: &[u8], how: &str) -> Result<Response<Bytes>> {
        let login =
            |refused, status| page(&view::Login { refused }).map(|answer| answered(answer, status));
        let post = parts.method == Method::POST;
        if how == "login" && !post {
            return login("", StatusCode::OK);
        }
        if self.door.is_shut() {
            let why = "There were too many tries. Wait a minute.";
            return login(why, StatusCode::TOO_MANY_REQUESTS);
        }
        let token = match how {
            "open" => {
                let query = Form::parse(parts.uri.query().unwrap_or_default().as_bytes());
                self.door.by_link(&self.front, query.text("token"))?
            }
            _ => self.door.by_key(&self.front, &Form::parse(body))?,
        };
        match token {
            Some(token) => Ok(self.sent("/console", &session::cookie(Some(&token), self.tls))),
            None if how == "open" => {
                login("The link was used before, or is an older one.", StatusCode::FORBIDDEN)
            }
            None => login("There is no such access key and secret.", StatusCode::FORBIDDEN),
        }
    }

    fn sent(&self, to: &str, cookie: &str) -> Response<Bytes> {
        let mut response = answered(Answer::SeeOther(to.to_owned()), StatusCode::SEE_OTHER);
        if let Ok(cookie) = HeaderValue::from_str(cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    /// The answer to who has a session.
    fn known(&self, parts: &Parts, body: &[u8], path: &[&str]) -> Result<Response<Bytes>> {
        let cookies = parts.headers.get(header::COOKIE).and_then(|value| value.to_str().ok());
        let Some(session) = session::of(&self.front, cookies.unwrap_or_default())? else {
            let login = Answer::SeeOther("/console/login".to_owned());
            return Ok(answered(login, StatusCode::SEE_OTHER));
        };
        let post = parts.method == Method::POST;
        let form = if post { Form::parse(body) } else { Form::default() };
        if post && !session::is_same(&session.csrf, form.text("csrf")) {
            let why = "The form is an older one. Go back, reload the page, and send it again.";
            return Ok(plain(StatusCode::FORBIDDEN, why));
        }
        if post && path == ["logout"] {
            return Ok(self.sent("/console/login", &session::cookie(None, self.tls)));
        }
        let query = Form::parse(parts.uri.query().unwrap_or_default().as_bytes());
        self.monitor.want();
        let visit = Visit { front: &self.front, monitor: &self.monitor, session, query, form };
        let done = if post { posted(&visit, path) } else { got(&visit, path) };
        match done {
            Ok(answer) => Ok(answered(answer, StatusCode::OK)),
            Err(error) => {
                let frame = visit.frame("", "That did not work");
                let code = error.ec2_code().as_str().to_owned();
                let wrong = view::Wrong { frame, code, message: error.message().to_owned() };
                Ok(answered(page(&wrong)?, status(&error)))
            }
        }
    }
}

fn got(visit: &Visit<'_>, path: &[&str]) -> Result<Answer> {
    match *path {
        [] => pages::dashboard(visit),
        ["instances"] => pages::instances(visit),
        ["instances", id] => pages::instance(visit, id),
        ["images"] => images::images(visit),
        ["images", id] => images::image(visit, id),
        ["launch"] => launch::wizard(visit),
        ["usage"] => account::usage(visit),
        ["events"] => account::events(visit),
        [section] => objects::list(visit, section),
        [section, id] => objects::object(visit, section, id),
        _ => Err(nowhere()),
    }
}

fn posted(visit: &Visit<'_>, path: &[&str]) -> Result<Answer> {
    match *path {
        ["instances", "action"] => pages::power(visit),
        ["instances", id, "image"] => images::create(visit, id),
        ["images", id, what] => images::act(visit, id, what),
        ["launch"] => launch::submitted(visit),
        [section, id, what] => objects::act(visit, section, id, what),
        _ => Err(nowhere()),
    }
}

fn status(error: &Error) -> StatusCode {
    let code = error.ec2_code();
    let status = if code == Code::InvalidAction { 404 } else { code.http_status() };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether a browser means this service by its address: a page of another place, whose name leads
/// here all at once, has a name that this one doesn't know.
fn is_own_host(headers: &HeaderMap, tls: bool) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    // A certificate is for a name, and a page of another place has none for it.
    tls || name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

/// Whether a form comes from a page of this service.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    from.is_some_and(|(_, from)| Some(from) == text(header::HOST))
}

fn answered(answer: Answer, status: StatusCode) -> Response<Bytes> {
    match answer {
        Answer::Page(page) => response(status, "text/html; charset=utf-8", Bytes::from(page)),
        Answer::SeeOther(to) => {
            let mut response =
                response(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Bytes::new());
            if let Ok(to) = HeaderValue::from_str(&to) {
                response.headers_mut().insert(header::LOCATION, to);
            }
            response
        }
        Answer::File { name, content } => {
            let mut response = response(status, "application/octet-stream", Bytes::from(content));
            // (RFC 6266, 4; RFC 8187)
            let named = format!("attachment; filename*=UTF-8''{}", view::escaped(&name));
            if let Ok(named) = HeaderValue::from_str(&named) {
                response.headers_mut().insert(header::CONTENT_DISPOSITION, named);
            }
            response
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    response(status, "text/plain; charset=utf-8", Bytes::from(text.to_owned()))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

/// A file of the pages, unless the browser has it.
fn file(name: &str, asked: &HeaderMap) -> Response<Bytes> {
    let Some((_, kind, content)) = FILES.iter().find(|(there, ..)| *there == name) else {
        return plain(StatusCode::NOT_FOUND, "There is no such file.");
    };
    let tag = format!("\"{}\"", hex(&Sha256::digest(content)));
    let has = asked.get(header::IF_NONE_MATCH).is_some_and(|has| has.as_bytes() == tag.as_bytes());
    let mut response = match has {
        true => response(StatusCode::NOT_MODIFIED, kind, Bytes::new()),
        false => response(StatusCode::OK, kind, Bytes::from_static(content)),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn another_places_name_is_not_this_one() {
        let own = |host| is_own_host(&headers(&[(header::HOST, host)]), false);
        assert!(own("127.0.0.1:4566") && own("localhost:4566") && own("[::1]:4566"));
        assert!(!own("evil.example:4566") && !own("") && !own("localhost.evil.example"));
    }

    #[test]
    fn a_form_comes_from_a_page_of_this_service() {
        let own = |origin| {
            is_own_origin(&headers(&[(header::HOST, "127.0.0.1:4566"), (header::ORIGIN, origin)]))
        };
        assert!(own("http://127.0.0.1:4566"));
        assert!(!own("http://127.0.0.1:80") && !own("https://evil.example") && !own("null"));
    }

    #[test]
    fn a_hostile_name_is_text() {
        let refused = "<script>alert(1)</script>\"'";
        let Ok(Answer::Page(page)) = page(&view::Login { refused }) else { panic!("no page") };
        assert!(!page.contains("<script>alert"), "{page}");
    }
}
