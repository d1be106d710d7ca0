//! The ACPI tables, read as a kernel reads them, and as much of AML as finding devices takes
//! (ACPI 6.5, sections 5.2, 6.4 and 20.2).

use super::boot::{Boot, le};
use super::cpu::{in8, out8, physical, stop};
use alloc::vec::Vec;

/// What the tables say.
pub struct Acpi {
    /// The I/O APIC's address (MADT type 1).
    pub ioapic: u64,
    /// Local APIC ids of the enabled processors (MADT types 0 and 9).
    pub cpus: Vec<u32>,
    /// The virtio-mmio devices in DSDT order (`LNRO0005`).
    pub virtio: Vec<Resources>,
    /// The interrupt of the Generic Event Device (`ACPI0013`).
    pub ged_gsi: Option<u32>,
    /// Where the VM generation ID lies.
    generation: u64,
    sleep_control: u16,
    sleep_status: u16,
    reset: (u16, u8),
    s5: u8,
}

/// The first memory range and interrupt of a device's _CRS.
#[derive(Clone, Copy)]
pub struct Resources {
    /// Address of the registers; 0 if it has none.
    pub base: u64,
    /// The interrupt.
    pub gsi: u32,
}

/// The table at `address`, checked.
fn table(address: u64, signature: &[u8]) -> &'static [u8] {
    let header = physical(address, 36);
    assert_eq!(&header[..4], signature, "signature at {address:#x}");
    let bytes = physical(address, le::<4>(header, 4) as usize);
    checksum(bytes, "table");
    bytes
}

fn checksum(bytes: &[u8], what: &str) {
    let sum = bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
    assert_eq!(sum, 0, "checksum of the ACPI {what}");
}

/// Where the loader says, else the search of ACPI 6.5, 5.2.5.1.
fn rsdp(boot: &Boot) -> &'static [u8] {
    let search = || {
        let area = physical(0xe_0000, 0x2_0000);
        let at = area.chunks_exact(16).position(|line| line.starts_with(b"RSD PTR "))?;
        Some(0xe_0000 + 16 * at as u64)
    };
    let rsdp = physical(boot.rsdp.or_else(search).expect("an RSDP"), 36);
    checksum(rsdp, "RSDP");
    rsdp
}

/// The port in the Generic Address Structure at `at`.
fn port(fadt: &[u8], at: usize) -> u16 {
    assert_eq!(fadt[at], 1, "the register at {at} of the FADT is not a port");
    le::<2>(fadt, at + 4) as u16
}

impl Acpi {
    /// Walk RSDP, XSDT, FADT, DSDT and MADT.
    pub fn read(boot: &Boot) -> Self {
        let xsdt = table(le::<8>(rsdp(boot), 24), b"XSDT");
        let find = |signature: &[u8]| {
            let mut addresses = xsdt[36..].chunks_exact(8).map(|entry| le::<8>(entry, 0));
            table(
                addresses.find(|&a| &physical(a, 4)[..] == signature).expect("a table"),
                signature,
            )
        };
        let (fadt, madt) = (find(b"FACP"), find(b"APIC"));
        let flags = le::<4>(fadt, 112);
        assert!(flags & 1 << 20 != 0, "the FADT does not say HW_REDUCED_ACPI");
        assert!(flags & 1 << 10 != 0, "the FADT does not say RESET_REG_SUP");
        let dsdt = match le::<8>(fadt, 140) {
            0 => le::<4>(fadt, 40),
            address => address,
        };
        let aml = &table(dsdt, b"DSDT")[36..];
        let (ioapic, cpus) = read_madt(madt);
        Self {
            ioapic,
            cpus,
            virtio: devices(aml, b"LNRO0005").collect(),
            ged_gsi: devices(aml, b"ACPI0013").map(|device| device.gsi).next(),
            generation: generation(aml).expect("a VM generation ID"),
            sleep_control: port(fadt, 244),
            sleep_status: port(fadt, 256),
            reset: (port(fadt, 116), fadt[128]),
            s5: s5(aml).expect("an \\_S5 package"),
        }
    }

    /// Switch the machine off (ACPI 6.5, 4.8.3.7): SLP_TYPx in bits 4:2, SLP_EN in bit 5.
    pub fn power_off(&self) -> ! {
        out8(self.sleep_status, 0x80); // WAK_STS, write one to clear
        out8(self.sleep_control, self.s5 << 2 | 1 << 5);
        stop()
    }

    /// Reset the machine through RESET_REG.
    pub fn reset(&self) -> ! {
        out8(self.reset.0, self.reset.1);
        stop()
    }

    /// Wait for the power button: what the GED's _EVT method reads, at the port it reads.
    pub fn power_button(&self) -> bool {
        self.events() & 1 != 0
    }

    /// The GED's pending events, which reading clears: bit 0 the power button, bit 1 another
    /// generation ID.
    pub fn events(&self) -> u8 {
        in8(GED_EVENTS)
    }

    /// Half of the VM generation ID as it is now.
    pub fn generation(&self) -> u64 {
        super::cpu::peek(self.generation)
    }
}

/// Events that the GED has pending, cleared by reading; bit 0 is the power button.
const GED_EVENTS: u16 = 0x604;

/// The I/O APIC and the processors.
fn read_madt(madt: &[u8]) -> (u64, Vec<u32>) {
    let (mut ioapic, mut cpus, mut rest) = (None, Vec::new(), &madt[44..]);
    while let [kind, len, ..] = *rest {
        let (entry, after) = rest.split_at(len.into());
        match kind {
            0 if entry[4] & 1 != 0 => cpus.push(entry[3].into()),
            1 => ioapic = Some(le::<4>(entry, 4)),
            9 if entry[8] & 1 != 0 => cpus.push(le::<4>(entry, 4) as u32),
            _ => {}
        }
        rest = after;
    }
    (ioapic.expect("an I/O APIC in the MADT"), cpus)
}

/// PkgLength (ACPI 6.5, 20.2.4): the package's length from here on, and the bytes that say so.
fn package(aml: &[u8]) -> Option<&[u8]> {
    let lead = usize::from(*aml.first()?);
    let extra = lead >> 6;
    let len = match extra {
        0 => lead,
        _ => (1..=extra).fold(lead & 0xf, |len, n| {
            len | usize::from(aml.get(n).copied().unwrap_or(0)) << (8 * n - 4)
        }),
    };
    aml.get(extra + 1..len)
}

/// What follows the first occurrence of `name`.
fn after<'a>(aml: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = aml.windows(name.len()).position(|window| window == name)?;
    Some(&aml[at + name.len()..])
}

/// The resources of each Device whose _HID is the string `hid`.
fn devices<'a>(aml: &'a [u8], hid: &'a [u8; 8]) -> impl Iterator<Item = Resources> + 'a {
    const DEVICE_OP: [u8; 2] = [0x5b, 0x82];
    let starts = aml.windows(2).enumerate().filter(|(_, window)| *window == DEVICE_OP);
    starts.filter_map(move |(at, _)| {
        let device = package(&aml[at + 2..])?;
        let id = after(device, b"\x08_HID\x0d")?;
        let crs = after(device, b"\x08_CRS\x11")?;
        id.strip_prefix(hid)?.first().filter(|&&end| end == 0)?;
        let buffer = package(crs)?;
        let prefix = match buffer.first()? {
            0x0a => 2, // BytePrefix
            0x0b => 3, // WordPrefix
            _ => return None,
        };
        Some(resources(buffer.get(prefix..)?))
    })
}

/// Walk the resource descriptors (ACPI 6.5, 6.4).
fn resources(mut crs: &[u8]) -> Resources {
    let mut found = Resources { base: 0, gsi: 0 };
    while let Some(&tag) = crs.first() {
        let (header, len) = match tag & 0x80 {
            0 => (1, usize::from(tag & 7)),
            _ if crs.len() < 3 => break,
            _ => (3, le::<2>(crs, 1) as usize),
        };
        let Some(body) = crs.get(header..header + len) else { break };
        match tag {
            0x86 if len >= 9 && found.base == 0 => found.base = le::<4>(body, 1),
            0x89 if len >= 6 && found.gsi == 0 => found.gsi = le::<4>(body, 2) as u32,
            0x79 => break,
            _ => {}
        }
        crs = &crs[header + len..];
    }
    found
}

/// The address in `Name (ADDR, Package () { DWord, Zero })`.
fn generation(aml: &[u8]) -> Option<u64> {
    let device = after(aml, b"VM_Gen_Counter")?;
    match package(after(device, b"ADDR\x12")?)? {
        [2, 0x0c, address @ .., 0] if address.len() == 4 => Some(le::<4>(address, 0)),
        _ => None,
    }
}

/// SLP_TYPa in `Name (\_S5, Package () { … })`.
fn s5(aml: &[u8]) -> Option<u8> {
    match package(after(aml, b"_S5_\x12")?)? {
        [_, 0x0a, value, ..] => Some(*value),
        [_, value @ (0 | 1), ..] => Some(*value),
        _ => None,
    }
}
