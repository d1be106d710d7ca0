//! Fast commits: what happened to inodes, their blocks and names since the journal's last
//! transaction. (fs/ext4/fast_commit.h in Linux tells the format, fast_commit.c how it is replayed)

use super::bytes::{crc32c, le16, le32};
use super::run::Run;
use std::collections::BTreeMap;
use std::rc::Rc;

const ADD_RANGE: u16 = 1;
const DEL_RANGE: u16 = 2;
const CREAT: u16 = 3;
const LINK: u16 = 4;
const UNLINK: u16 = 5;
const INODE: u16 = 6;
const PAD: u16 = 7;
const TAIL: u16 = 8;
const HEAD: u16 = 9;

/// An extent that is longer is allocated and not written yet.
const UNWRITTEN: u16 = 0x8000;
/// Most changes.
const MAX_CHANGES: usize = 1 << 18;

/// A change of where a file's blocks are.
#[derive(Clone, Copy, Debug)]
struct Remap {
    logical: u64,
    len: u64,
    /// Where they are now; `None` if they are none any more, or not written.
    physical: Option<u64>,
}

/// What was committed fast.
#[derive(Debug, Default)]
pub struct FastCommits {
    inodes: BTreeMap<u32, Vec<u8>>,
    maps: BTreeMap<u32, Vec<Remap>>,
    names: BTreeMap<u32, BTreeMap<Vec<u8>, Option<u32>>>,
}

impl FastCommits {
    /// Read the area's `blocks`, as far as they were committed after transaction `tid` had begun.
    pub fn parse(blocks: &[Rc<[u8]>], tid: u32) -> Self {
        let mut fast = Self::default();
        // Since the last tail: what has none is not committed.
        let mut open: Vec<(u16, &[u8])> = Vec::new();
        let (mut crc, mut count) = (0, 0);
        'blocks: for (n, block) in blocks.iter().enumerate() {
            if n == 0 && le16(block, 0) != HEAD {
                break;
            }
            let mut rest: &[u8] = block;
            while rest.len() >= 4 {
                let (tag, len) = (le16(rest, 0), usize::from(le16(rest, 2)));
                let Some(value) = rest.get(4..4 + len) else { break 'blocks };
                match tag {
                    TAIL => {
                        crc = crc32c(crc, &rest[..rest.len().min(8)]);
                        if len < 8 || le32(value, 0) != tid || le32(value, 4) != crc {
                            break 'blocks;
                        }
                        crc = 0;
                        open.drain(..).for_each(|(tag, value)| fast.change(tag, value));
                    }
                    HEAD if len < 8 || le32(value, 0) != 0 || le32(value, 4) != tid => {
                        break 'blocks;
                    }
                    HEAD | PAD | ADD_RANGE..=INODE => {
                        crc = crc32c(crc, &rest[..4 + len]);
                        open.push((tag, value));
                        count += 1;
                    }
                    _ => break 'blocks,
                }
                if count > MAX_CHANGES {
                    break 'blocks;
                }
                rest = &rest[4 + len..];
            }
        }
        fast
    }

    fn change(&mut self, tag: u16, value: &[u8]) {
        let inode = le32(value, 0);
        match tag {
            INODE => drop(self.inodes.insert(inode, value.get(4..).unwrap_or_default().to_vec())),
            CREAT | LINK | UNLINK => {
                let name = value.get(8..).unwrap_or_default().to_vec();
                let child = (tag != UNLINK).then(|| le32(value, 4));
                self.names.entry(inode).or_default().insert(name, child);
            }
            ADD_RANGE => {
                let len = le16(value, 8);
                let physical = u64::from(le16(value, 10)) << 32 | u64::from(le32(value, 12));
                let written = len <= UNWRITTEN;
                let len = if written { len } else { len - UNWRITTEN };
                self.remember(inode, le32(value, 4), len.into(), written.then_some(physical));
            }
            DEL_RANGE => self.remember(inode, le32(value, 4), le32(value, 8).into(), None),
            _ => {}
        }
    }

    fn remember(&mut self, inode: u32, logical: u32, len: u64, physical: Option<u64>) {
        let remap = Remap { logical: logical.into(), len, physical };
        self.maps.entry(inode).or_default().push(remap);
    }

    /// An inode's new bytes.
    pub fn inode(&self, number: u32) -> Option<&[u8]> {
        self.inodes.get(&number).map(Vec::as_slice)
    }

    /// Names of a directory that changed: to this inode, or to none.
    pub fn names(&self, directory: u32) -> &BTreeMap<Vec<u8>, Option<u32>> {
        static NONE: BTreeMap<Vec<u8>, Option<u32>> = BTreeMap::new();
        self.names.get(&directory).unwrap_or(&NONE)
    }

    /// Make a file's runs what they became.
    pub fn remap(&self, inode: u32, runs: &mut Vec<Run>) {
        let Some(changes) = self.maps.get(&inode) else { return };
        let mut map: BTreeMap<u64, Run> = runs.drain(..).map(|run| (run.logical, run)).collect();
        for change in changes {
            let (start, end) = (change.logical, change.logical + change.len);
            let before = map.range(..end).rev().map(|(_, run)| *run);
            let touched: Vec<Run> =
                before.take_while(|run| run.logical + run.len > start).collect();
            for run in touched {
                map.remove(&run.logical);
                let head = Run { len: start.saturating_sub(run.logical), ..run };
                let skipped = (end - run.logical).min(run.len);
                let tail = Run {
                    logical: run.logical + skipped,
                    physical: run.physical.saturating_add(skipped),
                    len: run.len - skipped,
                };
                let left = [head, tail].into_iter().filter(|run| run.len > 0);
                map.extend(left.map(|run| (run.logical, run)));
            }
            if let Some(physical) = change.physical.filter(|_| change.len > 0) {
                map.insert(start, Run { logical: start, physical, len: change.len });
            }
        }
        runs.extend(map.into_values());
    }
}
