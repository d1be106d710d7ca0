//! Access keys: what a client of the EC2 service signs its requests with. (IAM User Guide,
//! "Managing access keys for IAM users")
//!
//! Each is a file of its account, for its owner alone. A secret has to be kept as it is: both ends
//! of a signature of version 4 compute it.

use crate::error::{Code, Error, OrFail, Result};
use crate::store::beneath::Owned;
use crate::store::{Store, now};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The keys' directory in the account's.
const DIRECTORY: &str = "access-keys";
/// Most keys of an account.
const MAX_KEYS: usize = 100;
/// Most bytes of a key's file.
const MAX_FILE: u64 = 4096;
/// What an id begins with, and how many characters follow.
const PREFIX: &str = "AKIA";
const CHARACTERS: usize = 16;
/// Of these 32. (RFC 4648, 6)
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An access key. (IAM API Reference, AccessKey)
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AccessKey {
    /// AKIA and 16 characters.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: String,
    /// RFC 3339, UTC.
    pub create_date: String,
}

impl fmt::Debug for AccessKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.access_key_id)
    }
}

/// Makes a key of the caller's account.
///
/// # Errors
/// There are too many; no space.
pub fn create(store: &Store) -> Result<AccessKey> {
    let _lock = store.lock()?;
    make(store)
}

/// The caller's oldest key, which is made if there is none.
///
/// # Errors
/// As [`create`]'s.
pub fn first(store: &Store) -> Result<AccessKey> {
    let _lock = store.lock()?;
    match own(store)?.into_iter().next() {
        Some(key) => Ok(key),
        None => make(store),
    }
}

/// The caller's keys, the oldest first.
///
/// # Errors
/// They can't be read.
pub fn own(store: &Store) -> Result<Vec<AccessKey>> {
    let Ok(dir) = dir(store) else { return Ok(Vec::new()) };
    let names = dir.names().or_fail(|| "list access keys")?;
    let ids = names.iter().filter(|name| is_id(name)).take(MAX_KEYS);
    let mut keys = ids.filter_map(|id| read(&dir, id).transpose()).collect::<Result<Vec<_>>>()?;
    keys.sort_by(|a, b| {
        (&a.create_date, &a.access_key_id).cmp(&(&b.create_date, &b.access_key_id))
    });
    Ok(keys)
}

/// The caller's key of that id.
///
/// # Errors
/// It can't be read.
pub fn find(store: &Store, id: &str) -> Result<Option<AccessKey>> {
    match dir(store) {
        Ok(dir) if is_id(id) => read(&dir, id),
        _ => Ok(None),
    }
}

/// Removes a key: what is signed with it is refused from now on.
///
/// # Errors
/// `InvalidParameterValue`: there is none of that id.
pub fn delete(store: &Store, id: &str) -> Result<()> {
    if find(store, id)?.is_none() {
        let shown: String = id.escape_debug().take(40).collect();
        let why = format!("there is no access key '{shown}'; 'spore key access ls' lists them");
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    dir(store).and_then(|dir| dir.remove(id)).or_fail(|| format!("remove the access key {id}"))
}

fn make(store: &Store) -> Result<AccessKey> {
    if own(store)?.len() >= MAX_KEYS {
        let why = format!("there are {MAX_KEYS} access keys; remove some by 'spore key access rm'");
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let letter = |byte: u8| char::from(ALPHABET[usize::from(byte % 32)]);
    let id: String = random::<CHARACTERS>()?.into_iter().map(letter).collect();
    let key = AccessKey {
        access_key_id: format!("{PREFIX}{id}"),
        secret_access_key: STANDARD.encode(random::<30>()?),
        create_date: now(),
    };
    let bytes = serde_json::to_vec(&key).or_fail(|| "write an access key")?;
    let doing = || format!("write the access key {}", key.access_key_id);
    let dir = store.account()?.make_dir(DIRECTORY).or_fail(doing)?;
    // It appears whole, and readable by its owner only.
    let write = || {
        let mut file = dir.create_anew(NEW, 0o600)?;
        std::io::Write::write_all(&mut file, &bytes)?;
        file.sync_all()?;
        dir.rename(NEW, &key.access_key_id)?;
        dir.sync()
    };
    write().or_fail(doing)?;
    Ok(key)
}

/// A key that is being made.
const NEW: &str = "new";

fn dir(store: &Store) -> std::io::Result<Owned> {
    Owned::open(&store.account_dir())?.dir(DIRECTORY)
}

fn read(dir: &Owned, id: &str) -> Result<Option<AccessKey>> {
    let doing = || format!("read the access key {id}");
    match dir.read(id, MAX_FILE) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).or_fail(doing),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(doing(), e)),
    }
}

fn is_id(text: &str) -> bool {
    let rest = text.strip_prefix(PREFIX).unwrap_or("");
    rest.len() == CHARACTERS && rest.bytes().all(|c| ALPHABET.contains(&c))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    // getrandom(2) never cuts 256 bytes or fewer short.
    getrandom(&mut bytes[..], GetRandomFlags::empty()).or_fail(|| "read random bytes")?;
    Ok(bytes)
}
