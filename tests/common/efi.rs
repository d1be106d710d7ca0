//! Disks that boot by UEFI, made by sfdisk, mkfs.vfat and mtools, and the programs on them.

use super::programs::administrators;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;
/// Types of partitions: "EFI system partition", "Root Partition (amd64/x86_64)". (UEFI 2.10, 5.3.3;
/// UAPI.2)
pub const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
pub const ROOT: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";

/// An EFI program with these sections: a unified kernel image, if `.linux` is one. (Microsoft, "PE
/// Format"; UAPI.5)
pub fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; 0x40 + 24 + sections.len() * 40];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    // IMAGE_FILE_MACHINE_AMD64
    (file[0x44], file[0x45], file[0x46]) = (0x64, 0x86, sections.len() as u8);
    for (n, (name, content)) in sections.iter().enumerate() {
        file.resize(file.len().next_multiple_of(512), 0);
        let (at, len) = (file.len() as u32, (content.len() as u32).to_le_bytes());
        let header = &mut file[0x40 + 24 + n * 40..][..40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[8..12].copy_from_slice(&len);
        header[16..20].copy_from_slice(&len);
        header[20..24].copy_from_slice(&at.to_le_bytes());
        file.extend(*content);
    }
    file
}

/// A file `image` of so many MiB with a FAT file system that has these files; its kind is what
/// mkfs.vfat makes of that size.
pub fn system(image: &Path, mib: u64, files: &[(&str, &[u8])]) {
    let tree = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = tree.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    File::create(image).unwrap().set_len(mib * MIB).unwrap();
    let run = |command: &mut Command| {
        let done = command.output().unwrap();
        assert!(done.status.success(), "{command:?}: {done:?}");
    };
    run(administrators("mkfs.vfat").args(["-n", "ESP"]).arg(image));
    for name in std::fs::read_dir(tree.path()).unwrap() {
        let mut copy = administrators("mcopy");
        run(copy.args(["-s", "-i"]).arg(image).arg(name.unwrap().path()).arg("::"));
    }
}

/// A disk with a GUID partition table by sfdisk: partitions of these types and MiB, from 1 MiB on,
/// one behind the other, empty. Their offsets in bytes.
pub fn divided(disk: &Path, parts: &[(&str, u64)]) -> Vec<u64> {
    let (mut script, mut next) = ("label: gpt\n".to_owned(), 1);
    let mut offsets = Vec::new();
    for (n, (kind, mib)) in (1..).zip(parts) {
        let uuid = format!("00000000-0000-4000-8000-{n:012}");
        script += &format!("start={next}MiB, size={mib}MiB, type={kind}, uuid={uuid}\n");
        offsets.push(next * MIB);
        next += mib;
    }
    File::create(disk).unwrap().set_len((next + 1) * MIB).unwrap();
    let mut sfdisk = administrators("sfdisk");
    let mut sfdisk = sfdisk.arg("-q").arg(disk).stdin(Stdio::piped()).spawn().unwrap();
    sfdisk.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success(), "{script}");
    offsets
}

/// Put a file into a disk; what is zero stays a hole.
pub fn put(disk: &Path, offset: u64, content: &Path) {
    let mut disk = File::options().write(true).open(disk).unwrap();
    let mut from = File::open(content).unwrap();
    let mut piece = vec![0; MIB as usize];
    let mut at = offset;
    loop {
        let len = from.read(&mut piece).unwrap();
        if len == 0 {
            return;
        }
        if piece[..len].iter().any(|byte| *byte != 0) {
            disk.seek(SeekFrom::Start(at)).unwrap();
            disk.write_all(&piece[..len]).unwrap();
        }
        at += len as u64;
    }
}
