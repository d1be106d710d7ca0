//! A file system's blocks, wherever the journal has them.

use super::error::{Error, Result};
use super::fast_commit::FastCommits;
use super::replayed::{self, Replayed};
use super::superblock::Superblock;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// What reads bytes from an offset of a file system.
pub type ReadAt = dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Blocks that are kept: inode tables and directories are read again and again.
const KEPT: usize = 32;
/// A file system.
pub struct Ext4 {
    pub(super) read: Box<ReadAt>,
    pub(super) superblock: Superblock,
    pub(super) replayed: Replayed,
    pub(super) fast: FastCommits,
    pub(super) unreplayed: Option<String>,
    pub(super) kept: RefCell<VecDeque<(u64, Rc<[u8]>)>>,
}

impl Ext4 {
    /// Why the journal of a file system that was not unmounted could not be replayed: what is read
    /// is as it was written last, in whatever order.
    pub fn unreplayed(&self) -> Option<&str> {
        self.unreplayed.as_deref()
    }

    /// Its UUID, as text.
    pub fn uuid(&self) -> String {
        self.superblock.uuid()
    }

    /// Its label; empty if it has none.
    pub fn label(&self) -> &str {
        &self.superblock.label
    }

    pub(super) fn block_size(&self) -> u64 {
        self.superblock.block_size
    }

    /// A whole block.
    pub(super) fn block(&self, number: u64) -> Result<Rc<[u8]>> {
        let mut kept = self.kept.borrow_mut();
        if let Some(at) = kept.iter().position(|(n, _)| *n == number)
            && let Some(found) = kept.remove(at)
        {
            kept.push_front(found.clone());
            return Ok(found.1);
        }
        let mut bytes = vec![0; self.block_size() as usize];
        self.read_blocks(number, &mut bytes)?;
        let bytes: Rc<[u8]> = bytes.into();
        kept.truncate(KEPT - 1);
        kept.push_front((number, Rc::clone(&bytes)));
        Ok(bytes)
    }

    /// Fill `bytes` from block `first` on, whatever place the journal says it is in.
    pub(super) fn read_blocks(&self, first: u64, bytes: &mut [u8]) -> Result<()> {
        let size = self.block_size();
        let beyond = || Error::new("a block lies beyond the end of the file system");
        let count = (bytes.len() as u64).div_ceil(size);
        let end = first.checked_add(count).filter(|end| *end <= self.superblock.blocks);
        let end = end.ok_or_else(beyond)?;
        let read = |bytes: &mut [u8], block: u64| {
            let at = block.checked_mul(size).ok_or_else(beyond)?;
            (self.read)(bytes, at).map_err(|why| Error::new(why.to_string()))
        };
        if self.replayed.blocks.range(first..end).next().is_none() {
            return read(bytes, first);
        }
        for (number, bytes) in (first..).zip(bytes.chunks_mut(size as usize)) {
            match self.replayed.blocks.get(&number) {
                None => read(bytes, number)?,
                Some(place) => {
                    read(bytes, place.block)?;
                    if let (true, Some(magic)) = (place.escaped, bytes.get_mut(..4)) {
                        magic.copy_from_slice(&replayed::MAGIC.to_be_bytes());
                    }
                }
            }
        }
        Ok(())
    }
}
