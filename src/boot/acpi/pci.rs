//! The tables of a machine with a PCI bus. (PCI Firmware 3.3, 4.1 and 4.6)

use super::aml::{Encoded, OEM, REVISION, TABLE, encode, name};
use crate::mem::layout::{
    PCI_CONFIG_LEN, PCI_CONFIG_PORT, PCI_ECAM_LEN, PCI_HOTPLUG_LEN, PCI_HOTPLUG_PORT, PciMap,
};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, IO, If, Local, Memory32Fixed, Method, Notify, ONE, OpRegion,
    OpRegionSpace, Path, ResourceTemplate, Store, ZERO,
};
use acpi_tables::mcfg::MCFG;

/// Where configuration space is in memory.
pub fn mcfg(map: PciMap) -> impl Aml {
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(map.ecam, 0, 0, 0);
    mcfg
}

/// The host bridge: bus 0, and the memory that functions may have. There is no _PRT, since no
/// function has INTx. Devices come to, and go from, the slots of `hot` while the guest runs.
pub fn host_bridge(map: PciMap, hot: u32) -> Encoded {
    let bus = AddressSpace::new_bus_number(0u16, 0);
    let ports = IO::new(PCI_CONFIG_PORT, PCI_CONFIG_PORT, 1, PCI_CONFIG_LEN as u8);
    let memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        map.window as u32,
        (map.window_end - 1) as u32,
        None,
    );
    let resources = ResourceTemplate::new(vec![&bus, &ports, &memory]);
    let slots: Vec<u8> = (0..u32::BITS as u8 - 1).filter(|slot| hot >> slot & 1 != 0).collect();
    let (registers, fields) = hot_plug_registers();
    let devices: Vec<Encoded> = slots.iter().map(|slot| hot_slot(map, *slot)).collect();
    let tell = hot_plug_method(map, &slots);
    let (hid, cid) = (EISAName::new("PNP0A08"), EISAName::new("PNP0A03"));
    let names = [
        name("_HID", &hid),
        name("_CID", &cid),
        name("_UID", &ZERO),
        name("_SEG", &ZERO),
        name("_BBN", &ZERO),
        name("_ADR", &ZERO),
        name("_CCA", &ONE),
        name("_CRS", &resources),
    ];
    let mut parts: Vec<&dyn Aml> = names.iter().map(|name| name as &dyn Aml).collect();
    parts.extend([&registers as &dyn Aml, &fields]);
    parts.extend(devices.iter().map(|device| device as &dyn Aml));
    parts.push(&tell);
    encode(&Device::new("PCI0".into(), parts))
}

/// The registers of `chipset/pci/hotplug.rs`.
fn hot_plug_registers() -> (Encoded, Encoded) {
    let region = OpRegion::new(
        "HPRG".into(),
        OpRegionSpace::SystemIO,
        &PCI_HOTPLUG_PORT,
        &(PCI_HOTPLUG_LEN as u8),
    );
    let fields = Field::new(
        "HPRG".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        [*b"CAME", *b"ASKD", *b"EJCT"].map(|field| FieldEntry::Named(field, 32)).to_vec(),
    );
    (encode(&region), encode(&fields))
}

/// What a slot is called.
fn slot_path(slot: u8) -> String {
    format!("S{slot:03}")
}

/// A slot: where it is on the bus (6.1.1), and how the guest lets go of what is in it (6.3.3).
fn hot_slot(map: PciMap, slot: u8) -> Encoded {
    let device = u32::from(slot) + u32::from(map.first);
    let (address, mask) = (device << 16, 1u32 << device);
    let register = Path::new("\\_SB_.PCI0.EJCT");
    let store = Store::new(&register, &mask);
    encode(&Device::new(
        Path::new(&slot_path(slot)),
        vec![
            &name("_ADR", &address),
            &name("_SUN", &(device as u8)),
            &Method::new("_EJ0".into(), 1, true, vec![&store]),
        ],
    ))
}

/// The method that the event device calls: it tells whoever drives a slot that something came, or
/// is asked to go. (5.6.6)
fn hot_plug_method(map: PciMap, slots: &[u8]) -> Encoded {
    const DEVICE_CHECK: u8 = 1;
    const EJECT_REQUEST: u8 = 3;
    let mut statements = Vec::new();
    for (register, event) in [("CAME", DEVICE_CHECK), ("ASKD", EJECT_REQUEST)] {
        let register = Path::new(register);
        statements.push(encode(&Store::new(&Local(0), &register)));
        for slot in slots {
            let (mask, object) = (1u32 << (slot + map.first), Path::new(&slot_path(*slot)));
            let notify = Notify::new(&object, &event);
            let is_set = And::new(&Local(1), &Local(0), &mask);
            statements.push(encode(&If::new(&is_set, vec![&notify])));
        }
    }
    let statements = statements.iter().map(|statement| statement as &dyn Aml).collect();
    encode(&Method::new("TELL".into(), 0, true, statements))
}

/// The motherboard's claim on the ECAM, without which Linux does not believe the MCFG.
pub fn motherboard(map: PciMap) -> Encoded {
    let ecam = Memory32Fixed::new(true, map.ecam as u32, PCI_ECAM_LEN as u32);
    encode(&Device::new(
        "MBRD".into(),
        vec![
            &name("_HID", &EISAName::new("PNP0C02")),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&ecam])),
        ],
    ))
}
