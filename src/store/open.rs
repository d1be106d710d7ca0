//! An open store: where it is, whose it is, and the lock of all in it.

use super::accounts::make_account_dir;
use super::journal::{Entry, Event, Journal};
use super::{beneath, format, paths};
use crate::context::Context;
use crate::error::{OrFail, Result};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    home: PathBuf,
    context: Context,
    /// The uid of whoever shares it with others.
    administrator: Option<u32>,
    journal: Arc<Journal>,
}

impl Store {
    /// Open the user's store, making it if there is none, and sweep what killed commands left.
    ///
    /// It is at `$SPORE_HOME`, else `$XDG_DATA_HOME/spore`, else `~/.local/share/spore`.
    ///
    /// # Errors
    /// None of the places is set, or it can't be made, or belongs to another user.
    pub fn open(context: &Context) -> Result<Self> {
        Self::open_within(&paths::home()?, context)
    }

    /// Open the store at `home`, made if absent (mode 0700). Nothing of it is ever anywhere else:
    /// sockets lie beside the records too, so that nothing is left behind outside, and no command
    /// races to take it away.
    ///
    /// # Errors
    /// It can't be made or belongs to another user.
    pub fn open_at(home: &Path) -> Result<Self> {
        Self::open_within(home, &Context::default())
    }

    /// As [`Store::open_at`], for work that has a context.
    ///
    /// # Errors
    /// As [`Store::open_at`]'s.
    pub fn open_within(home: &Path, context: &Context) -> Result<Self> {
        let home = std::path::absolute(home).or_fail(|| format!("open {}", home.display()))?;
        let administrator = paths::administrator(&home)?;
        let home = match home.is_symlink() {
            false => home,
            // Below it no link is followed.
            true => {
                if administrator.is_none() {
                    paths::check_owner(&home, context.caller())?;
                }
                home.canonicalize().or_fail(|| format!("open {}", home.display()))?
            }
        };
        format::check(&home)?;
        let journal = Arc::new(Journal::new(&home, context));
        let store = Self { home, context: context.clone(), administrator, journal };
        if let Some(administrator) = administrator {
            if administrator == context.caller() {
                paths::make_shared(&store.home, false)?;
                format::mark(&store.home)?;
            }
            beneath::sweep(&store.tmp());
            return Ok(store);
        }
        if store.home.exists() {
            paths::check_owner(&store.home, context.caller())?;
        } else if context.reads() {
            return Ok(store);
        }
        // A store of an earlier Spore lacks those of kinds that are new.
        let missing = |path: &PathBuf| !path.is_dir();
        for path in paths::directories().map(|name| store.home.join(name)).filter(missing) {
            beneath::make_place(&path, 0o700)
                .or_fail(|| format!("make the store's directory {}", path.display()))
                .map_err(|e| e.remedy("SPORE_HOME says where the store is"))?;
        }
        format::mark(&store.home)?;
        beneath::sweep(&store.tmp());
        Ok(store)
    }

    /// A new one, and the directory that ends it.
    #[cfg(test)]
    pub(crate) fn scratch() -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::open_at(&dir.path().join("s")).unwrap();
        (dir, store)
    }

    /// The account's journal, and the others'.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Append a line about what is no object of the store, such as a product.
    pub fn append_event_of(&self, event: Event, kind: &str, id: &str, record: Value) {
        self.journal.append_event_of(event, kind, id, record);
    }

    /// As [`Journal::entries`].
    ///
    /// # Errors
    /// A journal can't be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.journal.entries()
    }

    /// The store's own directory, absolute.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What the work on it is done for.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The caller's account: its uid in decimal.
    pub fn owner_id(&self) -> String {
        self.context.caller().to_string()
    }

    /// The uid of the administrator, if several users share this store.
    pub fn administrator(&self) -> Option<u32> {
        self.administrator
    }

    /// The directory of what the user's account has to itself in this store; it need not exist.
    pub fn account_dir(&self) -> PathBuf {
        self.journal.account_dir().to_owned()
    }

    /// The same, made if it is not there.
    ///
    /// # Errors
    /// No space; it is not the user's.
    pub fn account(&self) -> Result<beneath::Owned> {
        make_account_dir(self.journal.account_dir())
    }

    /// What can be made again and may be deleted at any time, such as downloaded or built images.
    pub fn cache(&self) -> PathBuf {
        self.home.join("cache")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// Wait for the lock of all that the user has in this store: whoever checks several objects and
    /// then changes one holds it (names are unique; a kernel that an image refers to stays). Hold
    /// it briefly, take it before any object's lock.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock(&self) -> Result<StoreLock> {
        // Nobody can change another's objects, so users of a shared store need not wait for each
        // other.
        let dir = match self.administrator {
            Some(_) => self.account()?,
            None => beneath::Owned::home(&self.home)
                .or_fail(|| format!("use {}", self.home.display()))?,
        };
        let doing = || format!("lock {}", dir.path().join("lock").display());
        let file = dir.open_or_create("lock").or_fail(doing)?;
        wait_lock(&file).or_fail(doing)?;
        Ok(StoreLock { _file: file })
    }
}

/// Proof of holding the store-wide lock; dropping it gives it back.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

/// flock(2), exclusive, waiting through signals.
pub(super) fn wait_lock(file: &File) -> std::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive))
        .map_err(Into::into)
}
