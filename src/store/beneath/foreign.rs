//! Files that are not below a store and that somebody else may have put there all the same.

use super::owned::NewFile;
use super::{open_at, plain_file, reported, split, user, waiting};
use crate::error::{OrFail, Result};
use crate::id::random_hex;
use rustix::fs::{Mode, OFlags, fstat, open};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::Path;

/// Open a file that is not below a store but that somebody else's record named: a plain file,
/// without waiting.
///
/// # Errors
/// There is none, or it is no plain file.
pub fn foreign_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(reported)?;
    plain_file(&fstat(&file)?)?;
    waiting(file.into(), OFlags::empty())
}

/// Make a file, or empty the one there is, that is not below a store but where others may have put
/// something: the effective user's plain file, through no link.
///
/// # Errors
/// It is anything else; no space.
pub fn foreign_create(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(0o666);
    let file = open(path, flags | OFlags::NOCTTY | OFlags::CLOEXEC, mode).map_err(reported)?;
    let stat = fstat(&file)?;
    plain_file(&stat)?;
    if stat.st_uid != user() {
        let why = format!("it is user {}'s; remove it or choose another place", stat.st_uid);
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    let file = waiting(file.into(), OFlags::empty())?;
    file.set_len(0)?;
    Ok(file)
}

/// Have a file that is not below a store written, whole or not at all, in the place of what had its
/// name, with mode 0600. Until then it has a name beside it that nobody could know before.
///
/// # Errors
/// No space, no permission; `write`'s.
pub fn foreign_replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let (dir, name) = split(path).or_fail(doing)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", random_hex(8)?));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = open_at(dir.as_fd(), &temporary, flags, 0o600).or_fail(doing)?;
    let file = waiting(file.into(), OFlags::empty()).or_fail(doing)?;
    let mut new = NewFile::of(dir.as_fd(), temporary, file);
    write(&mut new.file)?;
    new.file.sync_all().or_fail(doing)?;
    new.place(name).or_fail(doing)
}
