//! Session tokens of IMDSv2. (EC2 User Guide, "Use the Instance Metadata Service")

use crate::error::{OrFail, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::time::Instant;
use std::{fmt, io};

/// Longest life of a token, in seconds.
pub const MAX_TTL: u32 = 21_600;

/// Bytes of a token before its code: when it ends, and what tells it from others.
const CLAIM: usize = 8 + 16;
/// Bytes of its code.
const CODE: usize = 32;
/// Characters of a token.
const TEXT: usize = (CLAIM + CODE).div_ceil(3) * 4;

/// What makes and knows tokens. A token says when it ends and is authenticated by a key that only
/// this process has: nothing is kept for it, and a guest can have as many as it likes. They end
/// with the process; a client asks for another when it is refused (401).
pub struct Tokens {
    key: Hmac<Sha256>,
    /// What their ends are counted from.
    epoch: Instant,
}

impl Tokens {
    /// With a new random key.
    ///
    /// # Errors
    /// The kernel's random generator is not readable.
    pub fn generate() -> Result<Self> {
        let mut key = [0; 32];
        random(&mut key)?;
        let key = Hmac::new_from_slice(&key).or_fail(|| "key a MAC")?;
        Ok(Self { key, epoch: Instant::now() })
    }

    /// A token of the instance that lasts so many seconds.
    ///
    /// # Errors
    /// The kernel's random generator is not readable.
    pub fn issue(&self, instance: &[u8], ttl: u32) -> Result<String> {
        let mut token = [0; CLAIM + CODE];
        let end = self.elapsed().saturating_add(ttl.into());
        token[..8].copy_from_slice(&end.to_be_bytes());
        random(&mut token[8..CLAIM])?;
        let code = self.code(instance, &token[..CLAIM]).finalize().into_bytes();
        token[CLAIM..].copy_from_slice(&code);
        Ok(URL_SAFE.encode(token))
    }

    /// How many seconds a token of the instance still lasts, if it is one.
    pub fn remaining(&self, instance: &[u8], token: &[u8]) -> Option<u64> {
        if token.len() != TEXT {
            return None;
        }
        let token = URL_SAFE.decode(token).ok()?;
        let (claim, code) = token.split_at_checked(CLAIM)?;
        self.code(instance, claim).verify_slice(code).ok()?;
        let end = u64::from_be_bytes(claim.get(..8)?.try_into().ok()?);
        end.checked_sub(self.elapsed()).filter(|left| *left > 0)
    }

    fn elapsed(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }

    fn code(&self, instance: &[u8], claim: &[u8]) -> Hmac<Sha256> {
        // The claim's length is fixed: no two pairs have the same text.
        self.key.clone().chain_update(claim).chain_update(instance)
    }

    /// The same after so long.
    #[cfg(test)]
    pub fn later(mut self, by: std::time::Duration) -> Self {
        self.epoch -= by;
        self
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

fn random(bytes: &mut [u8]) -> Result<()> {
    let flags = rustix::rand::GetRandomFlags::empty();
    let doing = || "read the kernel's random generator";
    let count = rustix::rand::getrandom(&mut *bytes, flags).or_fail(doing)?;
    // Up to 256 bytes come at once. (getrandom(2))
    let whole = (count == bytes.len()).then_some(()).ok_or(io::ErrorKind::UnexpectedEof);
    whole.map_err(io::Error::from).or_fail(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_token_is_one_instances_and_ends() {
        let tokens = Tokens::generate().unwrap();
        let (token, other) = (tokens.issue(b"i-1", 60).unwrap(), tokens.issue(b"i-1", 60).unwrap());
        assert_ne!(token, other);
        assert!((1..=60).contains(&tokens.remaining(b"i-1", token.as_bytes()).unwrap()));
        assert_eq!(tokens.remaining(b"i-2", token.as_bytes()), None);
        assert_eq!(Tokens::generate().unwrap().remaining(b"i-1", token.as_bytes()), None);
        let later = tokens.later(Duration::from_secs(60));
        assert_eq!(later.remaining(b"i-1", token.as_bytes()), None);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let tokens = Tokens::generate().unwrap();
        let token = tokens.issue(b"i-1", MAX_TTL).unwrap();
        assert_eq!(token.len(), TEXT);
        for n in 0..token.len() {
            let mut bad = token.clone().into_bytes();
            bad[n] = if bad[n] == b'A' { b'B' } else { b'A' };
            assert_eq!(tokens.remaining(b"i-1", &bad), None, "byte {n}");
            assert_eq!(tokens.remaining(b"i-1", &token.as_bytes()[..n]), None);
        }
        assert_eq!(tokens.remaining(b"i-1", &[0xff; TEXT]), None);
        assert_eq!(tokens.remaining(b"i-1", &vec![b'A'; 1 << 20]), None);
    }
}
