//! EFI programs: of which a unified kernel image has a kernel, its initial ramdisk and its command
//! line as sections. (Microsoft, "PE Format"; UAPI.5 "Unified Kernel Image")

use super::volume::{FileSystem, Missing};
use std::ops::Range;

/// IMAGE_FILE_MACHINE_AMD64
const MACHINE: u16 = 0x8664;
/// Where an MS-DOS header says that the PE header is.
const E_LFANEW: usize = 0x3c;
/// Bytes of the PE signature and the COFF header, and of a section header.
const HEADER: u64 = 24;
const SECTION: usize = 40;
/// Most sections: an image with several profiles has dozens.
const MAX_SECTIONS: u64 = 1024;
/// Most profiles of an image that are looked at.
const MAX_PROFILES: usize = 64;
/// Where a bzImage has its magic number. (Documentation/arch/x86/boot.rst)
const HDRS: (u64, &[u8]) = (0x202, b"HdrS");

/// A section of a program.
struct Section {
    /// Its name, padded with NULs.
    name: [u8; 8],
    /// The bytes of the file that it has.
    bytes: Range<u64>,
}

/// An EFI program for this machine.
pub struct Program {
    sections: Vec<Section>,
    /// The kernel's own EFI stub: a bzImage, too.
    bzimage: bool,
}

impl Program {
    /// Look at the program at `path`.
    ///
    /// # Errors
    /// There is no such file, or it is none: why.
    pub fn open(system: &FileSystem, path: &str) -> Result<Self, Missing> {
        let wrong = |what: &str| Missing::Unreadable(what.into());
        let dos = system.read_range(path, 0, 64)?;
        if !dos.starts_with(b"MZ") {
            return Err(wrong("it is no EFI program"));
        }
        let at = u64::from(u32_at(&dos, E_LFANEW));
        let header = system.read_range(path, at, HEADER)?;
        if !header.starts_with(b"PE\0\0") {
            return Err(wrong("it is no EFI program"));
        }
        if u16_at(&header, 4) != MACHINE {
            return Err(wrong("it is for another architecture"));
        }
        let (count, optional) = (u64::from(u16_at(&header, 6)), u64::from(u16_at(&header, 20)));
        if count > MAX_SECTIONS {
            return Err(wrong("it has too many sections"));
        }
        let table = system.read_range(path, at + HEADER + optional, count * SECTION as u64)?;
        let sections = table.chunks_exact(SECTION).filter_map(section).collect();
        let magic = system.read_range(path, HDRS.0, HDRS.1.len() as u64);
        Ok(Self { sections, bzimage: magic.is_ok_and(|magic| magic == HDRS.1) })
    }

    /// It has a kernel in it.
    pub fn is_unified(&self) -> bool {
        self.section(0, ".linux").is_some()
    }

    /// It is a kernel.
    pub fn is_kernel(&self) -> bool {
        self.bzimage
    }

    /// It is systemd-boot, which says so.
    pub fn is_systemd_boot(&self) -> bool {
        self.section(0, ".sdmagic").is_some()
    }

    /// Its profiles: one more than it has sections that begin another, but at least one.
    pub fn profiles(&self) -> u32 {
        self.beginnings().count().clamp(1, MAX_PROFILES) as u32
    }

    fn beginnings(&self) -> impl Iterator<Item = usize> {
        let profile = |(n, section): (usize, &Section)| section.is(".profile").then_some(n);
        self.sections.iter().enumerate().filter_map(profile)
    }

    /// Where a profile has the section of that name: its own, else that of all profiles, which are
    /// in front of the first.
    pub fn section(&self, profile: u32, name: &str) -> Option<Range<u64>> {
        let mut beginnings = self.beginnings();
        let all = beginnings.next().unwrap_or(self.sections.len());
        let own = self.beginnings().nth(profile as usize).unwrap_or(all);
        let end = self.beginnings().find(|at| *at > own).unwrap_or(self.sections.len());
        let first = |sections: &[Section]| {
            let found = sections.iter().find(|section| section.is(name));
            found.map(|section| section.bytes.clone())
        };
        first(&self.sections[own..end]).or_else(|| first(&self.sections[..all]))
    }

    /// What a section of the program at `path` has, if it is there; at most `limit` bytes.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(
        &self,
        (system, path): (&FileSystem, &str),
        (profile, name): (u32, &str),
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Missing> {
        let Some(bytes) = self.section(profile, name) else { return Ok(None) };
        let len = bytes.end - bytes.start;
        if len > limit {
            let why =
                format!("its section {name} has {len} bytes, more than the {limit} that are read");
            return Err(Missing::Unreadable(why));
        }
        system.read_range(path, bytes.start, len).map(Some)
    }

    /// As [`Program::read`], as text; empty if it is not there.
    ///
    /// # Errors
    /// As [`Program::read`]'s.
    pub fn text(
        &self,
        at: (&FileSystem, &str),
        what: (u32, &str),
        limit: u64,
    ) -> Result<String, Missing> {
        let bytes = self.read(at, what, limit)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Section {
    fn is(&self, name: &str) -> bool {
        self.name.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.iter().all(|b| *b == 0))
    }
}

/// A section's header. Its bytes in the file are padded, those in memory may be zeros that the file
/// has not.
fn section(header: &[u8]) -> Option<Section> {
    let (in_memory, in_file) = (u32_at(header, 8), u32_at(header, 16));
    let start = u64::from(u32_at(header, 20));
    let end = start + u64::from(in_memory.min(in_file));
    Some(Section { name: *header.first_chunk()?, bytes: start..end })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u32::from_le_bytes)
}
