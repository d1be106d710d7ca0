//! Directories that are not objects yet, or no longer.
//!
//! Everything under the store's `tmp/` is a directory whose maker holds its flock. Without a holder it is
//! debris: of a killed command, or of an object being deleted.

use super::journal::Event;
use super::{Durability, Record, Store, fault, record, sync_dir};
use crate::error::{Error, OrFail, Result};
use crate::id::random_hex;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory in the making. Dropped without [`Staging::publish`], it is removed with all that is in it; if its
/// process is killed, the next command removes it.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// Holds the flock; the lock stays with the directory through its rename.
    _lock: File,
    published: bool,
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
            DirBuilder::new().mode(0o700).create(&path).or_fail(doing)?;
            fault::point("locking of a staging directory");
            let lock = match File::open(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                opened => opened.or_fail(doing)?,
            };
            let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && path.exists() {
                return Ok(Self { path, _lock: lock, published: false });
            }
        }
        Err(Error::failure(format!("cannot make a directory in {}", store.tmp().display())))
    }

    /// Where to put the object's files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Write the record and let the object appear. Files in the directory must have been synced by whoever
    /// wrote them, if they are to be durable.
    ///
    /// # Errors
    /// The record can't be written, or an object with this id exists (`AlreadyExists` in words); nothing has appeared.
    pub fn publish<R: Record>(
        mut self,
        store: &Store,
        new: &R,
        durability: Durability,
    ) -> Result<()> {
        record::write(&self.path, new, durability)?;
        let parent = store.home().join(R::DIRECTORY);
        let target = parent.join(new.id().as_ref());
        // A directory can be renamed over an empty one: an object is never empty, so this refuses existing ids.
        fault::point("appearance of an object");
        fs::rename(&self.path, &target).or_fail(|| format!("make {} {}", R::KIND, new.id()))?;
        self.published = true;
        store.note::<R>(Event::Created, new.id().as_ref(), new.essence(), durability, None);
        if durability == Durability::Durable {
            sync_dir(&parent)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            remove(&self.path);
        }
    }
}

/// Make the object's directory `path` disappear at once, then remove it. `false` if it was not there.
pub(super) fn discard(store: &Store, path: &Path) -> Result<bool> {
    let gone = store.tmp().join(random_hex(16)?);
    fault::point("disappearance of an object");
    match fs::rename(path, &gone) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(format!("remove {}", path.display()), e)),
    }
    fault::point("removal of an object's files");
    remove(&gone);
    Ok(true)
}

/// Remove what nobody holds; another's can't be opened or removed. Several commands may sweep at once; what one can't remove stays for the next.
pub(super) fn sweep(store: &Store) {
    let Ok(entries) = fs::read_dir(store.tmp()) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // If it was published meanwhile, `path` leads nowhere; names are never used again.
            remove(&path);
        }
    }
}

/// Remove a directory under `tmp/` that is nobody's, or ours. Failing is harmless: the next sweep tries again.
fn remove(path: &Path) {
    if path.is_dir() {
        let _ = fs::remove_dir_all(path);
    } else {
        let _ = fs::remove_file(path);
    }
}
