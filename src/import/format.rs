//! What a file is, by its first and last bytes. Only an import looks: a launch goes by the record.

use super::others;
use super::others::{CONVERT, unsupported};
use crate::block::foreign::{vhd, vhdx, vmdk};
use crate::error::{Error, Result};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

/// Bytes of a stream's beginning that detection wants to see.
pub const HEAD: usize = 8192;

/// Formats that can be imported, by qemu-img's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's qcow2.
    Qcow2,
    /// VMware's sparse extents.
    Vmdk,
    /// Microsoft's VHD (Virtual PC).
    Vpc,
    /// Microsoft's VHDX.
    Vhdx,
}

impl SourceFormat {
    /// The name that qemu-img uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vpc => "vpc",
            Self::Vhdx => "vhdx",
        }
    }
}

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SourceFormat {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vmdk" => Ok(Self::Vmdk),
            "vpc" | "vhd" => Ok(Self::Vpc),
            "vhdx" => Ok(Self::Vhdx),
            _ => Err(Error::usage(format!(
                "'{}' is not a disk format; use raw, qcow2, vmdk, vhd or vhdx",
                text.escape_default()
            ))),
        }
    }
}

/// Compressions that are undone on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The .xz file format 1.2.
    Xz,
    /// What xz was before: .lzma.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// The LZ4 frame format.
    Lz4,
    /// bzip2's.
    Bzip2,
}

/// The compression of a stream that begins like this.
pub fn compression(head: &[u8]) -> Option<Compression> {
    Some(match head {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        // Properties, a dictionary of a power of two, and a size that is unknown or below 256 TiB.
        [0x5d, 0, 0, .., _] if is_lzma(head) => Compression::Lzma,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => behind_skippable(head),
        [0x04, 0x22, 0x4d, 0x18, ..] => Compression::Lz4,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Compression::Bzip2,
        _ => return None,
    })
}

/// Skippable frames, which zstd and LZ4 share, come first in what pzstd makes. The first that is
/// none tells; zstd is taken for what is farther than this beginning.
fn behind_skippable(mut head: &[u8]) -> Compression {
    while let [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, rest @ ..] = head {
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        head = rest.get(len..).unwrap_or_default();
    }
    match head {
        [0x04, 0x22, 0x4d, 0x18, ..] => Compression::Lz4,
        _ => Compression::Zstd,
    }
}

fn is_lzma(head: &[u8]) -> bool {
    let dictionary = head.get(1..5).and_then(|b| b.first_chunk().copied()).map(u32::from_le_bytes);
    let size = head.get(5..13).and_then(|b| b.first_chunk().copied()).map(u64::from_le_bytes);
    dictionary.is_some_and(u32::is_power_of_two)
        && size.is_some_and(|n| n == u64::MAX || n < 1 << 48)
}

/// What a file or a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A disk.
    Disk(SourceFormat),
    /// Something of these, compressed.
    Packed(Compression),
    /// What `spore image export` writes.
    Exported,
    /// A tar archive.
    Tar,
    /// A zip archive.
    Zip,
}

/// What begins like this and (where the end can be seen) ends with `tail`.
///
/// # Errors
/// It is something else that is known: what it is, and what would work.
pub fn what(head: &[u8], tail: Option<&[u8; 512]>) -> Result<What> {
    if let Some(compression) = compression(head) {
        return Ok(What::Packed(compression));
    }
    // POSIX.1-2017, pax, "ustar Interchange Format": name at 0, magic at 257.
    if head.get(257..262) == Some(b"ustar") {
        let name = head.split(|byte| *byte == 0).next();
        let exported = name == Some(crate::transfer::members::PACKAGE.as_bytes());
        return Ok(if exported { What::Exported } else { What::Tar });
    }
    if is_old_tar(head) {
        return Ok(What::Tar);
    }
    if [&b"PK\x03\x04"[..], b"PK\x05\x06", b"PK00"].iter().any(|magic| head.starts_with(magic)) {
        return Ok(What::Zip);
    }
    detect(head, tail).map(What::Disk)
}

/// A tar archive of before POSIX has no magic, and is known by its first header's checksum: the sum
/// of its bytes, its own being spaces, in octal. (tar(5), "Old-Style Archive Format")
fn is_old_tar(head: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Some(header) = head.get(..512) else { return false };
    let digits = header[SUM].iter().skip_while(|byte| **byte == b' ');
    let digits: Vec<u8> = digits.take_while(|byte| byte.is_ascii_digit()).copied().collect();
    let reported =
        std::str::from_utf8(&digits).ok().and_then(|sum| u32::from_str_radix(sum, 8).ok());
    let of = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let sum = of(header) - of(&header[SUM]) + 8 * u32::from(b' ');
    header[0] != 0 && reported == Some(sum)
}

/// The format of a disk file that begins like this and (where the end can be seen) ends with
/// `tail`.
///
/// # Errors
/// A format that is known and not supported, or no disk.
pub fn detect(head: &[u8], tail: Option<&[u8; 512]>) -> Result<SourceFormat> {
    if head.starts_with(b"QFI\xfb") {
        return match head.get(4..8) {
            Some([0, 0, 0, 2 | 3]) => Ok(SourceFormat::Qcow2),
            _ => Err(unsupported("a disk in qcow of another version than 2 and 3", CONVERT)),
        };
    }
    if head.starts_with(vmdk::MAGIC) || head.starts_with(b"COWD") {
        return Ok(SourceFormat::Vmdk);
    }
    if head.starts_with(vhdx::MAGIC) {
        return Ok(SourceFormat::Vhdx);
    }
    // VHD: the footer is the last sector; a dynamic disk has a copy of it in front.
    // Old ones lack its last byte.
    let is_footer =
        |tail: &[u8; 512]| tail.starts_with(vhd::COOKIE) || tail[1..].starts_with(vhd::COOKIE);
    if head.starts_with(vhd::COOKIE) || tail.is_some_and(is_footer) {
        return Ok(SourceFormat::Vpc);
    }
    if tail.is_some_and(|tail| tail.starts_with(b"koly")) {
        return Err(unsupported("a disk image of macOS (dmg)", CONVERT));
    }
    others::refuse(head)?;
    Ok(SourceFormat::Raw)
}

/// The first bytes and, if there are so many, the last sector of a file.
///
/// # Errors
/// I/O errors.
pub fn ends(file: &File, size: u64) -> std::io::Result<(Vec<u8>, Option<[u8; 512]>)> {
    let mut head = vec![0; HEAD.min(usize::try_from(size).unwrap_or(HEAD))];
    file.read_exact_at(&mut head, 0)?;
    let mut tail = [0; 512];
    let Some(at) = size.checked_sub(512) else { return Ok((head, None)) };
    file.read_exact_at(&mut tail, at)?;
    Ok((head, Some(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        assert_eq!(detect(b"QFI\xfb\0\0\0\x03", None).unwrap(), SourceFormat::Qcow2);
        assert!(detect(b"QFI\xfb\0\0\0\x01", None).is_err());
        assert_eq!(detect(b"KDMV", None).unwrap(), SourceFormat::Vmdk);
        assert_eq!(detect(b"vhdxfile", None).unwrap(), SourceFormat::Vhdx);
        let mut footer = [0; 512];
        footer[..8].copy_from_slice(b"conectix");
        assert_eq!(detect(b"", Some(&footer)).unwrap(), SourceFormat::Vpc);
        assert_eq!(detect(b"\xeb\x63\x90", Some(&[0; 512])).unwrap(), SourceFormat::Raw);
        let refusal = detect(b"# Disk DescriptorFile\n", None).unwrap_err();
        assert!(refusal.to_string().contains("qemu-img convert"), "{refusal}");
    }

    #[test]
    fn compressions_are_told_apart() {
        let lzma = b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff";
        for (head, expected) in [
            (&b"\x1f\x8b\x08"[..], Some(Compression::Gzip)),
            (b"\xfd7zXZ\0", Some(Compression::Xz)),
            (lzma, Some(Compression::Lzma)),
            (&lzma[..12], None),
            (b"\x28\xb5\x2f\xfd", Some(Compression::Zstd)),
            (b"\x50\x2a\x4d\x18", Some(Compression::Zstd)),
            (b"\x50\x2a\x4d\x18\x01\0\0\0a\x28\xb5\x2f\xfd", Some(Compression::Zstd)),
            (b"\x50\x2a\x4d\x18\x01\0\0\0a\x04\x22\x4d\x18", Some(Compression::Lz4)),
            (b"\x50\x2a\x4d\x18\xff\xff\xff\xffa", Some(Compression::Zstd)),
            (b"\x04\x22\x4d\x18", Some(Compression::Lz4)),
            (b"BZh91AY&SY", Some(Compression::Bzip2)),
            (b"", None),
        ] {
            assert_eq!(compression(head), expected, "{head:?}");
        }
    }
}
