//! The store: one directory per object, a JSON record in it. There is no daemon and no database.
//!
//! # Consistency
//! - An object is made as a directory under `tmp/` and appears by one rename: it is there whole or not at all.
//!   It goes the same way back. What a killed command leaves in `tmp/` is swept by the next one ([`staging`]).
//! - A record is replaced by a rename over it; a reader sees the old or the new one.
//! - Transitions of one object take the flock of its `lock` file ([`Locked`]); what spans objects (a name
//!   is unique, a kernel in use stays) takes the store's one `lock`. The kernel drops both with their holder.
//! - [`Durability`] says what a power failure may take: see there.
//!
//! Any number of commands work on one store at the same time. Listing is readdir; an object that goes
//! while being listed was not there.

pub mod acl;
pub mod beneath;
mod collection;
pub mod fault;
pub mod journal;
mod paths;
mod record;
pub mod reserve;
pub mod shared;
pub mod staging;
pub mod time;

pub use collection::{Collection, Listing, Locked, not_owned};
pub use record::{RECORD, Record};
pub use staging::Staging;
pub use time::{now, rfc3339};

use crate::error::{OrFail, Result};
use crate::record::image::{Image, Kernel, Ramdisk, Snapshot};
use crate::record::volume::Volume;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What must survive a power failure (a killed process never loses what was done, whichever it is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Files, record and directory entries are on the medium before the object counts as made. For
    /// images, snapshots, kernels and for what outlives its VM: `ebs` volumes and instances with one.
    Durable,
    /// Nothing is synced: 100 clones cost no disk flush. For what is meaningless once the power was off:
    /// instance-store volumes and their instances. A record that a power failure left empty counts as absent
    /// and is swept.
    Volatile,
}

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    home: PathBuf,
    /// The uid of whoever shares it with others.
    administrator: Option<u32>,
    journal: Arc<journal::Journal>,
}

/// Directories of objects, and those beside them.
const DIRECTORIES: [&str; 9] = [
    "images",
    "snapshots",
    "volumes",
    "kernels",
    "ramdisks",
    "instances",
    "accounts",
    "cache",
    "tmp",
];

impl Store {
    /// Open the user's store, making it if there is none, and sweep what killed commands left.
    ///
    /// It is at `$SPORE_HOME`, else `$XDG_DATA_HOME/spore`, else `~/.local/share/spore`.
    ///
    /// # Errors
    /// None of the places is set, or it can't be made, or belongs to another user.
    pub fn open() -> Result<Self> {
        Self::open_at(&paths::home()?)
    }

    /// Open the store at `home`, made if absent (mode 0700). Nothing of it is ever anywhere else: sockets lie
    /// beside the records too, so that nothing is left behind outside, and no command races to take it away.
    ///
    /// # Errors
    /// It can't be made or belongs to another user.
    pub fn open_at(home: &Path) -> Result<Self> {
        let home = std::path::absolute(home).or_fail(|| format!("open {}", home.display()))?;
        let administrator = shared::administrator(&home)?;
        let home = match home.is_symlink() {
            false => home,
            // Below it no link is followed.
            true => {
                if administrator.is_none() {
                    paths::check_owner(&home)?;
                }
                home.canonicalize().or_fail(|| format!("open {}", home.display()))?
            }
        };
        let journal = Arc::new(journal::Journal::new(&home));
        let store = Self { home, administrator, journal };
        if administrator.is_some() {
            staging::sweep(&store);
            return Ok(store);
        }
        // The last one tells that all are there: one system call on every later run.
        if !store.tmp().is_dir() {
            for name in DIRECTORIES {
                let path = store.home.join(name);
                beneath::make_place(&path, 0o700)
                    .or_fail(|| format!("make the store's directory {}", path.display()))
                    .map_err(|e| e.remedy("SPORE_HOME says where the store is"))?;
            }
        }
        paths::check_owner(&store.home)?;
        staging::sweep(&store);
        Ok(store)
    }

    /// A new one, and the directory that ends it.
    #[cfg(test)]
    pub(crate) fn scratch() -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::open_at(&dir.path().join("s")).unwrap();
        (dir, store)
    }

    /// The store's own directory, absolute.
    pub fn home(&self) -> &Path {
        &self.home
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
        journal::make_account_dir(self.journal.account_dir())
    }

    /// What can be made again and may be deleted at any time, such as downloaded or built images.
    pub fn cache(&self) -> PathBuf {
        self.home.join("cache")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// The objects whose record is `R`.
    pub fn collection<R: Record>(&self) -> Collection<R> {
        Collection::new(self)
    }

    /// Images.
    pub fn images(&self) -> Collection<Image> {
        self.collection()
    }

    /// Snapshots; their content is [`crate::import::DATA`] beside the record.
    pub fn snapshots(&self) -> Collection<Snapshot> {
        self.collection()
    }

    /// Volumes.
    pub fn volumes(&self) -> Collection<Volume> {
        self.collection()
    }

    /// Registered kernels.
    pub fn kernels(&self) -> Collection<Kernel> {
        self.collection()
    }

    /// Registered initial ramdisks.
    pub fn ramdisks(&self) -> Collection<Ramdisk> {
        self.collection()
    }

    /// Wait for the lock of all that the user has in this store: whoever checks several objects and then changes one holds it
    /// (names are unique; a kernel that an image refers to stays). Hold it briefly, take it before any object's lock.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock(&self) -> Result<StoreLock> {
        // Nobody can change another's objects, so users of a shared store need not wait for each other.
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
fn wait_lock(file: &File) -> std::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive))
        .map_err(Into::into)
}

/// fsync a directory, so that the names in it are on the medium.
pub fn sync_dir(path: &Path) -> Result<()> {
    fault::point("sync of a directory");
    beneath::sync_place(path).or_fail(|| format!("sync {}", path.display()))
}
