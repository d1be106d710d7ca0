//! Files by their paths.

use super::directory::Kind;
use super::error::{Error, Result};
use super::file_system::Ext4;
use super::inode::Inode;
use std::ops::ControlFlow;

/// The root directory's inode.
const ROOT: u32 = 2;
/// Links that are followed for one path, as Linux does. (path_resolution(7))
const MAX_LINKS: u32 = 40;
/// Longest target of a link. (PATH_MAX)
const MAX_TARGET: u64 = 4096;
/// Most directories within directories.
const MAX_DEPTH: usize = 512;

/// What a file is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub len: u64,
    inode: u32,
}

impl Stat {
    /// The number of its inode.
    pub fn number(&self) -> u32 {
        self.inode
    }
}

impl Ext4 {
    /// What is at `path`. Links are followed.
    ///
    /// # Errors
    /// There is nothing, or it can't be found out.
    pub fn stat(&self, path: &str) -> Result<Stat> {
        let inode = self.resolve(path)?;
        Ok(Stat { kind: Kind::of(inode.mode()), len: inode.size(), inode: inode.number })
    }

    /// The root directory.
    ///
    /// # Errors
    /// It can't be read.
    pub fn root(&self) -> Result<Stat> {
        self.stat("/")
    }

    /// The content of a file of at most `limit` bytes. Links are followed.
    ///
    /// # Errors
    /// There is no such file, it is none, or it can't be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let inode = self.file(path)?;
        let len = inode.size();
        if len > limit {
            let why = format!("it has {len} bytes, more than the {limit} that are read");
            return Err(Error::Unreadable(why));
        }
        self.content(&inode, len)
    }

    /// `len` bytes of a file from offset `at` on. Links are followed.
    ///
    /// # Errors
    /// As [`Ext4::read`]'s; it does not have so many.
    pub fn read_range(&self, path: &str, at: u64, len: u64) -> Result<Vec<u8>> {
        let inode = self.file(path)?;
        match at.checked_add(len) {
            Some(end) if end <= inode.size() => self.content_from(&inode, at, len),
            _ => Err(Error::new("it ends too early")),
        }
    }

    fn file(&self, path: &str) -> Result<Inode> {
        let inode = self.resolve(path)?;
        match Kind::of(inode.mode()) {
            Kind::File => Ok(inode),
            Kind::Directory => Err(Error::new("it is a directory")),
            Kind::Link | Kind::Other => Err(Error::new("it is no file")),
        }
    }

    /// Tell the names in a directory and what they are, links not followed, until `visit` has
    /// enough of it.
    ///
    /// # Errors
    /// It is none, or can't be read to its end.
    pub fn list(
        &self,
        directory: Stat,
        visit: &mut dyn FnMut(&[u8], Stat) -> ControlFlow<()>,
    ) -> Result<()> {
        let directory = self.inode(directory.inode)?;
        self.entries(&directory, &mut |name, number| {
            if name == b"." || name == b".." {
                return ControlFlow::Continue(());
            }
            // What has no inode is not there.
            let Ok(inode) = self.inode(number) else { return ControlFlow::Continue(()) };
            let kind = Kind::of(inode.mode());
            visit(name, Stat { kind, len: inode.size(), inode: number })
        })
    }

    fn child(&self, directory: &Inode, name: &[u8]) -> Result<Inode> {
        let mut found = None;
        self.entries(directory, &mut |entry, number| {
            if entry != name {
                return ControlFlow::Continue(());
            }
            found = Some(number);
            ControlFlow::Break(())
        })?;
        self.inode(found.ok_or(Error::Absent)?)
    }

    fn resolve(&self, path: &str) -> Result<Inode> {
        let mut above = vec![self.inode(ROOT)?];
        let mut links = 0;
        // What is still to be gone through, the next last.
        let names = |path: &[u8]| -> Vec<Vec<u8>> {
            path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
        };
        let mut pending = names(path.as_bytes());
        while let Some(name) = pending.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    above.truncate((above.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let Some(directory) = above.last() else { return Err(Error::Absent) };
            let found = self.child(directory, &name)?;
            if Kind::of(found.mode()) != Kind::Link {
                if above.len() >= MAX_DEPTH {
                    return Err(Error::new("its path is too deep"));
                }
                above.push(found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::new("too many symbolic links lead to it, or in a circle"));
            }
            let target = self.target(&found)?;
            if target.first() == Some(&b'/') {
                above.truncate(1);
            }
            if pending.len() > MAX_DEPTH {
                return Err(Error::new("its path is too deep"));
            }
            pending.extend(names(&target));
        }
        above.pop().ok_or(Error::Absent)
    }

    /// Where a link leads: a short one is in place of the block map.
    fn target(&self, link: &Inode) -> Result<Vec<u8>> {
        let len = link.size();
        if len > MAX_TARGET {
            return Err(Error::new("it is a symbolic link that is too long"));
        }
        if link.is_encrypted() {
            return Err(Error::new("it is an encrypted link"));
        }
        if len < link.map().len() as u64 && !link.has_extents() {
            return Ok(link.map()[..len as usize].to_vec());
        }
        self.content(link, len)
    }
}
