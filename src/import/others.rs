//! What people give as a disk that is none, or none that is read: what it is, and what would work.

use crate::error::{Code, Error, Result};

/// The remedy for what qemu-img reads.
pub(super) const CONVERT: &str = "convert it first: qemu-img convert -O qcow2";

/// The error for what is no disk, or none that is read.
pub(super) fn unsupported(what: &str, remedy: &str) -> Error {
    Error::refused(Code::InvalidParameterValue, format!("it is {what}; {remedy}"))
}

/// The error for what is not read, in words.
pub(super) fn refused(why: impl Into<String>) -> Error {
    Error::refused(Code::InvalidParameterValue, why)
}

const DOWNLOAD: &str = "look at it and download the disk itself";
const UNPACK: &str = "unpack it first, and import the disk in it";
const KERNEL: &str = "give it with `KernelId`, and a disk here";

/// By the bytes at an offset. (file(1), and qemu's block drivers)
const KNOWN: &[(usize, &[u8], &str, &str)] = &[
    (0x40, b"\x7f\x10\xda\xbe", "a VirtualBox disk (vdi)", CONVERT),
    (0, b"WithoutFreeSpace", "a Parallels disk", CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels disk", CONVERT),
    (0, b"QED\0", "a QED disk", CONVERT),
    (0, b"Bochs Virtual HD Image", "a Bochs disk", CONVERT),
    (0, b"# Disk DescriptorFile", "a vmdk descriptor, which only names other files", CONVERT),
    (0, b"#!/bin/sh\n#V2.0 Format", "a cloop image", CONVERT),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image", "convert it first: simg2img"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EWF image", "convert it first: ewfexport -f raw"),
    (0, b"AFF10\r\n\0", "an AFF image", "convert it first: affconvert -r"),
    (0, b"MSWIM\0\0\0", "a Windows image (wim), which has files and no disk", "import a disk"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a rar archive", UNPACK),
    (0, b"MSCF", "a cabinet archive", UNPACK),
    (0, b"xar!", "a xar archive", UNPACK),
    (0, b"!<arch>\n", "an archive (ar, a .deb?)", UNPACK),
    (0, b"\xed\xab\xee\xdb", "an RPM package", UNPACK),
    (0, b"070701", "an initial ramdisk (cpio)", "give it with `RamdiskId`, and a disk here"),
    (0, b"\x7fELF", "a program or a kernel (ELF)", KERNEL),
    (0x202, b"HdrS", "a Linux kernel", KERNEL),
    (0, b"\x1f\x9d", "compressed with compress", "decompress it first: gzip -dc"),
    (0, b"LZIP", "compressed with lzip", "decompress it first: lzip -dc"),
    (0, b"\x89LZO\0", "compressed with lzop", "decompress it first: lzop -dc"),
    (0, b"\x02\x21\x4c\x18", "compressed with lz4's old format", "decompress it first: lz4 -dc"),
    (0, b"%PDF-", "a PDF document", DOWNLOAD),
    (0, b"\x89PNG\r\n\x1a\n", "a picture (PNG)", DOWNLOAD),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", DOWNLOAD),
    (0, b"GIF8", "a picture (GIF)", DOWNLOAD),
    (0, b"SQLite format 3\0", "a database (SQLite)", DOWNLOAD),
    (0, b"-----BEGIN PGP", "a signature or an encrypted message", DOWNLOAD),
    (
        0,
        b"version https://git-lfs",
        "a pointer to a file that Git LFS has",
        "fetch it: git lfs pull",
    ),
];

/// # Errors
/// What begins like this is no disk.
pub(super) fn refuse(head: &[u8]) -> Result<()> {
    let is = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((_, _, what, remedy)) = KNOWN.iter().find(|(at, magic, ..)| is(*at, magic)) {
        return Err(unsupported(what, remedy));
    }
    refuse_large_sectors(head)?;
    // Boot code may begin like this, too, and is signed.
    if is(0, b"MZ") && !is(SECTOR - 2, b"\x55\xaa") {
        return Err(unsupported("a program of Windows or EFI", DOWNLOAD));
    }
    match text(head) {
        Some(what) => Err(unsupported(what, DOWNLOAD)),
        None => Ok(()),
    }
}

/// # Errors
/// What begins like this has a GUID partition table where only sectors of 4096 bytes have it.
/// (UEFI 2.10, 5.3.1)
pub(super) fn refuse_large_sectors(head: &[u8]) -> Result<()> {
    let is = |at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(b"EFI PART"));
    if is(8 * SECTOR) && !is(SECTOR) {
        return Err(unsupported(
            "a disk with sectors of 4096 bytes, whose partitions an instance would not find",
            "make it anew with sectors of 512",
        ));
    }
    Ok(())
}

const SECTOR: usize = 512;

/// Which text this is. A disk is none: it has zeros, or code.
fn text(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        let letters = (head.len() - 2) / 2;
        let zeros = head.iter().filter(|byte| **byte == 0).count();
        return (letters > 0 && zeros == letters).then_some("a text file (UTF-16)");
    }
    let fine = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..=0xff);
    if head.is_empty() || !head.iter().all(fine) {
        return None;
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = String::from_utf8_lossy(&head[..head.len().min(200)]).trim_start().to_lowercase();
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
    if begins(&["<!doctype html", "<html", "<head"]) {
        return Some("an HTML page");
    }
    if begins(&["<?xml", "<!doctype", "<error>"]) {
        return Some("an XML document");
    }
    if begins(&["{", "["]) && text.contains('"') {
        return Some("a JSON document");
    }
    // Without line ends it may be a pattern that somebody filled a disk with.
    (head.contains(&b'\n') && std::str::from_utf8(&head[..head.len().min(100)]).is_ok())
        .then_some("a text file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_named() {
        let mut kernel = vec![0; 0x300];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        let mut vdi = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
        vdi.resize(0x40, 0);
        vdi.extend(b"\x7f\x10\xda\xbe");
        for (head, what) in [
            (&b"<!DOCTYPE HTML>\n<html>"[..], "HTML"),
            (b"\xef\xbb\xbf\r\n<html lang=en>", "HTML"),
            (b"<?xml version='1.0'?><Error>", "XML"),
            (b"{\"message\": \"Not Found\"}", "JSON"),
            (b"#!/bin/sh\necho no\n", "text"),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "picture"),
            (b"MZ\x90\0\x03\0\0\0", "program"),
            (b"\xff\xfe<\0h\0t\0m\0l\0", "UTF-16"),
            (&kernel, "`KernelId`"),
            (&vdi, "vdi"),
        ] {
            let line = refuse(head).unwrap_err().to_string();
            assert!(line.contains(what) && line.contains("; "), "{line}");
        }
        for disk in [&b""[..], &[0; 8192], &[0xf4; 512], b"xxxxxxxxxxxxxxxx", b"\xeb\x63\x90\n"] {
            assert!(refuse(disk).is_ok(), "{disk:?}");
        }
    }
}
