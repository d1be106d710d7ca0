//! Directories that are not objects yet, or no longer.
//!
//! Everything under the store's `tmp/` is a directory whose maker holds its flock. Without a holder
//! it is debris: of a killed command, or of an object being deleted.

use super::beneath::{self, Owned, sync_dir};
use super::journal::Event;
use super::{Store, record};
use crate::error::{Error, OrFail, Result};
use crate::id::random_hex;
use crate::record::{Durability, Record};
use crate::sys::fault;
use rustix::fs::{FlockOperation, flock};
use std::io::ErrorKind;
use std::path::Path;

/// A directory in the making. Dropped without [`Staging::publish`], it is removed with all that is
/// in it; if its process is killed, the next command removes it.
#[derive(Debug)]
pub struct Staging {
    /// Holds the flock, which stays with the directory through its rename. `None` once it is
    /// published.
    dir: Option<Owned>,
    path: std::path::PathBuf,
}

impl Staging {
    /// A new empty directory (mode 0700) in the store's file system.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(store: &Store) -> Result<Self> {
        // A sweep may strike between making and locking: then the name is gone, and we try again.
        for _ in 0..16 {
            fault::point("making of a staging directory");
            let path = store.tmp().join(random_hex(16)?);
            let doing = || format!("make {}", path.display());
            let dir = match Owned::make(&path) {
                // Swept between its making and its opening.
                Err(e) if e.kind() == ErrorKind::NotFound && store.tmp().is_dir() => continue,
                made => made.or_fail(doing)?,
            };
            fault::point("locking of a staging directory");
            let locked = flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && dir.is_at(&path) {
                return Ok(Self { path, dir: Some(dir) });
            }
        }
        Err(Error::failure(format!("cannot make a directory in {}", store.tmp().display())))
    }

    /// Where to put the object's files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, held open.
    ///
    /// # Errors
    /// It has been published.
    pub fn dir(&self) -> Result<&Owned> {
        self.dir.as_ref().ok_or_else(|| Error::failure("the object is published already"))
    }

    /// Write the record and let the object appear. Files in the directory must have been synced by
    /// whoever wrote them, if they are to be durable.
    ///
    /// # Errors
    /// The record can't be written, or an object with this id exists (`AlreadyExists` in words);
    /// nothing has appeared.
    pub fn publish<R: Record>(
        mut self,
        store: &Store,
        new: &R,
        durability: Durability,
    ) -> Result<Owned> {
        record::write(self.dir()?, new, durability)?;
        let parent = store.home().join(R::DIRECTORY);
        let target = parent.join(new.id().as_ref());
        // A directory can be renamed over an empty one: an object is never empty, so this refuses
        // existing ids.
        fault::point("appearance of an object");
        beneath::move_dir(&self.path, &target)
            .or_fail(|| format!("make {} {}", R::KIND, new.id()))?;
        let Some(dir) = self.dir.take() else { return Err(Error::failure("published twice")) };
        store.journal().append_event::<R>(
            Event::Created,
            new.id().as_ref(),
            new.journal_view(),
            durability,
            None,
        );
        if durability == Durability::Durable {
            sync_dir(&parent)?;
        }
        Ok(dir.moved(target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.dir.is_some() {
            beneath::remove_tree(&self.path);
        }
    }
}

/// Make the object's directory `path` disappear at once, then remove it. `false` if it was not
/// there.
pub(super) fn discard(store: &Store, path: &Path) -> Result<bool> {
    let gone = store.tmp().join(random_hex(16)?);
    fault::point("disappearance of an object");
    match beneath::move_dir(path, &gone) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(format!("remove {}", path.display()), e)),
    }
    fault::point("removal of an object's files");
    beneath::remove_tree(&gone);
    Ok(true)
}
