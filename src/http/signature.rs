//! Signatures of version 4, in a header or in the query. (AWS General Reference, "Signature Version
//! 4 signing process")

use crate::error::{Code, Error, Result};
use crate::id::hex;
use crate::service::time;
use hmac::{Hmac, Mac};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far a client's clock may be off.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// How long a request that is signed in its query may be good, in seconds.
const MAX_EXPIRES: u64 = 7 * 24 * 3600;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Most headers that are signed.
const MAX_HEADERS: usize = 64;
/// What is encoded in a canonical query: all but what RFC 3986, 2.3 leaves as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same of a path, between whose parts a slash stands.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// What a request says of its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// The access key's id.
    pub access_key_id: String,
    /// The region, e.g. `local-1`.
    pub region: String,
    /// The service's signing name, e.g. `ec2`.
    pub service: String,
    /// When it was signed: `20260131T120000Z`.
    date_time: String,
    /// The day of the scope: `20260131`.
    day: String,
    /// The names of the headers that are signed.
    headers: Vec<String>,
    /// In hexadecimal.
    signature: String,
}

/// Who says to have signed a request, and for what.
///
/// # Errors
/// `AuthFailure`: it has no signature, or not of that version; `RequestExpired`.
pub fn credential(parts: &Parts) -> Result<Credential> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let query = parts.uri.query().unwrap_or("");
    let authorization = header(AUTHORIZATION.as_str());
    let field = |name: &str| -> Option<String> {
        match authorization {
            Some(text) => {
                let fields = text.strip_prefix(ALGORITHM)?.split(',');
                let mut pairs = fields.filter_map(|field| field.trim().split_once('='));
                pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            }
            None => {
                let signed = parameter(query, "X-Amz-Algorithm")? == ALGORITHM;
                signed.then(|| parameter(query, &format!("X-Amz-{name}")))?
            }
        }
    };
    let date = match authorization {
        Some(_) => header("x-amz-date").map(str::to_owned),
        None => field("Date"),
    };
    let all = (field("Credential"), field("SignedHeaders"), field("Signature"), date);
    let (Some(scope), Some(headers), Some(signature), Some(date_time)) = all else {
        return Err(refused(
            "the request is not signed; sign it by AWS Signature Version 4 with an access key of \
             'spore key access create' ('eval \"$(spore env)\"' sets it for AWS's tools)",
        ));
    };
    let expires = match authorization {
        Some(_) => None,
        None => Some(field("Expires").and_then(|text| text.parse().ok()).unwrap_or(0)),
    };
    check_time(&date_time, expires)?;
    let scope: Vec<&str> = scope.split('/').collect();
    let [access_key_id, day, region, service, "aws4_request"] = scope[..] else {
        let why = "the signature's Credential is not ID/DATE/REGION/SERVICE/aws4_request";
        return Err(refused(why));
    };
    let headers: Vec<String> = headers.split(';').map(str::to_owned).collect();
    if headers.len() > MAX_HEADERS || !headers.iter().any(|name| name == "host") {
        return Err(refused("the header Host has to be signed"));
    }
    let [access_key_id, day, region, service] =
        [access_key_id, day, region, service].map(str::to_owned);
    Ok(Credential { access_key_id, region, service, date_time, day, headers, signature })
}

/// The service that a request says to be for, whoever signed it.
pub fn service(parts: &Parts) -> Option<String> {
    let scope = match parts.headers.get(AUTHORIZATION) {
        Some(value) => {
            let (_, rest) = value.to_str().ok()?.split_once("Credential=")?;
            rest.split(',').next()?.to_owned()
        }
        None => parameter(parts.uri.query()?, "X-Amz-Credential")?,
    };
    scope.split('/').nth(3).map(str::to_owned)
}

/// # Errors
/// `AuthFailure`: it is no time; `RequestExpired`: it is another than now.
fn check_time(date_time: &str, expires: Option<u64>) -> Result<()> {
    let part = |range| date_time.get(range).unwrap_or_default();
    let [year, month, day] = [part(0..4), part(4..6), part(6..8)];
    let [hour, minute, rest] = [part(9..11), part(11..13), part(13..date_time.len().max(13))];
    // 2026-01-31T12:00:00Z
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{rest}");
    let at = time::parse(&text).filter(|_| part(8..9) == "T");
    let at = at.ok_or_else(|| refused("the signature's date is not like 20260131T120000Z"))?;
    let good = match expires {
        None => SKEW,
        Some(seconds) if (1..=MAX_EXPIRES).contains(&seconds) => Duration::from_secs(seconds),
        Some(_) => {
            return Err(refused(&format!("X-Amz-Expires is 1 to {MAX_EXPIRES} seconds")));
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now <= at.saturating_add(good) && at <= now + SKEW {
        return Ok(());
    }
    let why =
        format!("Request has expired: it was signed at {text}, and here it is {}", time::now());
    Err(Error::refused(Code::RequestExpired, why).remedy("set the client's clock"))
}

/// What stands for the digest of a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Looks whether who has `secret` signed the request, in whichever headers it says; `unsigned`:
/// perhaps without its body.
///
/// # Errors
/// `SignatureDoesNotMatch`.
pub fn verify(
    parts: &Parts,
    (body, unsigned): (&[u8], bool),
    credential: &Credential,
    secret: &str,
) -> Result<()> {
    let same = is_signed(parts, &hex(&Sha256::digest(body)), credential, secret)
        || unsigned && is_signed(parts, UNSIGNED, credential, secret);
    match same {
        true => Ok(()),
        false => {
            let why = "the signature is another than the request and the secret access key make";
            Err(Error::refused(Code::SignatureDoesNotMatch, why))
        }
    }
}

fn is_signed(parts: &Parts, body: &str, credential: &Credential, secret: &str) -> bool {
    let Credential { region, service, date_time, day, headers, signature, .. } = credential;
    let canonical = [
        parts.method.as_str(),
        &percent_encode(parts.uri.path().as_bytes(), PATH).to_string(),
        &canonical_query(parts.uri.query().unwrap_or("")),
        &canonical_headers(parts, headers),
        &headers.join(";"),
        body,
    ]
    .join("\n");
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let digest = hex(&Sha256::digest(canonical));
    let signed = format!("{ALGORITHM}\n{date_time}\n{scope}\n{digest}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes()).finalize().into_bytes().to_vec();
    }
    // Compared in a time that says nothing of where they differ.
    bytes(signature).is_some_and(|given| {
        mac(&key, signed.as_bytes()).verify_slice(&given).is_ok() && date_time.starts_with(&**day)
    })
}

fn mac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac
}

/// The parameters in order, each encoded in the one way that there is; without the signature.
fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let text = text.replace('+', " ");
        let decoded: Vec<u8> = percent_decode_str(&text).collect();
        percent_encode(&decoded, QUERY).to_string()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<(String, String)> = pairs
        .map(|(name, value)| (encoded(name), encoded(value)))
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// A line of each header that is signed: its name, and its values without needless spaces.
fn canonical_headers(parts: &Parts, names: &[String]) -> String {
    let line = |name: &String| {
        let values = parts.headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let trimmed =
            values.map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        format!("{name}:{}\n", trimmed.collect::<Vec<_>>().join(","))
    };
    names.iter().map(line).collect()
}

/// The bytes that hexadecimal digits stand for.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    };
    pairs.map(byte).collect()
}

/// The value of a query's parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
}

fn refused(why: &str) -> Error {
    Error::refused(Code::AuthFailure, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    /// AWS's own example. (AWS General Reference, "Examples of the complete Signature Version 4
    /// signing process")
    #[test]
    fn the_published_example_is_verified() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let request = |query: &str| {
            let request = Request::get(format!("/?{query}"))
                .header("content-type", "application/x-www-form-urlencoded;  charset=utf-8 ")
                .header("host", "iam.amazonaws.com")
                .header("x-amz-date", "20150830T123600Z");
            request.body(()).unwrap().into_parts().0
        };
        let credential = Credential {
            access_key_id: "AKIDEXAMPLE".into(),
            region: "us-east-1".into(),
            service: "iam".into(),
            date_time: "20150830T123600Z".into(),
            day: "20150830".into(),
            headers: ["content-type", "host", "x-amz-date"].map(str::to_owned).into(),
            signature: "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7".into(),
        };
        let good = "Version=2010-05-08&Action=ListUsers";
        verify(&request(good), (b"", false), &credential, secret).unwrap();
        let other = |change: &dyn Fn(&mut Credential)| {
            let mut other = credential.clone();
            change(&mut other);
            verify(&request(good), (b"", true), &other, secret)
        };
        for wrong in [
            verify(&request("Action=ListUsers"), (b"", true), &credential, secret),
            verify(&request(good), (b"x", true), &credential, secret),
            verify(&request(good), (b"", false), &credential, "secret"),
            other(&|c| c.signature.clear()),
            other(&|c| c.signature.push('0')),
            other(&|c| c.signature.replace_range(0..1, "6")),
            other(&|c| c.headers.truncate(2)),
            other(&|c| c.region = "us-east-2".into()),
            other(&|c| c.day = "20150831".into()),
        ] {
            assert_eq!(wrong.unwrap_err().code(), Some(Code::SignatureDoesNotMatch));
        }
    }

    #[test]
    fn a_query_has_one_spelling() {
        for (given, canonical) in [
            ("", ""),
            ("b=2&a=1&a=0", "a=0&a=1&b=2"),
            ("a=%2f%7E+&%20=", "%20=&a=%2F~%20"),
            ("a&X-Amz-Signature=x", "a="),
            ("A=1&a=2&a1=3", "A=1&a=2&a1=3"),
        ] {
            assert_eq!(canonical_query(given), canonical);
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let head = |header: &str, date: &str| {
            let request = Request::get("/").header("authorization", header);
            request.header("x-amz-date", date).body(()).unwrap().into_parts().0
        };
        let rest = "SignedHeaders=host, Signature=00";
        for (header, date, code) in [
            ("".to_owned(), "20150830T123600Z", Code::AuthFailure),
            ("Basic eDp4".to_owned(), "20150830T123600Z", Code::AuthFailure),
            (
                format!("{ALGORITHM} Credential=a/b/c/d/aws4_request, {rest}"),
                "now",
                Code::AuthFailure,
            ),
            (
                format!("{ALGORITHM} Credential=a/b/c/d/aws4_request, {rest}"),
                "20150830T123600Z",
                Code::RequestExpired,
            ),
        ] {
            assert_eq!(
                credential(&head(&header, date)).unwrap_err().code(),
                Some(code),
                "{header}"
            );
        }
        let now: String = time::now().chars().filter(|c| !"-:".contains(*c)).collect();
        let now = format!("{}Z", &now[..15]);
        let good = format!("{ALGORITHM} Credential=a/b/c/d/aws4_request, {rest}");
        assert_eq!(credential(&head(&good, &now)).unwrap().service, "d");
        for bad in [
            format!("{ALGORITHM} Credential=a/b/c/d, {rest}"),
            format!("{ALGORITHM} Credential=a/b/c/d/aws4_request, SignedHeaders=x, Signature=00"),
        ] {
            assert_eq!(credential(&head(&bad, &now)).unwrap_err().code(), Some(Code::AuthFailure));
        }
    }
}
