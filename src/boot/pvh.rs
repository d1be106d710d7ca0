//! Entry as a Xen guest without a BIOS has it: what FreeBSD, NetBSD and many a unikernel know.
//! (Xen, docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h and elfnote.h)

use super::source::{u32_at, u64_at};
use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{ACPI, CMDLINE, PAGE, ZERO_PAGE};
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

/// Whose note it is, and which: XEN_ELFNOTE_PHYS32_ENTRY.
const NAME: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;
/// Bytes of a note before its name.
const NOTE_HEADER: usize = 12;

/// struct hvm_start_info: `xEn3` with the highest bit set, and the version with a memory map.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// Where it lies: a kernel that is entered so looks for no zero page.
const START_INFO: u64 = ZERO_PAGE;
const MODULES: u64 = START_INFO + 0x40;
const MEMORY_MAP: u64 = START_INFO + 0x80;

/// The entry point that one of these notes, each aligned so, tells of.
pub fn entry_point(notes: &[u8], align: usize) -> Option<u64> {
    let mut rest = notes;
    while rest.len() >= NOTE_HEADER {
        let size = |at: usize| u32_at(rest, at).and_then(|size| usize::try_from(size).ok());
        let (name, content) = (size(0)?, size(4)?);
        let kind = u32_at(rest, 8)?;
        let at = NOTE_HEADER.checked_add(name)?.checked_next_multiple_of(align)?;
        let end = at.checked_add(content)?;
        let is_ours = rest.get(NOTE_HEADER..NOTE_HEADER.checked_add(name)?)? == NAME;
        if is_ours && kind == PHYS32_ENTRY {
            return match content {
                4 => u32_at(rest, at).map(u64::from),
                8 => u64_at(rest, at),
                _ => None,
            };
        }
        rest = rest.get(end.checked_next_multiple_of(align)?..)?;
    }
    None
}

/// Write what a kernel that is entered so is told: where its command line, its RSDP, its memory and
/// its module, the initial ramdisk, are. The address of it, for ebx.
///
/// # Errors
/// RAM does not hold it (it does: the smallest guest has 16 MiB).
pub fn write(
    map: &[(Range<u64>, u32)],
    ramdisk: Option<Range<u64>>,
    ram: &GuestRam,
) -> Result<u64> {
    let put = |bytes: &[u8], at: u64| {
        ram.write_slice(bytes, GuestAddress(at)).or_fail(|| "write the start info")
    };
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut entries = Vec::new();
    for (range, kind) in map {
        entries.extend(words(&[range.start, range.end - range.start, (*kind).into()]));
    }
    debug_assert!(entries.len() as u64 <= START_INFO + PAGE - MEMORY_MAP);
    let halves = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let modules = if ramdisk.is_some() { MODULES } else { 0 };
    let info = [
        halves(MAGIC, VERSION),
        halves(0, ramdisk.is_some().into()), // flags, nr_modules
        modules,
        CMDLINE,
        ACPI, // the RSDP comes first
        MEMORY_MAP,
        map.len() as u64,
    ];
    put(&words(&info), START_INFO)?;
    if let Some(range) = ramdisk {
        put(&words(&[range.start, range.end - range.start, 0, 0]), MODULES)?;
    }
    put(&entries, MEMORY_MAP)?;
    Ok(START_INFO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{layout::MIN_MEMORY, ram};

    fn note(name: &[u8], kind: u32, content: &[u8], align: usize) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend((name.len() as u32).to_le_bytes());
        note.extend((content.len() as u32).to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(name);
        note.resize(note.len().next_multiple_of(align), 0);
        note.extend(content);
        note.resize(note.len().next_multiple_of(align), 0);
        note
    }

    #[test]
    fn the_note_is_found_among_others() {
        for align in [4, 8] {
            let others = [
                note(b"GNU\0", 3, &[7; 20], align),
                note(b"Xen\0", 6, b"FreeBSD\0", align),
                note(b"XenX\0", 18, &[9; 4], align),
            ];
            let others = others.concat();
            assert_eq!(entry_point(&others, align), None);
            let short = [others.clone(), note(NAME, 18, &[0, 0, 0x10, 0], align)].concat();
            assert_eq!(entry_point(&short, align), Some(0x10_0000));
            let long = note(NAME, 18, &0x20_0000u64.to_le_bytes(), align);
            assert_eq!(entry_point(&long, align), Some(0x20_0000));
            for len in 0..short.len() {
                assert_eq!(
                    entry_point(&short[..len], align).filter(|_| len < short.len() - 4),
                    None
                );
            }
        }
        assert_eq!(entry_point(&[0xff; 64], 4), None);
    }

    #[test]
    fn a_kernel_finds_its_memory_and_its_module() {
        let ram = ram::create(MIN_MEMORY).unwrap();
        let map = [(0..0x9_fc00, 1), (0x10_0000..MIN_MEMORY, 1)];
        let at = write(&map, Some(0xf0_0000..0xf0_0400), &ram).unwrap();
        let info: [u32; 14] = ram.read_obj(GuestAddress(at)).unwrap();
        assert_eq!(info[..4], [MAGIC, 1, 0, 1]);
        let module: [u64; 4] = ram.read_obj(GuestAddress(info[4].into())).unwrap();
        assert_eq!(module, [0xf0_0000, 0x400, 0, 0]);
        assert_eq!((u64::from(info[6]), u64::from(info[8]), info[12]), (CMDLINE, ACPI, 2));
        let second: [u64; 3] = ram.read_obj(GuestAddress(u64::from(info[10]) + 24)).unwrap();
        assert_eq!(second, [0x10_0000, MIN_MEMORY - 0x10_0000, 1]);
        write(&map, None, &ram).unwrap();
        let info: [u32; 14] = ram.read_obj(GuestAddress(at)).unwrap();
        assert_eq!((info[3], info[4]), (0, 0));
    }
}
