//! Which way of booting a disk asks for by what is on it. A proposal: whoever registers the image
//! decides.

use crate::disk;
use crate::error::{Error, OrFail, Result};
use crate::import::{SourceFormat, format};
use crate::plan::DiskFormat;
use crate::pvgrub::{Child, Disk};
use crate::record::image::BootMode;
use crate::record::snapshot::Snapshot;
use crate::snapshot;
use crate::store::Store;
use serde::Serialize;
use std::fs::File;
use std::path::Path;

/// A way of booting, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Proposal {
    /// "hvm" or "paravirtual"; absent if nothing on the disk boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtualization_type: Option<&'static str>,
    /// The kernel to register it with: PV-GRUB's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<&'static str>,
    /// The boot mode to register it with, if the disk has an EFI system partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// Why, a sentence each.
    pub reasons: Vec<String>,
    /// What else would boot it, as options of the command.
    pub alternatives: Vec<String>,
    /// What was found.
    pub disk: Disk,
}

/// Look at a snapshot.
///
/// # Errors
/// It can't be opened, or reading it would cost too much.
pub fn of_snapshot(store: &Store, snapshot: &Snapshot) -> Result<Proposal> {
    look(snapshot::open_layers(store, snapshot)?)
}

/// Look at a disk that is not imported yet.
///
/// # Errors
/// It is no raw or qcow2 file, or as [`of_snapshot`].
pub fn of_file(path: &Path, given: Option<SourceFormat>) -> Result<Proposal> {
    let doing = || format!("read the disk {}", path.display());
    let file = File::open(path).or_fail(doing)?;
    let size = file.metadata().or_fail(doing)?.len();
    let (head, tail) = format::ends(&file, size).or_fail(doing)?;
    let packed = format::compression(&head).is_some();
    let format = given.map_or_else(|| format::detect(&head, tail.as_ref()), Ok)?;
    let format = match format {
        SourceFormat::Raw if !packed => DiskFormat::Raw,
        SourceFormat::Qcow2 if !packed => DiskFormat::Qcow2,
        _ => {
            return Err(Error::usage(format!(
                "{} is neither raw nor qcow2: `DryRun` reads no other disk; import it, then look at its snapshot",
                path.display()
            )));
        }
    };
    look(vec![(file, format)])
}

fn look(layers: Vec<(File, DiskFormat)>) -> Result<Proposal> {
    let disk = disk::Disk::open(layers).or_fail(|| "read a disk")?;
    Ok(propose(Child::start()?.detect(&disk)?))
}

/// The kernel of PV-GRUB's that boots a disk by what is on it, if one does.
pub fn pv_grub(disk: &Disk) -> Option<&'static str> {
    match (&disk.menu, &disk.no_menu, disk.partition_table.as_str()) {
        (Some(_), None, "none") => Some("aki-pv-grub-hd0"),
        (Some(_), None, _) => Some("aki-pv-grub-hd00"),
        _ => None,
    }
}

/// Firmware where the disk has what firmware runs, a BIOS before UEFI, as on EC2; PV-GRUB where it
/// has a menu and no more.
pub fn propose(disk: Disk) -> Proposal {
    let mut reasons = Vec::new();
    let pv = pv_grub(&disk);
    let hvm = match (&disk.boot_code, disk.partition_table.as_str(), disk.bios_boot_partition) {
        (Some(code), "gpt", Some(n)) => {
            reasons.push(format!("boot code ({code}) in the protective master boot record, and BIOS boot partition {n}"));
            true
        }
        (Some(code), "gpt", None) => {
            reasons.push(format!("boot code ({code}) in the protective master boot record, but no BIOS boot partition"));
            code != "GRUB"
        }
        (Some(code), "mbr", _) => {
            reasons.push(format!("boot code ({code}) in the master boot record"));
            true
        }
        (Some(code), _, _) => {
            reasons.push(format!("boot code ({code}) in the first sector, and no partition table"));
            true
        }
        (None, _, _) => {
            reasons.push("no boot code in the first sector".into());
            false
        }
    };
    let boot_mode = disk.efi_system_partition.map(|n| {
        reasons.push(format!("an EFI system partition ({n})"));
        if hvm { BootMode::LegacyBios } else { BootMode::Uefi }
    });
    let firmware = hvm || boot_mode == Some(BootMode::Uefi);
    match (&disk.menu, &disk.default_entry, &disk.no_menu) {
        (Some(menu), Some(entry), None) => {
            reasons.push(format!("boot menu {menu}, whose default is \"{entry}\""))
        }
        (Some(menu), _, why) => {
            let why = why.as_deref().unwrap_or("it has no entry");
            reasons.push(format!("boot menu {menu} boots nothing: {why}"));
        }
        (None, _, why) => reasons.push(why.clone().unwrap_or_else(|| "no boot menu".into())),
    }
    let mut alternatives = Vec::new();
    if boot_mode == Some(BootMode::LegacyBios) {
        alternatives.push("--boot-mode uefi".into());
    }
    if let (true, Some(kernel)) = (firmware, pv) {
        alternatives.push(format!("--kernel {kernel}"));
    }
    alternatives.push("--kernel FILE --initrd FILE".into());
    Proposal {
        virtualization_type: if firmware { Some("hvm") } else { pv.map(|_| "paravirtual") },
        kernel_id: if firmware { None } else { pv },
        boot_mode,
        reasons,
        alternatives,
        disk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(table: &str, code: Option<&str>, bios_boot: Option<u32>, menu: bool) -> Disk {
        Disk {
            partition_table: table.into(),
            boot_code: code.map(str::to_owned),
            bios_boot_partition: bios_boot,
            menu: menu.then(|| "/boot/grub/menu.lst on the disk".into()),
            default_entry: menu.then(|| "Debian".into()),
            no_menu: (!menu).then(|| "no boot menu was found".into()),
            ..Disk::default()
        }
    }

    #[test]
    fn firmware_comes_before_a_menu_and_a_menu_before_nothing() {
        for (table, code, bios_boot, menu, virtualization, kernel) in [
            ("mbr", Some("GRUB"), None, true, Some("hvm"), None),
            ("mbr", Some("GRUB"), None, false, Some("hvm"), None),
            ("gpt", Some("GRUB"), Some(1), true, Some("hvm"), None),
            ("gpt", Some("GRUB"), None, true, Some("paravirtual"), Some("aki-pv-grub-hd00")),
            ("gpt", Some("SYSLINUX"), None, false, Some("hvm"), None),
            ("mbr", None, None, true, Some("paravirtual"), Some("aki-pv-grub-hd00")),
            ("none", None, None, true, Some("paravirtual"), Some("aki-pv-grub-hd0")),
            ("none", Some("an unknown loader"), None, false, Some("hvm"), None),
            ("none", None, None, false, None, None),
            ("gpt", None, None, false, None, None),
        ] {
            let proposal = propose(disk(table, code, bios_boot, menu));
            let got = (proposal.virtualization_type, proposal.kernel_id);
            assert_eq!(got, (virtualization, kernel), "{table} {code:?} {bios_boot:?} {menu}");
            assert!(proposal.reasons.len() >= 2, "{proposal:?}");
        }
    }

    #[test]
    fn an_efi_system_partition_is_booted_by_uefi_where_no_bios_would_boot() {
        let with = |table, code, bios_boot, menu| {
            let disk = disk(table, code, bios_boot, menu);
            propose(Disk { efi_system_partition: Some(15), ..disk })
        };
        for (code, bios_boot, menu, mode, alternative) in [
            (None, None, false, BootMode::Uefi, "--kernel FILE --initrd FILE"),
            (None, None, true, BootMode::Uefi, "--kernel aki-pv-grub-hd00"),
            (Some("GRUB"), None, true, BootMode::Uefi, "--kernel aki-pv-grub-hd00"),
            (Some("GRUB"), Some(14), true, BootMode::LegacyBios, "--boot-mode uefi"),
        ] {
            let proposal = with("gpt", code, bios_boot, menu);
            assert_eq!((proposal.virtualization_type, proposal.kernel_id), (Some("hvm"), None));
            assert_eq!(proposal.boot_mode, Some(mode), "{code:?} {bios_boot:?}");
            assert_eq!(proposal.alternatives[0], alternative);
        }
    }

    #[test]
    fn what_else_would_boot_it_is_told() {
        let proposal = propose(disk("mbr", Some("GRUB"), None, true));
        assert_eq!(proposal.alternatives[0], "--kernel aki-pv-grub-hd00");
    }
}
