//! The bzImage: a setup header, real-mode code, and a decompressor with the compressed kernel in
//! it. (Documentation/arch/x86/boot.rst in Linux, "The Real-Mode Kernel Header")

use super::params::{BOOT_FLAG, MAGIC, SETUP_HEADER, SETUP_HEADER_END};
use super::source::{refused, u32_at};
use crate::error::{Error, Result};
use linux_loader::loader::bootparam::{LOADED_HIGH, setup_header};
use std::mem::offset_of;
use vm_memory::ByteValued;

/// Where the magic number is, from which the header's length counts.
const HEADER: usize = SETUP_HEADER + offset_of!(setup_header, header);

/// Protocol 2.08 (Linux 2.6.26) is the first that says where the payload is.
const OLDEST: u16 = 0x208;
const SECTOR: usize = 512;
const LONGEST_VERSION: usize = 128;

/// A bzImage, taken apart.
#[derive(Debug)]
pub struct BzImage<'a> {
    /// What belongs in a zero page from [`SETUP_HEADER`] on.
    pub setup_header: &'a [u8],
    /// The compressed kernel, with its unpacked size in the last four bytes.
    pub payload: &'a [u8],
    /// The most memory that unpacking may take, if the header says so (2.10).
    pub init_size: Option<u32>,
    /// The release, e.g. `6.1.0-56-cloud-amd64`.
    pub version: Option<String>,
}

/// Whether this is the beginning of a bzImage.
pub fn is_one(head: &[u8]) -> bool {
    u32_at(head, HEADER) == Some(MAGIC)
}

/// Take it apart.
///
/// # Errors
/// Too old, or truncated. What it is compiled for its payload says.
pub fn parse(image: &[u8]) -> Result<BzImage<'_>> {
    // A file that ends within the header is shorter than the two sectors that there are at least.
    let header = image.get(SETUP_HEADER..SETUP_HEADER + size_of::<setup_header>());
    let header = *header.and_then(setup_header::from_slice).ok_or_else(|| truncated(image))?;
    if !is_one(image) || header.boot_flag != BOOT_FLAG {
        return Err(refused("the boot sector's signature is missing"));
    }
    let version = header.version;
    if version < OLDEST {
        return Err(refused(format_args!(
            "boot protocol {}.{:02}, older than 2.08 (Linux 2.6.26); give a newer kernel, or its vmlinux",
            version >> 8,
            version & 0xff
        )));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(refused("a zImage, which loads low; give a bzImage"));
    }
    let sectors = match header.setup_sects {
        0 => 4, // "for backwards compatibility"
        sectors => usize::from(sectors),
    };
    let kernel = (sectors + 1) * SECTOR;
    check_complete(image, kernel, header.syssize)?;
    let payload = usize::try_from(header.payload_offset).ok().and_then(|offset| {
        let start = kernel.checked_add(offset)?;
        let end = start.checked_add(usize::try_from(header.payload_length).ok()?)?;
        image.get(start..end)
    });
    // The jump over the header: 0xeb, and how far.
    let end = HEADER + usize::from(header.jump >> 8);
    Ok(BzImage {
        setup_header: image
            .get(SETUP_HEADER..end.clamp(HEADER, SETUP_HEADER_END))
            .ok_or_else(|| truncated(image))?,
        payload: payload.ok_or_else(|| truncated(image))?,
        init_size: (version >= 0x20a).then_some(header.init_size),
        version: release(image, header.kernel_version),
    })
}

/// syssize counts 16-byte paragraphs, the last of which may be cut short.
fn check_complete(image: &[u8], kernel: usize, syssize: u32) -> Result<()> {
    let end = kernel as u64 + u64::from(syssize) * 16;
    if (image.len() as u64) + 15 < end { Err(truncated(image)) } else { Ok(()) }
}

/// The first word of the version string, which lies 0x200 after where its pointer says.
fn release(image: &[u8], pointer: u16) -> Option<String> {
    let text = image.get(usize::from(pointer).checked_add(0x200)?..)?;
    let text = &text[..text.len().min(LONGEST_VERSION)];
    let word = text.split(|byte| matches!(byte, 0 | b' ')).next()?;
    let printable = pointer != 0 && !word.is_empty() && word.iter().all(u8::is_ascii_graphic);
    printable.then(|| String::from_utf8_lossy(word).into_owned())
}

fn truncated(image: &[u8]) -> Error {
    refused(format_args!(
        "a bzImage that is truncated: its header announces more than its {} bytes; fetch it again",
        image.len()
    ))
}
