//! How a disk is made to boot: what is on it, told for somebody who has to decide.

use super::find;
use super::volume::{Bytes, Volume};
use crate::block::partitions::{self, BIOS_BOOT, EFI_SYSTEM, Kind, Scheme};
use crate::plan::PvGrub;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Code of a master boot record, before the disk's signature. (UEFI 2.10, 5.2.1)
const CODE: usize = 440;
/// Longest text that is told.
const LONGEST: usize = 300;

/// What of a disk matters for booting it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Disk {
    /// "none", "mbr" or "gpt".
    pub partition_table: String,
    /// Its file systems, for messages.
    pub file_systems: Vec<String>,
    /// Whose code the first sector has, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_code: Option<String>,
    /// The number of a GUID partition table's BIOS boot partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios_boot_partition: Option<u32>,
    /// The number of an EFI system partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi_system_partition: Option<u32>,
    /// Where a boot menu was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub menu: Option<String>,
    /// The title of the entry that it boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_entry: Option<String>,
    /// Why no menu was found, or none that boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_menu: Option<String>,
}

/// Look at a disk. What can't be read is not there.
pub fn detect(disk: &Rc<dyn Bytes>) -> Disk {
    let mut sector = [0; 512];
    let code = disk.read_exact_at(&mut sector, 0).ok().and_then(|()| boot_code(&sector));
    let read = |bytes: &mut [u8], at: u64| disk.read_exact_at(bytes, at);
    let table = partitions::partitions(disk.size(), &read);
    let of_type = |kinds: &[Kind]| {
        let is = |partition: &&partitions::Partition| kinds.contains(&partition.kind);
        table.partitions.iter().find(is).map(|found| found.number)
    };
    let volume = Volume::open(Rc::clone(disk));
    let mut found = Disk {
        partition_table: scheme(volume.scheme).into(),
        file_systems: volume.systems.iter().map(described).collect(),
        boot_code: code.map(str::to_owned),
        bios_boot_partition: of_type(&[BIOS_BOOT]),
        efi_system_partition: of_type(&EFI_SYSTEM),
        ..Disk::default()
    };
    match find::find(&volume, PvGrub::Any, None) {
        Ok(located) => {
            found.menu = Some(short(&located.name(&volume)));
            let entries = &located.menu.entries;
            let order = located.menu.candidates(None).unwrap_or_default();
            let mut reasons = Vec::new();
            for at in order {
                match located.problem(&volume, &entries[at]) {
                    None => {
                        found.default_entry = Some(short(&entries[at].full_title()));
                        return found;
                    }
                    Some(why) => reasons.push(why),
                }
            }
            found.no_menu = Some(short(&reasons.join("; ")));
        }
        Err(why) => found.no_menu = Some(short(&why)),
    }
    found
}

fn described(system: &super::volume::FileSystem) -> String {
    short(&format!("{}: {}", system.name(), system.described()))
}

fn short(text: &str) -> String {
    crate::helper::one_line(text, LONGEST)
}

const fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::None => "none",
        Scheme::Mbr => "mbr",
        Scheme::Gpt => "gpt",
    }
}

/// Whose code a first sector has: firmware starts it if the sector ends with 55 AA, whatever it is.
fn boot_code(sector: &[u8; 512]) -> Option<&'static str> {
    // FAT's and NTFS's first sectors begin with a jump and have code that only says that it does
    // not boot; a protective record is empty.
    let code = &sector[..CODE];
    if sector[510..] != [0x55, 0xaa] || code.iter().all(|byte| *byte == 0) {
        return None;
    }
    let has = |text: &[u8]| sector.windows(text.len()).any(|window| window == text);
    Some(match () {
        () if has(b"GRUB") => "GRUB",
        () if has(b"SYSLINUX") || has(b"EXTLINUX") || has(b"ISOLINUX") => "SYSLINUX",
        () if has(b"LILO") => "LILO",
        () if has(b"BOOTMGR") || has(b"NTLDR") => "Windows",
        () => "an unknown loader",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(disk: Vec<u8>) -> Disk {
        let disk: Rc<dyn Bytes> = Rc::new(disk);
        detect(&disk)
    }

    #[test]
    fn a_boot_record_with_code_is_told_from_one_without() {
        let mut disk = vec![0; 64 * 512];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(of(disk.clone()).boot_code, None);
        disk[..2].copy_from_slice(&[0xeb, 0x63]);
        assert_eq!(of(disk.clone()).boot_code.as_deref(), Some("an unknown loader"));
        disk[0x180..0x184].copy_from_slice(b"GRUB");
        assert_eq!(of(disk.clone()).boot_code.as_deref(), Some("GRUB"));
        disk[511] = 0;
        assert_eq!(of(disk).boot_code, None);
    }

    #[test]
    fn a_bios_boot_partition_is_found_and_a_missing_menu_explained() {
        let mut disk = vec![0; 200 * 512];
        disk[450] = 0xee;
        disk[454] = 1;
        disk[458] = 199;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 4;
        disk[512 + 84] = 128;
        disk[1024..1040].copy_from_slice(b"Hah!IdontNeedEFI");
        disk[1024 + 32] = 40;
        disk[1024 + 40] = 50;
        let found = of(disk);
        assert_eq!((found.partition_table.as_str(), found.bios_boot_partition), ("gpt", Some(1)));
        assert_eq!(found.efi_system_partition, None);
        assert!(found.menu.is_none() && found.no_menu.is_some(), "{found:?}");
    }

    #[test]
    fn nothing_at_all_is_a_disk_too() {
        let found = of(Vec::new());
        assert_eq!(found.partition_table, "none");
        assert_eq!(found.boot_code, None);
    }
}
