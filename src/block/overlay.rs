//! Making a volume's disk: an empty qcow2 over a base, in constant time. Tidying one up after a
//! crash.

use super::DiskFormat;
use super::host::HostFile;
use super::qcow2::{Compression, Header, Qcow2File, repair as qcow2_repair};
use std::fs::File;
use std::io;

/// 64 KiB clusters: QEMU's default, and one 4 KiB piece of an L2 table maps 32 MiB.
const CLUSTER_BITS: u32 = 16;

/// What an overlay's header says about its base, for qemu-img's sake. Spore itself is given files.
pub struct Backing<'a> {
    /// A name relative to the directory of the overlay; at most 1023 bytes.
    pub name: &'a str,
    /// The base's format.
    pub format: DiskFormat,
}

/// Write an empty qcow2 overlay into `file`, which is new and empty. About 12 KiB reach the disk;
/// nothing is synced.
///
/// # Errors
/// `InvalidInput` if `size` is not a multiple of 512, is 0 or beyond 2 PiB, or the name is empty or
/// too long; I/O errors.
pub fn create(file: &File, size: u64, backing: Option<Backing<'_>>) -> io::Result<()> {
    create_with(file, size, backing, CLUSTER_BITS)
}

/// What [`repair`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Clusters given back, which were counted as used and were not.
    pub clusters: u64,
}

/// Give back what a killed VMM or a power loss left counted and unused in `file`, so that qemu-img
/// check finds nothing. An overlay that was closed cleanly says so in its header, and costs a read.
/// What the disk reads as stays.
///
/// `file` is open for reading and writing, and nobody else uses it.
///
/// # Errors
/// `InvalidData` if it is no qcow2 image or its metadata is worse than leaking; `Unsupported` if it
/// is dirty and not of [`create`]'s kind; I/O errors.
pub fn repair(file: &File) -> io::Result<Repaired> {
    let image = Qcow2File::open(HostFile::new(file.try_clone()?))?;
    let clusters = if image.header.dirty { qcow2_repair::reclaim(&image)? } else { 0 };
    Ok(Repaired { clusters })
}

/// Have the header of an overlay name another base, for qemu-img's sake, while it may be in use:
/// nothing else of the header is written.
///
/// # Errors
/// `InvalidInput` if the name is not one; I/O errors.
pub fn name_base(file: &File, backing: &Backing<'_>) -> io::Result<()> {
    if !(1..=1023).contains(&backing.name.len()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a base's file name has 1 to 1023 bytes",
        ));
    }
    let host = HostFile::new(file.try_clone()?);
    let mut header = Qcow2File::open(HostFile::new(file.try_clone()?))?.header;
    header.backing = Some(backing.name.to_owned());
    let bytes = header.to_bytes(format_name(backing.format));
    // "Header": extensions and name from byte 112 on; before them, where the name is.
    host.write_at(&bytes[112..], 112)?;
    host.write_at(&bytes[8..20], 8)?;
    host.sync()
}

/// A format as a qcow2 file names that of its backing file. (interop/qcow2.txt, "Backing file
/// format name")
pub(crate) fn format_name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
    }
}

/// Whether the overlay was not closed after its last change, by the one bit of its header that says
/// so.
///
/// # Errors
/// `InvalidData` if it is no qcow2 image; I/O errors.
pub fn is_dirty(file: &File) -> io::Result<bool> {
    Header::is_dirty(&HostFile::new(file.try_clone()?))
}

/// Whether nothing was ever written to the overlay.
///
/// # Errors
/// `InvalidData` if it is no qcow2 image; I/O errors.
pub fn is_empty(file: &File) -> io::Result<bool> {
    Ok(Qcow2File::open(HostFile::new(file.try_clone()?))?.is_empty())
}

/// [`create`] with clusters of another size.
pub(crate) fn create_with(
    file: &File,
    size: u64,
    backing: Option<Backing<'_>>,
    cluster_bits: u32,
) -> io::Result<()> {
    let cluster = 1u64 << cluster_bits;
    let invalid = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_string()));
    if size == 0 || !size.is_multiple_of(512) || size > 1 << 51 {
        return invalid("a disk's size must be a multiple of 512 bytes, and at most 2 PiB");
    }
    if backing.as_ref().is_some_and(|b| !(1..=1023).contains(&b.name.len())) {
        return invalid("a base's file name must have 1 to 1023 bytes");
    }
    let l1_size = size.div_ceil(cluster / 8 * cluster);
    let l1_clusters = (l1_size * 8).div_ceil(cluster);
    // One refcount table entry counts 2 GiB. Twice the disk's size leaves room for metadata and for
    // what is unmapped and not yet reusable; the table is sparse.
    let reftable_clusters =
        (size * 2).div_ceil(cluster / 2 * cluster * (cluster / 8)).clamp(1, 128);
    let refblock = (1 + reftable_clusters) * cluster;
    let header = Header {
        version: 3,
        cluster_bits,
        size,
        l1_offset: refblock + cluster,
        l1_size: l1_size as u32,
        reftable_offset: cluster,
        reftable_clusters: reftable_clusters as u32,
        refcount_order: 4,
        snapshots: 0,
        dirty: false,
        extended_l2: false,
        compression: Compression::Deflate,
        autoclear: 0,
        foreign: false,
        backing: backing.as_ref().map(|b| b.name.to_string()),
    };
    let format = format_name(backing.map_or(DiskFormat::Raw, |b| b.format));
    let clusters = 2 + reftable_clusters + l1_clusters;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    let host = HostFile::new(file.try_clone()?);
    host.set_len(clusters * cluster)?;
    host.write_at(&counts, refblock)?;
    host.write_at(&refblock.to_be_bytes(), cluster)?;
    host.write_at(&header.to_bytes(format), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Reader, open};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_new_overlay_is_small_whatever_its_size() {
        for size in [512, 64 << 30, 1 << 51] {
            let file = tempfile::tempfile().unwrap();
            let backing = Backing { name: "base", format: DiskFormat::Raw };
            create(&file, size, Some(backing)).unwrap();
            file.sync_all().unwrap();
            assert!(file.metadata().unwrap().blocks() * 512 <= 32 << 10);
            let reader = Reader::open(vec![(file, DiskFormat::Qcow2)]).unwrap();
            assert_eq!(reader.size(), size);
        }
    }

    #[test]
    fn impossible_sizes_and_names_are_refused() {
        let file = tempfile::tempfile().unwrap();
        for size in [0, 513, (1u64 << 51) + 512, u64::MAX - 511] {
            assert!(create(&file, size, None).is_err());
        }
        let long = "x".repeat(1024);
        for name in ["", &long] {
            let backing = Backing { name, format: DiskFormat::Raw };
            assert!(create(&file, 512, Some(backing)).is_err());
        }
        assert!(open(vec![(file, DiskFormat::Qcow2)], true).is_err());
    }
}
