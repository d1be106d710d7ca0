//! The journal of a file system that was not unmounted: which blocks it has newer than they are in
//! their places.
//!
//! Nothing is copied; [`Replayed`] tells where in the journal a block's last committed version is.
//! All versions of the format are known: revocations, 64-bit numbers, both kinds of checksums, and
//! behind it the area of fast commits. (Documentation/filesystems/ext4/journal.rst;
//! fs/jbd2/recovery.c in Linux tells what is replayed)

use super::bytes::{be16, be32, crc32c};
use super::error::{Error, Result};
use super::file_system::Ext4;
use super::replayed::{MAGIC, Place, Replayed};
use super::run::Run;
use std::collections::BTreeMap;
use std::rc::Rc;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const WIDE: u32 = 0x2;
const CHECKSUM_V2: u32 = 0x8;
const CHECKSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
const KNOWN: u32 = 0x1 | WIDE | 0x4 | CHECKSUM_V2 | CHECKSUM_V3 | FAST_COMMIT;

const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;

/// Blocks of a journal at most: 4 GiB of 1 KiB; mke2fs makes none above 1 GiB.
const MAX_BLOCKS: u64 = 1 << 22;
/// Blocks that a journal may replace at most, and revoke.
const MAX_CHANGED: usize = 1 << 20;
/// Blocks for fast commits: what a journal that does not say has, and at most.
const FAST_BLOCKS: u64 = 256;
const MAX_FAST: u64 = 16 << 10;

/// Read the journal.
///
/// # Errors
/// There is none that can be read.
pub fn replay(ext4: &Ext4) -> Result<Replayed> {
    let journal = Journal::open(ext4)?;
    let mut replayed = Replayed::default();
    let Some(log) = journal.log()? else { return Ok(replayed) };
    let (tags, revoked) = (log.tags, log.revoked);
    for (tid, block, place) in tags {
        // A revocation holds for its own transaction and those before it.
        let newer = |revoked: &u32| (tid.wrapping_sub(*revoked) as i32) > 0;
        if revoked.get(&block).is_none_or(newer) {
            replayed.blocks.insert(block, place);
        }
    }
    replayed.next = log.next;
    replayed.fast = journal.fast()?;
    Ok(replayed)
}

pub(super) struct Journal<'a> {
    ext4: &'a Ext4,
    runs: Vec<Run>,
    /// The log: from its first block to before its last.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Blocks of all of it, the fast commits' area too.
    blocks: u64,
    pub(super) start: u64,
    sequence: u32,
    features: u32,
    /// What every checksum begins with.
    seed: u32,
}

/// What a log has committed.
#[derive(Default)]
struct Log {
    /// Transaction, block, and where it is, as they follow each other.
    tags: Vec<(u32, u64, Place)>,
    /// The last transaction that revoked a block.
    revoked: BTreeMap<u64, u32>,
    next: u32,
}

impl<'a> Journal<'a> {
    pub(super) fn open(ext4: &'a Ext4) -> Result<Self> {
        let broken = |what: &str| Error::new(format!("its journal {what}"));
        let number = ext4.superblock.journal;
        if number == 0 {
            return Err(broken("is on another device"));
        }
        let inode = ext4.inode(number)?;
        let blocks = (inode.size() / ext4.block_size()).min(MAX_BLOCKS);
        let runs = ext4.runs(&inode, blocks)?;
        let mut journal = Self {
            ext4,
            runs,
            first: 0,
            last: 0,
            blocks,
            start: 0,
            sequence: 0,
            features: 0,
            seed: 0,
        };
        let sb = journal.block(0)?;
        let kind = be32(&sb, 4);
        if be32(&sb, 0) != MAGIC || ![SUPERBLOCK_V1, SUPERBLOCK_V2].contains(&kind) {
            return Err(broken("has no superblock"));
        }
        if u64::from(be32(&sb, 12)) != ext4.block_size() {
            return Err(broken("has blocks of another size"));
        }
        journal.features = if kind == SUPERBLOCK_V2 { be32(&sb, 40) } else { 0 };
        if journal.features & !KNOWN != 0 {
            let unknown = journal.features & !KNOWN;
            return Err(broken(&format!("has features that are not known ({unknown:#x})")));
        }
        journal.blocks = u64::from(be32(&sb, 16)).min(blocks);
        journal.first = u64::from(be32(&sb, 20));
        journal.sequence = be32(&sb, 24);
        journal.start = u64::from(be32(&sb, 28));
        journal.last = journal.blocks - journal.fast_blocks(&sb).min(journal.blocks);
        journal.seed = crc32c(!0, &sb[48..64]);
        let log = journal.first..journal.last;
        if journal.first == 0 || journal.start != 0 && !log.contains(&journal.start) {
            return Err(broken("begins where it can't"));
        }
        Ok(journal)
    }

    fn fast_blocks(&self, sb: &[u8]) -> u64 {
        match (self.features & FAST_COMMIT, u64::from(be32(sb, 0x54))) {
            (0, _) => 0,
            (_, 0) => FAST_BLOCKS,
            (_, count) => count,
        }
    }

    /// Where a block of the journal is in the file system.
    pub(super) fn place(&self, number: u64) -> Result<u64> {
        let at = self.runs.partition_point(|run| run.logical + run.len <= number);
        let run = self.runs.get(at).filter(|run| run.logical <= number);
        let run = run.ok_or_else(|| Error::new("its journal has a hole"))?;
        Ok(run.physical.saturating_add(number - run.logical))
    }

    fn block(&self, number: u64) -> Result<Rc<[u8]>> {
        self.ext4.block(self.place(number)?)
    }

    fn following(&self, number: u64) -> u64 {
        if number + 1 >= self.last { self.first } else { number + 1 }
    }

    fn has_checksums(&self) -> bool {
        self.features & (CHECKSUM_V2 | CHECKSUM_V3) != 0
    }

    /// Follow the log as far as it is committed; `None` if it is empty.
    fn log(&self) -> Result<Option<Log>> {
        if self.start == 0 {
            return Ok(None);
        }
        let mut log = Log { next: self.sequence, ..Log::default() };
        // Of the transaction that is not committed yet.
        let mut open = Log::default();
        let (mut at, mut left) = (self.start, self.blocks);
        while left > 0 {
            let block = self.block(at)?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != log.next {
                break;
            }
            let kind = be32(&block, 4);
            at = self.following(at);
            left -= 1;
            match kind {
                DESCRIPTOR if self.is_whole(&block) => {
                    let Some(count) = self.tags(&block, &mut at, log.next, &mut open)? else {
                        break;
                    };
                    left = left.saturating_sub(count);
                }
                REVOKE if self.is_whole(&block) => self.revocations(&block, log.next, &mut open),
                COMMIT if self.is_whole_commit(&block) => {
                    log.tags.append(&mut open.tags);
                    log.revoked.append(&mut open.revoked);
                    log.next = log.next.wrapping_add(1);
                }
                _ => break,
            }
            if log.tags.len() + open.tags.len() > MAX_CHANGED
                || log.revoked.len() + open.revoked.len() > MAX_CHANGED
            {
                return Err(Error::new("its journal has too much in it"));
            }
        }
        Ok(Some(log))
    }

    /// A descriptor's tags, and past the blocks that they are of. `None` if one of these was not
    /// written whole.
    fn tags(&self, block: &[u8], at: &mut u64, tid: u32, open: &mut Log) -> Result<Option<u64>> {
        let (wide, v2, v3) = (
            self.features & WIDE != 0,
            self.features & CHECKSUM_V2 != 0,
            self.features & CHECKSUM_V3 != 0,
        );
        let len = if v3 { 16 } else { 8 + usize::from(v2) * 2 + usize::from(wide) * 4 };
        let end = block.len() - if self.has_checksums() { 4 } else { 0 };
        let (mut from, mut count) = (12, 0);
        while let Some(tag) = block.get(from..from + len).filter(|_| from + len <= end) {
            let flags = if v3 { be32(tag, 4) } else { u32::from(be16(tag, 6)) };
            let high = if wide { be32(tag, 8) } else { 0 };
            let number = u64::from(high) << 32 | u64::from(be32(tag, 0));
            let place = Place { block: self.place(*at)?, escaped: flags & ESCAPED != 0 };
            if v2 || v3 {
                let data = self.ext4.block(place.block)?;
                let sum = crc32c(crc32c(self.seed, &tid.to_be_bytes()), &data);
                let same = if v3 { be32(tag, 12) == sum } else { be16(tag, 4) == sum as u16 };
                if !same {
                    return Ok(None);
                }
            }
            open.tags.push((tid, number, place));
            *at = self.following(*at);
            count += 1;
            from += len + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                break;
            }
        }
        Ok(Some(count))
    }

    fn revocations(&self, block: &[u8], tid: u32, open: &mut Log) {
        let len = if self.features & WIDE != 0 { 8 } else { 4 };
        let end = (be32(block, 12) as usize).min(block.len());
        for number in block.get(16..end).unwrap_or_default().chunks_exact(len) {
            let (high, low) =
                if len == 8 { (be32(number, 0), be32(number, 4)) } else { (0, be32(number, 0)) };
            open.revoked.insert(u64::from(high) << 32 | u64::from(low), tid);
        }
    }

    /// A descriptor's or revocation's checksum, in its last four bytes, is right; without checksums
    /// it always is.
    fn is_whole(&self, block: &[u8]) -> bool {
        let (content, sum) = block.split_at(block.len() - 4);
        let computed = || crc32c(crc32c(self.seed, content), &[0; 4]);
        !self.has_checksums() || be32(sum, 0) == computed()
    }

    fn is_whole_commit(&self, block: &[u8]) -> bool {
        let computed = || {
            let zeroed = crc32c(crc32c(self.seed, &block[..16]), &[0; 4]);
            crc32c(zeroed, &block[20..])
        };
        !self.has_checksums() || be32(block, 16) == computed()
    }

    /// The fast commits' area; its first block is kept free.
    fn fast(&self) -> Result<Vec<Rc<[u8]>>> {
        if self.features & FAST_COMMIT == 0 {
            return Ok(Vec::new());
        }
        let end = self.blocks.min(self.last + MAX_FAST);
        (self.last + 1..end).map(|number| self.block(number)).collect()
    }
}
