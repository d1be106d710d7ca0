//! Blocks of a snapshot's content, as the EBS direct APIs count them.

use crate::block::Content;
/// What is read: a snapshot's content.
pub use crate::disk::Disk;
use crate::error::{OrFail, Result};
use crate::snapshot::digest::is_zero;

/// Bytes of a block. (EBS direct APIs, ListSnapshotBlocks, BlockSize)
pub const BLOCK: u64 = 512 << 10;
/// Most bytes that are compared for one page of changed blocks.
const COMPARED: u64 = 1 << 30;

/// Some blocks in order, and which one to go on with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Their indexes.
    pub blocks: Vec<u64>,
    /// The first that was not looked at, if there are more.
    pub next: Option<u64>,
}

/// The blocks from `from` on that have data, `most` of them at most.
///
/// # Errors
/// The disk can't be read.
pub fn list(disk: &Disk, from: u64, most: usize) -> Result<Page> {
    let mut page = Page::default();
    let mut at = from;
    while let Some(found) = next(disk, at)? {
        if page.blocks.len() == most {
            page.next = Some(found);
            break;
        }
        page.blocks.push(found);
        at = found + 1;
    }
    Ok(page)
}

/// The first block from `from` on that has data.
fn next(disk: &Disk, from: u64) -> Result<Option<u64>> {
    let mut at = from.saturating_mul(BLOCK);
    while at < disk.size() {
        let Some(extent) = disk.extent_at(at).or_fail(|| "read the disk's tables")? else { break };
        if extent.content == Content::Data {
            return Ok(Some(at / BLOCK));
        }
        at = at.saturating_add(extent.len.max(512));
    }
    Ok(None)
}

/// The blocks from `from` on that are another in `second` than in `first`. A page may be short of
/// `most`, or empty, and still not be the last.
///
/// # Errors
/// One of the disks can't be read.
pub fn changed(first: &Disk, second: &Disk, from: u64, most: usize) -> Result<Page> {
    let mut page = Page::default();
    let (mut at, mut compared) = (from, 0);
    loop {
        let next = [next(first, at)?, next(second, at)?].into_iter().flatten().min();
        let Some(found) = next else { return Ok(page) };
        if page.blocks.len() == most || compared >= COMPARED {
            page.next = Some(found);
            return Ok(page);
        }
        if read(first, found)? != read(second, found)? {
            page.blocks.push(found);
        }
        compared += BLOCK;
        at = found + 1;
    }
}

/// Whether a block has anything but zeros.
///
/// # Errors
/// The disk can't be read.
pub fn has(disk: &Disk, index: u64) -> Result<bool> {
    Ok(!is_zero(&read(disk, index)?))
}

/// A block: [`BLOCK`] bytes. What is beyond the disk's end is zeros.
///
/// # Errors
/// The disk can't be read.
pub fn read(disk: &Disk, index: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; BLOCK as usize];
    let at = index.saturating_mul(BLOCK);
    let there = disk.size().saturating_sub(at).min(BLOCK) as usize;
    let read = disk.read_exact_at(&mut bytes[..there], at);
    read.or_fail(|| format!("read block {index}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::DiskFormat;
    use std::os::unix::fs::FileExt;

    fn disk(size: u64, blocks: &[(u64, u8)]) -> Disk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (index, byte) in blocks {
            file.write_all_at(&[*byte; 512], index * BLOCK + 1024).unwrap();
        }
        Disk::open(vec![(file, DiskFormat::Raw)]).unwrap()
    }

    #[test]
    fn holes_are_not_listed_and_pages_go_on() {
        let disk = disk(10 * BLOCK + 4096, &[(0, 1), (3, 1), (4, 1), (10, 1)]);
        let page = |blocks: &[u64], next| Page { blocks: blocks.to_vec(), next };
        assert_eq!(list(&disk, 0, 100).unwrap(), page(&[0, 3, 4, 10], None));
        assert_eq!(list(&disk, 0, 2).unwrap(), page(&[0, 3], Some(4)));
        assert_eq!(list(&disk, 4, 2).unwrap(), page(&[4, 10], None));
        assert_eq!(list(&disk, 11, 2).unwrap(), page(&[], None));
        assert_eq!(list(&disk, u64::MAX, 2).unwrap(), page(&[], None));
        let last = read(&disk, 10).unwrap();
        assert_eq!((last.len() as u64, last[1024], last[4096]), (BLOCK, 1, 0));
    }

    #[test]
    fn what_changed_is_told_by_content() {
        let first = disk(8 * BLOCK, &[(0, 1), (3, 1), (4, 1)]);
        let second = disk(9 * BLOCK, &[(0, 1), (3, 2), (8, 1)]);
        assert_eq!(changed(&first, &second, 0, 100).unwrap().blocks, [3, 4, 8]);
        let page = changed(&first, &second, 0, 1).unwrap();
        assert_eq!(page, Page { blocks: vec![3], next: Some(4) });
        assert_eq!(changed(&second, &second, 0, 100).unwrap(), Page::default());
        assert!(has(&first, 4).unwrap() && !has(&second, 4).unwrap());
    }
}
