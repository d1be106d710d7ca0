//! A disk whose EFI system partition has anything in it: FAT, entries, EFI programs.
//!
//! The input says what is changed in a disk that boots, as [`super::pv_disk`]'s does.

use super::pv_disk;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use std::io::{Cursor, Write};
use std::sync::OnceLock;

/// Where the partition begins on the disk, and its bytes.
const START: usize = 64 << 10;
const LEN: usize = 256 << 10;

/// A kernel: an ELF file with a segment of 16 bytes at 16 MiB. (System V ABI, "Object Files")
fn kernel() -> Vec<u8> {
    let mut elf = vec![0; 0x1010];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &[2, 0, 62, 0, 1]); // executable, x86-64
    put(24, &0x100_0000u64.to_le_bytes()); // entry
    put(32, &[64]); // program headers
    put(52, &[64, 0, 56, 0, 1]); // sizes, one program header
    put(64, &[1, 0, 0, 0, 5]); // PT_LOAD, readable and executable
    put(72, &0x1000u64.to_le_bytes()); // offset
    for at in [80, 88] {
        put(at, &0x100_0000u64.to_le_bytes()); // addresses
    }
    for at in [96, 104] {
        put(at, &16u64.to_le_bytes()); // bytes
    }
    put(112, &0x1000u64.to_le_bytes()); // alignment
    put(0x1000, &[0xf4; 16]);
    elf
}

/// An EFI program with these sections. (PE Format)
fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; 0x40 + 24 + sections.len() * 40];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    (file[0x44], file[0x45], file[0x46]) = (0x64, 0x86, sections.len() as u8);
    for (n, (name, content)) in sections.iter().enumerate() {
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

/// The disk: systemd-boot, an image with two profiles, and an entry of a kernel alone.
fn disk() -> &'static Vec<u8> {
    static DISK: OnceLock<Vec<u8>> = OnceLock::new();
    DISK.get_or_init(|| {
        let kernel = kernel();
        let image = program(&[
            (".osrel", b"ID=a\nPRETTY_NAME='A'\nVERSION_ID=1\n"),
            (".cmdline", b"root=/dev/vda1"),
            (".initrd", b"ramdisk"),
            (".linux", &kernel),
            (".profile", b"ID=one\nTITLE=One\n"),
            (".profile", b"ID=two\n"),
            (".cmdline", b"single"),
        ]);
        let files: [(&str, &[u8]); 5] = [
            ("EFI/BOOT/BOOTX64.EFI", &program(&[(".sdmagic", b"systemd-boot")])),
            ("EFI/Linux/a long name+3-1.efi", &image),
            ("loader/loader.conf", b"timeout 1\ndefault a*\n"),
            ("loader/entries/b.conf", b"title B\nversion 1\nlinux /k\ninitrd /k\noptions a\n"),
            ("k", &kernel),
        ];
        let mut volume = Cursor::new(vec![0; LEN]);
        fatfs::format_volume(&mut volume, FormatVolumeOptions::new()).unwrap();
        let system = FileSystem::new(&mut volume, FsOptions::new()).unwrap();
        for (path, content) in files {
            let mut directory = system.root_dir();
            let mut names: Vec<&str> = path.split('/').collect();
            let name = names.pop().unwrap();
            for name in names {
                directory = directory.create_dir(name).unwrap();
            }
            directory.create_file(name).unwrap().write_all(content).unwrap();
        }
        system.unmount().unwrap();
        let mut disk = vec![0; START];
        // One partition from there to the end, an EFI system partition. (UEFI 2.10, 5.2.2)
        disk[446 + 4] = 0xef;
        disk[446 + 8..446 + 12].copy_from_slice(&((START / 512) as u32).to_le_bytes());
        disk[446 + 12..446 + 16].copy_from_slice(&((LEN / 512) as u32).to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk.extend(volume.into_inner());
        disk
    })
}

/// Boot from the changed disk.
pub fn drive(data: &[u8]) {
    pv_disk::boot_from(pv_disk::changed_in(disk(), data), data);
}

/// Changes of what the disk has of each format.
pub fn seeds() -> Vec<Vec<u8>> {
    let disk = disk();
    let change = |at: usize| {
        [0u8, 0xff].map(|byte| vec![(at >> 16) as u8, (at >> 8) as u8, at as u8, 2, byte, byte])
    };
    let places = |text: &[u8], from: usize, to: usize| -> Vec<usize> {
        let is = |at: &usize| disk[*at..].starts_with(text);
        (START..disk.len()).filter(is).flat_map(|at| (at + from..at + to).step_by(2)).collect()
    };
    let sector = (START + 10..START + 40).step_by(2);
    // The first table is behind the first sector.
    let table = (START + 512..START + 544).step_by(2);
    let names = [b"BOOT    ", b"LOADER  ", b"BOOTX64 "].map(|name| places(name, 0, 32)).concat();
    let programs = places(b"PE\0\0", 4, 64);
    let all = sector.chain(table).chain(names).chain(programs);
    all.flat_map(change).chain([Vec::new()]).collect()
}
