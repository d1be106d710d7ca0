//! ext2, ext3 and ext4, for reading only and from untrusted bytes, as they are once their journal is replayed.
//!
//! Nothing is written: [`journal`] and [`fast_commit`] tell which blocks, inodes and names count instead of those in their
//! places. Checksums of metadata are not compared, as GRUB does not; whatever is impossible is an error, and every table,
//! loop and allocation is bounded. (Documentation/filesystems/ext4)

mod bytes;
mod directory;
mod fast_commit;
mod inode;
mod journal;
mod map;
mod path;
mod superblock;
#[cfg(test)]
mod tests;

pub use directory::Kind;
pub use path::Stat;

use fast_commit::FastCommits;
use journal::Replayed;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use superblock::Superblock;

/// What reads bytes from an offset of a file system.
pub type ReadAt = dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Blocks that are kept: inode tables and directories are read again and again.
const KEPT: usize = 32;
/// Bytes of a file that are read at once.
const PIECE: u64 = 64 << 10;

/// Why something can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is not there.
    Absent,
    /// It is there, but…
    Unreadable(String),
}

impl Error {
    fn new(why: impl Into<String>) -> Self {
        Self::Unreadable(why.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// A file system.
pub struct Ext4 {
    read: Box<ReadAt>,
    superblock: Superblock,
    replayed: Replayed,
    fast: FastCommits,
    unreplayed: Option<String>,
    kept: RefCell<VecDeque<(u64, Rc<[u8]>)>>,
}

impl Ext4 {
    /// Open the file system whose bytes `read` reads.
    ///
    /// # Errors
    /// It is none, or uses a feature that can't be read, by name. A journal that can't be replayed is no error:
    /// [`Ext4::unreplayed`].
    pub fn open(read: Box<ReadAt>) -> std::result::Result<Self, String> {
        let mut bytes = vec![0; superblock::LEN];
        read(&mut bytes, superblock::AT).map_err(|why| format!("no superblock: {why}"))?;
        let superblock = Superblock::parse(&bytes)?;
        let mut ext4 = Self {
            read,
            superblock,
            replayed: Replayed::default(),
            fast: FastCommits::default(),
            unreplayed: None,
            kept: RefCell::default(),
        };
        if ext4.superblock.needs_recovery() {
            match journal::replay(&ext4) {
                Ok(replayed) => ext4.take(replayed),
                Err(why) => ext4.unreplayed = Some(why.to_string()),
            }
        }
        Ok(ext4)
    }

    /// From now on, what the journal has counts.
    fn take(&mut self, replayed: Replayed) {
        self.replayed = replayed;
        self.kept.take();
        let mut bytes = vec![0; superblock::LEN];
        let block = superblock::AT / self.superblock.block_size;
        let within = (superblock::AT % self.superblock.block_size) as usize;
        if let Ok(found) = self.block(block)
            && let Some(found) = found.get(within..within + superblock::LEN)
        {
            bytes.copy_from_slice(found);
            // A superblock that can't be read is not put in the place of one that can.
            if let Ok(new) = Superblock::parse(&bytes)
                && new.block_size == self.superblock.block_size
            {
                self.superblock = new;
            }
        }
        self.fast = FastCommits::parse(&self.replayed.fast, self.replayed.next);
        self.replayed.fast = Vec::new();
    }

    /// Why the journal of a file system that was not unmounted could not be replayed: what is read is as it was
    /// written last, in whatever order.
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

    fn block_size(&self) -> u64 {
        self.superblock.block_size
    }

    /// A whole block.
    fn block(&self, number: u64) -> Result<Rc<[u8]>> {
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
    fn read_blocks(&self, first: u64, bytes: &mut [u8]) -> Result<()> {
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
                        magic.copy_from_slice(&journal::MAGIC.to_be_bytes());
                    }
                }
            }
        }
        Ok(())
    }
}
