//! Files by their paths. Names are found in upper and lower case alike.

use super::chain::{Fat, Result};
use super::directory::Entry;
use crate::ext4::{Error, Kind};
use std::ops::ControlFlow;

/// Most directories within directories.
const MAX_DEPTH: usize = 64;

impl Fat {
    /// What is at `path`, and its bytes.
    ///
    /// # Errors
    /// There is nothing, or it can't be found out.
    pub fn stat(&self, path: &str) -> Result<(Kind, u64)> {
        let found = self.resolve(path)?;
        let kind = if found.directory { Kind::Directory } else { Kind::File };
        Ok((kind, u64::from(found.len)))
    }

    /// The content of a file of at most `limit` bytes.
    ///
    /// # Errors
    /// There is no such file, it is none, or it can't be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let file = self.file(path)?;
        let len = u64::from(file.len);
        if len > limit {
            let why = format!("it has {len} bytes, more than the {limit} that are read");
            return Err(Error::Unreadable(why));
        }
        self.content(&file, 0, len)
    }

    /// `len` bytes of a file from offset `at` on.
    ///
    /// # Errors
    /// As [`Fat::read`]'s; it does not have so many.
    pub fn read_range(&self, path: &str, at: u64, len: u64) -> Result<Vec<u8>> {
        let file = self.file(path)?;
        match at.checked_add(len) {
            Some(end) if end <= u64::from(file.len) => self.content(&file, at, len),
            _ => Err(Error::Unreadable("it ends too early".into())),
        }
    }

    /// Tell the names in a directory until `visit` has enough of it.
    ///
    /// # Errors
    /// It is none, or can't be read to its end.
    pub fn list(&self, path: &str, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<()> {
        let directory = self.resolve(path)?;
        if !directory.directory {
            return Err(Error::Absent);
        }
        self.entries(directory.first, &mut |entry| visit(&entry.name))
    }

    fn file(&self, path: &str) -> Result<Entry> {
        let found = self.resolve(path)?;
        match found.directory {
            true => Err(Error::Unreadable("it is a directory".into())),
            false => Ok(found),
        }
    }

    fn content(&self, file: &Entry, at: u64, len: u64) -> Result<Vec<u8>> {
        // Nothing is allocated that the file system has no room for.
        let clusters = u64::from(self.geometry.end);
        if u64::from(file.len) > clusters * self.geometry.cluster {
            return Err(Error::Unreadable("it is longer than its file system".into()));
        }
        let mut bytes = vec![0; len as usize];
        self.read_chain(file.first, at, &mut bytes)?;
        Ok(bytes)
    }

    fn resolve(&self, path: &str) -> Result<Entry> {
        let root =
            Entry { name: String::new(), short: String::new(), directory: true, first: 0, len: 0 };
        let mut above = vec![root];
        for name in path.split('/') {
            match name {
                "" | "." => continue,
                ".." => {
                    above.truncate((above.len() - 1).max(1));
                    continue;
                }
                _ if above.len() > MAX_DEPTH => {
                    return Err(Error::Unreadable("its path is too deep".into()));
                }
                _ => {}
            }
            let directory = above.last().filter(|entry| entry.directory).ok_or(Error::Absent)?;
            let found = self.child(directory.first, name)?;
            above.push(found);
        }
        above.pop().ok_or(Error::Absent)
    }

    fn child(&self, directory: u32, name: &str) -> Result<Entry> {
        let wanted = name.to_lowercase();
        let mut found = None;
        self.entries(directory, &mut |entry| {
            if entry.name.to_lowercase() != wanted && entry.short.to_lowercase() != wanted {
                return ControlFlow::Continue(());
            }
            found = Some(entry);
            ControlFlow::Break(())
        })?;
        found.ok_or(Error::Absent)
    }
}
