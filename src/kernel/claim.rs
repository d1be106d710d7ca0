//! Claims: what a command has registered for something else, until that refers to it.
//!
//! A claim is a file in the account's `claims` with the id of what was registered, and its maker
//! holds the file's flock. One that nobody holds is that of a killed command: what it names goes,
//! unless something refers to it by then.

use crate::error::{OrFail, Result};
use crate::store::Store;
use crate::store::beneath::Owned;
use crate::sys::fault;
use rustix::fs::{FlockOperation, flock, fstat};
use std::fs::File;

/// The directory in that of the account.
const DIRECTORY: &str = "claims";

/// A claim that is held.
#[derive(Debug)]
pub(super) struct Claim {
    dir: Owned,
    id: String,
    held: File,
}

impl Claim {
    /// Claim what is to be registered under `id`; `None` if another command does already.
    ///
    /// # Errors
    /// No space.
    pub(super) fn make(store: &Store, id: &str) -> Result<Option<Self>> {
        let dir = store.account()?.make_dir(DIRECTORY);
        let dir = dir.or_fail(|| format!("claim {id}"))?;
        fault::point("claim of what is registered");
        let file = dir.open_or_create(id).or_fail(|| format!("claim {id}"))?;
        Ok(Self::held(dir, id.to_owned(), file))
    }

    fn held(dir: Owned, id: String, file: File) -> Option<Self> {
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        // Whoever had it may have taken it away.
        let claim = Self { dir, id, held: file };
        claim.stands().then_some(claim)
    }

    /// Whether nobody has waived it.
    pub(super) fn stands(&self) -> bool {
        match (fstat(&self.held), self.dir.stat(&self.id)) {
            (Ok(held), Ok(named)) => (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino),
            _ => false,
        }
    }

    /// What it claims.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Give it up.
    pub(super) fn end(self) {
        fault::point("end of a claim");
        let _ = self.dir.remove(&self.id);
    }
}

fn directory(store: &Store) -> Option<Owned> {
    Owned::open(&store.account_dir()).and_then(|account| account.dir(DIRECTORY)).ok()
}

/// What is registered under `id` stays for its own sake, whoever claims it.
pub(super) fn waive(store: &Store, id: &str) {
    if let Some(dir) = directory(store) {
        let _ = dir.remove_if_there(id);
    }
}

/// Whether a command that lives, or has just been killed, has registered `id` for something that
/// does not refer to it yet.
pub fn is_claimed(store: &Store, id: &str) -> bool {
    directory(store).is_some_and(|dir| dir.stat(id).is_ok())
}

/// Take over the claims of killed commands.
pub(super) fn left(store: &Store) -> Vec<Claim> {
    let names = directory(store).and_then(|dir| dir.names().ok()).unwrap_or_default();
    let held = |id: String| {
        let dir = directory(store)?;
        let file = dir.writable(&id).ok()?;
        Claim::held(dir, id, file)
    };
    names.into_iter().filter_map(held).collect()
}
