//! Files that are not below a store and that somebody else may have put there all the same.

use super::{plain_file, reported, user, waiting};
use rustix::fs::{Mode, OFlags, fstat, open};
use std::fs::File;
use std::io::{self, ErrorKind};
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
