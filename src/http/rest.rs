//! The REST-JSON protocol: an action by its method and path, what it is given in path, query,
//! headers and a JSON body, and answers alike. (AWS, "AWS restJson1 protocol" of the Smithy
//! documentation)

use super::model::{Kind, Member, Model, Operation};
use crate::error::{Code, Error, Result};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Headers of an answer: names and values.
pub type Headers = Vec<(String, String)>;

/// An action that a request names, and what its path has for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The action.
    pub name: String,
    /// The parts of the path that the model has names for.
    labels: Vec<(String, String)>,
    /// Its body need not be signed.
    pub unsigned: bool,
}

/// The action of a request.
pub fn find(model: &Model, parts: &Parts) -> Option<Found> {
    let asked: Vec<&str> = parts.uri.path().split('/').collect();
    model.actions().find_map(|(name, operation)| {
        let pattern: Vec<&str> = operation.uri.as_deref()?.split('/').collect();
        if operation.method.as_deref() != Some(parts.method.as_str())
            || pattern.len() != asked.len()
        {
            return None;
        }
        let mut labels = Vec::new();
        for (pattern, part) in pattern.iter().zip(&asked) {
            match pattern.strip_prefix('{').and_then(|pattern| pattern.strip_suffix('}')) {
                None if pattern == part => {}
                None => return None,
                Some(label) => {
                    let part = percent_decode_str(part).decode_utf8().ok()?;
                    labels.push((label.to_owned(), part.into_owned()));
                }
            }
        }
        Some(Found { name: name.to_owned(), labels, unsigned: operation.unsigned })
    })
}

/// The request of the shape that the action takes.
///
/// # Errors
/// `MissingParameter`, `InvalidParameterValue`.
pub fn request(
    model: &Model,
    operation: &Operation,
    found: &Found,
    (parts, body): (&Parts, &[u8]),
) -> Result<Value> {
    let Some(Kind::Structure(members, required)) =
        operation.input.as_deref().map(|shape| model.kind(shape))
    else {
        return Ok(Map::new().into());
    };
    let is_payload = |member: &Member| member.1.starts_with("payload:");
    let json = match members.iter().any(is_payload) || body.is_empty() {
        true => Value::Null,
        false => {
            serde_json::from_slice(body).map_err(|_| invalid("the body is no JSON".to_owned()))?
        }
    };
    let query = parts.uri.query().unwrap_or("").as_bytes();
    let mut request = Map::new();
    for member @ Member(name, place, _, shape) in members {
        let text = match place.split_once(':') {
            _ if is_payload(member) => continue,
            None => {
                let value = json.get(place).filter(|value| !value.is_null());
                request.extend(value.map(|value| (name.clone(), value.clone())));
                continue;
            }
            Some(("uri", label)) => {
                found.labels.iter().find(|(key, _)| key == label).map(|(_, text)| text.clone())
            }
            Some(("header", header)) => {
                let value = parts.headers.get(header).and_then(|value| value.to_str().ok());
                value.map(str::to_owned)
            }
            Some((_, key)) => {
                let mut pairs = form_urlencoded::parse(query);
                pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
            }
        };
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            request.insert(name.clone(), single(model.kind(shape), name, text)?);
        }
    }
    let there = |name: &&String| {
        request.contains_key(*name) || members.iter().any(|m| m.0 == **name && is_payload(m))
    };
    match required.iter().find(|name| !there(name)) {
        None => Ok(request.into()),
        Some(name) => {
            let why = format!("The request must contain the parameter {name}");
            Err(Error::refused(Code::MissingParameter, why))
        }
    }
}

fn single(kind: Kind<'_>, name: &str, text: String) -> Result<Value> {
    match kind {
        Kind::Value("integer" | "long") => match text.parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => Err(invalid(format!("{name} is no whole number"))),
        },
        _ => Ok(text.into()),
    }
}

/// What an action answers: headers, and a body of JSON or, where the action has one, of its own.
///
/// # Errors
/// The answer has not the shape that the model says.
pub fn answer(
    model: &Model,
    operation: &Operation,
    (value, content): (&Value, Vec<u8>),
) -> Result<(Headers, Vec<u8>)> {
    let Some(Kind::Structure(members, _)) =
        operation.output.as_deref().map(|shape| model.kind(shape))
    else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (mut headers, mut json) = (Vec::new(), Map::new());
    for (name, value) in value.as_object().into_iter().flatten() {
        let Some(Member(_, place, ..)) = members.iter().find(|member| member.0 == *name) else {
            return Err(Error::failure(format!("the service's model has no {name} there")));
        };
        match place.split_once(':') {
            Some((_, header)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                headers.push((header.to_owned(), text));
            }
            None => drop(json.insert(place.clone(), value.clone())),
        }
    }
    let own = members.iter().any(|member| member.1.starts_with("payload:"));
    Ok((headers, if own { content } else { Value::from(json).to_string().into_bytes() }))
}

/// What an error is answered with: its kind, its status, a JSON body.
pub fn fault(error: &Error) -> (&'static str, u16, Vec<u8>) {
    let code = error.ec2_code();
    let (kind, status, reason) = match code {
        Code::AuthFailure if code.http_status() == 401 && error.message().contains("account") => {
            ("AccessDeniedException", 403, "UNAUTHORIZED_ACCOUNT")
        }
        Code::AuthFailure => ("UnrecognizedClientException", 403, ""),
        Code::SignatureDoesNotMatch => ("InvalidSignatureException", 403, ""),
        Code::RequestExpired => ("InvalidSignatureException", 403, ""),
        Code::InvalidSnapshotNotFound => ("ResourceNotFoundException", 404, "SNAPSHOT_NOT_FOUND"),
        Code::IdempotentParameterMismatch => ("ConflictException", 503, ""),
        Code::InvalidNextToken => ("ValidationException", 400, "INVALID_PAGE_TOKEN"),
        Code::InvalidSnapshotIDMalformed => ("ValidationException", 400, "INVALID_SNAPSHOT_ID"),
        Code::InvalidAction => ("UnknownOperationException", 404, ""),
        code if code.http_status() >= 500 => ("InternalServerException", 500, ""),
        _ => ("ValidationException", 400, "INVALID_PARAMETER_VALUE"),
    };
    let mut body = Map::new();
    body.insert("Message".to_owned(), error.message().into());
    if !reason.is_empty() {
        body.insert("Reason".to_owned(), reason.into());
    }
    (kind, status, Value::from(body).to_string().into_bytes())
}

fn invalid(why: String) -> Error {
    Error::refused(Code::InvalidParameterValue, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use serde_json::json;

    fn model() -> Model {
        Model::parse(include_str!("model/ebs.json"))
    }

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn ask(parts: &Parts, body: &str) -> Option<(String, Result<Value>)> {
        let model = model();
        let found = find(&model, parts)?;
        let operation = model.action(&found.name).unwrap();
        let asked = request(&model, operation, &found, (parts, body.as_bytes()));
        Some((found.name, asked))
    }

    #[test]
    fn a_request_is_found_by_its_path_and_read_from_all_its_places() {
        let headers = [
            ("x-amz-Data-Length", "524288"),
            ("x-amz-checksum", "abc="),
            ("X-Amz-Checksum-Algorithm", "SHA256"),
        ];
        let put = parts("PUT", "/snapshots/snap-1/blocks/7", &headers);
        let (name, asked) = ask(&put, "\u{0}bytes").unwrap();
        assert_eq!(name, "PutSnapshotBlock");
        let expected = json!({
            "SnapshotId": "snap-1", "BlockIndex": 7, "DataLength": 524_288, "Checksum": "abc=",
            "ChecksumAlgorithm": "SHA256",
        });
        assert_eq!(asked.unwrap(), expected);
        let list =
            parts("GET", "/snapshots/snap%2D1/blocks?pageToken=a%2Bb%3D&maxResults=100", &[]);
        let (name, asked) = ask(&list, "").unwrap();
        assert_eq!(name, "ListSnapshotBlocks");
        let expected = json!({ "SnapshotId": "snap-1", "NextToken": "a+b=", "MaxResults": 100 });
        assert_eq!(asked.unwrap(), expected);
        let start = parts("POST", "/snapshots", &[]);
        let (_, asked) =
            ask(&start, r#"{"VolumeSize":1,"Tags":[],"Description":null,"x":1}"#).unwrap();
        assert_eq!(asked.unwrap(), json!({ "VolumeSize": 1, "Tags": [] }));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (method, uri) in [
            ("GET", "/snapshots"),
            ("POST", "/snapshots/"),
            ("GET", "/snapshots/a/blocks/1/2"),
            ("DELETE", "/snapshots/a/blocks/1"),
            ("GET", "/snapshots/%ff/blocks"),
            ("GET", "/"),
        ] {
            assert_eq!(find(&model(), &parts(method, uri, &[])), None, "{method} {uri}");
        }
        for (method, uri, body, code) in [
            ("POST", "/snapshots", "{", Code::InvalidParameterValue),
            ("POST", "/snapshots", "[]", Code::MissingParameter),
            ("POST", "/snapshots", "", Code::MissingParameter),
            ("GET", "/snapshots/a/blocks?maxResults=x", "", Code::InvalidParameterValue),
            ("GET", "/snapshots/a/blocks/1", "", Code::MissingParameter),
            ("PUT", "/snapshots/a/blocks/-x", "", Code::InvalidParameterValue),
        ] {
            let (_, asked) = ask(&parts(method, uri, &[]), body).unwrap();
            assert_eq!(asked.unwrap_err().code(), Some(code), "{method} {uri} {body}");
        }
    }

    #[test]
    fn answers_have_their_headers_and_bodies() {
        let model = model();
        let said = |action: &str, value: Value, content: &[u8]| {
            answer(&model, model.action(action).unwrap(), (&value, content.to_vec()))
        };
        let (headers, body) =
            said("GetSnapshotBlock", json!({ "DataLength": 3, "Checksum": "x" }), b"abc").unwrap();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(headers, [header("x-amz-Data-Length", "3"), header("x-amz-Checksum", "x")]);
        assert_eq!(body, b"abc");
        let (_, body) = said("CompleteSnapshot", json!({ "Status": "pending" }), b"").unwrap();
        assert_eq!(body, br#"{"Status":"pending"}"#);
        assert!(said("CompleteSnapshot", json!({ "State": "pending" }), b"").is_err());
        let error = Error::refused(Code::InvalidSnapshotNotFound, "there is no \"x\"");
        let (kind, status, body) = fault(&error);
        assert_eq!((kind, status), ("ResourceNotFoundException", 404));
        assert_eq!(body, br#"{"Message":"there is no \"x\"","Reason":"SNAPSHOT_NOT_FOUND"}"#);
    }
}
