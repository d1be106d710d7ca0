//! Key pairs: whom guests let in. (EC2 User Guide, "Amazon EC2 key pairs and Amazon EC2 instances")
//!
//! The private half of a pair that is made here stays in the store, for its owner alone; of one
//! that is imported only the public half is known.

pub mod access;
pub mod material;

pub use material::MAX_TEXT;

use crate::error::{Code, Error, OrFail, Result};
use crate::id::KeyPairId;
use crate::record::Record;
use crate::record::instance::Instance;
use crate::record::key::{KeyPair, KeyPairOrigin, KeyType};
use crate::record::tag::{Tag, check_tags};
use crate::store::{Collection, Durability, Store, StoreLock, now};
use material::Public;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The pair that instances get for which none is named. It is made when it is first needed, unless
/// its owner has made or imported one of that name.
pub const DEFAULT: &str = "default";
/// What is said instead of a name for an instance without a key.
pub const NONE: &str = "none";

/// The private half in a pair's directory.
const PRIVATE: &str = "private-key";
/// Most bytes of it.
const MAX_PRIVATE: u64 = 64 << 10;
/// Most characters of a name. (EC2 CreateKeyPair)
const MAX_NAME: usize = 255;

impl Store {
    /// Key pairs.
    pub fn key_pairs(&self) -> Collection<KeyPair> {
        self.collection()
    }
}

/// The file with the private half of a pair, mode 0600, in OpenSSH's format or PKCS#1's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateKeyFile(PathBuf);

impl PrivateKeyFile {
    /// Its path, which is absolute.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Makes a pair; it and its private half.
///
/// # Errors
/// `InvalidKeyPair.Duplicate`, `InvalidParameterValue` for a name or a tag that is none; no space.
pub fn create(
    store: &Store,
    name: &str,
    key_type: KeyType,
    tags: &[Tag],
) -> Result<(KeyPair, String)> {
    check_name(name)?;
    check_tags(tags)?;
    let lock = store.lock()?;
    make(store, &lock, (name, tags), key_type)
}

/// Takes the public half of a pair that was made elsewhere: a line of OpenSSH's format.
///
/// # Errors
/// As [`create`]'s; `InvalidKey.Format`: it is none.
pub fn import(store: &Store, name: &str, text: &str, tags: &[Tag]) -> Result<KeyPair> {
    check_name(name)?;
    check_tags(tags)?;
    let public = material::parse(text)?;
    let lock = store.lock()?;
    keep(store, &lock, (name, tags), public, None)
}

/// The caller's own pair of that name or id.
///
/// # Errors
/// `InvalidKeyPair.NotFound`.
pub fn resolve(store: &Store, text: &str) -> Result<KeyPair> {
    let found = own(store)?
        .into_iter()
        .find(|pair| pair.key_name == text || pair.key_pair_id.as_str() == text);
    found.ok_or_else(|| {
        let shown: String = text.escape_debug().take(MAX_NAME).collect();
        let why = format!("there is no key pair '{shown}'; 'spore key ls' lists them");
        Error::refused(Code::InvalidKeyPairNotFound, why)
    })
}

/// The caller's own pairs, the oldest first.
///
/// # Errors
/// The store can't be read.
pub fn own(store: &Store) -> Result<Vec<KeyPair>> {
    let me = store.owner_id();
    let mut pairs = store.key_pairs().list()?.or_warn();
    pairs.retain(|pair| pair.spore.owner_id == me);
    Ok(pairs)
}

/// Removes a pair. Instances that were launched with it keep its public half.
///
/// # Errors
/// As [`resolve`]'s; it can't be removed.
pub fn delete(store: &Store, text: &str) -> Result<()> {
    store.key_pairs().remove(&resolve(store, text)?.key_pair_id)
}

/// The pair for a launch that names one, `none`, or nothing, which means the [`DEFAULT`] one.
///
/// # Errors
/// As [`resolve`]'s, and as [`create`]'s.
pub fn for_launch(store: &Store, name: Option<&str>) -> Result<Option<KeyPair>> {
    match name {
        Some(NONE) => return Ok(None),
        Some(name) => return resolve(store, name).map(Some),
        None => {}
    }
    let find = || Ok::<_, Error>(own(store)?.into_iter().find(|pair| pair.key_name == DEFAULT));
    if let Some(pair) = find()? {
        return Ok(Some(pair));
    }
    // Of several launches one makes it.
    let lock = store.lock()?;
    match find()? {
        Some(pair) => Ok(Some(pair)),
        None if !store.home().join(<KeyPair as Record>::DIRECTORY).is_dir() => {
            store.context().warn(
                "this store has no place for key pairs, and instances get none: its administrator runs 'spore store share'",
            );
            Ok(None)
        }
        None => Ok(Some(make(store, &lock, (DEFAULT, &[]), KeyType::default())?.0)),
    }
}

/// The private half of the pair that the instance was launched with. `None` if that is not in the
/// store: the instance has none, or the pair was imported or has gone. Whoever has it can still get
/// in by it.
///
/// # Errors
/// The store can't be read; the file is not the caller's alone.
pub fn for_instance(store: &Store, instance: &Instance) -> Result<Option<PrivateKeyFile>> {
    let Some(public) = &instance.spore.public_key else { return Ok(None) };
    let is = |pair: &&KeyPair| !pair.spore.imported && pair.public_key == *public;
    let pairs = own(store)?;
    let Some(pair) = pairs.iter().find(is) else { return Ok(None) };
    let locked = store.key_pairs().lock(&pair.key_pair_id)?;
    let path = locked.dir().join(PRIVATE);
    // What is opened here is a plain file of the caller's.
    locked.owned().read(PRIVATE, MAX_PRIVATE).or_fail(|| format!("read {}", path.display()))?;
    Ok(Some(PrivateKeyFile(path)))
}

fn make(
    store: &Store,
    lock: &StoreLock,
    words: (&str, &[Tag]),
    key_type: KeyType,
) -> Result<(KeyPair, String)> {
    let (public, private) = material::generate(key_type)?;
    let pair = keep(store, lock, words, public, Some(&private))?;
    Ok((pair, private))
}

/// Lets a pair appear whole.
fn keep(
    store: &Store,
    _lock: &StoreLock,
    (name, tags): (&str, &[Tag]),
    public: Public,
    private: Option<&str>,
) -> Result<KeyPair> {
    if let Some(pair) = own(store)?.iter().find(|pair| pair.key_name == name) {
        let why = format!(
            "there is a key pair '{name}' already ({}); choose another name, or remove that one by \
             'spore key rm'",
            pair.key_pair_id
        );
        return Err(Error::refused(Code::InvalidKeyPairDuplicate, why));
    }
    store.key_pairs().create(Durability::Durable, |path| {
        if let Some(private) = private {
            let doing = || format!("write {}", path.join(PRIVATE).display());
            let dir = crate::store::beneath::owned(path)?;
            let mut file = dir.create(PRIVATE, 0o600).or_fail(doing)?;
            file.write_all(private.as_bytes()).and_then(|()| file.sync_all()).or_fail(doing)?;
        }
        Ok(KeyPair {
            key_pair_id: KeyPairId::generate()?,
            key_name: name.to_owned(),
            key_type: public.key_type,
            key_fingerprint: public.fingerprint,
            // EC2 tells guests the name in the place of a comment, too.
            public_key: format!("{} {name}", public.openssh),
            create_time: now(),
            tags: tags.to_vec(),
            spore: KeyPairOrigin { owner_id: store.owner_id(), imported: private.is_none() },
        })
    })
}

/// A name is a part of a line of the guest's metadata and of its authorized_keys.
fn check_name(name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME).contains(&name.len()) && name != NONE;
    let visible = name.bytes().all(|c| c.is_ascii_graphic() || c == b' ');
    if fits && visible && name.trim() == name {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(40).collect();
    let why = format!(
        "'{shown}' is no name of a key pair: it has 1 to {MAX_NAME} ASCII characters, and is not \
         'none'"
    );
    Err(Error::refused(Code::InvalidParameterValue, why))
}
