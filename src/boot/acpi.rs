//! ACPI tables of a hardware-reduced machine. (ACPI 6.5)

mod aml;
mod pci;

use super::{generation, pci_map};
use crate::mem::layout::{
    ACPI, ACPI_RESET, ACPI_RESET_VALUE, ACPI_SLEEP_CONTROL, ACPI_SLEEP_STATUS, COM1_GSI, COM1_PORT,
    GED_EVENTS, GED_GSI, IOAPIC, LAPIC, PVPANIC_PORT, S5_SLEEP_TYPE, VIRTIO_BASE, VIRTIO_GSIS,
    VIRTIO_SLOTS, VIRTIO_STRIDE,
};
use crate::plan::{TransportKind, VmConfig};
use acpi_tables::aml::{
    And, Device, EISAName, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, MethodCall, Notify, ONE,
    OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::{Aml, rsdp::Rsdp, sdt::Sdt, xsdt::XSDT};
use aml::{Encoded, OEM, REVISION, TABLE, encode, name};
use std::ops::Range;

/// The bit in [`GED_EVENTS`] that says that the VM generation ID is another.
const GENERATION: u8 = 2;
/// The bit that says that the registers of PCI hot-plug have something.
const HOT_PLUG: u8 = 4;
/// Bytes of the RSDP, rounded up: the tables follow, each on an 8-byte boundary.
const RSDP_ROOM: usize = 40;

/// Offset of the XSDT's address in the RSDP. (5.2.5.3)
pub const RSDP_XSDT: usize = 24;
/// Offsets of the DSDT's address in the FADT, with 32 and with 64 bits. (5.2.9)
const DSDT: usize = 40;
const X_DSDT: usize = 140;
/// Bytes of a table's header: in the XSDT, addresses follow. (5.2.6)
const HEADER: usize = 36;

/// All tables but the RSDP in one piece, and what whoever moves them has to know.
pub struct Tables {
    /// The tables, each on an 8-byte boundary.
    pub bytes: Vec<u8>,
    /// Where in `bytes` each table is.
    pub each: Vec<Range<usize>>,
    /// Where in `bytes` the address of another table is.
    pub pointers: Vec<Range<usize>>,
    /// The root pointer, with the address of the XSDT.
    pub rsdp: Vec<u8>,
    /// Physical address of `bytes`.
    base: u64,
}

impl Tables {
    /// The tables of a machine, to be written at `base`. vCPU n has APIC id n. Virtio devices are
    /// in some of the [`VIRTIO_SLOTS`], or on a PCI bus, where the guest looks for itself.
    pub fn new(config: &VmConfig, base: u64) -> Self {
        let (bytes, each, pointers, rsdp) = Default::default();
        let mut tables = Self { bytes, each, pointers, rsdp, base };
        let dsdt = tables.append(&dsdt(config));
        let fadt = tables.append(&fadt(dsdt));
        let fields = (fadt - base) as usize;
        for (offset, size) in [(DSDT, size_of::<u32>()), (X_DSDT, size_of::<u64>())] {
            tables.pointers.push(fields + offset..fields + offset + size);
        }
        let madt = tables.append(&madt(config.cpus));
        let mut roots = vec![fadt, madt];
        if config.chipset.transport == TransportKind::Pci {
            roots.push(tables.append(&pci::mcfg(pci_map::of(config))));
        }
        tables.root(&roots);
        tables
    }

    /// Append a table; its physical address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        let start = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(start, 0);
        table.to_aml_bytes(&mut self.bytes);
        self.each.push(start..self.bytes.len());
        self.base + start as u64
    }

    /// The XSDT of these tables, and the RSDP.
    fn root(&mut self, tables: &[u64]) {
        let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
        tables.iter().for_each(|&table| xsdt.add_entry(table));
        let xsdt = self.append(&xsdt);
        let entries = (xsdt - self.base) as usize + HEADER..self.bytes.len();
        self.pointers.extend(entries.step_by(8).map(|entry| entry..entry + 8));
        Rsdp::new(OEM, xsdt).to_aml_bytes(&mut self.rsdp);
    }
}

/// All tables, the RSDP first, to be written at [`ACPI`].
pub fn build(config: &VmConfig) -> Vec<u8> {
    let base = ACPI + RSDP_ROOM as u64;
    let Tables { bytes, rsdp, .. } = Tables::new(config, base);
    let mut all = rsdp;
    all.resize(RSDP_ROOM, 0);
    all.extend(bytes);
    all
}

/// Fixed ACPI description table (5.2.9): no fixed hardware but the registers of 4.8.3.6 and
/// 4.8.3.7.
fn fadt(dsdt: u64) -> impl Aml {
    let port =
        |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    // Legacy devices, 8042, VGA and CMOS RTC are all absent. (5.2.9.3)
    const VGA_NOT_PRESENT: u16 = 1 << 2;
    const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton) // the power button is a device in the DSDT, not fixed hardware,
        .flag(Flags::SlpButton) // and there is no sleep button
        .flag(Flags::ResetRegSup)
        .flag(Flags::HwReducedAcpi);
    // SeaBIOS knows no other.
    fadt.dsdt = (dsdt as u32).into();
    fadt.iapc_boot_arch = (VGA_NOT_PRESENT | CMOS_RTC_NOT_PRESENT).into();
    fadt.reset_reg = port(ACPI_RESET);
    fadt.reset_value = ACPI_RESET_VALUE;
    fadt.sleep_control_reg = port(ACPI_SLEEP_CONTROL);
    fadt.sleep_status_reg = port(ACPI_SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"SPORE\0\0\0").into();
    fadt.finalize()
}

/// Multiple APIC description table (5.2.12). ISA interrupts are their GSIs; nothing overrides them.
fn madt(cpus: u8) -> impl Aml {
    let local = LocalInterruptController::Address(LAPIC as u32);
    let mut madt = MADT::new(OEM, TABLE, REVISION, local);
    for cpu in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC as u32, 0));
    madt
}

fn dsdt(config: &VmConfig) -> impl Aml {
    let mut devices: Vec<_> = (0..config.cpus).map(processor).collect();
    let slots = config.devices.iter().map(|device| usize::from(device.slot));
    match config.chipset.transport {
        TransportKind::Mmio => {
            devices.extend(slots.filter(|slot| *slot < VIRTIO_SLOTS).map(virtio))
        }
        TransportKind::Pci => {
            let map = pci_map::of(config);
            devices.extend([pci::host_bridge(map, config.hot_slots()), pci::motherboard(map)]);
        }
    }
    devices.extend([com1(), power_button(), panic_device()]);
    let hot_plug = config.chipset.transport == TransportKind::Pci;
    devices.extend([generation_id(generation::address(config)), event_device(hot_plug)]);
    let devices = devices.iter().map(|device| device as &dyn Aml).collect();
    let Encoded(mut aml) = encode(&Scope::new("\\_SB_".into(), devices));
    let s5 = Package::new(vec![&S5_SLEEP_TYPE, &ZERO, &ZERO, &ZERO]);
    name("_S5_", &s5).to_aml_bytes(&mut aml);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    dsdt.append_slice(&aml);
    dsdt
}

/// An edge-triggered, active-high interrupt of its own: what an irqfd without resampling delivers.
fn edge(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// A processor device; its _UID is the MADT entry's processor UID. (8.4)
fn processor(cpu: u8) -> Encoded {
    encode(&Device::new(
        Path::new(&format!("C{cpu:03}")),
        vec![&name("_HID", &"ACPI0007"), &name("_UID", &cpu)],
    ))
}

/// A virtio-mmio device, as Linux's virtio_mmio driver knows it.
fn virtio(slot: usize) -> Encoded {
    let base = VIRTIO_BASE + slot as u64 * VIRTIO_STRIDE;
    let memory = Memory32Fixed::new(true, base as u32, VIRTIO_STRIDE as u32);
    let interrupt = edge(VIRTIO_GSIS[slot]);
    encode(&Device::new(
        Path::new(&format!("V{slot:03}")),
        vec![
            &name("_HID", &"LNRO0005"),
            &name("_UID", &(slot as u8)),
            &name("_CCA", &ONE),
            &name("_CRS", &ResourceTemplate::new(vec![&memory, &interrupt])),
        ],
    ))
}

/// A 16550A-compatible serial port.
fn com1() -> Encoded {
    let ports = IO::new(COM1_PORT, COM1_PORT, 1, 8);
    let interrupt = edge(COM1_GSI);
    encode(&Device::new(
        "COM1".into(),
        vec![
            &name("_HID", &EISAName::new("PNP0501")),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&ports, &interrupt])),
        ],
    ))
}

/// A control-method power button. (4.8.2.2.1.2)
fn power_button() -> Encoded {
    encode(&Device::new(
        "PWRB".into(),
        vec![&name("_HID", &EISAName::new("PNP0C0C")), &name("_UID", &ZERO)],
    ))
}

/// The VM generation ID, and where it lies. (Microsoft, "Virtual Machine Generation ID")
fn generation_id(address: u64) -> Encoded {
    let (low, high) = (address as u32, (address >> 32) as u32);
    let address = Package::new(vec![&low, &high]);
    encode(&Device::new(
        "VGEN".into(),
        vec![
            &name("_HID", &"VMGENCTR"),
            &name("_CID", &"VM_Gen_Counter"),
            &name("_DDN", &"VM_Gen_Counter"),
            &name("ADDR", &address),
        ],
    ))
}

/// The generic event device (5.6.9): its interrupt says that [`GED_EVENTS`] has something; reading
/// clears it. `hot_plug`: there is a PCI bus.
fn event_device(hot_plug: bool) -> Encoded {
    const CHANGED: u8 = 0x80; // the generation ID is another
    const PRESSED: u8 = 0x80; // the power button was pressed (4.8.2.2.1.2)
    let pending = Path::new("PEND");
    let read = Store::new(&Local(0), &pending);
    let power = And::new(&Local(1), &Local(0), &ONE);
    let button = Path::new("\\_SB_.PWRB");
    let notify = Notify::new(&button, &PRESSED);
    let is_power = Equal::new(&Local(1), &ONE);
    let if_power = If::new(&is_power, vec![&notify]);
    let other = And::new(&Local(2), &Local(0), &GENERATION);
    let counter = Path::new("\\_SB_.VGEN");
    let notify_other = Notify::new(&counter, &CHANGED);
    let is_other = Equal::new(&Local(2), &GENERATION);
    let if_other = If::new(&is_other, vec![&notify_other]);
    let bus = And::new(&Local(3), &Local(0), &HOT_PLUG);
    let tell = MethodCall::new(Path::new("\\_SB_.PCI0.TELL"), Vec::new());
    let if_bus = If::new(&bus, vec![&tell]);
    let mut statements: Vec<&dyn Aml> = vec![&read, &power, &if_power, &other, &if_other];
    if hot_plug {
        statements.push(&if_bus);
    }
    let interrupt = edge(GED_GSI);
    encode(&Device::new(
        "GED_".into(),
        vec![
            &name("_HID", &"ACPI0013"),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&interrupt])),
            &OpRegion::new("EVTR".into(), OpRegionSpace::SystemIO, &GED_EVENTS, &ONE),
            &Field::new(
                "EVTR".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![FieldEntry::Named(*b"PEND", 8)],
            ),
            &Method::new("_EVT".into(), 1, true, statements),
        ],
    ))
}

/// QEMU's pvpanic on a port (docs/specs/pvpanic.rst in QEMU), which Linux has a driver for.
fn panic_device() -> Encoded {
    let port = IO::new(PVPANIC_PORT, PVPANIC_PORT, 1, 1);
    encode(&Device::new(
        "PEVT".into(),
        vec![
            &name("_HID", &"QEMU0001"),
            &name("_STA", &0x0fu8),
            &name("_CRS", &ResourceTemplate::new(vec![&port])),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::source::{u32_at, u64_at};
    use crate::boot::tests::machine;
    use crate::mem::layout::ACPI_END;
    use crate::plan::{DeviceKind, DiskPlan};

    /// The table at a physical address, its checksum verified.
    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let table = &bytes[(address - ACPI) as usize..];
        let table = &table[..u32_at(table, 4).unwrap() as usize];
        assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        table
    }

    fn find<'a>(bytes: &'a [u8], signature: &[u8]) -> &'a [u8] {
        let xsdt = table(bytes, u64_at(bytes, 24).unwrap());
        xsdt[36..]
            .chunks_exact(8)
            .map(|entry| table(bytes, u64_at(entry, 0).unwrap()))
            .find(|table| table.starts_with(signature))
            .unwrap()
    }

    /// The guest finds a slot for each disk but the first and eight more, and its way to let go.
    #[test]
    fn slots_for_devices_that_come_are_told() {
        let count = |config: &VmConfig, what: &[u8]| {
            build(config).windows(what.len()).filter(|w| *w == what).count()
        };
        let of_disks = |count| {
            let mut config = machine(1, TransportKind::Pci, count);
            let disk = DiskPlan {
                volume_id: "vol-0123456789abcdef0".parse().unwrap(),
                read_only: false,
                layers: Vec::new(),
                hold: None,
                engine: Default::default(),
                queues: 1,
                limits: Default::default(),
            };
            config.devices.iter_mut().for_each(|d| d.kind = DeviceKind::Disk(disk.clone()));
            config
        };
        for disks in [1, 3] {
            let config = of_disks(disks);
            assert_eq!(config.hot_slots().count_ones() as usize, disks - 1 + 8);
            assert_eq!(count(&config, b"_EJ0"), disks - 1 + 8);
            assert_eq!(count(&config, b"_EVT"), 1);
        }
        let full = of_disks(31);
        assert_eq!(full.hot_slots(), ((1u32 << 31) - 1) & !1, "no slot beyond the last");
        assert_eq!(count(&machine(1, TransportKind::Mmio, 3), b"_EJ0"), 0);
    }

    #[test]
    fn the_largest_machines_tables_fit() {
        assert!(
            build(&machine(64, TransportKind::Mmio, VIRTIO_SLOTS)).len() as u64 <= ACPI_END - ACPI
        );
    }

    #[test]
    fn every_table_is_reached_from_the_rsdp_and_sums_to_zero() {
        let bytes = build(&machine(2, TransportKind::Mmio, 3));
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!(bytes[..20].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(bytes[..36].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let fadt = find(&bytes, b"FACP");
        let flags = u32_at(fadt, 112).unwrap();
        assert_eq!(flags >> 20 & 1, 1, "HW_REDUCED_ACPI");
        assert_eq!(u64_at(fadt, 120), Some(ACPI_RESET.into()));
        assert_eq!(u64_at(fadt, 248), Some(ACPI_SLEEP_CONTROL.into()));
        assert!(table(&bytes, u64_at(fadt, 140).unwrap()).starts_with(b"DSDT"));
    }

    #[test]
    fn there_is_an_entry_for_every_processor() {
        let bytes = build(&machine(64, TransportKind::Mmio, 1));
        let madt = find(&bytes, b"APIC");
        assert_eq!(madt.len(), 44 + 64 * 8 + 12);
        let ids: Vec<u8> = madt[44..][..64 * 8].chunks_exact(8).map(|entry| entry[3]).collect();
        assert_eq!(ids, (0..64).collect::<Vec<u8>>());
    }

    #[test]
    fn there_is_a_device_for_every_used_slot_and_no_other() {
        let count = |bytes: &[u8]| bytes.windows(8).filter(|w| *w == b"LNRO0005").count();
        assert_eq!(count(&build(&machine(1, TransportKind::Mmio, 0))), 0);
        assert_eq!(count(&build(&machine(1, TransportKind::Mmio, 3))), 3);
        assert_eq!(count(&build(&machine(1, TransportKind::Mmio, VIRTIO_SLOTS + 1))), VIRTIO_SLOTS);
    }

    /// A guest looks where the ID is written, whatever begins in it.
    #[test]
    fn the_generation_id_is_told_where_it_lies() {
        let firmware = crate::plan::BootPlan::Firmware {
            image: crate::plan::PlanFd(4),
            kind: Default::default(),
            variables: None,
        };
        let direct = machine(1, TransportKind::Pci, 1);
        let other = VmConfig { boot: firmware, ..direct.clone() };
        let large = VmConfig { memory: 5 << 30, ..other.clone() };
        let expected = [crate::mem::layout::VM_GENERATION, (64 << 20) - 4096, 0xbfff_f000];
        for (config, address) in [direct, other, large].iter().zip(expected) {
            assert_eq!(generation::address(config), address);
            // Name ADDR, a package of two, the first a double word. (20.2.5)
            let bytes = build(config);
            let at = bytes.windows(4).position(|w| w == b"ADDR").unwrap() + 4;
            let low = bytes[at..at + 16].windows(5).find(|w| w[0] == 0x0c).unwrap();
            assert_eq!(u32_at(low, 1).map(u64::from), Some(address));
        }
    }

    /// OVMF puts functions where its chipset has room, and slots begin behind that chipset's own.
    #[test]
    fn uefi_firmware_finds_the_bus_that_it_knows() {
        let boot = crate::plan::BootPlan::Firmware {
            image: crate::plan::PlanFd(4),
            kind: crate::plan::FirmwareKind::Uefi,
            variables: None,
        };
        for (memory, window) in [(512u64 << 20, 0x8000_0000u32), (8 << 30, 0xc000_0000)] {
            let config =
                VmConfig { boot: boot.clone(), memory, ..machine(1, TransportKind::Pci, 1) };
            let bytes = build(&config);
            assert_eq!(u64_at(find(&bytes, b"MCFG"), 44), Some(0xfc00_0000));
            // A DWord address space descriptor: minimum and maximum. (6.4.3.5.2)
            let range = [window.to_le_bytes(), 0xfbff_ffffu32.to_le_bytes()].concat();
            assert!(bytes.windows(8).any(|w| w == range), "{memory:#x}");
            // Name _ADR, a double word: the second slot is device 3. (20.2.5)
            let address = [&b"_ADR\x0c"[..], &(3u32 << 16).to_le_bytes()].concat();
            assert!(bytes.windows(address.len()).any(|w| w == address));
            assert_eq!(config.boot.pci_slots(), 30);
        }
    }

    #[test]
    fn a_machine_with_pci_says_where_and_has_no_other_slots() {
        let bytes = build(&machine(1, TransportKind::Pci, 3));
        let mcfg = find(&bytes, b"MCFG");
        assert_eq!((mcfg.len(), u64_at(mcfg, 44)), (60, Some(crate::mem::layout::PCI_ECAM)));
        assert_eq!(mcfg[52..56], [0; 4], "segment 0, bus 0 to bus 0");
        assert!(!bytes.windows(8).any(|w| w == b"LNRO0005"));
        let pnp0a08 = [0x41, 0xd0, 0x0a, 0x08];
        assert!(bytes.windows(4).any(|w| w == pnp0a08));
        let mmio = build(&machine(1, TransportKind::Mmio, 3));
        assert!(!mmio.windows(4).any(|w| w == pnp0a08 || w == b"MCFG"));
    }
}
