//! Changing a qcow2 image: allocation with copy-on-write, zeroing, discarding.
//!
//! What a request changes in memory is visible to others at once, and on disk after
//! [`Writer::commit`] (see `commit.rs`), which a flush waits for.

use super::refcount::{Refcounts, Run};
use super::{COMPRESSED, COPIED, Mapping, OFFSET_MASK, Qcow2File, ZERO, corrupt, repair};
use crate::block::chain::LayerChain;
use crate::block::epoch::Epochs;
use crate::block::layer::Layer;
use crate::block::range_lock::RangeLock;
use crate::sys::file_io::Part;
use crate::sys::iobuf::IoBuf;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::file::Slice;

/// Most bytes allocated in one go.
const MAX_SPAN: u64 = 4 << 20;
/// Unmapped clusters or changed slices that make a request write metadata out by itself.
const PRESSURE: usize = 512;

/// Metadata that differs from the disk's.
pub(super) struct Meta {
    pub refcounts: Refcounts,
    pub slices: Vec<Arc<Slice>>,
    pub l1: BTreeSet<usize>,
    /// Host clusters that nothing points to any more in memory, though perhaps on disk.
    pub unmapped: Vec<u64>,
}

/// What makes the top image of a chain writable.
pub(crate) struct Writer {
    pub(super) meta: Mutex<Meta>,
    pub(crate) epochs: Epochs,
    ranges: RangeLock,
    /// Unmapped on disk too, since this epoch; held by who commits.
    pub(super) limbo: Mutex<Vec<(u64, Vec<u64>)>>,
    pub(super) limbo_len: AtomicUsize,
    /// Changes of mappings made, and how many of them are on disk.
    pub(super) changes: AtomicU64,
    pub(super) committed: AtomicU64,
    /// The header on disk says that the refcounts may be ahead of the tables.
    pub(super) marked: AtomicBool,
    /// A sync failed: what was written before may be lost, and no later sync would tell.
    pub(super) failed: AtomicBool,
}

/// The image that a writer changes.
pub(super) fn top(chain: &LayerChain) -> io::Result<&Qcow2File> {
    match chain.layers.first().map(|layer| &**layer) {
        Some(Layer::Qcow2(image)) => Ok(image),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl Writer {
    /// Make the image writable. If it was not closed after its last change, what leaked is given
    /// back first.
    ///
    /// # Errors
    /// `Unsupported` if it is not of the kind that [`crate::block::overlay::create`] makes.
    pub(crate) fn open(image: &Qcow2File) -> io::Result<Self> {
        let h = &image.header;
        h.check_writable()?;
        if h.dirty {
            repair::reclaim(image)?;
        }
        if h.autoclear != 0 {
            // "Autoclear feature bits": who doesn't know them clears them, and bitmaps count as
            // stale.
            image.host.write_at(&[0; 8], 88)?;
        }
        let refcounts = Refcounts::open(&image.host, h, image.file_len.load(Ordering::Relaxed))?;
        Ok(Self {
            meta: Mutex::new(Meta {
                refcounts,
                slices: Vec::new(),
                l1: BTreeSet::new(),
                unmapped: Vec::new(),
            }),
            epochs: Epochs::default(),
            ranges: RangeLock::default(),
            limbo: Mutex::default(),
            limbo_len: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            marked: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        })
    }

    /// Write the piece at `offset`, allocating what is not there.
    pub(crate) fn write(&self, chain: &LayerChain, offset: u64, part: Part<'_>) -> io::Result<()> {
        let mut done = 0;
        while done < part.len {
            let rest = Part { buf: part.buf, start: part.start + done, len: part.len - done };
            done += self.write_some(chain, offset + done as u64, rest)? as usize;
        }
        Ok(())
    }

    fn write_some(&self, chain: &LayerChain, offset: u64, part: Part<'_>) -> io::Result<u64> {
        let image = top(chain)?;
        let bits = image.header.cluster_bits;
        let per_table = image.header.bytes_per_l2();
        let mask = image.header.cluster_size() - 1;
        // At most MAX_SPAN, inside one table; the end is a cluster's or the piece's.
        let limit = ((offset + MAX_SPAN) & !mask).max((offset | mask) + 1);
        let limit = limit.min((offset / per_table + 1) * per_table);
        let limit = limit.min(offset + part.len as u64);
        let _held = self.ranges.lock(offset >> bits..((limit - 1) >> bits) + 1);
        self.table(image, offset)?;

        let mut end = offset;
        while end < limit {
            match image.map(end, limit - end)? {
                (Mapping::Data { host, copied: true }, have) if end == offset => {
                    image.host.write_parts(&[Part { len: have as usize, ..part }], host)?;
                    return Ok(have);
                }
                (Mapping::Data { copied: true, .. }, _) => break,
                (_, have) => end += have,
            }
        }
        let first = offset >> bits;
        let (run, reused) = self.clusters(image, first, ((end - 1) >> bits) + 1 - first)?;
        let end = end.min((first + run.count) << bits);
        let data = Part { len: (end - offset) as usize, ..part };
        let written = self.fill(chain, image, offset, data, run);
        if let Err(e) = written
            .and_then(|()| self.map(image, first, run.count, |n| (run.first + n) << bits | COPIED))
        {
            if !reused {
                let mut meta = self.meta.lock().unwrap();
                meta.refcounts.free(&image.host, run.first, run.count)?;
            }
            return Err(e);
        }
        Ok(end - offset)
    }

    /// Host clusters for `want` guest clusters from `first`, or fewer; true if they are already its
    /// own.
    fn clusters(&self, image: &Qcow2File, first: u64, want: u64) -> io::Result<(Run, bool)> {
        let entry = self.entry(image, first)?;
        let own = entry & (COMPRESSED | COPIED | ZERO) == COPIED | ZERO;
        if own && entry & OFFSET_MASK != 0 {
            let host = (entry & OFFSET_MASK) >> image.header.cluster_bits;
            return Ok((Run { first: host, count: 1, fresh: false }, true));
        }
        let mut meta = self.meta.lock().unwrap();
        let run = meta.refcounts.alloc(&image.host, &image.file_len, want)?;
        Ok((run, false))
    }

    /// Write the data into new clusters, and around it what the clusters' guest range reads as so
    /// far.
    fn fill(
        &self,
        chain: &LayerChain,
        image: &Qcow2File,
        offset: u64,
        data: Part<'_>,
        run: Run,
    ) -> io::Result<()> {
        let bits = image.header.cluster_bits;
        let start = offset >> bits << bits;
        let (data_end, end) = (offset + data.len as u64, start + (run.count << bits));
        let head = self.old_bytes(chain, start, offset, run.fresh)?;
        let tail = self.old_bytes(chain, data_end, end, run.fresh)?;
        let mut parts = smallvec::SmallVec::<[Part<'_>; 3]>::new();
        let mut at = run.first << bits;
        match &head {
            Some(head) => parts.push(Part::whole(head)),
            None => at += offset - start,
        }
        parts.push(data);
        parts.extend(tail.as_ref().map(Part::whole));
        image.host.write_parts(&parts, at)
    }

    /// What the range reads as, to be copied; `None` if it need not be, being empty or zeros
    /// already.
    fn old_bytes(
        &self,
        chain: &LayerChain,
        from: u64,
        to: u64,
        zeroed: bool,
    ) -> io::Result<Option<IoBuf>> {
        let inside = to.min(chain.size()).saturating_sub(from);
        if from == to || (zeroed && chain.is_zero(0, from, inside)?) {
            return Ok(None);
        }
        let mut bytes = vec![0; (to - from) as usize].into_boxed_slice();
        chain.read_at(&mut bytes[..inside as usize], from)?;
        // A hole of a raw base stays one.
        let copy = !zeroed || bytes.iter().any(|b| *b != 0);
        Ok(copy.then(|| IoBuf::from_bytes(bytes)))
    }

    /// Make sure that there is an L2 table for `offset`.
    fn table(&self, image: &Qcow2File, offset: u64) -> io::Result<()> {
        let n = (offset / image.header.bytes_per_l2()) as usize;
        if image.l1[n].load(Ordering::Acquire) & OFFSET_MASK != 0 {
            return Ok(());
        }
        let mut meta = self.meta.lock().unwrap();
        if image.l1[n].load(Ordering::Acquire) & OFFSET_MASK != 0 {
            return Ok(());
        }
        let run = meta.refcounts.alloc(&image.host, &image.file_len, 1)?;
        let at = run.first << image.header.cluster_bits;
        if !run.fresh {
            let zeroed = image.host.write_zeros(at, image.header.cluster_size());
            if let Err(e) = zeroed {
                meta.refcounts.free(&image.host, run.first, 1)?;
                return Err(e);
            }
        }
        image.l1[n].store(at | COPIED, Ordering::Release);
        meta.l1.insert(n);
        Ok(())
    }

    /// The slice of a cluster whose table exists, and the entry's place in it.
    fn slot(&self, image: &Qcow2File, cluster: u64) -> io::Result<(Arc<Slice>, usize)> {
        let slice = image.slice(cluster / image.slice_entries())?;
        let slice = slice.ok_or_else(|| corrupt("an L2 table vanished"))?;
        Ok((slice, (cluster % image.slice_entries()) as usize))
    }

    fn entry(&self, image: &Qcow2File, cluster: u64) -> io::Result<u64> {
        let (slice, at) = self.slot(image, cluster)?;
        Ok(slice.words[at].load(Ordering::Acquire))
    }

    /// Map `count` guest clusters to new entries. The caller holds their range.
    fn map(
        &self,
        image: &Qcow2File,
        first: u64,
        count: u64,
        entry: impl Fn(u64) -> u64,
    ) -> io::Result<()> {
        // All slices first: nothing fails halfway then, and a held slice is not dropped.
        let per = image.slice_entries();
        let slices: io::Result<smallvec::SmallVec<[Arc<Slice>; 2]>> = (first / per
            ..=(first + count - 1) / per)
            .map(|n| Ok(self.slot(image, n * per)?.0))
            .collect();
        let slices = slices?;
        let mut meta = self.meta.lock().unwrap();
        for n in 0..count {
            let slice = &slices[((first + n) / per - first / per) as usize];
            let (at, new) = (((first + n) % per) as usize, entry(n));
            let old = slice.words[at].swap(new, Ordering::AcqRel);
            let host = old & OFFSET_MASK;
            // What is not counted exactly once is left to qemu-img check as a leak.
            if old & COPIED != 0 && old & COMPRESSED == 0 && host != 0 && host != new & OFFSET_MASK
            {
                meta.unmapped.push(host >> image.header.cluster_bits);
            }
            if !slice.dirty.swap(true, Ordering::AcqRel) {
                meta.slices.push(slice.clone());
            }
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Make the range read as zeros (`exact`), or let whole clusters of it go (a discard).
    /// `unmap`: space is given back.
    pub(crate) fn zero(
        &self,
        chain: &LayerChain,
        offset: u64,
        len: u64,
        exact: bool,
        unmap: bool,
    ) -> io::Result<()> {
        let image = top(chain)?;
        let size = image.header.cluster_size();
        let end = offset + len;
        // The last cluster may be cut off by the end of the disk: then it is whole all the same.
        let whole_end =
            if end == chain.size() { end.next_multiple_of(size) } else { end / size * size };
        let whole_start = offset.next_multiple_of(size);
        if whole_start >= whole_end {
            return if exact { self.write_zeros(chain, offset, len) } else { Ok(()) };
        }
        if exact {
            self.write_zeros(chain, offset, whole_start - offset)?;
            self.write_zeros(chain, whole_end.min(end), end.saturating_sub(whole_end))?;
        }
        let bits = image.header.cluster_bits;
        let (mut cluster, last) = (whole_start >> bits, whole_end >> bits);
        while cluster < last {
            let next = ((cluster / image.slice_entries() + 1) * image.slice_entries()).min(last);
            self.zero_slice(chain, image, cluster..next, exact, unmap)?;
            cluster = next;
        }
        Ok(())
    }

    fn write_zeros(&self, chain: &LayerChain, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 || chain.is_zero(0, offset, len)? {
            return Ok(());
        }
        let zeros = IoBuf::host(len as usize);
        self.write(chain, offset, Part::whole(&zeros))
    }

    /// [`Writer::zero`] for clusters of one slice.
    fn zero_slice(
        &self,
        chain: &LayerChain,
        image: &Qcow2File,
        clusters: std::ops::Range<u64>,
        exact: bool,
        unmap: bool,
    ) -> io::Result<()> {
        let bits = image.header.cluster_bits;
        let _held = self.ranges.lock(clusters.clone());
        let bytes = |n: u64| (n << bits, ((n + 1) << bits).min(chain.size()) - (n << bits));
        let below_is_zero = |n: u64| {
            let (offset, len) = bytes(n);
            chain.is_zero(1, offset, len)
        };
        if image.slice(clusters.start / image.slice_entries())?.is_none() {
            let (start, (last, len)) = (bytes(clusters.start).0, bytes(clusters.end - 1));
            if !exact || chain.is_zero(1, start, last + len - start)? {
                return Ok(());
            }
            self.table(image, start)?;
        }
        for n in clusters {
            let old = self.entry(image, n)?;
            let host = old & COMPRESSED == 0 && old & OFFSET_MASK != 0;
            let new = match (old, host) {
                (0, _) if !exact || below_is_zero(n)? => 0,
                (0, _) => ZERO,
                (_, true) if !unmap => old | ZERO,
                // With layers below, nothing but the flag keeps their bytes from coming back.
                _ if chain.layers.len() == 1 => 0,
                _ => ZERO,
            };
            if new != old {
                self.map(image, n, 1, |_| new)?;
            }
        }
        Ok(())
    }

    /// Write metadata out if much of it waits. What fails here stays, and the next flush tells. To
    /// be called after changes, when nobody waits for the caller.
    pub(crate) fn relieve(&self, chain: &LayerChain) {
        let meta = self.meta.lock().unwrap();
        let much = meta.slices.len() > PRESSURE || meta.unmapped.len() > PRESSURE;
        drop(meta);
        if much {
            let _ = self.commit(chain);
        }
    }
}
