//! What registration makes of a kernel: an ELF file whose segments can be mapped.

use super::entry::Mode;
use super::source::{Source, refused};
use super::{bzimage, decompress, elf, elf::Elf};
use crate::error::{Error, Result};
use crate::mem::layout::PAGE;
use memchr::memmem;
use std::fs::File;

/// Enough of a file to tell what it is.
const HEAD: u64 = 4096;

/// A kernel ready to be launched.
#[derive(Debug)]
pub struct UnpackedKernel {
    /// An ELF file, its segments page-aligned as in memory, without sections.
    pub elf: Vec<u8>,
    /// What it came as: `ELF`, or `bzImage (xz)`.
    pub format: String,
    /// What it is compiled for.
    pub mode: Mode,
    /// The kernel's release, e.g. `6.1.0-56-cloud-amd64`, if it says.
    pub version: Option<String>,
}

/// What a bzImage unpacks to, as it came.
pub(super) struct Expanded {
    pub elf: Vec<u8>,
    pub setup_header: Option<Vec<u8>>,
    format: String,
    version: Option<String>,
}

/// Unpack a kernel (an ELF vmlinux or a bzImage) for registration.
///
/// # Errors
/// It is not a kernel that Spore can boot, or cannot be read; the message says what it is instead.
pub fn unpack(file: &File) -> Result<UnpackedKernel> {
    unpack_from(Source::file(file)?)
}

/// As [`unpack`], from memory.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_bytes(kernel: &[u8]) -> Result<UnpackedKernel> {
    unpack_from(Source::Bytes(kernel))
}

/// Whether a kernel is one for this machine, as far as its headers say.
///
/// # Errors
/// What it is instead, or why it can't be booted.
pub fn check(kernel: &[u8]) -> Result<()> {
    if kernel.starts_with(elf::MAGIC) {
        return Elf::parse(Source::Bytes(kernel)).map(|_| ());
    }
    if bzimage::is_one(kernel) {
        return bzimage::parse(kernel).map(|_| ());
    }
    Err(not_a_kernel(&kernel[..kernel.len().min(HEAD as usize)]))
}

fn unpack_from(source: Source<'_>) -> Result<UnpackedKernel> {
    let image = expand(source)?;
    let elf = Elf::parse(Source::Bytes(&image.elf))?;
    let version = image.version.or_else(|| find_version(&image.elf));
    let (mode, format) = (elf.mode, image.format);
    Ok(UnpackedKernel { elf: rewrite(&elf, &image.elf)?, format, mode, version })
}

/// The whole kernel as an ELF file in memory.
pub(super) fn expand(source: Source) -> Result<Expanded> {
    let head = source.head(HEAD)?;
    let is_elf = head.starts_with(elf::MAGIC);
    if !is_elf && !bzimage::is_one(&head) {
        return Err(not_a_kernel(&head));
    }
    if source.len() > decompress::LARGEST {
        return Err(refused(format_args!("a file of {} bytes is too large for one", source.len())));
    }
    let whole = source.head(source.len())?;
    if is_elf {
        return Ok(Expanded {
            elf: whole,
            setup_header: None,
            format: "ELF".into(),
            version: None,
        });
    }
    let image = bzimage::parse(&whole)?;
    let limit = image.init_size.map_or(decompress::LARGEST, u64::from);
    let (elf, packing) = decompress::expand(image.payload, limit)?;
    if !elf.starts_with(elf::MAGIC) {
        return Err(refused("a bzImage whose payload is not an ELF file"));
    }
    Ok(Expanded {
        elf,
        setup_header: Some(image.setup_header.to_vec()),
        format: format!("bzImage ({packing})"),
        version: image.version,
    })
}

/// The same program, with every PT_LOAD segment at a file offset equal to its physical address
/// modulo a page, so that it can be mapped; the bytes around it in its first and last page are
/// zero.
fn rewrite(elf: &Elf, bytes: &[u8]) -> Result<Vec<u8>> {
    let layout = elf.mode.layout();
    let headers = layout.header + elf.segments.len() * layout.program_header;
    let align = |len: usize| len.next_multiple_of(PAGE as usize);
    let total: u64 = elf.segments.iter().map(|segment| segment.filesz + 2 * PAGE).sum();
    if total > decompress::LARGEST {
        return Err(refused("its segments share bytes of the file, and are too large apart"));
    }
    // Of an address, an offset or a size, as many bytes as it has.
    let word = |out: &mut [u8], at: usize, value: u64| {
        put(out, at, &value.to_le_bytes()[..layout.word]);
    };
    let mut out = Vec::with_capacity(align(headers) + total as usize);
    out.extend(&bytes[..layout.header]);
    word(&mut out, layout.phoff, layout.header as u64);
    word(&mut out, layout.phoff + layout.word, 0); // e_shoff
    put(&mut out, layout.phentsize + 2, &(elf.segments.len() as u16).to_le_bytes()); // e_phnum
    put(&mut out, layout.phentsize + 4, &[0; 6]); // e_shentsize, e_shnum, e_shstrndx
    out.resize(align(headers), 0);
    for (n, segment) in elf.segments.iter().enumerate() {
        if segment.load {
            out.resize(align(out.len()) + (segment.paddr % PAGE) as usize, 0);
        } else {
            out.resize(out.len().next_multiple_of(8), 0);
        }
        let offset = out.len() as u64;
        let kind: u32 = if segment.load { 1 } else { 4 };
        let at = layout.header + n * layout.program_header;
        put(&mut out, at, &kind.to_le_bytes());
        put(&mut out, at + layout.flags, &segment.flags.to_le_bytes());
        let align = if segment.load { PAGE } else { segment.align };
        let words = [offset, segment.vaddr, segment.paddr, segment.filesz, segment.memsz, align];
        for (place, value) in layout.words.into_iter().zip(words) {
            word(&mut out, at + place, value);
        }
        let (from, len) = (segment.offset as usize, segment.filesz as usize);
        out.extend(&bytes[from..from + len]);
    }
    out.resize(align(out.len()), 0);
    Ok(out)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The release in Linux's own banner, "Linux version 6.12.9 (…".
fn find_version(kernel: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    memmem::find_iter(kernel, BANNER)
        .map(|at| &kernel[at + BANNER.len()..])
        .find(|rest| rest.first().is_some_and(u8::is_ascii_digit))
        .map(|rest| rest[..rest.len().min(128)].split(|byte| !byte.is_ascii_graphic()))
        .and_then(|mut words| Some(String::from_utf8_lossy(words.next()?).into_owned()))
}

/// What people give by mistake, by its first bytes.
const OTHERS: [(usize, &[u8], &str); 11] = [
    (0x38, b"ARM\x64", "an aarch64 kernel Image, and instances are x86-64; give an x86-64 kernel"),
    (0x1fe, b"\x55\xaa", "a boot sector without a Linux kernel; give a vmlinux or bzImage"),
    (4, b"zimg", "an EFI zboot image of another architecture; give an x86-64 vmlinux or bzImage"),
    (
        0,
        b"070701",
        "an initial ramdisk (cpio); give it with `RamdiskId`, and a vmlinux or bzImage here",
    ),
    (0, b"\x1f\x8b", "a gzip file (an initial ramdisk?); give a vmlinux or bzImage"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "a zstd file (an initial ramdisk?); give a vmlinux or bzImage, unpacked with 'zstd -d'",
    ),
    (0, b"\xfd7zXZ\0", "an xz file (an initial ramdisk?); give a vmlinux or bzImage"),
    (0, b"QFI\xfb", "a qcow2 disk image; import it with 'spore image import'"),
    (0, b"PK\x03\x04", "a zip archive; give a vmlinux or bzImage"),
    (0, b"!<arch>", "an archive (a .deb?); give the vmlinux or bzImage in it"),
    (0, b"MZ", "an EFI program without a Linux kernel; give a vmlinux or bzImage"),
];

fn not_a_kernel(head: &[u8]) -> Error {
    if head.is_empty() {
        return refused("an empty file");
    }
    let is = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let other = OTHERS.iter().find(|(at, magic, _)| is(*at, magic));
    match other {
        Some((.., what)) => refused(what),
        None if head.len() < 0x210 => refused(format_args!(
            "a file of {} bytes that is neither an ELF vmlinux nor a bzImage (truncated?); give one of these",
            head.len()
        )),
        None => refused(format_args!(
            "neither an ELF vmlinux nor a bzImage (it begins {:02x?}); give one of these",
            &head[..head.len().min(4)]
        )),
    }
}
