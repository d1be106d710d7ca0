//! The directory of one download, and whose turn it is.
//!
//! It lies in the cache, where what is left of it may be deleted at any time. In a shared store,
//! where only the administrator may write there, it lies in the caller's own account.

use super::transport::shown;
use crate::context::Context;
use crate::error::{Error, OrFail, Result};
use crate::id::hex;
use crate::store::Store;
use crate::store::beneath::Owned;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Where downloads are.
const DOWNLOADS: &str = "downloads";
/// What has come of the file.
const DATA: &str = "data";
const STATE: &str = "state.json";
/// Longest state, in bytes.
const MAX_STATE: u64 = 64 << 10;
/// How often it is looked whether it is the caller's turn.
const TICK: Duration = Duration::from_millis(100);

/// What is known of a file that is, or was, fetched.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct State {
    /// What tells the file of which there is something from another that has its name later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The mark of the last that was imported, and its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<(String, String)>,
}

/// The directory of a download, which is nobody else's until this is dropped.
pub struct Place {
    pub(super) dir: Owned,
    /// The store's directory.
    pub(super) home: PathBuf,
    /// Its flock, which goes last.
    _lock: File,
}

/// Waits for one's turn at the download of what `address` names.
///
/// # Errors
/// No space; cancelled.
pub fn take(store: &Store, address: &str) -> Result<Place> {
    let (context, name) = (store.context(), hex(&Sha256::digest(address)));
    let doing = || format!("make a place for the download of {}", shown(address));
    let mut waits = false;
    loop {
        let dir = open(store, &name[..32])?;
        let lock = dir.open_or_create("lock").or_fail(doing)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Whoever had it may have been pruned, and its directory with it.
            Ok(()) if dir.is_at(dir.path()) => {
                let home = store.home().to_owned();
                return Ok(Place { dir, home, _lock: lock });
            }
            Ok(()) => continue,
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(Error::io(doing(), io::Error::from(errno))),
        }
        if !std::mem::replace(&mut waits, true) {
            let shown = shown(address);
            context.note(format_args!("another command is fetching {shown}; waiting for it"));
        }
        pause(context)?;
    }
}

fn pause(context: &Context) -> Result<()> {
    context.check()?;
    std::thread::sleep(TICK);
    context.check()
}

fn open(store: &Store, name: &str) -> Result<Owned> {
    let caller = store.context().caller();
    let shared = store.administrator().is_some_and(|administrator| administrator != caller);
    let parent = match shared {
        true => store.account()?,
        false => Owned::open(&store.cache()).or_fail(|| "use the store's cache")?,
    };
    let downloads = parent.make_dir(DOWNLOADS).and_then(|downloads| downloads.make_dir(name));
    downloads.or_fail(|| format!("make {}", parent.path().join(DOWNLOADS).join(name).display()))
}

impl Drop for Place {
    /// Nothing that has come is nothing to keep.
    fn drop(&mut self) {
        if self.dir.stat(DATA).is_ok_and(|stat| stat.st_size == 0) {
            let _ = self.discard();
        }
    }
}

impl Place {
    pub(super) fn state(&self) -> State {
        // What can't be read is a download that begins anew.
        let json = self.dir.read(STATE, MAX_STATE).unwrap_or_default();
        serde_json::from_slice(&json).unwrap_or_default()
    }

    pub(super) fn set_state(&self, state: &State) -> Result<()> {
        let json = serde_json::to_vec(state).or_fail(|| "describe a download")?;
        self.dir.replace(STATE, &json, false).or_fail(|| self.doing("write"))
    }

    /// What has come so far, for reading and writing.
    pub(super) fn data(&self) -> Result<File> {
        self.dir.open_or_create(DATA).or_fail(|| self.doing("open"))
    }

    /// What has come, for reading, and where it is.
    pub(super) fn opened(&self) -> Result<(File, PathBuf)> {
        let file = self.dir.file(DATA).or_fail(|| self.doing("open"))?;
        Ok((file, self.dir.path().join(DATA)))
    }

    /// Nothing of the file is kept.
    ///
    /// # Errors
    /// The file system is read-only.
    pub fn discard(&self) -> Result<()> {
        self.dir.remove_if_there(DATA).or_fail(|| self.doing("remove"))
    }

    /// What has come is in the store: only what tells whether it is still the same is kept.
    ///
    /// # Errors
    /// No space.
    pub fn imported(&self, sha256: &str) -> Result<()> {
        self.discard()?;
        let state = self.state();
        let imported = state.mark.map(|mark| (mark, sha256.to_owned()));
        self.set_state(&State { imported, ..State::default() })
    }

    /// Nothing is known of what was fetched before.
    ///
    /// # Errors
    /// No space.
    pub fn forget(&self) -> Result<()> {
        self.discard()?;
        self.set_state(&State::default())
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} the download in {}", self.dir.path().display())
    }
}
