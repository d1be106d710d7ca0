//! A directory where things are locked, written and removed: the effective user's own.

use super::{Dir, component, open_at, plain_file, split, waiting};
use crate::error::{OrFail, Result};
use crate::sys::fault;
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, Stat, fchmod, flock, fstat, linkat,
    mkdirat, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A directory that is the effective user's and that nobody else may write.
#[derive(Debug)]
pub struct Owned(Dir);

impl Deref for Owned {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.0
    }
}

impl AsFd for Owned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Dir {
    /// This directory as one that the effective user alone may change.
    ///
    /// # Errors
    /// It is another's, or others may write it (`PermissionDenied`).
    pub fn owned(self) -> io::Result<Owned> {
        if self.is_ours() {
            return self.private().map(Owned);
        }
        let why = format!("it belongs to user {}; only that one may do this", self.owner);
        Err(io::Error::new(ErrorKind::PermissionDenied, why))
    }
}

impl Owned {
    /// This directory under the path that it has been moved to.
    pub(in crate::store) fn moved(mut self, path: PathBuf) -> Self {
        self.0.path = path;
        self
    }

    /// The directory at `path`, an object's or one in the making.
    ///
    /// # Errors
    /// There is none; it is another's, or others may write it (`PermissionDenied`).
    pub fn open(path: &Path) -> io::Result<Self> {
        Dir::open(path)?.owned()
    }

    /// A private store's own directory. It may be like /tmp, a file system of its own: others can
    /// take names in it and nothing of the user's away.
    ///
    /// # Errors
    /// As [`Owned::open`]'s.
    pub(in crate::store) fn home(path: &Path) -> io::Result<Self> {
        let dir = Dir::place(path)?;
        let sticky = fstat(&dir.fd)?.st_mode & Mode::SVTX.as_raw_mode() != 0;
        if sticky && dir.is_ours() { Ok(Self(dir)) } else { dir.owned() }
    }

    /// Make a directory with mode 0700, which does not exist yet.
    ///
    /// # Errors
    /// The name is taken; no space; the parent isn't writable.
    pub fn make(path: &Path) -> io::Result<Self> {
        let (parent, name) = split(path)?;
        mkdirat(&parent, name, Mode::RWXU)?;
        Dir::within(parent.as_fd(), name, path.to_owned())?.owned()
    }

    /// [`Owned::make`], unless it is there already.
    ///
    /// # Errors
    /// As [`Owned::make`]'s; somebody else made it.
    pub fn make_if_absent(path: &Path) -> io::Result<Self> {
        match Self::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => match Self::make(path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Self::open(path),
                made => made,
            },
            opened => opened,
        }
    }

    /// A directory in this one, the effective user's too.
    ///
    /// # Errors
    /// As [`Owned::open`]'s.
    pub fn dir(&self, name: &str) -> io::Result<Self> {
        self.place_in(name)?.owned()
    }

    /// [`Owned::dir`], made with mode 0700 if absent.
    ///
    /// # Errors
    /// No space; it is another's.
    pub fn make_dir(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0.fd, component(name.as_ref())?, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.dir(name),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Let nobody else put anything into a place in this directory any more. What they have put
    /// there stays.
    ///
    /// # Errors
    /// There is none; it is another's.
    pub fn close_place(&self, name: &str) -> io::Result<()> {
        let place = self.place_in(name)?;
        if !place.is_ours() {
            return place.owned().map(drop);
        }
        Ok(fchmod(&place.fd, Mode::RWXU)?)
    }

    /// A new file, for reading and writing.
    ///
    /// # Errors
    /// The name is taken; no space.
    pub fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let file = self.plain(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)?;
        waiting(file, OFlags::empty())
    }

    /// [`Owned::create`], in the place of whatever file has the name.
    ///
    /// # Errors
    /// No space; a directory has the name.
    pub fn create_anew(&self, name: &str, mode: u32) -> io::Result<File> {
        match self.create(name, mode) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                self.remove(name)?;
                self.create(name, mode)
            }
            created => created,
        }
    }

    /// A file for reading and writing, made with mode 0600 if absent. It has no other name.
    ///
    /// # Errors
    /// It is no plain file of the user's; no space.
    pub fn open_or_create(&self, name: &str) -> io::Result<File> {
        let file = self.plain(name, OFlags::RDWR | OFlags::CREATE, 0o600)?;
        only_name(&file)?;
        waiting(file, OFlags::empty())
    }

    /// [`Owned::open_or_create`] for appending.
    ///
    /// # Errors
    /// As [`Owned::open_or_create`]'s.
    pub fn append(&self, name: &str) -> io::Result<File> {
        let file = self.plain(name, OFlags::RDWR | OFlags::CREATE | OFlags::APPEND, 0o600)?;
        only_name(&file)?;
        waiting(file, OFlags::APPEND)
    }

    /// An existing file for reading and writing.
    ///
    /// # Errors
    /// There is none, or it is no plain file of the user's.
    pub fn writable(&self, name: &str) -> io::Result<File> {
        waiting(self.plain(name, OFlags::RDWR, 0)?, OFlags::empty())
    }

    /// A file for reading, whose owner may be another: a hard link that this user made of theirs.
    ///
    /// # Errors
    /// There is none, or it is no plain file.
    pub fn link_target(&self, name: &str) -> io::Result<File> {
        let file = open_at(self.as_fd(), name.as_ref(), OFlags::RDONLY, 0)?;
        plain_file(&fstat(&file)?)?;
        waiting(file.into(), OFlags::empty())
    }

    /// Replace a file, whole or not at all; who may read the old one may read the new one. With
    /// `durable` its bytes are on the medium before it has the name; the name itself is with
    /// [`Owned::sync`].
    ///
    /// # Errors
    /// No space; the old file stays.
    pub fn replace(&self, name: &str, bytes: &[u8], durable: bool) -> io::Result<()> {
        // What a killed command began is replaced by the next.
        let mut new = self.begin(&format!("{name}.new"))?;
        fault::point("writing of a record");
        new.file.write_all(bytes)?;
        if let Ok(old) = self.stat(name) {
            new.set_mode(old.st_mode & 0o777)?;
        }
        if durable {
            fault::point("sync of a record");
            new.file.sync_all()?;
        }
        fault::point("replacement of a record");
        new.place(name)
    }

    /// Begin a file that is to have its name whole or not at all. Until then it is called
    /// `temporary`, in the place of whatever file was, with mode 0600.
    ///
    /// # Errors
    /// No space; a directory has the name.
    pub fn begin(&self, temporary: &str) -> io::Result<NewFile<'_>> {
        let file = self.create_anew(temporary, 0o600)?;
        Ok(NewFile::of(self.as_fd(), temporary.into(), file))
    }

    /// Give a file another name, in the place of what had that.
    ///
    /// # Errors
    /// There is none.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (component(from.as_ref())?, component(to.as_ref())?);
        Ok(renameat(&self.0.fd, from, &self.0.fd, to)?)
    }

    /// Exchange a file with one in another directory.
    ///
    /// # Errors
    /// One is not there; the file system can't (EINVAL, ENOSYS, EOPNOTSUPP).
    pub fn exchange(&self, name: &str, with: &Self, other: &str) -> io::Result<()> {
        let (name, other) = (component(name.as_ref())?, component(other.as_ref())?);
        Ok(renameat_with(self, name, with, other, RenameFlags::EXCHANGE)?)
    }

    /// Move a file into another directory, in the place of what had the name there.
    ///
    /// # Errors
    /// There is none.
    pub fn move_to(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        Ok(renameat(self, component(name.as_ref())?, to, component(new.as_ref())?)?)
    }

    /// Remove a file.
    ///
    /// # Errors
    /// There is none; it is a directory.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.unmark(name)
    }

    /// Remove a file, if there is one.
    ///
    /// # Errors
    /// It is a directory; the file system is read-only.
    pub fn remove_if_there(&self, name: &str) -> io::Result<()> {
        match self.remove(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Make a symbolic link.
    ///
    /// # Errors
    /// The name is taken; no space.
    pub fn symlink(&self, name: &str, target: &Path) -> io::Result<()> {
        Ok(symlinkat(target, self, component(name.as_ref())?)?)
    }

    /// Give a file of this directory a name in another, too.
    ///
    /// # Errors
    /// It is no plain file; the file system has no hard links or no more of them; the name is
    /// taken.
    pub fn link(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        let name = component(name.as_ref())?;
        plain_file(&statat(&self.0.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)?;
        Ok(linkat(&self.0.fd, name, &to.0.fd, component(new.as_ref())?, AtFlags::empty())?)
    }

    /// Change a file's mode, all of its nine bits.
    ///
    /// # Errors
    /// It is no plain file of the user's.
    pub fn set_mode(&self, name: &str, mode: u32) -> io::Result<()> {
        let file = match self.plain(name, OFlags::RDONLY, 0) {
            // One that its owner may not read: the owner may say so all the same.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                self.plain(name, OFlags::WRONLY, 0)?
            }
            file => file?,
        };
        Ok(fchmod(&file, Mode::from_raw_mode(mode & 0o777))?)
    }

    /// fsync(2): the names in it are on the medium.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sync(&self) -> io::Result<()> {
        fault::point("sync of a directory");
        Ok(rustix::fs::fsync(&self.0.fd)?)
    }

    /// Whether this is what `path` leads to now.
    pub fn is_at(&self, path: &Path) -> bool {
        let same = |a: Stat, b: Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        match (fstat(&self.0.fd), statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)) {
            (Ok(held), Ok(named)) => same(held, named),
            _ => false,
        }
    }

    /// Whether somebody holds a file's flock exclusively. Without the file nobody does.
    ///
    /// # Errors
    /// It is no plain file of the user's.
    pub fn is_held(&self, name: &str) -> io::Result<bool> {
        let file = match self.plain(name, OFlags::RDONLY, 0) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A path to something in it that is valid while this is held, whatever its own path leads to:
    /// short enough for sockaddr_un, and for a child that inherits nothing else.
    pub fn through(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.fd.as_raw_fd()))
    }
}

/// A file that is being written ([`Owned::begin`]). It goes when this does, unless it has its name:
/// what could not be written takes no space.
#[derive(Debug)]
pub struct NewFile<'a> {
    dir: BorrowedFd<'a>,
    temporary: OsString,
    placed: bool,
    /// For reading and writing.
    pub file: File,
}

impl<'a> NewFile<'a> {
    /// That is called `temporary` in this directory.
    pub(super) fn of(dir: BorrowedFd<'a>, temporary: OsString, file: File) -> Self {
        Self { dir, temporary, placed: false, file }
    }

    /// Change its mode, all of its nine bits.
    ///
    /// # Errors
    /// I/O errors.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.file, Mode::from_raw_mode(mode & 0o777))?)
    }

    /// Give it its name, in the place of what had that. What is in it is on the medium if the
    /// caller has synced it.
    ///
    /// # Errors
    /// A directory has the name; I/O errors.
    pub fn place(mut self, name: impl AsRef<OsStr>) -> io::Result<()> {
        renameat(self.dir, &self.temporary, self.dir, component(name.as_ref())?)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _ = unlinkat(self.dir, &self.temporary, AtFlags::empty());
        }
    }
}

/// [`Owned::create`] in the directory that the path leads through.
///
/// # Errors
/// As [`Owned::open`]'s and [`Owned::create`]'s.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    Owned::open(path.parent().unwrap_or(path))?.create(name, mode)
}

/// The directory at `path` as the effective user's.
///
/// # Errors
/// As [`Owned::open`]'s, in words.
pub fn owned(path: &Path) -> Result<Owned> {
    Owned::open(path).or_fail(|| format!("use {}", path.display()))
}

/// What is locked or appended to has no name where somebody else expects something else of it.
fn only_name(file: &File) -> io::Result<()> {
    if fstat(file)?.st_nlink <= 1 {
        return Ok(());
    }
    let why = "it is a hard link of another file; it is not written";
    Err(io::Error::new(ErrorKind::InvalidInput, why))
}
