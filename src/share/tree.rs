//! The shared directory: how the server gets at what is in it, and at nothing else.
//!
//! Each path begins at the directory and follows no symbolic link, the last entry's included: the
//! guest resolves those itself, in its own files. No path leads up. (openat2(2))

use super::nodes::{Identity, Nodes};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// What no path of the guest's does.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// What a file of the guest's is opened with whatever it asks for: a FIFO or a terminal that the
/// host puts in its place keeps nobody waiting.
const OURS: OFlags =
    OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// What is asked of every file: what Linux has for all, and when it was made.
const ATTRIBUTES: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// The attributes of an open file.
///
/// # Errors
/// Those of statx(2).
pub fn attributes(file: impl AsFd) -> Result<Statx, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH, ATTRIBUTES)
}

/// The attributes of a directory's entry, which may be a symbolic link.
///
/// # Errors
/// Those of statx(2).
pub fn entry(directory: impl AsFd, name: &CStr) -> Result<Statx, Errno> {
    statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, ATTRIBUTES)
}

/// The type of a file with these attributes. (S_IFMT)
pub fn kind(found: &Statx) -> u32 {
    u32::from(found.stx_mode) & libc::S_IFMT
}

/// The shared directory and what the guest knows of it.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// What the guest knows.
    pub nodes: Nodes,
}

impl Tree {
    /// The tree below a directory.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, nodes: Nodes::default() }
    }

    /// Forgets what the guest knows.
    pub fn forget_all(&mut self) {
        self.nodes = Nodes::default();
    }

    /// A file that the guest knows, as a place and not to be read (O_PATH), and its attributes.
    ///
    /// # Errors
    /// It is not there any more, or another (ESTALE).
    pub fn find(&self, node: u64) -> Result<(OwnedFd, Statx), Errno> {
        self.open(node, OFlags::PATH)
    }

    /// A directory that the guest knows, as a place.
    ///
    /// # Errors
    /// As [`Tree::find`].
    pub fn directory(&self, node: u64) -> Result<OwnedFd, Errno> {
        Ok(self.open(node, OFlags::PATH | OFlags::DIRECTORY)?.0)
    }

    /// A file or directory that the guest knows, to be read or written.
    ///
    /// # Errors
    /// As [`Tree::find`]; it is neither of both (ENXIO), or may not be opened so.
    pub fn open_file(&self, node: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        // To open a device may do something.
        let known = self.nodes.identity(node)?.map_or(libc::S_IFDIR, |identity| identity.kind());
        if !matches!(known, libc::S_IFREG | libc::S_IFDIR) {
            return Err(Errno::NXIO);
        }
        Ok(self.open(node, flags)?.0)
    }

    fn open(&self, node: u64, flags: OFlags) -> Result<(OwnedFd, Statx), Errno> {
        let path = self.nodes.path(node)?;
        let file = self.open_at(&self.root, &*path, flags, Mode::empty())?;
        let found = attributes(&file)?;
        match self.nodes.identity(node)? {
            Some(identity) if identity != Identity::of(&found) => Err(Errno::STALE),
            _ => Ok((file, found)),
        }
    }

    /// A new file in a directory, or the one that has this name, with its attributes.
    ///
    /// # Errors
    /// It can't be made or opened; it is no regular file (EPERM).
    pub fn create(
        &self,
        directory: &OwnedFd,
        name: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<(OwnedFd, Statx), Errno> {
        let file = self.open_at(directory, name, flags | OFlags::CREATE, mode)?;
        let found = attributes(&file)?;
        match kind(&found) {
            libc::S_IFREG => Ok((file, found)),
            _ => Err(Errno::PERM),
        }
    }

    fn open_at(
        &self,
        directory: &OwnedFd,
        path: impl rustix::path::Arg,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        // O_PATH goes with few others. (open(2))
        let ours = match flags.contains(OFlags::PATH) {
            true => OFlags::CLOEXEC | OFlags::NOFOLLOW,
            false => OURS,
        };
        openat2(directory, path, flags | ours, mode, BENEATH)
    }

    /// The shared directory itself.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }
}
