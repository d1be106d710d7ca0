//! What the guest has open.

use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Most files and directories that a guest may have open of one share: the VMM has a descriptor
/// of each file, too.
const MAX_OPEN: usize = 4096;

/// An open file or directory.
#[derive(Debug)]
pub struct Handle {
    /// Which one.
    pub node: u64,
    /// Where it is.
    pub file: OwnedFd,
}

/// All of them, by the numbers that the guest has; 0 is none.
#[derive(Debug, Default)]
pub struct Handles {
    open: BTreeMap<u64, Handle>,
    made: u64,
}

impl Handles {
    /// Whether there may be one more.
    ///
    /// # Errors
    /// EMFILE.
    pub fn check_room(&self) -> Result<(), Errno> {
        if self.open.len() < MAX_OPEN { Ok(()) } else { Err(Errno::MFILE) }
    }

    /// A new handle's number.
    pub fn add(&mut self, handle: Handle) -> u64 {
        self.made += 1;
        self.open.insert(self.made, handle);
        self.made
    }

    /// The handle of this number.
    ///
    /// # Errors
    /// EBADF.
    pub fn get(&self, number: u64) -> Result<&Handle, Errno> {
        self.open.get(&number).ok_or(Errno::BADF)
    }

    /// An open file of this node: it may have no name any more.
    pub fn of(&self, node: u64) -> Option<&Handle> {
        self.open.values().find(|handle| handle.node == node)
    }

    /// The guest has closed it.
    pub fn close(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// The guest has closed all of them.
    pub fn close_all(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_so_many_files_open_and_no_more() {
        let mut handles = Handles::default();
        let open = |handles: &mut Handles, node| {
            let file = std::fs::File::open("/dev/null").unwrap().into();
            handles.add(Handle { node, file })
        };
        let first = open(&mut handles, 7);
        assert!(handles.check_room().is_ok());
        assert_eq!(handles.of(7).map(|handle| handle.node), Some(7));
        handles.close(first);
        assert_eq!(handles.get(first).err(), Some(Errno::BADF));
        // Each is one descriptor, of which a test has fewer.
        for number in 0..MAX_OPEN as u64 {
            let one = std::fs::File::open("/dev/null").map(OwnedFd::from);
            let Ok(file) = one else { return };
            handles.open.insert(number + 10, Handle { node: 1, file });
        }
        assert_eq!(handles.check_room(), Err(Errno::MFILE));
        handles.close_all();
        assert!(handles.check_room().is_ok());
    }
}
