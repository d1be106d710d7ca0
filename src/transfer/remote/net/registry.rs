//! A registry over HTTP: who may, and no answer that is longer than was asked for.
//!
//! The registry is not trusted: not with an answer's length, which is bounded wherever one is read,
//! not with time, and not with where it sends us: off this machine nothing is asked in the clear,
//! and credentials stay with the registry and the token service that it names.

use super::client::{provide_cryptography, root_cause};
use crate::error::{OrFail, Result};
use crate::helper::one_line;
use crate::transfer::remote::backend::{Answer, CONNECT, Fault, SILENCE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an exchange may take in all: a chunk of 4 MiB at 7 KB a second.
const LONGEST: Duration = Duration::from_secs(600);
/// Longest answer of a token service, in bytes.
const MAX_TOKEN: usize = 1 << 20;
/// Longest answer that says why not, in bytes; of one that is longer only the status is told.
const MAX_REASON: usize = 64 << 10;
/// How long a token is used: each is good for 60 s at least. (distribution, "Token Authentication
/// Specification")
const TOKEN_AGE: Duration = Duration::from_secs(30);

/// What a token is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository of a registry, as HTTP has it.
pub(super) struct Registry {
    http: Client,
    /// Ends with a slash.
    base: Url,
    name: String,
    login: Option<(String, String)>,
    granted: Mutex<Vec<Grant>>,
}

/// What a request has to say of who asks; nothing where the registry asks nobody.
#[derive(Clone)]
struct Grant {
    access: Access,
    header: Option<HeaderValue>,
    since: Instant,
}

/// What a token service answers.
#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// Why not, as registries say it. (distribution-spec, "Error Codes")
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    message: String,
}

impl Registry {
    /// Open a repository. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The client can't be set up; it is no name of a repository.
    pub(super) fn open(registry: &str, name: &str) -> Result<Self> {
        provide_cryptography();
        let doing = || format!("talk to {registry}");
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .timeout(LONGEST)
            .https_only(!is_loopback(registry))
            .user_agent(concat!("spore/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_fail(doing)?;
        let scheme = if is_loopback(registry) { "http" } else { "https" };
        // Docker's own is called after the service, and is elsewhere.
        let host = if registry == "docker.io" { "index.docker.io" } else { registry };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{name}/")).or_fail(doing)?;
        let (name, login) = (name.to_owned(), login(registry));
        Ok(Self { http, base, name, login, granted: Mutex::default() })
    }

    /// A request for what is at `path` of the repository, or wherever the registry has said.
    ///
    /// # Errors
    /// It is no place.
    pub(super) fn request(&self, method: Method, path: &str) -> Answer<RequestBuilder> {
        Ok(self.http.request(method, self.place(path)?))
    }

    /// The upload of a blob, to where the registry has said.
    ///
    /// # Errors
    /// It is no place.
    pub(super) fn upload(&self, path: &str, digest: &str) -> Answer<RequestBuilder> {
        let mut url = self.place(path)?;
        url.query_pairs_mut().append_pair("digest", &format!("sha256:{digest}"));
        Ok(self.http.put(url))
    }

    fn place(&self, path: &str) -> Answer<Url> {
        self.base.join(path).map_err(|e| Fault::Failed(format!("'{}': {e}", one_line(path, 200))))
    }

    /// Sends a request; its answer, if that is what was asked for.
    ///
    /// # Errors
    /// The registry says that there is nothing, that the user may not, or something else; it can't
    /// be reached.
    pub(super) async fn send(&self, access: Access, request: RequestBuilder) -> Answer<Response> {
        let mut request = request.build().map_err(failed)?;
        if request.url().origin() == self.base.origin()
            && let Some(header) = self.granted(access).await?
        {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        successful(self.http.execute(request).await.map_err(failed)?).await
    }

    async fn granted(&self, access: Access) -> Answer<Option<HeaderValue>> {
        let lock = || self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |grant: &&Grant| grant.access == access && grant.since.elapsed() < TOKEN_AGE;
        let known = lock().iter().find(fresh).map(|grant| grant.header.clone());
        if let Some(header) = known {
            return Ok(header);
        }
        let header = self.grant(access).await?;
        let mut granted = lock();
        granted.retain(|grant| grant.access != access);
        granted.push(Grant { access, header: header.clone(), since: Instant::now() });
        Ok(header)
    }

    /// What the registry wants to see, found out by asking without it.
    async fn grant(&self, access: Access) -> Answer<Option<HeaderValue>> {
        let root = self.base.join("/v2/").map_err(|e| Fault::Failed(e.to_string()))?;
        let answer = self.http.get(root).send().await.map_err(failed)?;
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<&str> = challenges.filter_map(|text| text.to_str().ok()).collect();
        if challenges.is_empty() {
            return Ok(None);
        }
        let Some((realm, service)) = challenges.iter().find_map(|text| bearer(text)) else {
            return self
                .login
                .as_ref()
                .map(|(user, password)| {
                    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
                })
                .transpose();
        };
        let actions = if access == Access::Pull { "pull" } else { "pull,push" };
        let mut realm = realm;
        realm
            .query_pairs_mut()
            .append_pair("scope", &format!("repository:{}:{actions}", self.name));
        if let Some(service) = service {
            realm.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.http.get(realm);
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        let answer = successful(request.send().await.map_err(failed)?).await;
        let answer = answer.map_err(|fault| match fault {
            Fault::Absent => Fault::Denied("its token service answers 404 Not Found".to_owned()),
            fault => fault,
        })?;
        let token = read(answer, MAX_TOKEN).await?;
        let token: Token = serde_json::from_slice(&token)
            .map_err(|_| Fault::Denied("its token service gives no token".to_owned()))?;
        secret(format!("Bearer {}", token.token)).map(Some)
    }
}

/// What an answer has, of at most `limit` bytes.
///
/// # Errors
/// It has more; it breaks off.
pub(super) async fn read(mut answer: Response, limit: usize) -> Answer<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + piece.len() > limit {
            let most = match limit >> 20 {
                mib if mib << 20 == limit && mib > 0 => format!("{mib} MiB"),
                _ => format!("{limit} bytes"),
            };
            return Err(Fault::Failed(format!("its answer has more than {most}")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn successful(answer: Response) -> Answer<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    if status.as_u16() == 404 {
        return Err(Fault::Absent);
    }
    let refusal = read(answer, MAX_REASON).await.ok();
    let refusal = refusal.and_then(|json| serde_json::from_slice::<Refusal>(&json).ok());
    let reason = refusal.and_then(|refusal| refusal.errors.into_iter().next());
    let reason = reason.map(|reason| format!(": {}", one_line(&reason.message, 200)));
    let said = format!("it answers {status}{}", reason.unwrap_or_default());
    let denied = matches!(status.as_u16(), 401 | 403);
    Err(if denied { Fault::Denied(said) } else { Fault::Failed(said) })
}

fn failed(error: reqwest::Error) -> Fault {
    Fault::Failed(root_cause(&error))
}

/// A header that is not shown.
fn secret(text: String) -> Answer<HeaderValue> {
    let mut header = HeaderValue::try_from(text)
        .map_err(|_| Fault::Denied("its credentials are none that can be sent".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Where a token is to be had, and for which service: `Bearer realm="…",service="…"`. (RFC 9110,
/// 11.6.1)
fn bearer(challenge: &str) -> Option<(Url, Option<String>)> {
    let (scheme, parameters) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    let mut pieces = parameters.split('"');
    while let (Some(name), Some(value)) = (pieces.next(), pieces.next()) {
        match name.trim_matches([',', ' ', '=']).to_ascii_lowercase().as_str() {
            "realm" => realm = Url::parse(value).ok(),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
    }
    Some((realm?, service))
}

/// A registry on this machine speaks plain HTTP, as Docker has it.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { host } else { registry }
    });
    let address = host.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_loopback());
    host == "localhost" || address || host == "[::1]"
}

/// What `docker login` has for the registry: `auths.REGISTRY.auth`, "user:password" in base64.
fn login(registry: &str) -> Option<(String, String)> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    let text = std::fs::read(dir.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let auth = config["auths"][registry]["auth"].as_str()?;
    let plain = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = plain.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_in_the_clear() {
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert!(is_loopback(local), "{local}");
        }
        for remote in ["ghcr.io", "localhost.example.org:5000", "10.0.0.1:5000", "127.evil.example"]
        {
            assert!(!is_loopback(remote), "{remote}");
        }
    }

    #[test]
    fn a_challenge_says_where_tokens_are() {
        let text =
            "Bearer realm=\"https://auth.example/token\",service=\"reg\",scope=\"a:b:pull,push\"";
        let (realm, service) = bearer(text).unwrap();
        assert_eq!(
            (realm.as_str(), service.as_deref()),
            ("https://auth.example/token", Some("reg"))
        );
        for other in
            ["Basic realm=\"x\"", "Bearer", "Bearer realm=\"nowhere\"", "Bearer service=\"a\""]
        {
            assert!(bearer(other).is_none(), "{other}");
        }
    }
}
