//! The tables of a machine with a PCI bus. (PCI Firmware 3.3, 4.1 and 4.6)

use super::aml::{Encoded, OEM, REVISION, TABLE, encode, name};
use crate::mem::layout::{
    PCI_CONFIG_LEN, PCI_CONFIG_PORT, PCI_ECAM, PCI_ECAM_LEN, PCI_WINDOW, PCI_WINDOW_END,
};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, ONE,
    ResourceTemplate, ZERO,
};
use acpi_tables::mcfg::MCFG;

/// Where configuration space is in memory.
pub fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(PCI_ECAM, 0, 0, 0);
    mcfg
}

/// The host bridge: bus 0, and the memory that functions may have. There is no _PRT, since no
/// function has INTx.
pub fn host_bridge() -> Encoded {
    let bus = AddressSpace::new_bus_number(0u16, 0);
    let ports = IO::new(PCI_CONFIG_PORT, PCI_CONFIG_PORT, 1, PCI_CONFIG_LEN as u8);
    let memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        PCI_WINDOW as u32,
        (PCI_WINDOW_END - 1) as u32,
        None,
    );
    encode(&Device::new(
        "PCI0".into(),
        vec![
            &name("_HID", &EISAName::new("PNP0A08")),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_UID", &ZERO),
            &name("_SEG", &ZERO),
            &name("_BBN", &ZERO),
            &name("_ADR", &ZERO),
            &name("_CCA", &ONE),
            &name("_CRS", &ResourceTemplate::new(vec![&bus, &ports, &memory])),
        ],
    ))
}

/// The motherboard's claim on the ECAM, without which Linux does not believe the MCFG.
pub fn motherboard() -> Encoded {
    let ecam = Memory32Fixed::new(true, PCI_ECAM as u32, PCI_ECAM_LEN as u32);
    encode(&Device::new(
        "MBRD".into(),
        vec![
            &name("_HID", &EISAName::new("PNP0C02")),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&ecam])),
        ],
    ))
}
