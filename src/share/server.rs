//! What is done for each request of a guest's.

use super::attributes::{Changes, Owner, attr_out, entry_out, permissions};
use super::fuse::{Fields, MAJOR, MINOR, init, op, set};
use super::handles::{Handle, Handles};
use super::listing::{self, Wish};
use super::nodes::Identity;
use super::tree::{self, Tree, attributes, kind};
use super::wire::{Answer, MAX_DATA, Request};
use rustix::fs::{
    AtFlags, FallocateFlags, OFlags, RenameFlags, SeekFrom, Statx, Timestamps, fallocate, fchmod,
    fdatasync, fstatvfs, fsync, ftruncate, futimens, linkat, mkdirat, readlinkat, renameat_with,
    seek, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a page of guest memory.
const PAGE: u32 = 4096;
/// What a guest may say of how a file is opened; the rest is its own kernel's.
const FLAGS: OFlags = OFlags::ACCMODE
    .union(OFlags::APPEND)
    .union(OFlags::EXCL)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC);
/// FOPEN_KEEP_CACHE and the like: none.
const OPEN_FLAGS: [u8; 8] = [0; 8];

/// What goes back to the guest.
#[derive(Debug, Default)]
pub struct Reply {
    payload: Vec<u8>,
    /// What was opened.
    handle: u64,
}

impl From<Vec<u8>> for Reply {
    fn from(payload: Vec<u8>) -> Self {
        Self { payload, handle: 0 }
    }
}

type Replied = Result<Reply, Errno>;

/// A server of one directory for one guest.
#[derive(Debug)]
pub struct Server {
    tree: Tree,
    handles: Handles,
    owner: Owner,
    read_only: bool,
}

impl Server {
    /// The server of a directory. Of one that is `read_only` the guest changes nothing.
    pub fn new(root: OwnedFd, read_only: bool) -> Self {
        let (tree, handles) = (Tree::new(root), Handles::default());
        Self { tree, handles, owner: Owner::own(), read_only }
    }

    /// Does what is asked for. `None`: there is no answer to it.
    pub fn serve(&mut self, request: &Request<'_>) -> Option<Answer> {
        let fields = Fields(request.body);
        match request.opcode {
            op::FORGET => {
                self.forget(request.node, fields);
                return None;
            }
            op::BATCH_FORGET => {
                self.forget_all(fields);
                return None;
            }
            op::RELEASE | op::RELEASEDIR => {
                self.release(fields);
                return None;
            }
            op::DESTROY => {
                self.begin_anew();
                return None;
            }
            _ => {}
        }
        let number = request.number;
        Some(match self.dispatch(request, fields) {
            Ok(Reply { payload, handle }) if payload.len() <= request.room as usize => {
                Answer { number, handle, errno: 0, payload }
            }
            Ok(Reply { handle, .. }) => {
                self.handles.close(handle);
                Answer { number, errno: Errno::RANGE.raw_os_error(), ..Answer::default() }
            }
            Err(errno) => Answer { number, errno: errno.raw_os_error(), ..Answer::default() },
        })
    }

    /// The file that an answer comes with.
    pub fn file(&self, answer: &Answer) -> Option<BorrowedFd<'_>> {
        let handle = self.handles.get(answer.handle).ok()?;
        let found = attributes(&handle.file).ok()?;
        (kind(&found) == libc::S_IFREG).then(|| handle.file.as_fd())
    }

    fn dispatch(&mut self, request: &Request<'_>, mut fields: Fields<'_>) -> Replied {
        let (node, opcode) = (request.node, request.opcode);
        let f = &mut fields;
        if self.read_only && changes(opcode) {
            return Err(Errno::ROFS);
        }
        match opcode {
            op::INIT => self.init(f),
            op::LOOKUP => self.lookup(node, f.name()?),
            op::GETATTR => {
                let (flags, _, handle) = (f.u32()?, f.u32()?, f.u64()?);
                self.getattr(node, (flags & 1 != 0).then_some(handle))
            }
            op::SETATTR => self.setattr(node, &Changes::parse(request.body)?),
            op::READLINK => self.readlink(node),
            op::OPEN => self.open(node, f.u32()?),
            op::CREATE => {
                let (flags, mode, _, _) = (f.u32()?, f.u32()?, f.u32()?, f.u32()?);
                self.create(node, f.name()?, flags, mode)
            }
            op::OPENDIR => self.opendir(node),
            op::READDIR | op::READDIRPLUS => {
                let (handle, offset, size) = (f.u64()?, f.u64()?, f.u32()?);
                let size = size.min(request.room);
                self.readdir(handle, Wish { node, offset, size, plus: opcode == op::READDIRPLUS })
            }
            op::STATFS => self.statfs(),
            op::FSYNC | op::FSYNCDIR => {
                let (handle, flags) = (f.u64()?, f.u32()?);
                self.fsync(handle, flags & 1 != 0)
            }
            op::FALLOCATE => self.fallocate(f),
            op::LSEEK => {
                let (handle, offset, whence) = (f.u64()?, f.u64()?, f.u32()?);
                self.lseek(handle, offset, whence)
            }
            _ => self.change(request, fields),
        }
    }

    /// Does what changes a directory.
    fn change(&mut self, request: &Request<'_>, mut fields: Fields<'_>) -> Replied {
        let (node, opcode) = (request.node, request.opcode);
        let f = &mut fields;
        match opcode {
            op::SYMLINK => {
                let (name, target) = (f.name()?, f.text()?);
                let directory = self.tree.directory(node)?;
                symlinkat(target, &directory, name)?;
                self.tell(node, &directory, name)
            }
            op::MKNOD => {
                let mode = f.u32()?;
                f.u64().and(f.u32())?;
                self.mknod(node, mode, f.name()?)
            }
            op::MKDIR => {
                let (mode, _umask) = (f.u32()?, f.u32()?);
                let (directory, name) = (self.tree.directory(node)?, f.name()?);
                mkdirat(&directory, name, permissions(mode, libc::S_IFDIR))?;
                self.tell(node, &directory, name)
            }
            op::UNLINK => self.remove(node, f.name()?, AtFlags::empty()),
            op::RMDIR => self.remove(node, f.name()?, AtFlags::REMOVEDIR),
            op::RENAME => {
                let to = f.u64()?;
                self.rename((node, f.name()?), (to, f.name()?), 0)
            }
            op::RENAME2 => {
                let (to, flags, _) = (f.u64()?, f.u32()?, f.u32()?);
                self.rename((node, f.name()?), (to, f.name()?), flags)
            }
            op::LINK => {
                let other = f.u64()?;
                self.link(other, node, f.name()?)
            }
            // Among them extended attributes: none is passed on, in either direction. And FLUSH,
            // of which the guest is rid by that: what it wrote is with the host already.
            _ => Err(Errno::NOSYS),
        }
    }

    fn fallocate(&self, f: &mut Fields<'_>) -> Replied {
        let (handle, offset, len, mode) = (f.u64()?, f.u64()?, f.u64()?, f.u32()?);
        let handle = self.handles.get(handle)?;
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        fallocate(&handle.file, mode, offset, len)?;
        Ok(Reply::default())
    }

    fn begin_anew(&mut self) {
        self.tree.forget_all();
        self.handles.close_all();
    }

    fn init(&mut self, f: &mut Fields<'_>) -> Replied {
        let (major, minor, readahead, flags) = (f.u32()?, f.u32()?, f.u32()?, f.u32()?);
        self.begin_anew();
        if major < MAJOR || (major == MAJOR && minor < MINOR) {
            return Err(Errno::PROTO);
        }
        let wanted = init::ASYNC_READ
            | init::ATOMIC_O_TRUNC
            | init::BIG_WRITES
            | init::AUTO_INVAL_DATA
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES;
        let mut out = Vec::with_capacity(64);
        for field in [MAJOR, MINOR, readahead.min(MAX_DATA), flags & wanted] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        // Requests that the guest makes beforehand, and how many of them are a jam.
        for field in [64u16, 48] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let nanoseconds = 1u32;
        out.extend_from_slice(&MAX_DATA.to_le_bytes());
        out.extend_from_slice(&nanoseconds.to_le_bytes());
        out.extend_from_slice(&((MAX_DATA / PAGE) as u16).to_le_bytes());
        out.resize(64, 0);
        Ok(out.into())
    }

    /// The guest is told of an entry of this directory.
    fn tell(&mut self, node: u64, directory: &OwnedFd, name: &CStr) -> Replied {
        let found = tree::entry(directory, name)?;
        self.tell_of(node, name, &found)
    }

    fn tell_of(&mut self, node: u64, name: &CStr, found: &Statx) -> Replied {
        let number = self.tree.nodes.found(node, name.to_bytes(), Identity::of(found))?;
        Ok(entry_out(number, found, self.owner).into())
    }

    fn lookup(&mut self, node: u64, name: &CStr) -> Replied {
        let directory = self.tree.directory(node)?;
        self.tell(node, &directory, name)
    }

    fn forget(&mut self, node: u64, mut f: Fields<'_>) {
        if let Ok(times) = f.u64() {
            self.tree.nodes.forget(node, times);
        }
    }

    fn release(&mut self, mut f: Fields<'_>) {
        if let Ok(handle) = f.u64() {
            self.handles.close(handle);
        }
    }

    fn forget_all(&mut self, mut f: Fields<'_>) {
        let (Ok(_count), Ok(_)) = (f.u32(), f.u32()) else { return };
        while let (Ok(node), Ok(times)) = (f.u64(), f.u64()) {
            self.tree.nodes.forget(node, times);
        }
    }

    /// The attributes of an open file, or of one that is found; of one that is not found any more
    /// but is open, those.
    fn getattr(&self, node: u64, handle: Option<u64>) -> Replied {
        let found = match handle {
            Some(handle) => attributes(&self.handles.get(handle)?.file)?,
            None => match self.tree.find(node) {
                Ok((_, found)) => found,
                Err(errno) => attributes(&self.handles.of(node).ok_or(errno)?.file)?,
            },
        };
        Ok(attr_out(&found, self.owner).into())
    }

    fn setattr(&self, node: u64, changes: &Changes) -> Replied {
        let handle = changes.handle().map(|handle| self.handles.get(handle)).transpose()?;
        let handle = handle.filter(|handle| handle.node == node);
        let found = match handle {
            Some(handle) => attributes(&handle.file)?,
            None => self.tree.find(node)?.1,
        };
        changes.check_owner(&found, self.owner)?;
        if let Some(mode) = changes.mode(&found) {
            match handle {
                Some(handle) => fchmod(&handle.file, mode)?,
                None => fchmod(self.any_file(node)?, mode)?,
            }
        }
        if changes.has(set::SIZE) {
            match handle {
                Some(handle) => ftruncate(&handle.file, changes.size)?,
                None => {
                    ftruncate(self.tree.open_file(node, OFlags::WRONLY)?, changes.size)?;
                }
            }
        }
        if let Some(times) = changes.times() {
            match handle {
                Some(handle) => futimens(&handle.file, &times)?,
                None => self.set_times(node, &found, &times)?,
            }
        }
        self.getattr(node, changes.handle())
    }

    /// A file that may be read or written or both.
    fn any_file(&self, node: u64) -> Result<OwnedFd, Errno> {
        let readable = self.tree.open_file(node, OFlags::RDONLY);
        readable.or_else(|errno| match errno {
            Errno::ACCESS => self.tree.open_file(node, OFlags::WRONLY),
            _ => Err(errno),
        })
    }

    fn set_times(&self, node: u64, found: &Statx, times: &Timestamps) -> Result<(), Errno> {
        let place = self.tree.nodes.place(node)?;
        let Some((parent, name)) = place else {
            return futimens(self.tree.open_file(node, OFlags::RDONLY)?, times);
        };
        let directory = self.tree.directory(parent)?;
        // Whatever has the name now: it is an entry of the share.
        if Identity::of(&tree::entry(&directory, &name)?) != Identity::of(found) {
            return Err(Errno::STALE);
        }
        utimensat(&directory, &*name, times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn readlink(&self, node: u64) -> Replied {
        let (link, found) = self.tree.find(node)?;
        if kind(&found) != libc::S_IFLNK {
            return Err(Errno::INVAL);
        }
        Ok(readlinkat(&link, c"", Vec::new())?.into_bytes().into())
    }

    /// A regular file. Devices and pipes of a guest's have no place on the host.
    fn mknod(&mut self, node: u64, mode: u32, name: &CStr) -> Replied {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::PERM);
        }
        let directory = self.tree.directory(node)?;
        let flags = OFlags::WRONLY | OFlags::EXCL;
        let made = self.tree.create(&directory, name, flags, permissions(mode, libc::S_IFREG))?;
        self.tell_of(node, name, &made.1)
    }

    fn remove(&mut self, node: u64, name: &CStr, flags: AtFlags) -> Replied {
        let directory = self.tree.directory(node)?;
        let found = tree::entry(&directory, name)?;
        unlinkat(&directory, name, flags)?;
        // The last name, or a directory.
        if found.stx_nlink <= 1 || flags.contains(AtFlags::REMOVEDIR) {
            self.tree.nodes.gone(Identity::of(&found));
        }
        Ok(Reply::default())
    }

    fn rename(&mut self, from: (u64, &CStr), to: (u64, &CStr), flags: u32) -> Replied {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let (old, new) = (self.tree.directory(from.0)?, self.tree.directory(to.0)?);
        let moved = tree::entry(&old, from.1)?;
        let other = tree::entry(&new, to.1).ok();
        renameat_with(&old, from.1, &new, to.1, flags)?;
        let nodes = &mut self.tree.nodes;
        nodes.moved(Identity::of(&moved), to.0, to.1.to_bytes());
        if let Some(other) = other {
            let same = Identity::of(&other) == Identity::of(&moved);
            match flags.contains(RenameFlags::EXCHANGE) {
                true => nodes.moved(Identity::of(&other), from.0, from.1.to_bytes()),
                false if other.stx_nlink <= 1 && !same => nodes.gone(Identity::of(&other)),
                false => {}
            }
        }
        Ok(Reply::default())
    }

    fn link(&mut self, other: u64, node: u64, name: &CStr) -> Replied {
        let (parent, old) = self.tree.nodes.place(other)?.ok_or(Errno::PERM)?;
        let (from, to) = (self.tree.directory(parent)?, self.tree.directory(node)?);
        if Some(Identity::of(&tree::entry(&from, &old)?)) != self.tree.nodes.identity(other)? {
            return Err(Errno::STALE);
        }
        linkat(&from, &*old, &to, name, AtFlags::empty())?;
        self.tell(node, &to, name)
    }

    /// How a file is to be opened; what is read only is not opened otherwise.
    fn flags(&self, given: u32) -> Result<(OFlags, bool), Errno> {
        let given = OFlags::from_bits_retain(given);
        let writable = given & OFlags::ACCMODE != OFlags::RDONLY;
        if self.read_only && (writable || given.contains(OFlags::TRUNC)) {
            return Err(Errno::ROFS);
        }
        Ok((given & FLAGS, writable))
    }

    fn open(&mut self, node: u64, given: u32) -> Replied {
        let (flags, writable) = self.flags(given)?;
        self.handles.check_room()?;
        let file = self.tree.open_file(node, flags - OFlags::EXCL)?;
        if kind(&attributes(&file)?) != libc::S_IFREG {
            return Err(Errno::ISDIR);
        }
        if writable && given & libc::O_TRUNC.cast_unsigned() != 0 {
            ftruncate(&file, 0)?;
        }
        Ok(self.opened(Handle { node, file }, Vec::new()))
    }

    fn create(&mut self, node: u64, name: &CStr, given: u32, mode: u32) -> Replied {
        let (flags, writable) = self.flags(given)?;
        self.handles.check_room()?;
        let directory = self.tree.directory(node)?;
        let mode = permissions(mode, libc::S_IFREG);
        let (file, mut found) = self.tree.create(&directory, name, flags, mode)?;
        if writable && given & libc::O_TRUNC.cast_unsigned() != 0 {
            ftruncate(&file, 0)?;
            found = attributes(&file)?;
        }
        let number = self.tree.nodes.found(node, name.to_bytes(), Identity::of(&found))?;
        let entry = entry_out(number, &found, self.owner);
        Ok(self.opened(Handle { node: number, file }, entry))
    }

    fn opendir(&mut self, node: u64) -> Replied {
        self.handles.check_room()?;
        let file = self.tree.open_file(node, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(self.opened(Handle { node, file }, Vec::new()))
    }

    /// struct fuse_open_out behind what else is said.
    fn opened(&mut self, handle: Handle, mut payload: Vec<u8>) -> Reply {
        let handle = self.handles.add(handle);
        payload.extend_from_slice(&handle.to_le_bytes());
        payload.extend_from_slice(&OPEN_FLAGS);
        Reply { payload, handle }
    }

    fn readdir(&mut self, handle: u64, wish: Wish) -> Replied {
        let handle = self.handles.get(handle)?;
        let wish = Wish { node: handle.node, ..wish };
        let directory = handle.file.as_fd();
        Ok(listing::read(&mut self.tree, self.owner, directory, &wish)?.into())
    }

    /// struct fuse_statfs_out.
    fn statfs(&self) -> Replied {
        let found = fstatvfs(self.tree.root())?;
        let mut out = Vec::with_capacity(80);
        for field in [found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [found.f_bsize, found.f_namemax, found.f_frsize] {
            out.extend_from_slice(&u32::try_from(field).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.resize(80, 0);
        Ok(out.into())
    }

    fn fsync(&self, handle: u64, data_only: bool) -> Replied {
        let handle = self.handles.get(handle)?;
        match (self.read_only, data_only) {
            (true, _) => {}
            (false, true) => fdatasync(&handle.file)?,
            (false, false) => fsync(&handle.file)?,
        }
        Ok(Reply::default())
    }

    fn lseek(&self, handle: u64, offset: u64, whence: u32) -> Replied {
        let handle = self.handles.get(handle)?;
        // The guest's kernel knows the rest itself.
        let to = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(seek(&handle.file, to)?.to_le_bytes().to_vec().into())
    }
}

/// Whether a request changes what is shared, OPEN and CREATE apart, which say so themselves.
fn changes(opcode: u32) -> bool {
    matches!(
        opcode,
        op::SETATTR
            | op::SYMLINK
            | op::MKNOD
            | op::MKDIR
            | op::UNLINK
            | op::RMDIR
            | op::RENAME
            | op::RENAME2
            | op::LINK
            | op::CREATE
            | op::FALLOCATE
    )
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
