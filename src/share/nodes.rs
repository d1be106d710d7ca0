//! The files that the guest has looked at: each is a number for it, and here a name in a directory.
//!
//! No descriptor is kept of them, so that a guest which looks at all there is takes some hundred
//! bytes a file and no more. What a name leads to is compared each time with what the guest was
//! told of: a file that the host has put in its place is another, and the guest looks again
//! (ESTALE).

use super::fuse::ROOT;
use rustix::fs::Statx;
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;

/// Most files that a guest has looked at and not forgotten; with the longest names they take some
/// 250 MiB.
const MAX_NODES: usize = 512 << 10;
/// Most directories above a file. A path has PATH_MAX bytes at most.
const MAX_DEPTH: usize = 2048;

/// What a file is by, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
    /// When it was made, where the file system tells: an inode's number may be used again.
    born: (i64, u32),
    kind: u16,
}

impl Identity {
    /// That of a file with these attributes.
    pub fn of(found: &Statx) -> Self {
        Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
            kind: found.stx_mode & libc::S_IFMT as u16,
        }
    }

    /// The file's type. (S_IFMT)
    pub fn kind(&self) -> u32 {
        self.kind.into()
    }
}

/// A file as the guest knows it.
#[derive(Debug)]
struct Node {
    /// The directory that it was found in.
    parent: u64,
    /// Its name there.
    name: Box<[u8]>,
    identity: Identity,
    /// How often the guest was told of it.
    lookups: u64,
}

/// All of them, but for the shared directory itself.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<Identity, u64>,
    /// How many there have ever been: numbers are not used again.
    made: u64,
}

impl Nodes {
    /// The number of what was found in a directory under this name. The guest is told of it.
    ///
    /// # Errors
    /// There are too many.
    pub fn found(&mut self, parent: u64, name: &[u8], identity: Identity) -> Result<u64, Errno> {
        if let Some(number) = self.numbers.get(&identity)
            && let Some(node) = self.nodes.get_mut(number)
        {
            node.lookups = node.lookups.saturating_add(1);
            node.place(parent, name);
            return Ok(*number);
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(Errno::NFILE);
        }
        self.made += 1;
        let number = ROOT + self.made;
        self.numbers.insert(identity, number);
        self.nodes.insert(number, Node { parent, name: name.into(), identity, lookups: 1 });
        Ok(number)
    }

    /// What the guest was told that it is; `None` of the shared directory.
    ///
    /// # Errors
    /// There is no such file (ESTALE).
    pub fn identity(&self, number: u64) -> Result<Option<Identity>, Errno> {
        match self.nodes.get(&number) {
            Some(node) => Ok(Some(node.identity)),
            None if number == ROOT => Ok(None),
            None => Err(Errno::STALE),
        }
    }

    /// Its path below the shared directory.
    ///
    /// # Errors
    /// There is no such file, or none of a directory above it (ESTALE).
    pub fn path(&self, number: u64) -> Result<Vec<u8>, Errno> {
        if number == ROOT {
            return Ok(b".".to_vec());
        }
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = number;
        while at != ROOT {
            let node = self.nodes.get(&at).ok_or(Errno::STALE)?;
            // The host can move directories so that what we know of them is a circle.
            if names.len() >= MAX_DEPTH {
                return Err(Errno::STALE);
            }
            names.push(&node.name);
            at = node.parent;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// The directory that it was found in, and its name there; `None` of the shared directory.
    ///
    /// # Errors
    /// There is no such file (ESTALE).
    pub fn place(&self, number: u64) -> Result<Option<(u64, CString)>, Errno> {
        match self.nodes.get(&number) {
            Some(node) => {
                let name = CString::new(&*node.name).map_err(|_| Errno::INVAL)?;
                Ok(Some((node.parent, name)))
            }
            None if number == ROOT => Ok(None),
            None => Err(Errno::STALE),
        }
    }

    /// The guest was told of it so many times less.
    pub fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(times);
        if node.lookups == 0
            && let Some(node) = self.nodes.remove(&number)
            && self.numbers.get(&node.identity) == Some(&number)
        {
            self.numbers.remove(&node.identity);
        }
    }

    /// A file has another place now.
    pub fn moved(&mut self, identity: Identity, parent: u64, name: &[u8]) {
        if let Some(node) = self.numbers.get(&identity).and_then(|n| self.nodes.get_mut(n)) {
            node.place(parent, name);
        }
    }

    /// Nothing leads to this file any more, and another may come to have its inode.
    pub fn gone(&mut self, identity: Identity) {
        self.numbers.remove(&identity);
    }
}

impl Node {
    fn place(&mut self, parent: u64, name: &[u8]) {
        self.parent = parent;
        if *self.name != *name {
            self.name = name.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity { device: (8, 1), inode, born: (0, 0), kind: libc::S_IFDIR as u16 }
    }

    #[test]
    fn a_file_is_known_until_it_is_forgotten_as_often_as_it_was_told_of() {
        let mut nodes = Nodes::default();
        let a = nodes.found(ROOT, b"a", identity(1)).unwrap();
        let b = nodes.found(a, b"b", identity(2)).unwrap();
        assert_eq!(nodes.path(ROOT).unwrap(), b".");
        assert_eq!(nodes.path(b).unwrap(), b"a/b");
        assert_eq!(nodes.found(ROOT, b"c", identity(2)), Ok(b), "by its other name");
        assert_eq!(nodes.path(b).unwrap(), b"c");
        nodes.forget(b, 1);
        assert!(nodes.path(b).is_ok());
        nodes.forget(b, 7);
        assert_eq!(nodes.path(b), Err(Errno::STALE));
        assert_ne!(nodes.found(ROOT, b"c", identity(2)), Ok(b), "a number is not used again");
        nodes.forget(ROOT, u64::MAX);
        nodes.forget(99, 1);
    }

    #[test]
    fn directories_in_a_circle_and_lost_ones_end() {
        let mut nodes = Nodes::default();
        let a = nodes.found(ROOT, b"a", identity(1)).unwrap();
        let b = nodes.found(a, b"b", identity(2)).unwrap();
        nodes.moved(identity(1), b, b"a");
        assert_eq!(nodes.path(a), Err(Errno::STALE));
        nodes.moved(identity(1), ROOT, b"a");
        assert_eq!(nodes.path(b).unwrap(), b"a/b");
        nodes.forget(a, 1);
        assert_eq!(nodes.path(b), Err(Errno::STALE));
        nodes.gone(identity(2));
        let next = nodes.found(ROOT, b"b", identity(2)).unwrap();
        assert_ne!(next, b);
        nodes.forget(b, 1);
        assert_eq!(nodes.found(ROOT, b"b", identity(2)), Ok(next), "its own goes on");
    }
}
