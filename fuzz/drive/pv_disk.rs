//! A root volume with anything on it: partition tables, ext4, a menu, kernels.
//!
//! The input says what is changed in a disk that boots: runs of a 3-byte offset, a length and as
//! many bytes.

use sporevm::pvgrub::{load, volume::Volume};
use std::rc::Rc;
use std::sync::OnceLock;

/// A file system of 256 KiB with a menu and a kernel, made by `mke2fs -d`; its zeros are left out.
const SEED: &[u8] = include_bytes!("pv_disk.seed");
/// Where it begins on the disk: behind a master boot record and some room.
const START: usize = 64 << 10;

/// The disk: the seed's runs (offset, length, bytes) put where they were.
fn disk() -> &'static Vec<u8> {
    static DISK: OnceLock<Vec<u8>> = OnceLock::new();
    DISK.get_or_init(|| {
        let mut disk = vec![0; START + (256 << 10)];
        let mut rest = SEED;
        while let Some((head, tail)) = rest.split_at_checked(8) {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let (at, len) = (START + number(0) as usize, number(4) as usize);
            disk[at..at + len].copy_from_slice(&tail[..len]);
            rest = &tail[len..];
        }
        // One partition from there to the end. (UEFI 2.10, 5.2.1)
        disk[446 + 4] = 0x83;
        disk[446 + 8..446 + 12].copy_from_slice(&((START / 512) as u32).to_le_bytes());
        disk[446 + 12..446 + 16].copy_from_slice(&512u32.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    })
}

/// The disk with the input's changes in it.
pub fn changed(data: &[u8]) -> Vec<u8> {
    changed_in(disk(), data)
}

/// A disk with the input's changes in it.
pub fn changed_in(disk: &[u8], data: &[u8]) -> Vec<u8> {
    let mut disk = disk.to_vec();
    let mut rest = data;
    while let Some((head, tail)) = rest.split_at_checked(4) {
        let at = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let len = usize::from(head[3]).min(tail.len());
        let at = at % disk.len();
        let len = len.min(disk.len() - at);
        disk[at..at + len].copy_from_slice(&tail[..len]);
        rest = &tail[len..];
    }
    disk
}

/// Boot from the changed disk.
pub fn drive(data: &[u8]) {
    boot_from(changed(data), data);
}

/// Boot from a disk in which that was changed.
pub fn boot_from(disk: Vec<u8>, data: &[u8]) {
    let volume = Volume::open(Rc::new(disk));
    let boot = super::any_boot();
    match load::load(&volume, &boot) {
        // Nothing was changed that matters.
        Ok(loaded) => assert!(!loaded.kernel.is_empty() && loaded.command_line.contains("panic=")),
        Err(why) => assert!(!why.is_empty() && !data.is_empty(), "{why}"),
    }
    let _ = load::list(&volume, &boot);
}

/// Changes of the superblock, of the group's descriptor and of the first inodes.
pub fn seeds() -> Vec<Vec<u8>> {
    let at = |at: usize| {
        let at = START + at;
        vec![(at >> 16) as u8, (at >> 8) as u8, at as u8, 4, 0, 0, 0, 0]
    };
    let superblock = (0..32).map(|n| at(1024 + 4 * n));
    let groups = (0..8).map(|n| at(2048 + 4 * n));
    superblock.chain(groups).chain([Vec::new()]).collect()
}
