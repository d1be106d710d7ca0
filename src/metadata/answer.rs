//! One request of a guest's, answered as EC2's instance metadata service does.

use super::Metadata;
use super::token::{MAX_TTL, Tokens};
use crate::record::metadata::{Endpoint, HttpTokens};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT_RANGES, CONTENT_TYPE, HeaderMap, HeaderValue, SERVER};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

/// The versions that EC2 lists, each of which has the same tree here.
pub const VERSIONS: [&str; 29] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

const TOKEN_PATH: [&str; 3] = ["latest", "api", "token"];
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const FORWARDED: &str = "x-forwarded-for";

/// The answer to a request whose head this is.
///
/// Its status is 200 where there is something, and as on EC2:
/// - 400: a token is asked for without a life of 1 to [`MAX_TTL`] seconds;
/// - 401: there is no token and one is needed, or the token is none of this instance's, or is over;
/// - 403: the endpoint is off, or a proxy asks for a token;
/// - 404: there is nothing;
/// - 405: what is there can't be had that way.
pub fn answer(metadata: &Metadata, tokens: &Tokens, request: &Parts) -> Response<Full<Bytes>> {
    if metadata.options.http_endpoint == Endpoint::Disabled {
        return error(StatusCode::FORBIDDEN);
    }
    let Some(path) = Path::of(request.uri.path()) else {
        return error(StatusCode::BAD_REQUEST);
    };
    let token = path.names == TOKEN_PATH && !path.slash;
    match request.method {
        Method::PUT if token => issue(metadata, tokens, &request.headers),
        Method::GET | Method::HEAD if !token => match allowed(metadata, tokens, &request.headers) {
            Ok(left) => with_ttl(look_up(metadata, &path), left),
            Err(status) => error(status),
        },
        _ => error(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// A token that lasts as long as the request asks for.
fn issue(metadata: &Metadata, tokens: &Tokens, headers: &HeaderMap) -> Response<Full<Bytes>> {
    // A proxy passes on what somebody else asks for.
    if headers.contains_key(FORWARDED) {
        return error(StatusCode::FORBIDDEN);
    }
    let ttl = one(headers, TTL).and_then(|ttl| ttl.to_str().ok()?.trim().parse().ok());
    let Some(ttl) = ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl)) else {
        return error(StatusCode::BAD_REQUEST);
    };
    match tokens.issue(metadata.instance_id(), ttl) {
        Ok(token) => with_ttl(ok(token), Some(ttl.into())),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// How many seconds the request's token still lasts; none where none is needed and there is none.
fn allowed(
    metadata: &Metadata,
    tokens: &Tokens,
    headers: &HeaderMap,
) -> Result<Option<u64>, StatusCode> {
    let token = one(headers, TOKEN);
    let left = token.and_then(|t| tokens.remaining(metadata.instance_id(), t.as_bytes()));
    match (left, headers.contains_key(TOKEN), metadata.options.http_tokens) {
        (Some(left), ..) => Ok(Some(left)),
        (None, false, HttpTokens::Optional) => Ok(None),
        _ => Err(StatusCode::UNAUTHORIZED),
    }
}

/// The header's value, if there is exactly one.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// A path, taken apart.
struct Path {
    names: Vec<String>,
    /// It ends in `/`.
    slash: bool,
}

impl Path {
    /// Its names, percent-decoded once, without empty ones. `None` if one is no text, or would be
    /// more than one.
    fn of(path: &str) -> Option<Self> {
        let decoded = |name: &str| {
            let bytes = percent_encoding::percent_decode_str(name);
            let name = bytes.decode_utf8().ok()?.into_owned();
            (!name.contains(['/', '\0'])).then_some(name)
        };
        let names = path.split('/').filter(|name| !name.is_empty()).map(decoded);
        Some(Self { names: names.collect::<Option<_>>()?, slash: path.ends_with('/') })
    }
}

/// What is at a path: a leaf's bytes, or the names in a directory, with or without a slash at its
/// end.
fn look_up(metadata: &Metadata, path: &Path) -> Response<Full<Bytes>> {
    let Some((version, names)) = path.names.split_first() else {
        return ok(VERSIONS.join("\n"));
    };
    if !VERSIONS.contains(&version.as_str()) {
        return error(StatusCode::NOT_FOUND);
    }
    let key = names.join("/");
    if let Some(leaf) = metadata.leaves.get(&key).filter(|_| !path.slash) {
        let kind = match key.as_str() {
            "user-data" => "application/octet-stream",
            _ => "text/plain",
        };
        return typed(ok(leaf.clone()), kind);
    }
    match list(metadata, &key) {
        Some(listing) => ok(listing),
        None => error(StatusCode::NOT_FOUND),
    }
}

/// The names in a directory, a line each; those of directories end in `/` but at the top.
fn list(metadata: &Metadata, directory: &str) -> Option<Vec<u8>> {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    if let Some(listing) = metadata.leaves.get(&prefix) {
        return Some(listing.clone());
    }
    let below = metadata.leaves.range(prefix.clone()..);
    let below = below.map_while(|(key, _)| key.strip_prefix(&prefix));
    let name = |rest: &str| match rest.split_once('/') {
        Some((name, _)) if prefix.is_empty() => name.to_owned(),
        Some((name, _)) => format!("{name}/"),
        None => rest.to_owned(),
    };
    let mut names: Vec<String> = below.map(name).collect();
    // `a-b` comes between `a/` and what is below `a`.
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| names.join("\n").into_bytes())
}

fn ok(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    headers.insert(SERVER, HeaderValue::from_static("EC2ws"));
    typed(response, "text/plain")
}

fn typed(mut response: Response<Full<Bytes>>, kind: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn with_ttl(mut response: Response<Full<Bytes>>, left: Option<u64>) -> Response<Full<Bytes>> {
    if let Some(left) = left {
        response.headers_mut().insert(TTL, left.into());
    }
    response
}

/// EC2's page of an error.
fn error(status: StatusCode) -> Response<Full<Bytes>> {
    let title = format!("{} - {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head>\n  <title>{title}</title>\n </head>\n \
         <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    );
    let mut response = typed(ok(page), "text/html");
    *response.status_mut() = status;
    response
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
