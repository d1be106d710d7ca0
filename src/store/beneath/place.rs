//! The store's own directories, and what comes into them and goes.

use super::{Dir, Owned, component, split};
use crate::error::{OrFail, Result};
use crate::sys::fault;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, Uid, fchmod, fchown, flock, fstat, renameat, unlinkat,
};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Directories in directories that are removed: an object has two levels.
pub(super) const MAX_DEPTH: usize = 8;
/// What can't be removed in a directory before that is given up: it is others', who may have put
/// any number there.
const MAX_STUCK: usize = 16;

/// Give a directory of the effective user's another place and name. An empty directory there is
/// replaced.
///
/// # Errors
/// There is none (`NotFound`); it is another's.
pub(in crate::store) fn move_dir(from: &Path, to: &Path) -> io::Result<()> {
    let ((parent, name), (new_parent, new_name)) = (split(from)?, split(to)?);
    let dir = Dir::within(parent.as_fd(), name, from.to_owned())?;
    if !dir.is_ours() {
        return dir.owned().map(drop);
    }
    Ok(renameat(&parent, name, &new_parent, new_name)?)
}

/// Give a directory in the making to user `uid`, under the name `to` in one of the store's own
/// places. Only root may, but to itself. An empty directory there is replaced.
///
/// # Errors
/// EPERM; anything else has that name.
pub(in crate::store) fn give(dir: &Owned, uid: u32, to: &Path) -> io::Result<()> {
    let ((parent, name), (new_parent, new_name)) = (split(dir.path())?, split(to)?);
    if uid != dir.owner() {
        fchown(dir, Some(Uid::from_raw(uid)), None)?;
    }
    fault::point("appearance of an account");
    Ok(renameat(&parent, name, &new_parent, new_name)?)
}

impl Dir {
    /// Give what is in one of the store's own places, whosever, another name there. Only the
    /// place's owner and root may with what is another's. An empty directory of that name is
    /// replaced.
    ///
    /// # Errors
    /// EPERM; there is none; anything else has that name.
    pub(in crate::store) fn move_within(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (component(from.as_ref())?, component(to.as_ref())?);
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }
}

/// Remove a directory of the effective user's with what is in it. What others put there and can't
/// be removed stays, and the directory with it. Failing is harmless where this is used: the next
/// sweep tries again.
pub(in crate::store) fn remove_tree(path: &Path) {
    let Ok((parent, name)) = split(path) else { return };
    remove_below(parent.as_fd(), name, MAX_DEPTH);
}

/// Whether it is gone.
fn remove_below(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> bool {
    let opened = Dir::within(parent, name, PathBuf::new());
    if let (Ok(dir), true) = (opened, depth > 0)
        && dir.is_ours()
        && let Ok(entries) = rustix::fs::Dir::read_from(&dir.fd)
    {
        let mut stuck = 0;
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || unlinkat(&dir.fd, name, AtFlags::empty()).is_ok() {
                continue;
            }
            if !remove_below(dir.fd.as_fd(), name, depth - 1) {
                stuck += 1;
            }
            if stuck > MAX_STUCK {
                return false;
            }
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok()
}

/// Make one of the store's own directories, with those above it, or give it that mode if it is
/// there.
///
/// # Errors
/// It is another's; it is no directory; no space.
pub(in crate::store) fn make_place(path: &Path, mode: u32) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)?;
    let place = Dir::place(path)?;
    if fstat(&place.fd)?.st_mode & 0o7777 != mode {
        fchmod(&place.fd, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

/// fsync(2) of a directory, whosever, so that the names in it are on the medium.
///
/// # Errors
/// I/O errors.
pub fn sync_dir(path: &Path) -> Result<()> {
    fault::point("sync of a directory");
    let synced = Dir::place(path).and_then(|dir| Ok(rustix::fs::fsync(&dir.fd)?));
    synced.or_fail(|| format!("sync {}", path.display()))
}

/// Remove from `place` this user's directories that nobody holds, and nothing else, whoever put it
/// there. Several commands may sweep at once; what one can't remove stays for the next.
pub(in crate::store) fn sweep(place: &Path) {
    let Ok(place) = Dir::place(place) else { return };
    for name in place.own_names().unwrap_or_default() {
        let Ok(dir) = place.place_in(&name) else { continue };
        let path = dir.path().to_owned();
        let Ok(dir) = dir.owned() else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // If it was published meanwhile, `path` leads nowhere; names are never used again.
            remove_tree(&path);
        }
    }
}
