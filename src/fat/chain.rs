//! Chains of clusters.

use super::boot_sector::{FIRST_CLUSTER, Geometry, LEN, Root};
use super::directory;
use crate::ext4::Error;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;

/// What reads bytes from an offset of a file system.
pub type ReadAt = dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// What a read gives.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Most bytes of a directory: 65,536 entries of 32. (The format's document, 6.)
const MAX_DIRECTORY: u64 = 2 << 20;
/// Directories that are kept: paths begin alike.
const KEPT: usize = 8;

/// A file system.
pub struct Fat {
    read: Box<ReadAt>,
    pub(super) geometry: Geometry,
    label: String,
    /// Directories by their first clusters.
    kept: RefCell<VecDeque<(u32, Rc<[u8]>)>>,
}

impl Fat {
    /// Open the file system whose bytes `read` reads.
    ///
    /// # Errors
    /// It is none.
    pub fn open(read: Box<ReadAt>) -> std::result::Result<Self, String> {
        let mut sector = [0; LEN];
        read(&mut sector, 0).map_err(|why| format!("no FAT: {why}"))?;
        let geometry = Geometry::parse(&sector)?;
        let label = geometry.label.clone();
        let mut fat = Self { read, geometry, label, kept: RefCell::default() };
        // The root directory's entry is what counts, and what mlabel(1) changes.
        if let Ok(root) = fat.directory(0) {
            fat.label = directory::label(&root).unwrap_or(fat.label);
        }
        Ok(fat)
    }

    /// Its serial number, as Linux and GRUB write it: `ABCD-1234`.
    pub fn serial(&self) -> String {
        format!("{:04X}-{:04X}", self.geometry.serial >> 16, self.geometry.serial & 0xffff)
    }

    /// Its label; empty if it has none.
    pub fn label(&self) -> &str {
        if self.label == "NO NAME" { "" } else { &self.label }
    }

    pub(super) fn fill(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        (self.read)(bytes, at).map_err(|why| Error::Unreadable(why.to_string()))
    }

    fn place(&self, cluster: u32) -> Result<u64> {
        if !(FIRST_CLUSTER..self.geometry.end).contains(&cluster) {
            return Err(damaged("leads to a cluster that is not there"));
        }
        let before = u64::from(cluster - FIRST_CLUSTER) * self.geometry.cluster;
        Ok(self.geometry.data + before)
    }

    /// The cluster behind one; `None` if that is the last.
    fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let (n, at) = (u64::from(cluster), self.geometry.table);
        let short = |at: u64| {
            let mut bytes = [0; 2];
            self.fill(&mut bytes, at).map(|()| u32::from(u16::from_le_bytes(bytes)))
        };
        let (value, last) = match self.geometry.bits {
            12 => {
                let pair = short(at + n * 3 / 2)?;
                (if n % 2 == 0 { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            16 => (short(at + n * 2)?, 0xfff8),
            _ => {
                let mut bytes = [0; 4];
                self.fill(&mut bytes, at + n * 4)?;
                (u32::from_le_bytes(bytes) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((value < last).then_some(value))
    }

    /// Fill `bytes` from offset `from` of the chain that begins with `first`.
    pub(super) fn read_chain(&self, first: u32, from: u64, bytes: &mut [u8]) -> Result<()> {
        let size = self.geometry.cluster;
        let end = from.saturating_add(bytes.len() as u64);
        let (mut cluster, mut logical) = (first, 0);
        // The bytes from `from` on that a run of neighbours has: (where, their offset, how many).
        let mut run: Option<(u64, u64, u64)> = None;
        let mut take = |(at, offset, len): (u64, u64, u64)| {
            let start = offset.max(from);
            let stop = (offset + len).min(end);
            let place = (start - from) as usize..(stop - from) as usize;
            self.fill(&mut bytes[place], at + (start - offset))
        };
        while logical < end {
            let at = self.place(cluster)?;
            if logical + size > from {
                run = match run {
                    Some((start, offset, len)) if start + len == at => {
                        Some((start, offset, len + size))
                    }
                    Some(whole) => {
                        take(whole)?;
                        Some((at, logical, size))
                    }
                    None => Some((at, logical, size)),
                };
            }
            logical += size;
            if logical < end {
                let next = self.next(cluster)?;
                cluster = next.ok_or_else(|| damaged("ends before the file does"))?;
            }
        }
        run.map_or(Ok(()), take)
    }

    /// The entries of the directory whose first cluster is `first`; 0 is the root.
    pub(super) fn directory(&self, first: u32) -> Result<Rc<[u8]>> {
        let mut kept = self.kept.borrow_mut();
        if let Some((_, found)) = kept.iter().find(|(n, _)| *n == first) {
            return Ok(Rc::clone(found));
        }
        let bytes = match (first, self.geometry.root) {
            (0, Root::Area(at, len)) => {
                let mut bytes = vec![0; len as usize];
                self.fill(&mut bytes, at)?;
                bytes
            }
            (0, Root::Clusters(root)) => self.whole_chain(root)?,
            (first, _) => self.whole_chain(first)?,
        };
        let bytes: Rc<[u8]> = bytes.into();
        kept.truncate(KEPT - 1);
        kept.push_front((first, Rc::clone(&bytes)));
        Ok(bytes)
    }

    /// A directory's clusters, up to the entry that ends it: a directory has no length.
    fn whole_chain(&self, first: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut next = Some(first);
        while let Some(cluster) = next {
            let (start, size) = (bytes.len(), self.geometry.cluster);
            if start as u64 + size > MAX_DIRECTORY {
                return Err(damaged("makes a directory larger than one can be"));
            }
            let at = self.place(cluster)?;
            bytes.resize(start + size as usize, 0);
            self.fill(&mut bytes[start..], at)?;
            if directory::ends(&bytes[start..]) {
                break;
            }
            next = self.next(cluster)?;
        }
        Ok(bytes)
    }

    /// Name what is in a directory, until `visit` has enough of it.
    pub(super) fn entries(
        &self,
        first: u32,
        visit: &mut dyn FnMut(directory::Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        directory::entries(&self.directory(first)?, self.geometry.bits == 32, visit);
        Ok(())
    }
}

fn damaged(how: &str) -> Error {
    Error::Unreadable(format!("the file system is damaged: a chain of clusters {how}"))
}
