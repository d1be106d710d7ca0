//! Which host clusters are free: the refcount table and its blocks, 16 bits a cluster.
//!
//! A cluster is counted before anything points to it, and uncounted after nothing does. In memory
//! that happens at once; on disk [`super::writer`] orders it.

use super::verify::Claims;
use super::{Header, corrupt};
use crate::block::host::HostFile;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Unit of writing a block back, in bytes.
const PAGE: usize = 4096;
/// What is read of the table at a time, in bytes.
const PIECE: usize = 8 << 10;
/// The file grows by this much at a time, sparsely, so that its size seldom changes.
const GROWTH: u64 = 16 << 20;

/// Consecutive clusters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub first: u64,
    pub count: u64,
    /// Never used since the file was opened, and beyond its end then: they read as zeros.
    pub fresh: bool,
}

pub(crate) struct Refcounts {
    cluster_bits: u32,
    table_offset: u64,
    /// Host offsets of the blocks, 0 where there is none, up to the last that is there.
    table: Vec<u64>,
    /// Entries that the table on disk has room for.
    capacity: usize,
    blocks: BTreeMap<usize, Box<[u16]>>,
    dirty: BTreeSet<(usize, usize)>,
    new_blocks: BTreeSet<usize>,
    /// No free cluster is before this one.
    hint: u64,
    /// First cluster that was never used since the file was opened.
    fresh: u64,
}

/// What must be written for the counts to be right on disk.
#[derive(Default)]
pub(crate) struct Changes {
    /// Pieces of blocks: host offset and bytes.
    pub pages: Vec<(u64, Vec<u8>)>,
    /// Entries of the table that may be written once the pages are durable.
    pub entries: Vec<(u64, u64)>,
    dirty: BTreeSet<(usize, usize)>,
    new_blocks: BTreeSet<usize>,
}

impl Refcounts {
    pub(crate) fn open(host: &HostFile, header: &Header, file_len: u64) -> io::Result<Self> {
        let len = (header.reftable_clusters as usize) << header.cluster_bits;
        // It has a cluster at least and few entries: to read all at once takes memory that each
        // clone keeps.
        let (mut table, mut piece) = (Vec::new(), vec![0; PIECE.min(len)]);
        for at in (0..len).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(len - at)];
            host.read_at(piece, header.reftable_offset + at as u64)?;
            for (n, entry) in (at / 8..).zip(piece.chunks_exact(8)) {
                let offset = u64::from_be_bytes(entry.try_into().unwrap_or_default());
                if offset % header.cluster_size() != 0 || offset >= file_len {
                    return Err(corrupt(format!("a refcount block at {offset:#x}")));
                }
                if offset != 0 {
                    table.resize(n, 0);
                    table.push(offset);
                }
            }
        }
        Ok(Self {
            cluster_bits: header.cluster_bits,
            table_offset: header.reftable_offset,
            blocks: BTreeMap::new(),
            table,
            capacity: len / 8,
            dirty: BTreeSet::new(),
            new_blocks: BTreeSet::new(),
            hint: 0,
            fresh: file_len.div_ceil(header.cluster_size()),
        })
    }

    fn per_block(&self) -> u64 {
        1 << (self.cluster_bits - 1)
    }

    /// The block that counts `cluster`, made if `make`; `None` if it is not there.
    fn block(
        &mut self,
        host: &HostFile,
        cluster: u64,
        make: bool,
    ) -> io::Result<Option<&mut [u16]>> {
        let n = (cluster / self.per_block()) as usize;
        if n >= self.capacity {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        if !self.blocks.contains_key(&n) {
            let mut counts = vec![0u16; self.per_block() as usize].into_boxed_slice();
            if let Some(&offset) = self.table.get(n).filter(|offset| **offset != 0) {
                let mut bytes = vec![0; 1 << self.cluster_bits];
                host.read_at(&mut bytes, offset)?;
                for (count, b) in counts.iter_mut().zip(bytes.chunks_exact(2)) {
                    *count = u16::from_be_bytes([b[0], b[1]]);
                }
            } else if make {
                // The block lives in the first cluster that it counts.
                self.table.resize(self.table.len().max(n + 1), 0);
                self.table[n] = (n as u64 * self.per_block()) << self.cluster_bits;
                counts[0] = 1;
                self.new_blocks.insert(n);
            } else {
                return Ok(None);
            }
            self.blocks.insert(n, counts);
        }
        Ok(self.blocks.get_mut(&n).map(|counts| &mut **counts))
    }

    fn set(&mut self, host: &HostFile, cluster: u64, count: u16) -> io::Result<()> {
        let (n, at) = (cluster / self.per_block(), cluster % self.per_block());
        if let Some(counts) = self.block(host, cluster, true)? {
            counts[at as usize] = count;
        }
        self.dirty.insert((n as usize, at as usize * 2 / PAGE));
        Ok(())
    }

    fn is_free(&mut self, host: &HostFile, cluster: u64) -> io::Result<bool> {
        let at = (cluster % self.per_block()) as usize;
        Ok(self.block(host, cluster, true)?.is_some_and(|counts| counts[at] == 0))
    }

    /// Count up to `want` consecutive free clusters, and grow the file to hold them.
    ///
    /// # Errors
    /// ENOSPC if the table can count no more; I/O errors.
    pub(crate) fn alloc(
        &mut self,
        host: &HostFile,
        file_len: &AtomicU64,
        want: u64,
    ) -> io::Result<Run> {
        let mut first = self.hint;
        while !self.is_free(host, first)? {
            first += 1;
        }
        let mut count = 1;
        // A run is wholly fresh or not at all.
        let fresh = first >= self.fresh;
        while count < want
            && (first + count >= self.fresh) == fresh
            && self.is_free(host, first + count)?
        {
            count += 1;
        }
        let end = (first + count) << self.cluster_bits;
        if end > file_len.load(Ordering::Relaxed) {
            let len = end.next_multiple_of(GROWTH);
            host.set_len(len)?;
            file_len.store(len, Ordering::Relaxed);
        }
        for cluster in first..first + count {
            self.set(host, cluster, 1)?;
        }
        self.hint = first + count;
        self.fresh = self.fresh.max(self.hint);
        Ok(Run { first, count, fresh })
    }

    /// Uncount clusters that nothing points to.
    pub(crate) fn free(&mut self, host: &HostFile, first: u64, count: u64) -> io::Result<()> {
        for cluster in first..first + count {
            self.set(host, cluster, 0)?;
        }
        self.hint = self.hint.min(first);
        Ok(())
    }

    /// Take what is to be written.
    pub(crate) fn take(&mut self) -> Changes {
        let mut changes = Changes {
            dirty: std::mem::take(&mut self.dirty),
            new_blocks: std::mem::take(&mut self.new_blocks),
            ..Changes::default()
        };
        for &n in &changes.new_blocks {
            let block = self.blocks.get(&n).map_or(&[][..], |b| &**b);
            changes.pages.push((self.table[n], bytes(block)));
            changes.entries.push((self.table_offset + n as u64 * 8, self.table[n]));
        }
        for &(n, page) in changes.dirty.iter().filter(|(n, _)| !changes.new_blocks.contains(n)) {
            let block = self.blocks.get(&n).map_or(&[][..], |b| &**b);
            let (start, len) = (page * PAGE / 2, (PAGE / 2).min(block.len()));
            changes
                .pages
                .push((self.table[n] + (page * PAGE) as u64, bytes(&block[start..start + len])));
        }
        changes
    }

    /// Everything is as on disk, or taken to be written.
    pub(crate) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.new_blocks.is_empty()
    }

    /// Uncount what is counted and not among `used`, which gets the blocks of the table added.
    /// Gives the clusters, ascending.
    ///
    /// # Errors
    /// `InvalidData` if a cluster that is used is not counted; I/O errors.
    pub(crate) fn reclaim(&mut self, host: &HostFile, used: &mut Claims) -> io::Result<Vec<u64>> {
        for block in self.table.iter().filter(|block| **block != 0) {
            used.claim(block >> self.cluster_bits, "a refcount block")?;
        }
        let (mut leaked, mut counted) = (Vec::new(), 0);
        for n in 0..self.table.len() {
            let first = n as u64 * self.per_block();
            let Some(counts) = self.block(host, first, false)? else { continue };
            for (cluster, _) in (first..).zip(counts.iter()).filter(|(_, count)| **count != 0) {
                if used.has(cluster) {
                    counted += 1;
                } else {
                    leaked.push(cluster);
                }
            }
        }
        if counted != used.count() {
            return Err(corrupt(
                "clusters in use are not counted; run qemu-img check -r all on it",
            ));
        }
        for run in leaked.chunk_by(|a, b| a + 1 == *b) {
            self.free(host, run[0], run.len() as u64)?;
        }
        Ok(leaked)
    }

    /// Put back what could not be written.
    pub(crate) fn restore(&mut self, mut changes: Changes) {
        self.dirty.append(&mut changes.dirty);
        self.new_blocks.append(&mut changes.new_blocks);
    }

    /// The end of the last counted cluster in bytes.
    pub(crate) fn end(&mut self, host: &HostFile, file_len: u64) -> io::Result<u64> {
        let mut cluster = file_len.div_ceil(1 << self.cluster_bits);
        while cluster > 0 {
            let at = ((cluster - 1) % self.per_block()) as usize;
            match self.block(host, cluster - 1, false)? {
                Some(counts) if counts[at] != 0 => break,
                Some(_) => cluster -= 1,
                None => cluster -= at as u64 + 1,
            }
        }
        Ok(cluster << self.cluster_bits)
    }
}

fn bytes(counts: &[u16]) -> Vec<u8> {
    counts.iter().flat_map(|c| c.to_be_bytes()).collect()
}
