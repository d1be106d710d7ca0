//! ext2, ext3 and ext4, for reading only and from untrusted bytes, as they are once their journal
//! is replayed.
//!
//! Nothing is written: [`journal`] and [`fast_commit`] tell which blocks, inodes and names count
//! instead of those in their places. Checksums of metadata are not compared, as GRUB does not;
//! whatever is impossible is an error, and every table, loop and allocation is bounded.
//! (Documentation/filesystems/ext4)

mod bytes;
mod directory;
mod error;
mod fast_commit;
mod file_system;
mod inode;
mod journal;
mod map;
mod path;
mod replayed;
mod run;
mod superblock;
#[cfg(test)]
mod tests;

pub use directory::Kind;
pub use error::Error;
pub use file_system::{Ext4, ReadAt};
pub use path::Stat;

use fast_commit::FastCommits;
use replayed::Replayed;
use std::cell::RefCell;
use superblock::Superblock;

impl Ext4 {
    /// Open the file system whose bytes `read` reads.
    ///
    /// # Errors
    /// It is none, or uses a feature that can't be read, by name. A journal that can't be replayed
    /// is no error: [`Ext4::unreplayed`].
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
}
