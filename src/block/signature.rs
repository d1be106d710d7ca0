//! What a disk or a partition holds, by what its format begins with.
//!
//! For messages and for what is to be read: nothing is believed of it but the kind.

use super::partitions::ReadAt;

/// A kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// ext2, ext3 or ext4.
    Ext,
    /// Another file system, by its name.
    FileSystem(&'static str),
    /// Something that file systems are in: encrypted, or put together of several.
    Container(&'static str),
    /// Space for swapping.
    Swap,
    /// Nothing but zeros in the beginning.
    Blank,
}

impl Signature {
    /// It may have files in it.
    pub fn may_hold_files(self) -> bool {
        !matches!(self, Self::Swap | Self::Blank)
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ext => "ext2, ext3 or ext4",
            Self::FileSystem(name) | Self::Container(name) => name,
            Self::Swap => "swap space",
            Self::Blank => "blank",
        })
    }
}

/// Where a format's magic number is, from the beginning. (libblkid; each format's own
/// documentation)
const MAGIC: [(u64, &[u8], Signature); 25] = [
    (0, b"LUKS\xba\xbe", Signature::Container("LUKS (encrypted)")),
    // A physical volume's label is in one of the first four sectors; its type follows.
    (24, b"LVM2 001", Signature::Container("LVM")),
    (512 + 24, b"LVM2 001", Signature::Container("LVM")),
    (1024 + 24, b"LVM2 001", Signature::Container("LVM")),
    (1536 + 24, b"LVM2 001", Signature::Container("LVM")),
    // Linux RAID: metadata 1.1 and 1.2. (0.90 and 1.0 are at the end.)
    (0, b"\xfc\x4e\x2b\xa9", Signature::Container("Linux RAID (md)")),
    (4096, b"\xfc\x4e\x2b\xa9", Signature::Container("Linux RAID (md)")),
    (0, b"XFSB", Signature::FileSystem("xfs")),
    (0x1_0040, b"_BHRfS_M", Signature::FileSystem("btrfs")),
    (1024, b"\x10\x20\xf5\xf2", Signature::FileSystem("f2fs")),
    (0, b"hsqs", Signature::FileSystem("squashfs")),
    (1024, b"\xe2\xe1\xf5\xe0", Signature::FileSystem("erofs")),
    (
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        Signature::FileSystem("bcachefs"),
    ),
    (0x8001, b"CD001", Signature::FileSystem("ISO 9660")),
    (0x1_0034, b"ReIsEr", Signature::FileSystem("reiserfs")),
    (0x8000, b"JFS1", Signature::FileSystem("jfs")),
    (3, b"NTFS    ", Signature::FileSystem("ntfs")),
    (3, b"EXFAT   ", Signature::FileSystem("exfat")),
    (0x52, b"FAT32   ", Signature::FileSystem("vfat")),
    (0x36, b"FAT16   ", Signature::FileSystem("vfat")),
    (0x36, b"FAT12   ", Signature::FileSystem("vfat")),
    (0x36, b"FAT     ", Signature::FileSystem("vfat")),
    // At the end of a page of 4 KiB.
    (4086, b"SWAPSPACE2", Signature::Swap),
    (4086, b"SWAP-SPACE", Signature::Swap),
    (1024 + 0x38, b"\x53\xef", Signature::Ext),
];
/// Bytes that tell whether there is anything.
const HEAD: u64 = 64 << 10;

/// What the `size` bytes that `read` reads are; `None` if that is not known.
pub fn of(size: u64, read: ReadAt<'_>) -> Option<Signature> {
    let has = |(at, magic, _): &&(u64, &[u8], Signature)| {
        let mut found = vec![0; magic.len()];
        at + found.len() as u64 <= size && read(&mut found, *at).is_ok() && found == **magic
    };
    // What is put together of several looks like what is in it, from its beginning on: its own
    // label is at the end.
    if raid_at_end(size, read) {
        return Some(Signature::Container("Linux RAID (md)"));
    }
    if let Some((_, _, found)) = MAGIC.iter().find(has) {
        return Some(*found);
    }
    let mut head = vec![0; size.min(HEAD) as usize];
    read(&mut head, 0).ok()?;
    head.iter().all(|byte| *byte == 0).then_some(Signature::Blank)
}

/// Metadata 0.90, 64 KiB from the end and aligned to that, or 1.0, 8 KiB from the end and aligned
/// to 4 KiB. (md(4))
fn raid_at_end(size: u64, read: ReadAt<'_>) -> bool {
    let old = (size & !0xffff).checked_sub(0x1_0000);
    let new = size.checked_sub(0x2000).map(|at| at & !0xfff);
    [old, new].into_iter().flatten().filter(|at| *at > 0).any(|at| {
        let mut found = [0; 4];
        read(&mut found, at).is_ok() && found == *b"\xfc\x4e\x2b\xa9"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn known(disk: &[u8]) -> Option<Signature> {
        of(disk.len() as u64, &|bytes, at| {
            let from = disk.get(at as usize..).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(from.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    #[test]
    fn each_format_is_known_by_its_magic_number() {
        for (at, magic, signature) in MAGIC {
            let mut disk = vec![0; 128 << 10];
            disk[at as usize..][..magic.len()].copy_from_slice(magic);
            assert_eq!(known(&disk), Some(signature), "{signature}");
        }
        let mut member = vec![0; 256 << 10];
        member[1024 + 0x38..][..2].copy_from_slice(b"\x53\xef");
        for at in [192 << 10, 248 << 10] {
            let mut member = member.clone();
            member[at..at + 4].copy_from_slice(b"\xfc\x4e\x2b\xa9");
            assert_eq!(known(&member), Some(Signature::Container("Linux RAID (md)")));
        }
    }

    #[test]
    fn nothing_and_anything_are_told_apart() {
        assert_eq!(known(&[0; 4096]), Some(Signature::Blank));
        assert_eq!(known(&[]), Some(Signature::Blank));
        assert_eq!(known(&[7; 4096]), None);
    }
}
