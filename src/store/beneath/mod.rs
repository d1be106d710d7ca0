//! The one place that opens, makes, replaces and removes anything below a store.
//!
//! What lies there may be another account's, or another process's of the same user: a symbolic
//! link, a FIFO that nobody writes, a device, a file without end. So a name is one component,
//! looked up in a directory that is held open; no link is followed (openat2(2) with
//! RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS), no opening waits, and what was
//! opened is a plain file of the directory's owner or is not looked at.
//!
//! [`Dir`] is a directory of whoever: its files can be read. [`Owned`] is one of the effective
//! user's that nobody else may write: only there is anything locked, written, connected to or
//! believed of a process. There is no other way to either.

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fcntl_setfl, fstat, openat, openat2,
    readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

mod foreign;
pub mod names;
mod owned;
mod place;

pub use foreign::{foreign_create, foreign_file, foreign_replace};
pub use owned::{Owned, create, owned};
pub use place::sync_dir;
pub(super) use place::{give, make_place, move_dir, remove_tree, sweep};

/// Who may write besides the owner: group and others.
const OTHERS_WRITE: u32 = 0o022;

/// The effective user.
pub fn user() -> u32 {
    crate::sys::process::user()
}

/// A directory below a store, held open: its name may lead elsewhere meanwhile.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
}

impl Dir {
    /// An object's directory. Its parent, which is the store's own, is gone to as the environment
    /// says.
    ///
    /// # Errors
    /// There is none (`NotFound`, `NotADirectory`), or group or others may write it
    /// (`PermissionDenied`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let (parent, name) = split(path)?;
        Self::within(parent.as_fd(), name, path.to_owned())?.private()
    }

    /// A directory that everybody may put something in: one of the store's own.
    ///
    /// # Errors
    /// There is none.
    pub fn place(path: &Path) -> io::Result<Self> {
        let (parent, name) = split(path)?;
        Self::within(parent.as_fd(), name, path.to_owned())
    }

    /// The object's directory of that name in this place, as [`Dir::open`].
    ///
    /// # Errors
    /// As [`Dir::open`]'s.
    pub fn object(&self, name: &str) -> io::Result<Self> {
        self.place_in(name)?.private()
    }

    /// A directory in this one, whoever may write it.
    ///
    /// # Errors
    /// There is none.
    pub fn place_in(&self, name: &str) -> io::Result<Self> {
        Self::within(self.fd.as_fd(), name.as_ref(), self.path.join(name))
    }

    fn within(parent: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> io::Result<Self> {
        let fd = open_at(parent, name, OFlags::DIRECTORY | OFlags::RDONLY, 0)?;
        let stat = fstat(&fd)?;
        Ok(Self { fd, path, owner: stat.st_uid })
    }

    fn private(self) -> io::Result<Self> {
        let mode = fstat(&self.fd)?.st_mode;
        if mode & OTHERS_WRITE == 0 {
            return Ok(self);
        }
        let path = self.path.display();
        Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "others than its owner may write it; see what is in it, then 'chmod go-w {path}'"
            ),
        ))
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The uid of its owner.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether it is the effective user's.
    pub fn is_ours(&self) -> bool {
        self.owner == user()
    }

    /// A plain file of the directory's owner, for reading.
    ///
    /// # Errors
    /// There is none, or it is anything else.
    pub fn file(&self, name: &str) -> io::Result<File> {
        waiting(self.plain(name, OFlags::RDONLY, 0)?, OFlags::empty())
    }

    /// All of a file that has at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Dir::file`]'s; it is longer (`FileTooLarge`).
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.plain(name, OFlags::RDONLY, 0)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            let why = format!("it is longer than {limit} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, why));
        }
        Ok(bytes)
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn read_link(&self, name: &str) -> io::Result<PathBuf> {
        let target = readlinkat(&self.fd, component(name.as_ref())?, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// What has that name, links not followed.
    ///
    /// # Errors
    /// There is nothing.
    pub fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(&self.fd, component(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The uid of the owner of the directory of that name, if there is one; it need not be open to
    /// this user.
    pub fn owner_of(&self, name: &str) -> Option<u32> {
        let stat = self.stat(name).ok()?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        directory.then_some(stat.st_uid)
    }

    /// Whether anything has that name.
    pub fn has(&self, name: &str) -> bool {
        self.stat(name).is_ok()
    }

    /// Make a symbolic link in a directory of this one, also another's, where everybody may and
    /// only the owner looks. It is the one thing that is ever written in an object of somebody
    /// else's, and nobody follows it.
    ///
    /// # Errors
    /// The name is taken, or may not be made; the place isn't the owner's, so it could be anywhere.
    pub fn mark(&self, place: &str, name: &str, target: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let place = open_at(self.fd.as_fd(), place.as_ref(), flags, 0)?;
        if fstat(&place)?.st_uid != self.owner {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(symlinkat(target, &place, component(name.as_ref())?)?)
    }

    /// Take a name away that is no directory. In a sticky place only one's own can be.
    ///
    /// # Errors
    /// There is none; it is another's.
    pub fn unmark(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, component(name.as_ref())?, AtFlags::empty())?)
    }

    /// Open a plain file of the directory's owner. It doesn't wait (O_NONBLOCK).
    fn plain(&self, name: &str, flags: OFlags, mode: u32) -> io::Result<File> {
        let file = open_at(self.fd.as_fd(), name.as_ref(), flags, mode)?;
        let stat = fstat(&file)?;
        plain_file(&stat)?;
        if stat.st_uid != self.owner {
            let why = format!("it is user {}'s and not its directory's owner's", stat.st_uid);
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        Ok(file.into())
    }
}

/// The parent of a path, held by name only, and the name in it.
fn split(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let none = || io::Error::new(ErrorKind::InvalidInput, "it has no name");
    let (parent, name) = (path.parent().ok_or_else(none)?, path.file_name().ok_or_else(none)?);
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((openat(CWD, parent, flags, Mode::empty())?, component(name)?))
}

/// A name that is one component of a path.
fn component(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "its name is no file's name"));
    }
    Ok(name)
}

/// openat2(2) of one component, following no link and waiting for nothing.
fn open_at(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let name = component(name)?;
    let always = match flags.contains(OFlags::PATH) {
        // open(2): nothing is opened then, and openat2(2) refuses what has no meaning.
        true => OFlags::NOFOLLOW | OFlags::CLOEXEC,
        false => OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
    };
    let (flags, mode) = (flags | always, Mode::from_raw_mode(mode));
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(dir, name, flags, mode, beneath) {
        // Linux before 5.6, or a sandbox that doesn't know it. A walk of one component is as safe.
        Err(Errno::NOSYS | Errno::PERM) => openat(dir, name, flags, mode),
        opened => opened,
    };
    opened.map_err(reported)
}

/// What it means that something can't be opened.
fn reported(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP | Errno::MLINK => not_plain("a symbolic link"),
        Errno::NXIO => not_plain("a socket or a FIFO"),
        Errno::ISDIR => not_plain("a directory"),
        errno => errno.into(),
    }
}

fn not_plain(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("it is {what}, which is not opened here; remove it"),
    )
}

fn plain_file(stat: &Stat) -> io::Result<()> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Symlink => "a symbolic link",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something else",
    };
    Err(not_plain(what))
}

/// Without O_NONBLOCK, which says nothing of a plain file but to io_uring: that gives EAGAIN then.
fn waiting(file: File, flags: OFlags) -> io::Result<File> {
    fcntl_setfl(&file, flags)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
