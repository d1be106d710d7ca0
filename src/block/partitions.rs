//! Partition tables: where the file systems of a disk begin.
//!
//! Two short formats of untrusted bytes; whatever is impossible in them is skipped, and everything
//! is bounded.

use std::io;

/// Bytes of a sector. Disks with others are not partitioned by anybody who images them.
const SECTOR: u64 = 512;
/// Logical partitions that are followed.
const MAX_LOGICAL: u32 = 60;
/// OSTypes of a partition that logical ones are in.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Entries of a GUID partition table that are read.
const MAX_GUID: u32 = 128;

/// "BIOS boot partition" 21686148-6449-6E6F-744E-656564454649, as on a disk. (GRUB manual, "BIOS
/// installation")
pub const BIOS_BOOT: Kind = Kind::Gpt(*b"Hah!IdontNeedEFI");
/// "EFI system partition" C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as on a disk. (UEFI 2.10, 5.3.3)
pub const EFI_SYSTEM: [Kind; 2] = [
    Kind::Gpt([
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9,
        0x3b,
    ]),
    Kind::Mbr(0xef),
];

/// "Extended Boot Loader Partition" BC13C2FF-59E6-4262-A352-B275FD6F7172, as on a disk. (UAPI.1
/// "Boot Loader Specification")
pub const EXTENDED_BOOT_LOADER: [Kind; 2] = [
    Kind::Gpt([
        0xff, 0xc2, 0x13, 0xbc, 0xe6, 0x59, 0x62, 0x42, 0xa3, 0x52, 0xb2, 0x75, 0xfd, 0x6f, 0x71,
        0x72,
    ]),
    Kind::Mbr(0xea),
];
/// "Root Partition (amd64/x86_64)" 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, as on a disk. (UAPI.2
/// "Discoverable Partitions Specification")
pub const ROOT_X86_64: Kind = Kind::Gpt([
    0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
]);

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Not at all.
    None,
    /// By a master boot record. (UEFI 2.10, 5.2.1)
    Mbr,
    /// By a GUID partition table. (UEFI 2.10, 5.3)
    Gpt,
}

/// What a partition says that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A master boot record's OSType.
    Mbr(u8),
    /// A GUID partition table's PartitionTypeGUID, as on the disk.
    Gpt([u8; 16]),
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Linux's and GRUB's number, from 1; an MBR's logical ones begin at 5.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
    /// What it is for.
    pub kind: Kind,
    /// Marked as the one that a master boot record's code starts.
    pub active: bool,
    /// What Linux takes as PARTUUID=. (Documentation/admin-guide/kernel-parameters, root=)
    pub uuid: String,
}

impl Partition {
    /// It is there for firmware and boot loaders, or only has others in it: nobody keeps files in
    /// it.
    pub fn is_auxiliary(&self) -> bool {
        let extended = matches!(self.kind, Kind::Mbr(kind) if EXTENDED.contains(&kind));
        extended || self.kind == BIOS_BOOT || EFI_SYSTEM.contains(&self.kind)
    }
}

/// A disk's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How it is divided.
    pub scheme: Scheme,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// What reads bytes from an offset of a disk.
pub type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// The partitions of the disk of `size` bytes that `read` reads. What can't be read has none.
pub fn partitions(size: u64, read: ReadAt<'_>) -> Table {
    let none = Table { scheme: Scheme::None, partitions: Vec::new() };
    let Some(sector) = boot_record(read, 0) else { return none };
    let entries: Vec<Entry> = sector[446..510].chunks_exact(16).map(Entry::new).collect();
    // The code of a boot sector ends with the same signature; its table then is no table.
    if entries.iter().any(|entry| !matches!(entry.status, 0 | 0x80)) {
        return none;
    }
    if entries.iter().any(|entry| entry.kind == 0xee)
        && let Some(partitions) = guid(read)
    {
        return Table { scheme: Scheme::Gpt, partitions: inside(partitions, size) };
    }
    let disk_id = u32_at(&sector, 440);
    let mut partitions = Vec::new();
    let mut logical = 5;
    for (number, entry) in (1..).zip(&entries) {
        if entry.kind == 0 || entry.sectors == 0 {
            continue;
        }
        partitions.push(entry.partition(number, 0, disk_id));
        if entry.is_extended() {
            partitions.extend(chain(read, u64::from(entry.first), &mut logical, disk_id));
        }
    }
    partitions.sort_by_key(|partition| partition.number);
    let scheme = if partitions.is_empty() { Scheme::None } else { Scheme::Mbr };
    Table { scheme, partitions: inside(partitions, size) }
}

fn inside(mut partitions: Vec<Partition>, size: u64) -> Vec<Partition> {
    partitions.retain(|partition| partition.start > 0 && partition.start < size);
    for partition in &mut partitions {
        partition.len = partition.len.min(size - partition.start);
    }
    partitions
}

/// One of a boot record's four entries.
struct Entry {
    status: u8,
    kind: u8,
    first: u32,
    sectors: u32,
}

impl Entry {
    fn new(bytes: &[u8]) -> Self {
        Self {
            status: bytes[0],
            kind: bytes[4],
            first: u32_at(bytes, 8),
            sectors: u32_at(bytes, 12),
        }
    }

    fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }

    fn partition(&self, number: u32, base: u64, disk_id: u32) -> Partition {
        Partition {
            number,
            start: (base + u64::from(self.first)) * SECTOR,
            len: u64::from(self.sectors) * SECTOR,
            kind: Kind::Mbr(self.kind),
            active: self.status == 0x80,
            uuid: format!("{disk_id:08x}-{number:02x}"),
        }
    }
}

fn boot_record(read: ReadAt<'_>, sector: u64) -> Option<[u8; 512]> {
    let mut bytes = [0; 512];
    read(&mut bytes, sector.checked_mul(SECTOR)?).ok()?;
    (bytes[510..] == [0x55, 0xaa]).then_some(bytes)
}

/// The logical partitions of the extended one that begins at sector `base`. A chain that leads back
/// ends at the bound.
fn chain(read: ReadAt<'_>, base: u64, next: &mut u32, disk_id: u32) -> Vec<Partition> {
    let mut found = Vec::new();
    let mut at = base;
    for _ in 0..MAX_LOGICAL {
        let Some(sector) = boot_record(read, at) else { break };
        let entries: Vec<Entry> = sector[446..478].chunks_exact(16).map(Entry::new).collect();
        if entries[0].kind != 0 && entries[0].sectors != 0 {
            found.push(entries[0].partition(*next, at, disk_id));
            *next += 1;
        }
        // Its place is counted from the extended partition's beginning.
        let following = base + u64::from(entries[1].first);
        if !entries[1].is_extended() || following <= at {
            break;
        }
        at = following;
    }
    found
}

fn guid(read: ReadAt<'_>) -> Option<Vec<Partition>> {
    let mut header = [0; 512];
    read(&mut header, SECTOR).ok()?;
    let (table, count, size) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    if !header.starts_with(b"EFI PART") || !(128..=4096).contains(&size) {
        return None;
    }
    let entry = |n: u32| -> Option<Partition> {
        let mut entry = [0; 128];
        let at = table.checked_mul(SECTOR)?.checked_add(u64::from(n) * u64::from(size))?;
        read(&mut entry, at).ok()?;
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        let kind: [u8; 16] = *entry.first_chunk()?;
        (kind != [0; 16]).then_some(())?;
        Some(Partition {
            number: n + 1,
            start: first.checked_mul(SECTOR)?,
            len: sectors.checked_mul(SECTOR)?,
            kind: Kind::Gpt(kind),
            active: u64_at(&entry, 48) & 4 != 0, // "Legacy BIOS Bootable"
            uuid: guid_text(&entry[16..32]),
        })
    };
    Some((0..count.min(MAX_GUID)).filter_map(entry).collect())
}

/// A GUID's text: its first three fields are little-endian. (UEFI 2.10, appendix A)
fn guid_text(bytes: &[u8]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (n, &at) in order.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[at]));
    }
    text
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(disk: &[u8]) -> Table {
        partitions(disk.len() as u64, &|bytes, at| {
            let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let end = at.checked_add(bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(disk.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    /// (status, type, first, sectors) of the entries in the boot record at `sector`.
    fn record(disk: &mut [u8], sector: usize, entries: &[(u8, u8, u32, u32)]) {
        let at = sector * 512;
        for (n, (status, kind, first, sectors)) in entries.iter().enumerate() {
            let entry = &mut disk[at + 446 + n * 16..][..16];
            (entry[0], entry[4]) = (*status, *kind);
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        disk[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    #[test]
    fn primary_and_logical_partitions_have_linuxs_numbers() {
        let mut disk = vec![0; 100 * 512];
        disk[440..444].copy_from_slice(&0x1234_abcdu32.to_le_bytes());
        record(&mut disk, 0, &[(0x80, 0x83, 2, 8), (0, 0, 0, 0), (0, 0x05, 20, 60)]);
        record(&mut disk, 20, &[(0, 0x83, 2, 4), (0, 0x05, 10, 20)]);
        record(&mut disk, 30, &[(0, 0x82, 2, 400), (0, 0, 0, 0)]);
        let table = of(&disk);
        let seen: Vec<_> =
            table.partitions.iter().map(|p| (p.number, p.start / 512, p.len / 512)).collect();
        assert_eq!(table.scheme, Scheme::Mbr);
        assert_eq!(seen, [(1, 2, 8), (3, 20, 60), (5, 22, 4), (6, 32, 68)]);
        assert_eq!(table.partitions[0].uuid, "1234abcd-01");
        assert!(table.partitions[0].active && !table.partitions[1].active);
    }

    #[test]
    fn a_guid_table_is_read_behind_its_protective_record() {
        let mut disk = vec![0; 100 * 512];
        record(&mut disk, 0, &[(0, 0xee, 1, 99)]);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 4;
        disk[512 + 84..512 + 86].copy_from_slice(&128u16.to_le_bytes());
        for (n, first, last) in [(0, 40, 47), (2, 50, 60)] {
            let entry = &mut disk[1024 + n * 128..][..128];
            entry[0] = 1;
            entry[16..32].copy_from_slice(&(0..16).collect::<Vec<u8>>());
            entry[32] = first;
            entry[40] = last;
        }
        let table = of(&disk);
        assert_eq!(table.scheme, Scheme::Gpt);
        let seen: Vec<_> =
            table.partitions.iter().map(|p| (p.number, p.start / 512, p.len / 512)).collect();
        assert_eq!(seen, [(1, 40, 8), (3, 50, 11)]);
        assert_eq!(table.partitions[0].uuid, "03020100-0504-0706-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn chains_that_lead_back_and_partitions_beyond_the_disk_end() {
        let mut disk = vec![0; 100 * 512];
        record(&mut disk, 0, &[(0, 0x05, 20, 60), (0, 0x83, 5000, 8)]);
        record(&mut disk, 20, &[(0, 0x83, 2, 4), (0, 0x05, 0, 20)]);
        assert_eq!(of(&disk).partitions.len(), 2);
        assert_eq!(of(&[]).scheme, Scheme::None);
        let mut sector = vec![0xf4; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(of(&sector).scheme, Scheme::None, "a boot sector without a table");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table(entries in prop::collection::vec((0u8..2, any::<u8>(), 0u32..64, any::<u32>()), 4), next in any::<[u8; 96]>()) {
            let mut disk = vec![0; 64 * 512];
            for sector in [0, 1, 20] {
                record(&mut disk, sector, &entries);
            }
            disk[512..608].copy_from_slice(&next);
            prop_assert!(of(&disk).partitions.len() <= 256);
        }
    }
}
