//! Where the guest's bytes are: the L1 and L2 tables, read on demand.
//!
//! Tables are held in slices of at most 4 KiB of atomic words, so that a lookup takes no lock but
//! the map's read lock and a 20 GiB disk never costs more than what is used of it.

use super::header::{HEADER_LENGTH, INCOMPAT_DIRTY, INCOMPATIBLE_FEATURES};
use super::{COMPRESSED, COPIED, Header, OFFSET_MASK, ZERO, compressed, corrupt};
use crate::block::host::HostFile;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// What is read of a header at first, in bytes.
const PAGE: usize = 4096;
/// Words of a slice: one page.
const SLICE_WORDS: u64 = 512;
/// Slices held before clean ones are dropped: 4 MiB.
const MAX_SLICES: usize = 1024;
/// Bytes of unpacked compressed clusters held.
const UNPACKED_BYTES: usize = 1 << 20;

/// What a guest range is in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The layer below decides.
    Unallocated,
    /// Zeros.
    Zero,
    /// Bytes in the host file from this offset on; `copied` if they may be written in place.
    Data { host: u64, copied: bool },
    /// Inside one compressed cluster; see [`Qcow2File::unpack`].
    Compressed,
}

/// A piece of an L2 table.
pub(crate) struct Slice {
    pub words: Box<[AtomicU64]>,
    /// Changed since it was last written; such a slice is never dropped.
    pub dirty: AtomicBool,
    /// Number of the slice: first guest cluster / entries of a slice.
    pub index: u64,
}

/// One qcow2 file.
pub(crate) struct Qcow2File {
    pub host: HostFile,
    pub header: Header,
    pub l1: Box<[AtomicU64]>,
    /// Bytes that metadata may point to; grows with the file.
    pub file_len: AtomicU64,
    slices: RwLock<HashMap<u64, Arc<Slice>>>,
    unpacked: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

impl Qcow2File {
    /// Read header and L1 table. Nothing in the file makes it open another.
    ///
    /// # Errors
    /// `InvalidData` naming what can't be believed.
    pub(crate) fn open(host: HostFile) -> io::Result<Self> {
        let file_len = host.len()?;
        // Of most headers a page is all; the rest of a cluster would be memory that each clone
        // keeps.
        let len = file_len.clamp(HEADER_LENGTH.into(), 1 << 16) as usize;
        let mut first = vec![0; len.min(PAGE)];
        host.read_at(&mut first, 0)?;
        if first.len() < len && Header::reach(&first) > PAGE as u64 {
            first.resize(len, 0);
            host.read_at(&mut first, 0)?;
        }
        let cluster_bits = u32::from_be_bytes(first[20..24].try_into().unwrap_or_default());
        first.truncate(1 << cluster_bits.clamp(9, 16));
        let header = Header::parse(&first, file_len)?;
        let mut bytes = vec![0; header.l1_size as usize * 8];
        host.read_at(&mut bytes, header.l1_offset)?;
        let l1 = words(&bytes);
        let image = Self {
            host,
            header,
            l1,
            file_len: AtomicU64::new(file_len),
            slices: RwLock::default(),
            unpacked: Mutex::default(),
        };
        for entry in &image.l1 {
            let offset = entry.load(Ordering::Relaxed) & OFFSET_MASK;
            if offset != 0 {
                image.check_offset("an L2 table", offset)?;
            }
        }
        Ok(image)
    }

    /// Guest bytes, rounded up to whole sectors.
    pub(crate) fn size(&self) -> u64 {
        self.header.size.next_multiple_of(512)
    }

    /// Nothing was ever written to it.
    pub(crate) fn is_empty(&self) -> bool {
        self.l1.iter().all(|entry| entry.load(Ordering::Relaxed) == 0)
    }

    /// Set or clear the header's "dirty bit". The caller syncs.
    pub(crate) fn set_dirty(&self, dirty: bool) -> io::Result<()> {
        let mut features = [0; 8];
        self.host.read_at(&mut features, INCOMPATIBLE_FEATURES)?;
        let rest = u64::from_be_bytes(features) & !INCOMPAT_DIRTY;
        let features = if dirty { rest | INCOMPAT_DIRTY } else { rest };
        self.host.write_at(&features.to_be_bytes(), INCOMPATIBLE_FEATURES)
    }

    /// Cut off what the file has beyond `end`.
    pub(crate) fn truncate(&self, end: u64) -> io::Result<()> {
        if end < self.host.len()? {
            self.host.set_len(end)?;
            self.file_len.store(end, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Words of each slice.
    pub(crate) fn slice_words(&self) -> u64 {
        SLICE_WORDS.min(self.header.cluster_size() / 8)
    }

    /// Guest clusters that a slice maps.
    pub(crate) fn slice_entries(&self) -> u64 {
        self.slice_words() / self.header.words()
    }

    /// Where slice `index` is in the file, if its table is there.
    pub(crate) fn slice_offset(&self, index: u64) -> Option<u64> {
        let per_table = self.header.l2_entries() / self.slice_entries();
        let l1 = self.l1.get(usize::try_from(index / per_table).ok()?)?;
        match l1.load(Ordering::Acquire) & OFFSET_MASK {
            0 => None,
            table => Some(table + index % per_table * self.slice_words() * 8),
        }
    }

    /// Slice `index`; `None` if no L2 table is there.
    pub(crate) fn slice(&self, index: u64) -> io::Result<Option<Arc<Slice>>> {
        if self.slice_offset(index).is_none() {
            return Ok(None);
        }
        if let Some(slice) = self.slices.read().unwrap().get(&index) {
            return Ok(Some(slice.clone()));
        }
        let mut slices = self.slices.write().unwrap();
        if let Some(slice) = slices.get(&index) {
            return Ok(Some(slice.clone()));
        }
        let Some(offset) = self.slice_offset(index) else { return Ok(None) };
        if slices.len() >= MAX_SLICES {
            // Whoever may still change a slice holds it, and no new holder can appear under this
            // lock.
            slices.retain(|_, s| Arc::strong_count(s) > 1 || s.dirty.load(Ordering::Acquire));
        }
        let mut bytes = vec![0; self.slice_words() as usize * 8];
        self.host.read_at(&mut bytes, offset)?;
        let slice = Arc::new(Slice { words: words(&bytes), dirty: AtomicBool::new(false), index });
        self.check_slice(&slice)?;
        slices.insert(index, slice.clone());
        Ok(Some(slice))
    }

    /// Every pointer of a slice is checked when it is loaded, so that lookups need not.
    fn check_slice(&self, slice: &Slice) -> io::Result<()> {
        for pair in slice.words.chunks(self.header.words() as usize) {
            let entry = pair[0].load(Ordering::Relaxed);
            if entry & COMPRESSED != 0 {
                let (offset, _) = self.descriptor(entry);
                if offset >= self.file_len.load(Ordering::Relaxed) {
                    return Err(corrupt(format!("compressed data at {offset:#x}, beyond the end")));
                }
                continue;
            }
            let offset = entry & OFFSET_MASK;
            if offset != 0 {
                self.check_offset("a data cluster", offset)?;
            }
            if entry & ZERO != 0 && (self.header.version < 3 || self.header.extended_l2) {
                return Err(corrupt("a reserved bit is set in an L2 entry"));
            }
            if let Some(bitmap) = pair.get(1) {
                let bits = bitmap.load(Ordering::Relaxed);
                if (bits as u32) & ((bits >> 32) as u32) != 0 || (bits as u32 != 0 && offset == 0) {
                    return Err(corrupt("a subcluster bitmap contradicts itself"));
                }
            }
        }
        Ok(())
    }

    fn check_offset(&self, what: &str, offset: u64) -> io::Result<()> {
        let end = self.file_len.load(Ordering::Relaxed);
        if !offset.is_multiple_of(self.header.cluster_size()) || offset >= end {
            return Err(corrupt(format!(
                "{what} at {offset:#x} is misaligned or beyond the end of the file"
            )));
        }
        Ok(())
    }

    /// "Compressed Clusters Descriptor": host offset and length in bytes.
    fn descriptor(&self, entry: u64) -> (u64, usize) {
        let x = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << x) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> x;
        (offset, ((sectors + 1) * 512 - (offset & 511)) as usize)
    }

    /// What the range is, and how much of it (from its beginning) is like that. At most one slice
    /// is looked at. `len` is not 0 and the range is inside the image.
    pub(crate) fn map(&self, offset: u64, len: u64) -> io::Result<(Mapping, u64)> {
        let bits = self.header.cluster_bits;
        let cluster = offset >> bits;
        let index = cluster / self.slice_entries();
        let Some(slice) = self.slice(index)? else {
            let span = self.header.bytes_per_l2();
            return Ok((Mapping::Unallocated, len.min(span - offset % span)));
        };
        let first = cluster % self.slice_entries();
        let (mapping, mut have) = self.entry(&slice, first, offset)?;
        for at in first + 1..self.slice_entries() {
            if have >= len || mapping == Mapping::Compressed {
                break;
            }
            let next = (index * self.slice_entries() + at) << bits;
            if offset + have != next {
                break; // a subcluster ended it
            }
            let (mut expected, (found, more)) = (mapping, self.entry(&slice, at, next)?);
            if let Mapping::Data { host, .. } = &mut expected {
                *host += have;
            }
            if found != expected {
                break;
            }
            have += more;
        }
        Ok((mapping, have.min(len)))
    }

    /// The mapping of `offset`, which entry `at` of the slice maps, and its length inside the
    /// cluster.
    fn entry(&self, slice: &Slice, at: u64, offset: u64) -> io::Result<(Mapping, u64)> {
        let cluster_size = self.header.cluster_size();
        let within = offset % cluster_size;
        let rest = cluster_size - within;
        let entry = slice.words[(at * self.header.words()) as usize].load(Ordering::Acquire);
        if entry & COMPRESSED != 0 {
            return Ok((Mapping::Compressed, rest));
        }
        let host = entry & OFFSET_MASK;
        let data = Mapping::Data { host: host + within, copied: entry & COPIED != 0 };
        if self.header.extended_l2 {
            let bitmap = slice.words[at as usize * 2 + 1].load(Ordering::Acquire);
            return Ok(self.subclusters(bitmap, data, within));
        }
        Ok(match (entry & ZERO, host) {
            (ZERO, _) => (Mapping::Zero, rest),
            (_, 0) => (Mapping::Unallocated, rest),
            _ => (data, rest),
        })
    }

    /// "Extended L2 Entries": the low half of the bitmap says allocated, the high half reads as
    /// zeros.
    fn subclusters(&self, bitmap: u64, data: Mapping, within: u64) -> (Mapping, u64) {
        let size = self.header.cluster_size() / 32;
        let first = within / size;
        let state = |n: u64| (bitmap >> n & 1, bitmap >> (32 + n) & 1);
        let end = (first..32).find(|&n| state(n) != state(first)).unwrap_or(32);
        let mapping = match state(first) {
            (1, _) => data,
            (_, 1) => Mapping::Zero,
            _ => Mapping::Unallocated,
        };
        (mapping, end * size - within)
    }

    /// The whole cluster around `offset`, which [`Qcow2File::map`] called compressed.
    pub(crate) fn unpack(&self, offset: u64) -> io::Result<Arc<[u8]>> {
        let cluster = offset >> self.header.cluster_bits;
        let size = self.header.cluster_size() as usize;
        let slice = self.slice(cluster / self.slice_entries())?;
        let at = cluster % self.slice_entries() * self.header.words();
        let entry = slice.map_or(0, |s| s.words[at as usize].load(Ordering::Acquire));
        if let Some((_, bytes)) = self.unpacked.lock().unwrap().iter().find(|(e, _)| *e == entry) {
            return Ok(bytes.clone());
        }
        let (host, len) = self.descriptor(entry);
        let mut packed = vec![0; len];
        self.host.read_at(&mut packed, host)?;
        let bytes: Arc<[u8]> = compressed::unpack(&packed, size, self.header.compression)?.into();
        let mut unpacked = self.unpacked.lock().unwrap();
        while !unpacked.is_empty() && (unpacked.len() + 1) * size > UNPACKED_BYTES {
            unpacked.pop_front();
        }
        unpacked.push_back((entry, bytes.clone()));
        Ok(bytes)
    }
}

/// Big-endian words as a table holds them.
fn words(bytes: &[u8]) -> Box<[AtomicU64]> {
    let word = |b: &[u8]| AtomicU64::new(u64::from_be_bytes(b.try_into().unwrap_or_default()));
    bytes.chunks_exact(8).map(word).collect()
}
