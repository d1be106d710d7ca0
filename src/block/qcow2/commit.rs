//! Bringing metadata to disk in an order that a crash at any point leaves sound.
//!
//! 1. Data is in its clusters already when an entry in memory points there.
//! 2. Before the first change since opening the header's "dirty bit" is set, durably; a clean end
//!    clears it.
//! 3. Refcounts are written; new refcount blocks are durable before the table points to them.
//! 4. A sync: data, copies and counts are durable.
//! 5. L2 entries and L1 entries are written. A new L2 table was zeroed before 4, so an L1 entry
//!    never leads to garbage, whatever of 5 reaches the disk.
//! 6. A sync: the flush is done.
//! 7. Only now what was unmapped is punched, uncounted and reused, and only when no operation that
//!    may have seen the old mapping is in flight ([`crate::block::epoch::Epochs`]).
//!
//! So at any point each pointer on disk leads to a counted cluster with the right bytes. A crash
//! can leave clusters that are counted and not used: leaks, and then the dirty bit, which has
//! [`super::repair`] give them back.

use super::file::{Qcow2File, Slice};
use super::refcount::Changes;
use super::writer::{Meta, Writer, top};
use crate::block::chain::LayerChain;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Metadata as it was at one moment.
struct Snapshot {
    counts: Changes,
    /// Held until written, so that the cache can't drop and reload them meanwhile.
    slices: Vec<Arc<Slice>>,
    pieces: Vec<(u64, Vec<u8>)>,
    l1: Vec<usize>,
    unmapped: Vec<u64>,
}

impl Meta {
    fn take(&mut self, image: &Qcow2File) -> Snapshot {
        let slices = std::mem::take(&mut self.slices);
        let mut pieces = Vec::with_capacity(slices.len() + self.l1.len());
        for slice in &slices {
            slice.dirty.store(false, Ordering::Release);
            let words = slice.words.iter().map(|w| w.load(Ordering::Acquire).to_be_bytes());
            if let Some(offset) = image.slice_offset(slice.index) {
                pieces.push((offset, words.flatten().collect()));
            }
        }
        let l1: Vec<usize> = std::mem::take(&mut self.l1).into_iter().collect();
        for &n in &l1 {
            let entry = image.l1[n].load(Ordering::Acquire).to_be_bytes();
            pieces.push((image.header.l1_offset + n as u64 * 8, entry.to_vec()));
        }
        let unmapped = std::mem::take(&mut self.unmapped);
        Snapshot { counts: self.refcounts.take(), slices, pieces, l1, unmapped }
    }

    /// Nothing waits to be written or given back.
    fn is_settled(&self) -> bool {
        self.slices.is_empty()
            && self.l1.is_empty()
            && self.unmapped.is_empty()
            && self.refcounts.is_settled()
    }

    fn restore(&mut self, snapshot: Snapshot) {
        for slice in snapshot.slices {
            if !slice.dirty.swap(true, Ordering::AcqRel) {
                self.slices.push(slice);
            }
        }
        self.l1.extend(snapshot.l1);
        self.unmapped.extend(snapshot.unmapped);
        self.refcounts.restore(snapshot.counts);
    }
}

impl Writer {
    /// Whether a flush needs [`Writer::commit`]; a sync of the file is enough otherwise.
    pub(crate) fn needs_commit(&self) -> bool {
        self.changes.load(Ordering::SeqCst) != self.committed.load(Ordering::SeqCst)
            || self.limbo_len.load(Ordering::SeqCst) != 0
            || self.failed.load(Ordering::SeqCst)
    }

    /// Make everything durable that was done before the call.
    ///
    /// # Errors
    /// I/O errors; nothing is lost in memory, and the next commit tries again. After a failed sync
    /// all fail, because the kernel reports lost writes only once.
    pub(crate) fn commit(&self, chain: &LayerChain) -> io::Result<()> {
        let image = top(chain)?;
        let mut limbo = self.limbo.lock().unwrap();
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier sync of the disk's file failed"));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let mut snapshot = self.meta.lock().unwrap().take(image);
        if let Err(e) = self.write_out(image, &snapshot) {
            self.meta.lock().unwrap().restore(snapshot);
            return Err(e);
        }
        self.committed.store(changes, Ordering::SeqCst);
        let unmapped = std::mem::take(&mut snapshot.unmapped);
        if !unmapped.is_empty() {
            limbo.push((self.epochs.current(), unmapped));
        }
        self.release(image, &mut limbo)
    }

    fn write_out(&self, image: &Qcow2File, snapshot: &Snapshot) -> io::Result<()> {
        let changed = !snapshot.counts.pages.is_empty() || !snapshot.pieces.is_empty();
        if changed && !self.marked.load(Ordering::SeqCst) {
            image.set_dirty(true)?;
            self.sync(image)?;
            self.marked.store(true, Ordering::SeqCst);
        }
        for (offset, bytes) in &snapshot.counts.pages {
            image.host.write_at(bytes, *offset)?;
        }
        if !snapshot.counts.entries.is_empty() {
            self.sync(image)?;
            for (offset, entry) in &snapshot.counts.entries {
                image.host.write_at(&entry.to_be_bytes(), *offset)?;
            }
        }
        self.sync(image)?;
        if snapshot.pieces.is_empty() {
            return Ok(());
        }
        for (offset, bytes) in &snapshot.pieces {
            image.host.write_at(bytes, *offset)?;
        }
        self.sync(image)
    }

    fn sync(&self, image: &Qcow2File) -> io::Result<()> {
        image.host.sync().inspect_err(|_| self.failed.store(true, Ordering::SeqCst))
    }

    /// Give back what nothing can reach any more.
    fn release(&self, image: &Qcow2File, limbo: &mut Vec<(u64, Vec<u64>)>) -> io::Result<()> {
        self.epochs.advance();
        self.epochs.advance();
        let now = self.epochs.current();
        let mut clusters: Vec<u64> = Vec::new();
        limbo.retain_mut(|(epoch, unmapped)| {
            let old = now >= *epoch + 2;
            if old {
                clusters.append(unmapped);
            }
            !old
        });
        clusters.sort_unstable();
        let bits = image.header.cluster_bits;
        for run in clusters.chunk_by(|a, b| a + 1 == *b) {
            // A file system without holes keeps the space for reuse.
            let _ = image.host.punch(run[0] << bits, (run.len() as u64) << bits);
            let mut meta = self.meta.lock().unwrap();
            meta.refcounts.free(&image.host, run[0], run.len() as u64)?;
        }
        self.limbo_len.store(limbo.len(), Ordering::SeqCst);
        Ok(())
    }

    /// A clean end: everything durable, nothing leaked, the file no longer than it must be. False
    /// if operations in flight have kept something from being given back; the header says so then.
    pub(crate) fn close(&self, chain: &LayerChain) -> io::Result<bool> {
        let image = top(chain)?;
        self.commit(chain)?; // unmaps on disk, and releases
        self.commit(chain)?; // writes the counts of what was released
        let limbo = self.limbo.lock().unwrap();
        let mut meta = self.meta.lock().unwrap();
        if limbo.is_empty() && meta.is_settled() {
            let end = meta.refcounts.end(&image.host, image.host.len()?)?;
            image.truncate(end)?;
            if self.marked.load(Ordering::SeqCst) {
                image.set_dirty(false)?;
                self.marked.store(false, Ordering::SeqCst);
            }
        }
        let clean = limbo.is_empty() && meta.is_settled();
        drop((limbo, meta));
        self.sync(image)?;
        Ok(clean)
    }
}
