//! A file at an address of HTTP's.
//!
//! The server is not trusted: not with where it sends us (no other protocol, no way back from TLS
//! but for what a checksum vouches for, no more than ten times), not with time, and not with an
//! answer's range, which is what was asked for or nothing. Proxies are those of the environment.

use super::client::{provide_cryptography, root_cause};
use super::watched::watched;
use crate::context::Cancel;
use crate::error::{Code, Error, OrFail, Result};
use crate::helper::one_line;
use crate::transfer::download::transport::{Ask, Body, Content, Reply, Transport, Trouble};
use crate::transfer::remote::backend::{CONNECT, SILENCE};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use tokio::runtime::Runtime;

/// Most places that an address may lead through.
const REDIRECTS: usize = 10;

/// A file.
pub(super) struct Http {
    client: Client,
    url: Url,
    runtime: Runtime,
}

struct Bytes<'a> {
    response: Response,
    runtime: &'a Runtime,
}

impl Http {
    /// # Errors
    /// It is no address; the client can't be set up.
    pub(super) fn open(address: &str, vouched: bool, runtime: Runtime) -> Result<Self> {
        provide_cryptography();
        let url = Url::parse(address).map_err(|cause| {
            let shown = one_line(address, 200);
            Error::refused(Code::InvalidParameterValue, format!("'{shown}' is no address: {cause}"))
        })?;
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(Policy::custom(move |attempt| follow(attempt, vouched)))
            .user_agent(concat!("spore/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_fail(|| "set up a client for HTTP")?;
        Ok(Self { client, url, runtime })
    }

    fn request(&self, ask: Ask<'_>) -> RequestBuilder {
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, "identity");
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if let Some(mark) = ask.if_still {
            request = request.header(IF_RANGE, mark);
        }
        if let Some(mark) = ask.unless_still {
            let by = if is_tag(mark) { IF_NONE_MATCH } else { IF_MODIFIED_SINCE };
            request = request.header(by, mark);
        }
        request
    }

    fn ask(&self, ask: Ask<'_>, cancel: &Cancel) -> Result<Response, Trouble> {
        // A request's clock begins within the runtime.
        let send = async { self.request(ask).send().await };
        let sent = watched(&self.runtime, cancel, send)?;
        sent.map_err(|error| match error.is_redirect() {
            true => Trouble::Final(Code::Unavailable, root_cause(&error.without_url())),
            false => Trouble::Passing(root_cause(&error.without_url())),
        })
    }
}

impl Transport for Http {
    fn get(&self, ask: Ask<'_>, cancel: &Cancel) -> Result<Reply<'_>, Trouble> {
        let mut asked = ask;
        // A weak tag does not say that the bytes are the same. (RFC 9110, 13.1.5)
        if ask.if_still.is_some_and(|mark| mark.starts_with("W/")) {
            (asked.from, asked.if_still) = (0, None);
        }
        let mut response = self.ask(asked, cancel)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && asked.from > 0 {
            response = self.ask(Ask::default(), cancel)?;
            asked.from = 0;
        }
        match response.status() {
            StatusCode::NOT_MODIFIED if ask.unless_still.is_some() => return Ok(Reply::Unchanged),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            status => return Err(refused(status, response.headers())),
        }
        let headers = response.headers();
        let (from, size) = match response.status() {
            StatusCode::PARTIAL_CONTENT => range(headers, asked.from)?,
            _ => (0, number(text(headers, &CONTENT_LENGTH))),
        };
        let mark = text(headers, &ETAG).or_else(|| text(headers, &LAST_MODIFIED));
        let mark = mark.filter(|mark| mark.len() <= 1024).map(str::to_owned);
        let body = Box::new(Bytes { response, runtime: &self.runtime });
        Ok(Reply::Content(Content { from, size, mark, body }))
    }
}

impl Body for Bytes<'_> {
    fn next(&mut self, cancel: &Cancel) -> Result<Option<Vec<u8>>, Trouble> {
        let piece = watched(self.runtime, cancel, self.response.chunk())?;
        let piece = piece.map_err(|error| Trouble::Passing(root_cause(&error.without_url())))?;
        Ok(piece.map(|bytes| bytes.to_vec()))
    }
}

/// Whether a redirect is followed. Publishers have mirrors that speak HTTP alone: to these only
/// where a checksum vouches for what comes.
fn follow(attempt: Attempt<'_>, vouched: bool) -> reqwest::redirect::Action {
    let to = attempt.url();
    let secure = !vouched && attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    let why = match to.scheme() {
        _ if attempt.previous().len() > REDIRECTS => {
            format!("it leads from place to place, more than {REDIRECTS} times")
        }
        "https" => return attempt.follow(),
        "http" if !secure => return attempt.follow(),
        "http" => "it leads from https: to http:, where anybody may answer".to_owned(),
        scheme => format!("it leads to {}:, which is not followed", one_line(scheme, 40)),
    };
    attempt.error(why)
}

fn refused(status: StatusCode, headers: &HeaderMap) -> Trouble {
    let said = format!("it answers {status}");
    match status.as_u16() {
        300..=399 => {
            let place = text(headers, &LOCATION).unwrap_or("nowhere");
            let why = format!("it leads to '{}', which is not followed", one_line(place, 100));
            Trouble::Final(Code::Unavailable, why)
        }
        401 | 403 | 407 => Trouble::Final(Code::AuthFailure, said),
        404 | 410 => Trouble::Final(Code::Unavailable, format!("{said}; check the address")),
        408 | 425 | 429 | 500..=599 => Trouble::Passing(said),
        _ => Trouble::Final(Code::Unavailable, said),
    }
}

/// Where a part begins and how much the whole is: `bytes FIRST-LAST/SIZE`. (RFC 9110, 14.4)
fn range(headers: &HeaderMap, asked: u64) -> Result<(u64, Option<u64>), Trouble> {
    let said = text(headers, &CONTENT_RANGE).unwrap_or_default();
    let parsed = said.strip_prefix("bytes ").and_then(|rest| {
        let (part, size) = rest.split_once('/')?;
        let (first, last) = part.split_once('-')?;
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        // Without the size nothing says whether that is all.
        let size = number(Some(size))?;
        (first == asked && last >= first && last < size).then_some(Some(size))
    });
    let why =
        || format!("it answers with the range '{}', which was not asked for", one_line(said, 80));
    parsed.map(|size| (asked, size)).ok_or_else(|| Trouble::Final(Code::Unavailable, why()))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

/// Whether a mark is an entity tag rather than a time. (RFC 9110, 8.8)
fn is_tag(mark: &str) -> bool {
    mark.starts_with('"') || mark.starts_with("W/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_range_is_what_was_asked_for() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(text));
            range(&headers, 100).ok()
        };
        assert_eq!(of("bytes 100-199/200"), Some((100, Some(200))));

        for bad in [
            "bytes 100-199/*",
            "bytes 0-199/200",
            "bytes 100-99/200",
            "bytes 100-200/200",
            "bytes */200",
            "",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
