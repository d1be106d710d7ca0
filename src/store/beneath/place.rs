//! The store's own directories, and what comes into them and goes.

use super::{Dir, split};
use rustix::fs::{AtFlags, Mode, fchmod, fstat, renameat, unlinkat};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Directories in directories that are removed: an object has two levels.
pub(super) const MAX_DEPTH: usize = 8;

/// Give a directory of the effective user's another place and name. An empty directory there is replaced.
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

/// Remove a directory of the effective user's with what is in it. What others put there and can't be removed stays, and
/// the directory with it. Failing is harmless where this is used: the next sweep tries again.
pub(in crate::store) fn remove_tree(path: &Path) {
    let Ok((parent, name)) = split(path) else { return };
    remove_below(parent.as_fd(), name, MAX_DEPTH);
}

fn remove_below(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) {
    let opened = Dir::within(parent, name, PathBuf::new());
    if let (Ok(dir), true) = (opened, depth > 0)
        && dir.is_ours()
        && let Ok(entries) = rustix::fs::Dir::read_from(&dir.fd)
    {
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if unlinkat(&dir.fd, name, AtFlags::empty()).is_err() {
                remove_below(dir.fd.as_fd(), name, depth - 1);
            }
        }
    }
    let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
}

/// Make one of the store's own directories, with those above it, or give it that mode if it is there.
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

/// fsync(2) of a directory, whosever.
///
/// # Errors
/// I/O errors.
pub(in crate::store) fn sync_place(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(&Dir::place(path)?.fd)?)
}
