//! What firmware is told: items of QEMU's firmware configuration device. (docs/specs/fw_cfg.rst in
//! QEMU)
//!
//! The tables are those of a direct boot. The firmware decides where they go, by a script that says
//! what points where (hw/acpi/bios-linker-loader.c in QEMU).

use super::{acpi, pci_map, smbios};
use crate::error::Result;
use crate::mem::layout::{
    COM1_PORT, KVM_IDENTITY_MAP, PAGE, VIRTIO_BASE, VIRTIO_STRIDE, firmware_generation,
};
use crate::mem::ram;
use crate::plan::{TransportKind, VmConfig, VmPlan};
use std::fmt::Write;

/// An item's selector, and its bytes.
pub type Item = (u16, Vec<u8>);

const SIGNATURE: u16 = 0;
const ID: u16 = 1;
const NB_CPUS: u16 = 5;
const MAX_CPUS: u16 = 0xf;
const FILE_DIR: u16 = 0x19;
/// The first file's; the others follow.
const FILES: u16 = 0x20;

/// ID: the traditional interface, and DMA.
const FEATURES: u32 = 1 | 1 << 1;
/// Bytes of a file's name, with its NUL.
const NAME: usize = 56;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

const RSDP_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";
/// Bytes of the RSDP that its first checksum covers, and where the checksums are. (ACPI 6.5,
/// 5.2.5.3)
const RSDP_V1: u32 = 20;
const RSDP_CHECKSUM: u32 = 8;
const RSDP_EXTENDED_CHECKSUM: u32 = 32;
/// Where a table has its checksum. (5.2.6)
const TABLE_CHECKSUM: u32 = 9;

/// Everything that firmware asks for on the machine of `plan`.
///
/// # Errors
/// `plan.uuid` is not a UUID.
pub fn items(plan: &VmPlan) -> Result<Vec<Item>> {
    let cpus = u16::from(plan.config.cpus).to_le_bytes().to_vec();
    let mut items = vec![
        (SIGNATURE, b"QEMU".to_vec()),
        (ID, FEATURES.to_le_bytes().to_vec()),
        (NB_CPUS, cpus.clone()),
        (MAX_CPUS, cpus),
    ];
    let files = files(plan)?;
    let mut directory = (files.len() as u32).to_be_bytes().to_vec();
    for ((name, bytes), selector) in files.into_iter().zip(FILES..) {
        directory.extend((bytes.len() as u32).to_be_bytes());
        directory.extend(selector.to_be_bytes());
        directory.extend([0; 2]);
        directory.extend(file_name(name));
        items.push((selector, bytes));
    }
    items.push((FILE_DIR, directory));
    Ok(items)
}

fn files(plan: &VmPlan) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut tables = acpi::Tables::new(&plan.config, 0);
    let script = script(&tables);
    clear_checksums(&mut tables);
    let structures = smbios::structures(plan)?;
    let port = u64::from(COM1_PORT).to_le_bytes().to_vec();
    let mut files = vec![
        ("bootorder", boot_order(&plan.config).into_bytes()),
        ("etc/e820", e820(plan.config.memory)),
        (RSDP_FILE, tables.rsdp),
        (TABLES_FILE, tables.bytes),
        ("etc/table-loader", script),
        ("etc/smbios/smbios-anchor", smbios::entry_point(structures.len() as u32)),
        ("etc/smbios/smbios-tables", structures),
        // There is no screen: what BIOS services print goes to the serial line.
        ("etc/sercon-port", port),
    ];
    if plan.config.boot.is_uefi() {
        files.extend(UEFI_SETTINGS.map(|name| (name, b"no".to_vec())));
    }
    Ok(files)
}

/// What OVMF need not offer: an instance boots from its disks. (OvmfPkg/README in EDK2)
const UEFI_SETTINGS: [&str; 3] = [
    "opt/org.tianocore/IPv4PXESupport",
    "opt/org.tianocore/IPv6PXESupport",
    "opt/org.tianocore/EFIShellSupport",
];

/// OVMF adds up a table with its checksum as it lies there, and stores what is missing in its
/// place: where that was not 0 before, it drops all tables. (ProcessCmdAddChecksum in
/// OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c in EDK2) SeaBIOS takes it as it is.
fn clear_checksums(tables: &mut acpi::Tables) {
    for table in &tables.each {
        tables.bytes[table.start + TABLE_CHECKSUM as usize] = 0;
    }
    for checksum in [RSDP_CHECKSUM, RSDP_EXTENDED_CHECKSUM] {
        tables.rsdp[checksum as usize] = 0;
    }
}

fn file_name(name: &str) -> [u8; NAME] {
    let mut field = [0; NAME];
    field[..name.len()].copy_from_slice(name.as_bytes());
    field
}

/// The root, then CD-ROM drives, then the other disks: who installs from a disc boots what is
/// installed, and a disc beside an empty root mends what the others have. Without an order SeaBIOS
/// would take of those in memory the last one first. (bootprio_find_mmio_device,
/// bootprio_find_pci_device and those for SCSI in SeaBIOS; QemuBootOrderLib in EDK2)
fn boot_order(config: &VmConfig) -> String {
    let disks = || config.disks().map(|(device, _)| (device, "disk@0,0"));
    let drives = config.cdroms().map(|(device, _)| (device, "channel@0/disk@0,0"));
    let all = disks().take(1).chain(drives).chain(disks().skip(1));
    all.fold(String::new(), |mut order, (device, what)| {
        let slot = u64::from(device.slot);
        let base = VIRTIO_BASE + slot * VIRTIO_STRIDE;
        // Writing to a string does not fail.
        let _ = match config.chipset.transport {
            TransportKind::Mmio => writeln!(order, "/virtio-mmio@{base:016x}/{what}"),
            TransportKind::Pci => {
                let device = slot + u64::from(pci_map::of(config).first);
                writeln!(order, "/pci@i0cf8/scsi@{device:x}/{what}")
            }
        };
        order
    })
}

/// Memory as e820 entries: RAM without the page of the VM generation ID, and the pages that KVM
/// keeps for itself. SeaBIOS adds what it takes.
fn e820(memory: u64) -> Vec<u8> {
    let generation = firmware_generation(memory);
    let ram = ram::ranges(memory).map(|(start, len)| {
        let len = if (start..start + len).contains(&generation) { len - PAGE } else { len };
        (start, len, E820_RAM)
    });
    let reserved = [(generation, PAGE), (KVM_IDENTITY_MAP, 4 * PAGE)];
    let reserved = reserved.map(|(start, len)| (start, len, E820_RESERVED));
    let mut bytes = Vec::new();
    for (start, len, kind) in ram.chain(reserved) {
        bytes.extend(start.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
    }
    bytes
}

/// Commands of the table loader, 128 bytes each.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, number: u32, fields: &[&[u8]]) {
        const LEN: usize = 128;
        let end = self.0.len() + LEN;
        self.0.extend(number.to_le_bytes());
        fields.iter().for_each(|field| self.0.extend(*field));
        self.0.resize(end, 0);
    }

    /// Load a file; zone 1 is high memory, zone 2 the segment at 0xf0000.
    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.command(1, &[&file_name(file), &align.to_le_bytes(), &[zone]]);
    }

    /// Add the address of `to` to what `file` has at `offset`, `size` bytes.
    fn add_pointer(&mut self, file: &str, to: &str, offset: u32, size: u8) {
        self.command(2, &[&file_name(file), &file_name(to), &offset.to_le_bytes(), &[size]]);
    }

    /// Make `len` bytes from `start` sum to zero by the byte at `at`.
    fn add_checksum(&mut self, file: &str, at: u32, start: u32, len: u32) {
        let numbers = [at, start, len].map(u32::to_le_bytes);
        self.command(3, &[&file_name(file), &numbers[0], &numbers[1], &numbers[2]]);
    }
}

fn script(tables: &acpi::Tables) -> Vec<u8> {
    let mut script = Script::default();
    script.allocate(RSDP_FILE, 16, 2);
    script.allocate(TABLES_FILE, 64, 1);
    for pointer in &tables.pointers {
        script.add_pointer(TABLES_FILE, TABLES_FILE, pointer.start as u32, pointer.len() as u8);
    }
    for table in &tables.each {
        let start = table.start as u32;
        script.add_checksum(TABLES_FILE, start + TABLE_CHECKSUM, start, table.len() as u32);
    }
    script.add_pointer(RSDP_FILE, TABLES_FILE, acpi::RSDP_XSDT as u32, 8);
    script.add_checksum(RSDP_FILE, RSDP_CHECKSUM, 0, RSDP_V1);
    script.add_checksum(RSDP_FILE, RSDP_EXTENDED_CHECKSUM, 0, tables.rsdp.len() as u32);
    script.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::source::{u32_at, u64_at};
    use crate::boot::tests::{machine, plan};
    use crate::plan::{CdromPlan, DeviceConfig, DeviceKind, DiskPlan, PlanFd};
    use std::collections::HashMap;

    fn text(field: &[u8]) -> String {
        let end = field.iter().position(|&byte| byte == 0).unwrap();
        String::from_utf8(field[..end].to_vec()).unwrap()
    }

    /// The files by name, as firmware finds them through the directory.
    fn files_of(items: &[Item]) -> HashMap<String, Vec<u8>> {
        let by_selector = |wanted: u16| items.iter().find(|(selector, _)| *selector == wanted);
        let (_, directory) = by_selector(FILE_DIR).unwrap();
        let count = u32::from_be_bytes(directory[..4].try_into().unwrap());
        let entries = directory[4..].chunks_exact(64);
        assert_eq!((entries.len(), entries.remainder()), (count as usize, &[][..]));
        entries
            .map(|entry| {
                let (_, bytes) = by_selector(u16::from_be_bytes([entry[4], entry[5]])).unwrap();
                assert_eq!(entry[..4], (bytes.len() as u32).to_be_bytes());
                (text(&entry[8..]), bytes.clone())
            })
            .collect()
    }

    /// What firmware does with the script: the files at these addresses. They differ in what a byte
    /// is summed up as that is to be the checksum: SeaBIOS (src/fw/romfile_loader.c) subtracts from
    /// it, OVMF (ProcessCmdAddChecksum) puts the whole in its place.
    fn load(
        ovmf: bool,
        files: &HashMap<String, Vec<u8>>,
        at: &[(&str, u64)],
    ) -> HashMap<String, Vec<u8>> {
        let address = |name: &str| at.iter().find(|(file, _)| *file == name).unwrap().1;
        let mut loaded: HashMap<String, Vec<u8>> = HashMap::new();
        for command in files["etc/table-loader"].chunks_exact(128) {
            let file = text(&command[4..]);
            let number = |at: usize| u32_at(command, at).unwrap() as usize;
            match number(0) {
                1 => {
                    loaded.insert(file.clone(), files[&file].clone());
                }
                2 => {
                    let (to, at, size) = (text(&command[60..]), number(116), command[120] as usize);
                    assert!(loaded.contains_key(&to));
                    let field = &mut loaded.get_mut(&file).unwrap()[at..at + size];
                    let mut value = [0; 8];
                    value[..size].copy_from_slice(field);
                    let value = u64::from_le_bytes(value) + address(&to);
                    field.copy_from_slice(&value.to_le_bytes()[..size]);
                }
                3 => {
                    let bytes = loaded.get_mut(&file).unwrap();
                    let (at, start, len) = (number(60), number(64), number(68));
                    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                    let wrong = sum(&bytes[start..start + len]);
                    let was = if ovmf { 0 } else { bytes[at] };
                    bytes[at] = was.wrapping_sub(wrong);
                    assert_eq!(sum(&bytes[start..start + len]), 0);
                }
                other => panic!("command {other}"),
            }
        }
        loaded
    }

    #[test]
    fn loaded_by_the_script_the_tables_are_what_is_built_for_their_address() {
        let config = machine(2, TransportKind::default(), 4);
        let plan = VmPlan { config, ..plan(64 << 20) };
        let files = files_of(&items(&plan).unwrap());
        let base = 0x3ff_0000;
        let expected = acpi::Tables::new(&plan.config, base);
        for ovmf in [false, true] {
            let loaded = load(ovmf, &files, &[(RSDP_FILE, 0xf_5000), (TABLES_FILE, base)]);
            assert_eq!(loaded[TABLES_FILE], expected.bytes);
            assert_eq!(loaded[RSDP_FILE], expected.rsdp);
        }
        assert_eq!(u64_at(&expected.rsdp, acpi::RSDP_XSDT).unwrap() & !0xffff, base);
    }

    /// A machine with so many disks, behind its entropy device.
    fn disks(transport: TransportKind, count: u8) -> VmConfig {
        let mut config = machine(1, transport, 0);
        let disk = |slot: u8| DeviceConfig {
            id: format!("disk{slot}").parse().unwrap(),
            slot,
            kind: DeviceKind::Disk(DiskPlan {
                volume_id: "vol-0123456789abcdef0".parse().unwrap(),
                read_only: false,
                layers: vec![],
                hold: None,
                engine: Default::default(),
                queues: 1,
                limits: Default::default(),
            }),
        };
        let kind = DeviceKind::Entropy;
        config.devices.push(DeviceConfig { id: "rng".parse().unwrap(), slot: count, kind });
        config.devices.extend((0..count).map(disk));
        config
    }

    #[test]
    fn disks_boot_in_the_plans_order() {
        assert_eq!(
            boot_order(&disks(TransportKind::Mmio, 2)),
            "/virtio-mmio@00000000d0000000/disk@0,0\n/virtio-mmio@00000000d0001000/disk@0,0\n"
        );
        assert_eq!(
            boot_order(&disks(TransportKind::Pci, 2)),
            "/pci@i0cf8/scsi@1/disk@0,0\n/pci@i0cf8/scsi@2/disk@0,0\n"
        );
        assert_eq!(boot_order(&disks(TransportKind::Mmio, 0)), "");
        // A disc comes after the root, wherever its drive is.
        let mut config = disks(TransportKind::Pci, 2);
        let cdrom =
            CdromPlan { disc: PlanFd(5), engine: Default::default(), limits: Default::default() };
        let kind = DeviceKind::Cdrom(cdrom);
        config.devices.push(DeviceConfig { id: "cdrom0".parse().unwrap(), slot: 9, kind });
        let order = boot_order(&config);
        let lines: Vec<&str> = order.lines().collect();
        assert_eq!(lines[1], "/pci@i0cf8/scsi@a/channel@0/disk@0,0");
        assert_eq!((lines[0], lines.len()), ("/pci@i0cf8/scsi@1/disk@0,0", 3));
    }

    #[test]
    fn memory_is_told_with_its_hole_and_without_kvms_pages() {
        let entries: Vec<_> = e820(5 << 30)
            .chunks_exact(20)
            .map(|entry| {
                let kind = u32_at(entry, 16).unwrap();
                (u64_at(entry, 0).unwrap(), u64_at(entry, 8).unwrap(), kind)
            })
            .collect();
        let (end, page) = ((3 << 30) - 0x1000, 0x1000);
        let reserved = [(end, page, E820_RESERVED), (KVM_IDENTITY_MAP, 0x4000, E820_RESERVED)];
        assert_eq!(entries, [[(0, end, 1), (4 << 30, 2 << 30, 1)], reserved].concat());
    }

    #[test]
    fn smbios_has_its_anchor_and_structures_apart() {
        let files = files_of(&items(&plan(64 << 20)).unwrap());
        let (anchor, tables) =
            (&files["etc/smbios/smbios-anchor"], &files["etc/smbios/smbios-tables"]);
        assert_eq!((anchor.len(), &anchor[..5]), (24, &b"_SM3_"[..]));
        assert_eq!(u32_at(anchor, 12).unwrap() as usize, tables.len());
    }
}
