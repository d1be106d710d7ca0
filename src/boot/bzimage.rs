//! The bzImage: a setup header, real-mode code, and a decompressor with the compressed kernel in it.
//! (Documentation/arch/x86/boot.rst in Linux, "The Real-Mode Kernel Header")

use super::params::{SETUP_HEADER, SETUP_HEADER_END};
use super::source::{refused, u16_at, u32_at};
use crate::error::{Error, Result};

const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const BOOT_FLAG: usize = 0x1fe;
const JUMP_LENGTH: usize = 0x201;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const LOADFLAGS: usize = 0x211;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const INIT_SIZE: usize = 0x260;

/// Protocol 2.08 (Linux 2.6.26) is the first that says where the payload is.
const OLDEST: u16 = 0x208;
const LOADED_HIGH: u8 = 1;
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
    head.get(HEADER..HEADER + 4) == Some(b"HdrS")
}

/// Take it apart.
///
/// # Errors
/// Too old, or truncated. What it is compiled for its payload says.
pub fn parse(image: &[u8]) -> Result<BzImage<'_>> {
    let word = |at| u16_at(image, at).ok_or_else(|| truncated(image));
    let long = |at| u32_at(image, at).ok_or_else(|| truncated(image));
    if !is_one(image) || word(BOOT_FLAG)? != 0xaa55 {
        return Err(refused("the boot sector's signature is missing"));
    }
    let version = word(VERSION)?;
    if version < OLDEST {
        return Err(refused(format_args!(
            "boot protocol {}.{:02}, older than 2.08 (Linux 2.6.26); give a newer kernel, or its vmlinux",
            version >> 8,
            version & 0xff
        )));
    }
    if image.get(LOADFLAGS).ok_or_else(|| truncated(image))? & LOADED_HIGH == 0 {
        return Err(refused("a zImage, which loads low; give a bzImage"));
    }
    let sectors = match image[SETUP_SECTS] {
        0 => 4, // "for backwards compatibility"
        sectors => usize::from(sectors),
    };
    let kernel = (sectors + 1) * SECTOR;
    check_complete(image, kernel, long(SYSSIZE)?)?;
    let payload = usize::try_from(long(PAYLOAD_OFFSET)?).ok().and_then(|offset| {
        let start = kernel.checked_add(offset)?;
        let end = start.checked_add(usize::try_from(long(PAYLOAD_LENGTH).ok()?).ok()?)?;
        image.get(start..end)
    });
    let end = HEADER + usize::from(image[JUMP_LENGTH]);
    Ok(BzImage {
        setup_header: image
            .get(SETUP_HEADER..end.clamp(HEADER, SETUP_HEADER_END))
            .ok_or_else(|| truncated(image))?,
        payload: payload.ok_or_else(|| truncated(image))?,
        init_size: if version >= 0x20a { Some(long(INIT_SIZE)?) } else { None },
        version: release(image, word(KERNEL_VERSION)?),
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
