//! ELF executables: their program headers, and loading them at their physical addresses.
//! (System V ABI, "Object Files" and "Program Loading")

use super::source::{Source, refused, u16_at, u32_at, u64_at};
use super::{Mode, pvh};
use crate::error::{Code, Error, Result};
use crate::mem::layout::{HIGH_RAM, PAGE, RAM_ABOVE_4G};
use crate::mem::{GuestRam, ram};
use std::ops::Range;

/// What an ELF file begins with.
pub const MAGIC: &[u8] = b"\x7fELF";
/// Bytes of an ELF64 header, the longer of the two.
pub const HEADER: usize = 64;
/// More program headers than any kernel has; 64 of them and the header fit one page.
const MAX_SEGMENTS: u16 = 64;
/// Most bytes of a segment of notes that are looked at.
const MAX_NOTES: u64 = 64 << 10;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// One program header, checked: its bytes are in the file, and no sum overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// PT_LOAD rather than PT_NOTE.
    pub load: bool,
    /// p_flags.
    pub flags: u32,
    /// p_offset.
    pub offset: u64,
    /// p_vaddr.
    pub vaddr: u64,
    /// p_paddr.
    pub paddr: u64,
    /// p_filesz.
    pub filesz: u64,
    /// p_memsz, at least `filesz`.
    pub memsz: u64,
    /// p_align.
    pub align: u64,
}

impl Segment {
    /// The physical addresses that it takes.
    pub fn extent(&self) -> Range<u64> {
        self.paddr..self.paddr + self.memsz
    }
}

/// Where the two classes of ELF have what.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes of the header.
    pub header: usize,
    /// Bytes of a program header.
    pub program_header: usize,
    /// Bytes of an address, an offset or a size.
    pub word: usize,
    /// Offset of e_phoff, behind e_entry; e_shoff follows.
    pub phoff: usize,
    /// Offset of e_phentsize; e_phnum, e_shentsize, e_shnum and e_shstrndx follow.
    pub phentsize: usize,
    /// Offsets of p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align in a program header.
    pub words: [usize; 6],
    /// Offset of p_flags.
    pub flags: usize,
}

impl Mode {
    /// The class of the kernels that run in it.
    pub fn layout(self) -> Layout {
        match self {
            Self::Long => Layout {
                header: 64,
                program_header: 56,
                word: 8,
                phoff: 0x20,
                phentsize: 0x36,
                words: [8, 16, 24, 32, 40, 48],
                flags: 4,
            },
            Self::Protected => Layout {
                header: 52,
                program_header: 32,
                word: 4,
                phoff: 0x1c,
                phentsize: 0x2a,
                words: [4, 8, 12, 16, 20, 28],
                flags: 24,
            },
        }
    }
}

impl Layout {
    /// An address, an offset or a size at `at`; 0 beyond the end.
    fn word_at(&self, bytes: &[u8], at: usize) -> u64 {
        match self.word {
            4 => u32_at(bytes, at).unwrap_or(0).into(),
            _ => u64_at(bytes, at).unwrap_or(0),
        }
    }
}

/// An executable for x86-64 (ELF64) or i386 (ELF32) that can be entered at its physical address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// What it is compiled for.
    pub mode: Mode,
    /// The physical address of the entry point.
    pub entry: u64,
    /// It is entered as a Xen guest without a BIOS is, in 32-bit mode, whatever it is compiled for.
    pub pvh: bool,
    /// PT_LOAD and PT_NOTE, in the file's order. No two PT_LOAD overlap.
    pub segments: Vec<Segment>,
}

impl Elf {
    /// Read and check the headers.
    ///
    /// # Errors
    /// Not an executable for x86-64 or i386, truncated, or with impossible segments.
    pub fn parse(source: Source) -> Result<Self> {
        let header = source.head(HEADER as u64)?;
        let (mode, entry, table, count) = parse_header(&header)?;
        let size = mode.layout().program_header;
        let mut headers = vec![0; usize::from(count) * size];
        let end = table.checked_add(headers.len() as u64);
        if end.is_none_or(|end| end > source.len()) {
            return Err(refused("the file is truncated in its program headers; fetch it again"));
        }
        source.read(table, &mut headers)?;
        let segments = headers
            .chunks_exact(size)
            .filter_map(|header| parse_segment(header, mode.layout(), source.len()).transpose())
            .collect::<Result<Vec<_>>>()?;
        let mut elf = Self { mode, entry, pvh: false, segments };
        if let Some(other) = elf.pvh_entry(source)? {
            // Linux has both, and is entered by its own protocol: at e_entry, in its own mode.
            if other == entry || !elf.holds(entry) {
                (elf.entry, elf.pvh) = (other, true);
            }
        }
        elf.check_placement()?;
        Ok(elf)
    }

    /// The PT_LOAD segments.
    pub fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.load)
    }

    /// The entry point of a Xen guest, if its notes tell of one that is in it.
    fn pvh_entry(&self, source: Source) -> Result<Option<u64>> {
        for note in self.segments.iter().filter(|segment| !segment.load) {
            let mut notes = vec![0; note.filesz.min(MAX_NOTES) as usize];
            source.read(note.offset, &mut notes)?;
            let align = if note.align == 8 { 8 } else { 4 };
            if let Some(entry) = pvh::entry_point(&notes, align).filter(|entry| self.holds(*entry))
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Something of the file is at this physical address.
    fn holds(&self, address: u64) -> bool {
        let held = |segment: &Segment| {
            segment
                .paddr
                .checked_add(segment.filesz)
                .is_some_and(|end| (segment.paddr..end).contains(&address))
        };
        self.loads().any(held)
    }

    fn check_placement(&self) -> Result<()> {
        let mut extents: Vec<_> = self.loads().map(Segment::extent).collect();
        extents.sort_by_key(|extent| extent.start);
        if let Some(pair) = extents.windows(2).find(|pair| pair[0].end > pair[1].start) {
            let (one, other) = (&pair[0], &pair[1]);
            return Err(refused(format_args!("segments {one:#x?} and {other:#x?} overlap")));
        }
        if let Some(low) = extents.iter().find(|extent| extent.start < HIGH_RAM) {
            return Err(refused(format_args!(
                "it wants to be at {:#x}, but boot parameters and tables lie below 1 MiB; link it higher",
                low.start
            )));
        }
        if let Some(high) = extents.iter().find(|extent| extent.end > RAM_ABOVE_4G) {
            return Err(refused(format_args!(
                "it wants to be at {:#x}, but only 4 GiB are mapped at entry; link it lower",
                high.start
            )));
        }
        if !self.holds(self.entry) {
            return Err(refused(format_args!(
                "its entry point {:#x} is not the physical address of anything in it",
                self.entry
            )));
        }
        Ok(())
    }

    /// Load all segments into RAM, which is all zero where they go. Whole pages are laid over it
    /// where the source is a file that has them at an offset equal to their address modulo a page;
    /// the rest is copied. The result is the range of addresses that the kernel takes, zeroed data
    /// included.
    ///
    /// # Errors
    /// RAM is too small, or the file cannot be read or mapped.
    pub fn load(&self, source: Source, ram: &GuestRam) -> Result<Range<u64>> {
        let end = self.loads().map(|segment| segment.extent().end).max().unwrap_or(0);
        let start = self.loads().map(|segment| segment.paddr).min().unwrap_or(end);
        if end > ram::low_end(ram) {
            return Err(Error::refused(
                Code::InvalidParameterValue,
                format!(
                    "the kernel needs {} MiB of memory and more, the instance has {}: give it more (`Memory`)",
                    end.div_ceil(1 << 20),
                    ram::size(ram) >> 20
                ),
            ));
        }
        self.loads().try_for_each(|segment| load_segment(segment, source, ram))?;
        Ok(start..end)
    }
}

/// (mode, e_entry, e_phoff, e_phnum)
fn parse_header(header: &[u8]) -> Result<(Mode, u64, u64, u16)> {
    let whole: &[u8; HEADER] =
        header.first_chunk().ok_or_else(|| refused("the file is truncated in its ELF header"))?;
    let byte = |at: usize| whole[at];
    let half = |at| u16_at(whole, at).unwrap_or(0);
    let (class, data, kind, machine) = (byte(4), byte(5), half(0x10), half(0x12));
    if !whole.starts_with(MAGIC) {
        return Err(refused("no ELF file"));
    }
    if machine == EM_AARCH64 {
        return Err(refused("an aarch64 ELF, and instances are x86-64; give an x86-64 kernel"));
    }
    let mode = match (class, data, machine) {
        (2, 1, EM_X86_64) => Mode::Long,
        (1, 1, EM_386) => Mode::Protected,
        _ => {
            return Err(refused(format_args!(
                "an ELF of class {class}, byte order {data}, machine {machine}, not x86-64 or i386"
            )));
        }
    };
    if !matches!(kind, 2 | 3) {
        return Err(refused(format_args!(
            "an ELF of type {kind}, not an executable (a module or an object file?); give the vmlinux"
        )));
    }
    let layout = mode.layout();
    let (size, count) = (half(layout.phentsize), half(layout.phentsize + 2));
    if usize::from(size) != layout.program_header || !(1..=MAX_SEGMENTS).contains(&count) {
        return Err(refused(format_args!("it has {count} program headers of {size} bytes")));
    }
    let word = |at| layout.word_at(whole, at);
    Ok((mode, word(0x18), word(layout.phoff), count))
}

/// `None` for what is neither loaded nor a note.
fn parse_segment(header: &[u8], layout: Layout, file_len: u64) -> Result<Option<Segment>> {
    let half = |at| u32_at(header, at).unwrap_or(0);
    let kind = half(0);
    let [offset, vaddr, paddr, filesz, memsz, align] =
        layout.words.map(|at| layout.word_at(header, at));
    let flags = half(layout.flags);
    let load = kind == PT_LOAD;
    let segment = Segment { load, flags, offset, vaddr, paddr, filesz, memsz, align };
    if kind == PT_INTERP {
        return Err(refused(
            "an ordinary program (it names an interpreter); give a vmlinux or bzImage",
        ));
    }
    let empty = if segment.load { segment.memsz == 0 } else { segment.filesz == 0 };
    if !matches!(kind, PT_LOAD | PT_NOTE) || empty {
        return Ok(None);
    }
    if segment.offset.checked_add(segment.filesz).is_none_or(|end| end > file_len) {
        return Err(refused(format_args!(
            "the file is truncated: a segment of {} bytes at {:#x} reaches beyond its {file_len} bytes; fetch it again",
            segment.filesz, segment.offset
        )));
    }
    if segment.load && segment.filesz > segment.memsz {
        return Err(refused("a segment is larger in the file than in memory"));
    }
    if segment.paddr.checked_add(segment.memsz).is_none() {
        return Err(refused("a segment reaches beyond the last address"));
    }
    Ok(Some(segment))
}

fn load_segment(segment: &Segment, source: Source, ram: &GuestRam) -> Result<()> {
    let (start, end) = (segment.paddr, segment.paddr + segment.filesz);
    let (first, last) = (start.next_multiple_of(PAGE), end & !(PAGE - 1));
    let congruent = segment.offset % PAGE == start % PAGE;
    match source {
        Source::File(file, _) if congruent && first < last => {
            let offset = segment.offset + (first - start);
            ram::lay_file(ram, first, file, offset, last - first)?;
            copy(segment, start..first, source, ram)?;
            copy(segment, last..end, source, ram)
        }
        _ => copy(segment, start..end, source, ram),
    }
}

/// Copy the bytes of `segment` that belong at these addresses.
fn copy(segment: &Segment, addresses: Range<u64>, source: Source, ram: &GuestRam) -> Result<()> {
    ram::fill(ram, addresses, |at, chunk| source.read(segment.offset + (at - segment.paddr), chunk))
}
