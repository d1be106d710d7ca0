//! Who a browser is: a token in a cookie, signed with a key made of its access key's secret.
//!
//! The service keeps nothing of a session. It lives through a restart, and ends with its time or
//! with its access key.

use super::form::Form;
use crate::error::Result;
use crate::http::front::Front;
use crate::id::hex;
use crate::service::access::AccessKey;
use hmac::{Hmac, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The cookie's name.
pub const COOKIE: &str = "spore-console";
/// How long a session lasts.
const LIFETIME: u64 = 8 * 3600;
/// Most bytes of a token that is looked at.
const MAX_TOKEN: usize = 256;
/// Most refused logins in [`WINDOW`].
const MAX_REFUSED: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// A browser that has logged in.
pub struct Session {
    /// The access key that it logged in with.
    pub access_key_id: String,
    /// What each of its forms has to bring.
    pub csrf: String,
}

/// The ways in, and how often they were tried.
pub struct Door {
    /// A link that lets in who follows it first.
    link: Mutex<Option<String>>,
    refused: Mutex<(Instant, u32)>,
}

impl Door {
    /// One with a link that has this token, if there is one.
    pub fn new(link: Option<String>) -> Self {
        Self { link: Mutex::new(link), refused: Mutex::new((Instant::now(), 0)) }
    }

    /// Whether nobody may try for now.
    pub fn is_shut(&self) -> bool {
        let mut refused = locked(&self.refused);
        if refused.0.elapsed() > WINDOW {
            *refused = (Instant::now(), 0);
        }
        refused.1 >= MAX_REFUSED
    }

    /// The token of who brings an access key and its secret.
    ///
    /// # Errors
    /// The keys can't be read.
    pub fn by_key(&self, front: &Front, form: &Form) -> Result<Option<String>> {
        let (id, secret) = (form.text("access_key_id"), form.text("secret_access_key"));
        let key = front.access_key(id.trim())?;
        // Who names no key waits as long as who has a wrong secret.
        let there = key.as_ref().map_or("", |key| &key.secret_access_key);
        let right = is_same(there, secret.trim());
        match key.filter(|key| right && !key.secret_access_key.is_empty()) {
            Some(key) => Ok(Some(token(&key, now() + LIFETIME))),
            None => {
                self.refuse();
                Ok(None)
            }
        }
    }

    /// The token of who follows the link: once.
    ///
    /// # Errors
    /// There is no access key, and none can be made.
    pub fn by_link(&self, front: &Front, brought: &str) -> Result<Option<String>> {
        let mut link = locked(&self.link);
        if !link.as_deref().is_some_and(|link| is_same(link, brought)) {
            self.refuse();
            return Ok(None);
        }
        let key = front.first_access_key()?;
        *link = None;
        Ok(Some(token(&key, now() + LIFETIME)))
    }

    fn refuse(&self) {
        locked(&self.refused).1 += 1;
    }
}

/// Nothing panics while it holds one.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The session of a request that has these cookies.
///
/// # Errors
/// The access keys can't be read.
pub fn of(front: &Front, cookies: &str) -> Result<Option<Session>> {
    let named = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
    for (_, value) in named.filter(|(name, _)| *name == COOKIE).take(4) {
        let Some(id) = value.split('.').next().filter(|_| value.len() <= MAX_TOKEN) else {
            continue;
        };
        let well_formed = !id.is_empty() && id.bytes().all(|c| c.is_ascii_alphanumeric());
        let key = if well_formed { front.access_key(id)? } else { None };
        if let Some(session) = key.and_then(|key| session(&key, value, now())) {
            return Ok(Some(session));
        }
    }
    Ok(None)
}

fn session(key: &AccessKey, value: &str, now: u64) -> Option<Session> {
    let (signed, signature) = value.rsplit_once('.')?;
    let expires: u64 = signed.split('.').nth(1)?.parse().ok()?;
    let right = is_same(signature, &mac(key, "session", signed)) && now < expires;
    right.then(|| Session {
        access_key_id: key.access_key_id.clone(),
        csrf: mac(key, "form", value),
    })
}

fn token(key: &AccessKey, expires: u64) -> String {
    let signed = format!("{}.{expires}.{}", key.access_key_id, nonce());
    let signature = mac(key, "session", &signed);
    format!("{signed}.{signature}")
}

/// The header that sets a session's cookie, or ends the session.
pub fn cookie(token: Option<&str>, tls: bool) -> String {
    let age = if token.is_some() { LIFETIME } else { 0 };
    let secure = if tls { "; Secure" } else { "" };
    let token = token.unwrap_or_default();
    format!("{COOKIE}={token}; Path=/console; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

/// What nobody guesses.
pub fn nonce() -> String {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let read = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
        filled += read.unwrap_or_default();
    }
    hex(&bytes)
}

fn mac(key: &AccessKey, what: &str, text: &str) -> String {
    let mut mac = keyed(key.secret_access_key.as_bytes());
    mac.update(format!("spore console {what} {text}").as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// Whether two texts are the same, in a time that does not say how far.
pub fn is_same(one: &str, other: &str) -> bool {
    let key = nonce();
    let mut brought = keyed(key.as_bytes());
    brought.update(other.as_bytes());
    let mut there = keyed(key.as_bytes());
    there.update(one.as_bytes());
    there.verify(&brought.finalize().into_bytes()).is_ok()
}

#[allow(clippy::expect_used)] // a key of HMAC has any length
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("any length is right")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> AccessKey {
        serde_json::from_value(serde_json::json!({
            "AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
            "SecretAccessKey": secret,
            "CreateDate": "2026-11-30T08:00:00.000Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_key_and_time() {
        let token = token(&key("one"), 100);
        let found = session(&key("one"), &token, 99).unwrap();
        assert_eq!(found.access_key_id, "AKIAIOSFODNN7EXAMPLE");
        assert_ne!(found.csrf, token.rsplit_once('.').unwrap().1);
        assert!(session(&key("one"), &token, 100).is_none());
        assert!(session(&key("other"), &token, 99).is_none());
        assert!(session(&key("one"), &token.replace(".100.", ".900."), 99).is_none());
        for nonsense in ["", ".", "..", "a.b.c.d", "AKIAIOSFODNN7EXAMPLE.100."] {
            assert!(session(&key("one"), nonsense, 1).is_none(), "{nonsense}");
        }
    }

    #[test]
    fn two_sessions_have_two_forms() {
        let of = || session(&key("one"), &token(&key("one"), 100), 1).unwrap().csrf;
        assert_ne!(of(), of());
    }

    #[test]
    fn who_guesses_is_shut_out() {
        let door = Door::new(None);
        (0..MAX_REFUSED).for_each(|_| door.refuse());
        assert!(door.is_shut());
    }

    proptest::proptest! {
        /// No text is a session's token but the one that was signed.
        #[test]
        fn no_other_text_is_a_token(text in "[A-Za-z0-9.]{0,300}", expires in 0u64..u64::MAX) {
            assert!(session(&key("one"), &text, 1).is_none());
            let signed = format!("AKIAIOSFODNN7EXAMPLE.{expires}.{text}");
            assert!(session(&key("one"), &format!("{signed}.{text}"), 1).is_none());
        }
    }
}
