//! The qcow2 header (QEMU's docs/interop/qcow2.txt, "Header").

use super::corrupt;
use crate::block::host::HostFile;
use std::io;

pub(crate) const MAGIC: u32 = 0x5146_49fb; // "QFI\xfb"
/// Header bytes of version 3 with the compression type.
pub(crate) const HEADER_LENGTH: u32 = 112;
/// QEMU's QCOW_MAX_L1_SIZE, in bytes.
const MAX_L1_BYTES: u64 = 32 << 20;
/// QEMU's QCOW_MAX_REFTABLE_SIZE, in bytes.
const MAX_REFTABLE_BYTES: u64 = 8 << 20;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_END: u32 = 0;

/// Offset of the incompatible features.
pub(crate) const INCOMPATIBLE_FEATURES: u64 = 72;
pub(crate) const INCOMPAT_DIRTY: u64 = 1 << 0;
const INCOMPAT_CORRUPT: u64 = 1 << 1;
const INCOMPAT_DATA_FILE: u64 = 1 << 2;
const INCOMPAT_COMPRESSION: u64 = 1 << 3;
const INCOMPAT_EXTENDED_L2: u64 = 1 << 4;

/// How compressed clusters are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Deflate,
    Zstd,
}

/// The header's fields, checked.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    pub l1_offset: u64,
    pub l1_size: u32,
    pub reftable_offset: u64,
    pub reftable_clusters: u32,
    pub refcount_order: u32,
    pub snapshots: u32,
    /// "Dirty bit": the refcounts are to be computed anew before the image is changed.
    pub dirty: bool,
    pub extended_l2: bool,
    pub compression: Compression,
    pub autoclear: u64,
    /// There may be header extensions that own clusters which no table leads to, such as bitmaps.
    pub foreign: bool,
    pub backing: Option<String>,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

impl Header {
    /// Whether the "dirty bit" is set, of a file of which nothing else is believed.
    ///
    /// # Errors
    /// `InvalidData` if it is no qcow2 image of version 3; I/O errors.
    pub(crate) fn is_dirty(host: &HostFile) -> io::Result<bool> {
        let mut start = [0; INCOMPATIBLE_FEATURES as usize + 8];
        host.read_at(&mut start, 0)?;
        match (be32(&start, 0), be32(&start, 4)) {
            (MAGIC, 3) => Ok(be64(&start, INCOMPATIBLE_FEATURES as usize) & INCOMPAT_DIRTY != 0),
            (MAGIC, 2) => Ok(false),
            _ => Err(corrupt("it is no qcow2 image")),
        }
    }

    /// Check that the image is of the kind that [`super::writer::Writer`] knows to change.
    ///
    /// # Errors
    /// `Unsupported`: it is not.
    pub(super) fn check_writable(&self) -> io::Result<()> {
        let ours = self.version == 3 && self.refcount_order == 4 && self.cluster_bits >= 12;
        if ours && !self.extended_l2 && self.snapshots == 0 {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the image is not writable: it must be qcow2 version 3 with clusters of 4 KiB to 2 MiB, \
             16-bit refcounts, no extended L2 entries and no internal snapshots",
        ))
    }

    /// Parse the beginning of a file: at least 112 bytes, for the backing file's name the first
    /// cluster.
    ///
    /// # Errors
    /// `InvalidData` naming the field if it is not a qcow2 image, is corrupt, encrypted, or needs a
    /// feature that is not known.
    pub(crate) fn parse(bytes: &[u8], file_len: u64) -> io::Result<Self> {
        if bytes.len() < HEADER_LENGTH as usize || be32(bytes, 0) != MAGIC {
            return Err(corrupt("it is not a qcow2 image (no QFI magic)"));
        }
        let version = be32(bytes, 4);
        if !(2..=3).contains(&version) {
            return Err(corrupt(format!(
                "qcow2 version {version} is not supported (only 2 and 3)"
            )));
        }
        let v3 = version == 3;
        let header_length = if v3 { be32(bytes, 100) } else { 72 };
        let incompat = if v3 { be64(bytes, 72) } else { 0 };
        Self::check_features(incompat)?;
        let compression = if incompat & INCOMPAT_COMPRESSION == 0 {
            Compression::Deflate
        } else if header_length > 104 && bytes[104] == 1 {
            Compression::Zstd
        } else {
            return Err(corrupt(format!("unknown compression type {}", bytes[104])));
        };
        let header = Self {
            version,
            cluster_bits: be32(bytes, 20),
            size: be64(bytes, 24),
            l1_offset: be64(bytes, 40),
            l1_size: be32(bytes, 36),
            reftable_offset: be64(bytes, 48),
            reftable_clusters: be32(bytes, 56),
            refcount_order: if v3 { be32(bytes, 96) } else { 4 },
            snapshots: be32(bytes, 60),
            dirty: incompat & INCOMPAT_DIRTY != 0,
            extended_l2: incompat & INCOMPAT_EXTENDED_L2 != 0,
            compression,
            autoclear: if v3 { be64(bytes, 88) } else { 0 },
            foreign: !only_known_extensions(bytes, header_length as usize),
            backing: backing_name(bytes)?,
        };
        if be32(bytes, 32) != 0 {
            return Err(corrupt("it is encrypted; decrypt it with qemu-img convert first"));
        }
        if v3 && (header_length < 104 || header_length as u64 > 1 << header.cluster_bits.min(21)) {
            return Err(corrupt(format!("header length {header_length}")));
        }
        header.check(file_len)?;
        Ok(header)
    }

    /// Bytes of the beginning of a file that [`Self::parse`] looks at, as far as `bytes` of it
    /// tell: header, extensions and the backing file's name.
    pub(super) fn reach(bytes: &[u8]) -> u64 {
        let mut at = if be32(bytes, 4) < 3 { 72 } else { u64::from(be32(bytes, 100)) };
        while let Ok(from) = usize::try_from(at)
            && from.checked_add(8).is_some_and(|end| end <= bytes.len())
            && be32(bytes, from) != EXTENSION_END
        {
            at += 8 + u64::from(be32(bytes, from + 4)).next_multiple_of(8);
        }
        let name = be64(bytes, 8).saturating_add(be32(bytes, 16).into());
        name.max(at + 8)
    }

    fn check_features(incompat: u64) -> io::Result<()> {
        let known = INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_DATA_FILE;
        let unknown = incompat & !(known | INCOMPAT_COMPRESSION | INCOMPAT_EXTENDED_L2);
        if unknown != 0 {
            return Err(corrupt(format!("unknown incompatible features {unknown:#x}")));
        }
        if incompat & INCOMPAT_CORRUPT != 0 {
            return Err(corrupt("it is marked corrupt; repair it with qemu-img check -r all"));
        }
        if incompat & INCOMPAT_DATA_FILE != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it has an external data file; flatten it with qemu-img convert where it was made",
            ));
        }
        Ok(())
    }

    fn check(&self, file_len: u64) -> io::Result<()> {
        if !(9..=21).contains(&self.cluster_bits) || (self.extended_l2 && self.cluster_bits < 14) {
            return Err(corrupt(format!("cluster_bits {} is out of range", self.cluster_bits)));
        }
        if self.refcount_order > 6 {
            return Err(corrupt(format!("refcount_order {} is out of range", self.refcount_order)));
        }
        if self.size > i64::MAX as u64 - 511 {
            return Err(corrupt(format!("a virtual size of {} bytes is too large", self.size)));
        }
        let l1_bytes = u64::from(self.l1_size) * 8;
        let needed = self.size.div_ceil(self.bytes_per_l2());
        if l1_bytes > MAX_L1_BYTES || u64::from(self.l1_size) < needed {
            return Err(corrupt(format!(
                "l1_size {} does not fit a size of {} bytes",
                self.l1_size, self.size
            )));
        }
        self.check_range("L1 table", self.l1_offset, l1_bytes, file_len)?;
        let reftable_bytes = u64::from(self.reftable_clusters) << self.cluster_bits;
        if reftable_bytes > MAX_REFTABLE_BYTES || reftable_bytes == 0 {
            return Err(corrupt(format!("{} refcount table clusters", self.reftable_clusters)));
        }
        self.check_range("refcount table", self.reftable_offset, reftable_bytes, file_len)
    }

    fn check_range(&self, what: &str, offset: u64, len: u64, file_len: u64) -> io::Result<()> {
        let end = offset.checked_add(len);
        let inside = end.is_some_and(|end| end <= file_len.next_multiple_of(self.cluster_size()));
        if len > 0 && (offset == 0 || !offset.is_multiple_of(self.cluster_size()) || !inside) {
            return Err(corrupt(format!(
                "the {what} at {offset:#x} is misaligned or beyond the end of the file"
            )));
        }
        Ok(())
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// 64-bit words of one L2 entry.
    pub(crate) fn words(&self) -> u64 {
        if self.extended_l2 { 2 } else { 1 }
    }

    pub(crate) fn l2_entries(&self) -> u64 {
        self.cluster_size() / 8 / self.words()
    }

    /// Guest bytes that one L2 table maps.
    pub(crate) fn bytes_per_l2(&self) -> u64 {
        self.l2_entries() << self.cluster_bits
    }

    /// The header of a new version 3 image, with the backing file's name and format for other
    /// tools.
    pub(crate) fn to_bytes(&self, backing_format: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let name = self.backing.as_deref().unwrap_or("").as_bytes();
        let mut extensions = Vec::new();
        if self.backing.is_some() {
            extensions.extend(EXTENSION_BACKING_FORMAT.to_be_bytes());
            extensions.extend((backing_format.len() as u32).to_be_bytes());
            extensions.extend(backing_format.as_bytes());
            extensions.resize(extensions.len().next_multiple_of(8), 0);
        }
        extensions.extend([0; 8]); // end of the header extension area
        let name_at = match name.len() {
            0 => 0,
            _ => u64::from(HEADER_LENGTH) + extensions.len() as u64,
        };
        out.extend(MAGIC.to_be_bytes());
        out.extend(3u32.to_be_bytes());
        out.extend(name_at.to_be_bytes());
        out.extend((name.len() as u32).to_be_bytes());
        out.extend(self.cluster_bits.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend(0u32.to_be_bytes()); // crypt_method
        out.extend(self.l1_size.to_be_bytes());
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.reftable_offset.to_be_bytes());
        out.extend(self.reftable_clusters.to_be_bytes());
        out.extend([0; 12]); // nb_snapshots, snapshots_offset
        out.extend([0; 24]); // incompatible, compatible, autoclear features
        out.extend(self.refcount_order.to_be_bytes());
        out.extend(HEADER_LENGTH.to_be_bytes());
        out.extend([0; 8]); // compression type deflate, padding
        out.extend(extensions);
        out.extend(name);
        out
    }
}

/// "Header extensions": whether none but those that own no clusters are there.
fn only_known_extensions(bytes: &[u8], header_length: usize) -> bool {
    let mut at = header_length;
    while bytes.len() >= 8 && at <= bytes.len() - 8 {
        match be32(bytes, at) {
            EXTENSION_END => return true,
            EXTENSION_BACKING_FORMAT | EXTENSION_FEATURE_NAMES => {}
            _ => return false,
        }
        let len = be32(bytes, at + 4) as usize;
        at = at.saturating_add(8).saturating_add(len.next_multiple_of(8));
    }
    false
}

/// "Backing file name": inside the first cluster, at most 1023 bytes.
fn backing_name(bytes: &[u8]) -> io::Result<Option<String>> {
    let (offset, len) = (be64(bytes, 8), be32(bytes, 16) as usize);
    if offset == 0 {
        return Ok(None);
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let name = start.checked_add(len).and_then(|end| bytes.get(start..end));
    match name {
        Some(name) if (1..=1023).contains(&len) => {
            Ok(Some(String::from_utf8_lossy(name).into_owned()))
        }
        _ => Err(corrupt("the backing file name lies outside of the first cluster")),
    }
}
