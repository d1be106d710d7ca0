//! Guest RAM as vm-memory's mappings.

use crate::error::{Error, OrFail, Result};
use crate::mem::layout::{MIN_MEMORY, MMIO_HOLE, PAGE, RAM_ABOVE_4G};
use crate::sys::fds;
use crate::sys::mmap::{self, HugePages};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

/// Guest RAM. Cheap to clone; the mapping lives as long as the process.
pub type GuestRam = Arc<GuestMemoryMmap>;

/// From this size on a guest gets huge pages: it will fill them, and its TLB misses would tell. A
/// smaller one (a clone of a unikernel touches some hundred KiB) would pay 2 MiB of zeroing and of
/// host memory for each first touch.
const HUGE_PAGES_FROM: u64 = 256 << 20;
/// What is read of a file at a time: it stays in the CPU's cache until it is copied.
const CHUNK: u64 = 256 << 10;

/// One piece of RAM as a KVM memory slot describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// Guest-physical address.
    pub gpa: u64,
    /// Where this process has it mapped.
    pub host: u64,
    /// Bytes.
    pub len: u64,
}

/// Where `size` bytes of RAM lie: up to [`MMIO_HOLE`], the rest from 4 GiB on. (address, bytes)
pub fn ranges(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let low = size.min(MMIO_HOLE);
    [(0, low), (RAM_ABOVE_4G, size - low)].into_iter().filter(|&(_, len)| len > 0)
}

/// Allocate RAM of `size` bytes, a multiple of 4 KiB and at least 16 MiB. It is all zero, takes
/// host memory only as it is touched, and is left out of core dumps.
///
/// # Errors
/// A size that can't be, or the host refuses the mapping.
pub fn create(size: u64) -> Result<GuestRam> {
    if size < MIN_MEMORY || !size.is_multiple_of(PAGE) {
        return Err(Error::failure(format!(
            "guest memory of {size} bytes is not possible: give a multiple of 4 KiB, at least 16 MiB"
        )));
    }
    let refused = |cause: &dyn std::fmt::Display| {
        Error::failure(format!(
            "cannot map {} MiB of guest memory: {cause}; give the instance less memory, or raise \
             'ulimit -v' or vm.max_map_count",
            size >> 20
        ))
    };
    let pieces: Vec<usize> = ranges(size).map(|(_, len)| len as usize).collect();
    let mappings = mmap::anonymous(&pieces, huge_pages(size)).map_err(|e| refused(&e))?;
    let mut regions = Vec::with_capacity(pieces.len());
    for ((gpa, _), mapping) in ranges(size).zip(mappings) {
        let region = GuestRegionMmap::new(mapping, GuestAddress(gpa));
        regions.push(region.ok_or_else(|| refused(&"it reaches beyond the last address"))?);
    }
    Ok(Arc::new(GuestMemoryMmap::from_regions(regions).or_fail(|| "arrange guest memory")?))
}

fn huge_pages(size: u64) -> HugePages {
    if size >= HUGE_PAGES_FROM { HugePages::Wanted } else { HugePages::Refused }
}

/// Bytes of RAM in all.
pub fn size(ram: &GuestRam) -> u64 {
    ram.iter().map(|region| region.len()).sum()
}

/// The first address after the RAM below 4 GiB.
pub fn low_end(ram: &GuestRam) -> u64 {
    size(ram).min(MMIO_HOLE)
}

/// The pieces that KVM_SET_USER_MEMORY_REGION wants, lowest first.
pub fn regions(ram: &GuestRam) -> impl Iterator<Item = RamRegion> {
    ram.iter().map(|region| RamRegion {
        gpa: region.start_addr().0,
        host: region.as_ptr() as u64,
        len: region.len(),
    })
}

/// Make RAM as [`create`] gave it, for a machine that resets. Host addresses stay what they are.
///
/// # Errors
/// The host refuses the mapping.
pub fn clear(ram: &GuestRam) -> Result<()> {
    let huge = huge_pages(size(ram));
    ram.iter()
        .try_for_each(|region| mmap::clear(&region.get_mmap(), huge))
        .or_fail(|| "clear guest memory")
}

/// Lay `len` bytes of `file` from `offset` on over RAM at `gpa`, which is all zero. All three are
/// page-aligned; the last page may reach beyond the end of the file and then reads as zeros there.
///
/// RAM of small pages is mapped copy-on-write: clones share the host's page cache until they write.
/// Into huge pages the file is read: mapped, each of its small pages would cost the guest an exit
/// at its first touch, and its TLB misses after that, which takes longer than the copy of all of
/// them.
///
/// # Errors
/// Not page-aligned, not RAM, the file can't be read, or its file system cannot map files.
pub fn lay_file(ram: &GuestRam, gpa: u64, file: &File, offset: u64, len: u64) -> Result<()> {
    match huge_pages(size(ram)) {
        HugePages::Refused => map_file(ram, gpa, file, offset, len),
        HugePages::Wanted => read_file(ram, gpa, file, offset, len),
    }
}

fn read_file(ram: &GuestRam, gpa: u64, file: &File, offset: u64, len: u64) -> Result<()> {
    let doing = || format!("read {len} bytes at offset {offset:#x} of a file to {gpa:#x}");
    let there = fds::len(file).or_fail(doing)?.saturating_sub(offset).min(len);
    let end = gpa.checked_add(there).ok_or("no RAM there").or_fail(doing)?;
    // Clones share the file's position.
    let read = |at: u64, chunk: &mut [u8]| file.read_exact_at(chunk, offset + (at - gpa));
    fill(ram, gpa..end, |at, chunk| read(at, chunk).or_fail(doing))
}

/// Fill RAM at these addresses, a piece after the other: `read` has the buffer for what comes at an
/// address.
///
/// # Errors
/// Not RAM, or `read`'s.
pub fn fill(
    ram: &GuestRam,
    addresses: Range<u64>,
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK.min(addresses.end - addresses.start) as usize];
    for at in addresses.clone().step_by(CHUNK as usize) {
        let chunk = &mut buffer[..CHUNK.min(addresses.end - at) as usize];
        read(at, chunk)?;
        ram.write_slice(chunk, GuestAddress(at)).or_fail(|| format!("fill memory at {at:#x}"))?;
    }
    Ok(())
}

/// Map `len` bytes of `file` from `offset` on copy-on-write over RAM at `gpa`: nothing is read
/// before the guest touches it. All three are page-aligned.
///
/// # Errors
/// Not page-aligned, not RAM, or the file's file system cannot map files.
pub fn map_file(ram: &GuestRam, gpa: u64, file: &File, offset: u64, len: u64) -> Result<()> {
    let doing = || format!("map {len} bytes at offset {offset:#x} of a file at {gpa:#x}");
    let region = ram.find_region(GuestAddress(gpa)).ok_or("no RAM there").or_fail(doing)?;
    let start = gpa - region.start_addr().0;
    mmap::map_file(&region.get_mmap(), start as usize, file, offset, len as usize).or_fail(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    #[test]
    fn ram_leaves_the_hole_below_4_gib_free() {
        assert_eq!(ranges(16 << 20).collect::<Vec<_>>(), [(0, 16 << 20)]);
        assert_eq!(ranges(MMIO_HOLE).collect::<Vec<_>>(), [(0, MMIO_HOLE)]);
        assert_eq!(ranges(5 << 30).collect::<Vec<_>>(), [(0, MMIO_HOLE), (RAM_ABOVE_4G, 2 << 30)]);
    }

    #[test]
    fn a_guest_beyond_4_gib_has_two_aligned_regions() {
        let ram = create(5 << 30).unwrap();
        let regions: Vec<_> = regions(&ram).collect();
        assert_eq!(regions.len(), 2);
        assert!(regions.iter().all(|r| r.host.is_multiple_of(mmap::HUGE as u64)));
        assert_eq!(regions[1].gpa, RAM_ABOVE_4G);
        ram.write_obj(7u64, GuestAddress(RAM_ABOVE_4G + (2 << 30) - 8)).unwrap();
        assert!(ram.write_obj(7u64, GuestAddress(MMIO_HOLE)).is_err());
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for bad in [0, MIN_MEMORY - PAGE, MIN_MEMORY + 1, 1 << 63] {
            assert!(create(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_over_ram_stays_as_it_is_and_is_cleared_by_a_reset() {
        for size in [MIN_MEMORY, HUGE_PAGES_FROM] {
            let ram = create(size).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[7; 5000]).unwrap();
            lay_file(&ram, 0x10_0000, &file, 0, 2 * PAGE).unwrap();
            let at = |offset| ram.read_obj::<u8>(GuestAddress(0x10_0000 + offset)).unwrap();
            assert_eq!((at(0), at(4999), at(5000), at(2 * PAGE)), (7, 7, 0, 0));
            ram.write_obj(8u8, GuestAddress(0x10_0000)).unwrap();
            let mut first = [0];
            file.read_at(&mut first, 0).unwrap();
            assert_eq!(first, [7]);
            clear(&ram).unwrap();
            assert_eq!((at(0), at(4999)), (0, 0));
            lay_file(&ram, 0, &file, PAGE, PAGE).unwrap();
            let at = |address| ram.read_obj::<u8>(GuestAddress(address)).unwrap();
            assert_eq!((at(0), at(5000 - PAGE - 1), at(5000 - PAGE)), (7, 7, 0));
        }
    }

    #[test]
    fn nothing_is_mapped_outside_ram() {
        let ram = create(MIN_MEMORY).unwrap();
        let file = tempfile::tempfile().unwrap();
        for (gpa, offset, len) in [
            (MIN_MEMORY, 0, PAGE),
            (MIN_MEMORY - PAGE, 0, 2 * PAGE),
            (0, 1, PAGE),
            (1, 0, PAGE),
            (0, 0, 0),
            (PAGE, 0, !(PAGE - 1)),
        ] {
            assert!(lay_file(&ram, gpa, &file, offset, len).is_err());
        }
    }
}
