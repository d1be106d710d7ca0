//! What a file is, by its first and last bytes. Only an import looks: a launch goes by the record.

use crate::error::{Error, Result};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

/// Bytes of a stream's beginning that detection wants to see.
pub const HEAD: usize = 4096;

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
    /// RFC 8878.
    Zstd,
}

/// The compression of a stream that begins like this.
///
/// # Errors
/// One that is not supported.
pub fn compression(head: &[u8]) -> Result<Option<Compression>> {
    Ok(match head {
        [0x1f, 0x8b, 8, ..] => Some(Compression::Gzip),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => {
            return Err(unsupported("compressed with bzip2", "decompress it first: bzip2 -dc"));
        }
        _ => None,
    })
}

/// The format of a disk file that begins like this and (where the end can be seen) ends with `tail`.
///
/// # Errors
/// A format that is known and not supported.
pub fn detect(head: &[u8], tail: Option<&[u8; 512]>) -> Result<SourceFormat> {
    if head.starts_with(b"QFI\xfb") {
        return match head.get(4..8) {
            Some([0, 0, 0, 2 | 3]) => Ok(SourceFormat::Qcow2),
            _ => Err(unsupported("a qcow of another version than 2 and 3", CONVERT)),
        };
    }
    if head.starts_with(b"KDMV") {
        return Ok(SourceFormat::Vmdk);
    }
    if head.starts_with(b"# Disk DescriptorFile") {
        return Err(unsupported("a vmdk descriptor, which only names other files", CONVERT));
    }
    if head.starts_with(b"vhdxfile") {
        return Ok(SourceFormat::Vhdx);
    }
    // VHD: the footer is the last sector; a dynamic disk has a copy of it in front.
    if head.starts_with(b"conectix") || tail.is_some_and(|tail| tail.starts_with(b"conectix")) {
        return Ok(SourceFormat::Vpc);
    }
    if head.get(0x40..0x44) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return Err(unsupported("a VirtualBox vdi", CONVERT));
    }
    if head.starts_with(b"QED\0") {
        return Err(unsupported("a qed", CONVERT));
    }
    Ok(SourceFormat::Raw)
}

const CONVERT: &str = "convert it first: qemu-img convert -O qcow2";

fn unsupported(what: &str, remedy: &str) -> Error {
    Error::refused("InvalidParameterValue", format!("the disk is {what}; {remedy}"))
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
        assert_eq!(compression(b"\x1f\x8b\x08").unwrap(), Some(Compression::Gzip));
        assert_eq!(compression(b"\xfd7zXZ\0").unwrap(), Some(Compression::Xz));
        assert_eq!(compression(b"\x28\xb5\x2f\xfd").unwrap(), Some(Compression::Zstd));
        assert_eq!(compression(b"").unwrap(), None);
        assert!(compression(b"BZh91AY&SY").is_err());
    }
}
