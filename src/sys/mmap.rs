//! mmap(2) for guest RAM: anonymous memory, and files laid over parts of it.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::fs::File;
use std::ptr::null_mut;
use vm_memory::MmapRegion;

/// Alignment of large mappings: a huge page, so that KVM can map the guest with huge pages too
/// (it needs guest and host address to be equal modulo 2 MiB).
pub const HUGE: usize = 2 << 20;

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
/// NORESERVE: a guest touches its RAM little by little, and N clones may be promised more than the
/// host has.
const ANONYMOUS: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// Whether the host backs memory with huge pages on first touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Ask for them (MADV_HUGEPAGE).
    Wanted,
    /// Refuse them (MADV_NOHUGEPAGE), even where the host gives them to everybody.
    Refused,
}

/// Map zeroed private memory, aligned to 2 MiB if it is to have huge pages, and hand it out in
/// adjacent pieces of these sizes (each a multiple of the page size).
///
/// The memory is never unmapped: a VMM has one guest for life, and the kernel may still be writing
/// to its RAM (io_uring) when the last handle goes.
///
/// # Errors
/// The host refuses the mapping.
pub fn anonymous(pieces: &[usize], huge: HugePages) -> std::io::Result<Vec<MmapRegion>> {
    let sum = |sum: usize, piece: &usize| sum.checked_add(*piece);
    let len = pieces.iter().try_fold(0, sum).ok_or(std::io::ErrorKind::OutOfMemory)?;
    let mut start = match huge {
        HugePages::Wanted => aligned(len)?,
        HugePages::Refused => map(len)?,
    };
    advise(start, len, huge);
    let mut regions = Vec::with_capacity(pieces.len());
    for &piece in pieces {
        let flags = ANONYMOUS.bits() as i32 | libc::MAP_ANONYMOUS;
        // SAFETY: `piece` bytes from `start` are part of the mapping just made, which stays
        // forever.
        let region =
            unsafe { MmapRegion::build_raw(start, piece, READ_WRITE.bits() as i32, flags) };
        regions.push(region.map_err(std::io::Error::other)?);
        start = start.wrapping_add(piece);
    }
    Ok(regions)
}

fn map(len: usize) -> std::io::Result<*mut u8> {
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe { mmap_anonymous(null_mut(), len, READ_WRITE, ANONYMOUS) }?;
    Ok(start.cast())
}

fn aligned(len: usize) -> std::io::Result<*mut u8> {
    let base = map(len.checked_add(HUGE).ok_or(std::io::ErrorKind::OutOfMemory)?)?;
    let before = base.align_offset(HUGE);
    let start = base.wrapping_add(before);
    for (address, len) in [(base, before), (start.wrapping_add(len), HUGE - before)] {
        if len > 0 {
            // SAFETY: the piece is part of the mapping just made and outside the part that is kept.
            unsafe { munmap(address.cast(), len) }?;
        }
    }
    Ok(start)
}

/// Neither piece of advice changes what memory holds, and a kernel built without them is no reason
/// not to run.
fn advise(start: *mut u8, len: usize, huge: HugePages) {
    let pages = match huge {
        HugePages::Wanted => Advice::LinuxHugepage,
        HugePages::Refused => Advice::LinuxNoHugepage,
    };
    for advice in [pages, Advice::LinuxDontDump] {
        // SAFETY: these two do not touch content; the range is a live mapping of our own.
        let _ = unsafe { madvise(start.cast(), len, advice) };
    }
}

/// Make a region as [`anonymous`] left it: all zero, and no file mapped over it.
///
/// # Errors
/// The host refuses the mapping.
pub fn clear(region: &MmapRegion, huge: HugePages) -> std::io::Result<()> {
    let (start, len) = (region.as_ptr(), region.size());
    // SAFETY: replaces exactly the region's own pages. They are guest RAM, which nothing holds a
    // Rust reference to.
    unsafe { mmap_anonymous(start.cast(), len, READ_WRITE, ANONYMOUS | MapFlags::FIXED) }?;
    advise(start, len, huge);
    Ok(())
}

/// Lay `len` bytes of `file` from `file_offset` on, copy-on-write, over the region's pages from
/// `offset` on. All three are page-aligned; bytes beyond the end of the file's last page must not
/// be asked for.
///
/// # Errors
/// Not aligned, not inside the region, or the file cannot be mapped.
pub fn map_file(
    region: &MmapRegion,
    offset: usize,
    file: &File,
    file_offset: u64,
    len: usize,
) -> std::io::Result<()> {
    let aligned = (offset | len | file_offset as usize).is_multiple_of(rustix::param::page_size());
    let inside = offset.checked_add(len).is_some_and(|end| end <= region.size());
    if !aligned || !inside || len == 0 {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let at = region.as_ptr().wrapping_add(offset);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: replaces only pages inside the region. They are guest RAM, which nothing holds a Rust
    // reference to.
    unsafe { mmap(at.cast(), len, READ_WRITE, flags, file, file_offset) }?;
    Ok(())
}
