//! The driver's side of PCI: functions with virtio capabilities, found by the configuration ports,
//! each of which interrupts by one MSI-X vector. (PCI Local Bus 3.0; Virtio 1.2, 4.1)

use super::cpu::{in32, lapic_id, mmio_read, mmio_write, msi_data, out32};
use super::virtio::{Device, reg};
use alloc::vec::Vec;

/// Configuration address and data. (PCI 3.0, 3.2.2.3.2)
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// The interrupt of the first function found; the next ones have those below.
const LAST_GSI: u32 = 23;
/// The device id of virtio device n is this plus n. (Virtio 1.2, 4.1.2)
const VIRTIO: u32 = 0x1040;
/// Capabilities, and cfg_type of the virtio ones. (Virtio 1.2, 4.1.4)
const VENDOR_CAP: u32 = 0x09;
const MSIX_CAP: u32 = 0x11;
const COMMON_CFG: u32 = 1;
const NOTIFY_CFG: u32 = 2;
const DEVICE_CFG: u32 = 4;

/// Where the structures of a function are in memory.
#[derive(Clone, Copy, Default)]
pub struct Structures {
    common: u64,
    notify: u64,
    notify_stride: u64,
    device: u64,
}

/// A function's configuration space.
struct Config(u32);

impl Config {
    fn read(&self, offset: u32) -> u32 {
        out32(ADDRESS, 1 << 31 | self.0 << 11 | offset & 0xfc);
        in32(DATA) >> (8 * (offset & 3))
    }

    fn write(&self, offset: u32, value: u32) {
        out32(ADDRESS, 1 << 31 | self.0 << 11 | offset & 0xfc);
        out32(DATA, value);
    }

    /// Offsets of the capabilities with this id.
    fn capabilities(&self, id: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut at = self.read(0x34) & 0xfc;
        while at != 0 && found.len() < 48 {
            if self.read(at) & 0xff == id {
                found.push(at);
            }
            at = self.read(at + 1) & 0xfc;
        }
        found
    }
}

/// The virtio devices on bus 0, each with its id and ready to interrupt.
pub fn probe() -> Vec<(Device, u32)> {
    let functions = (0..32).map(Config).filter(|config| config.read(0) & 0xffff == 0x1af4);
    let devices = functions.zip((0..=LAST_GSI).rev());
    devices.map(|(config, gsi)| (device(&config, gsi), (config.read(0) >> 16) - VIRTIO)).collect()
}

fn device(config: &Config, gsi: u32) -> Device {
    config.write(0x04, 0x6); // memory space, bus master
    let bar = u64::from(config.read(0x10) & !0xf);
    assert!(bar != 0, "a function without memory");
    let mut at = Structures::default();
    for cap in config.capabilities(VENDOR_CAP) {
        let place = bar + u64::from(config.read(cap + 8));
        match config.read(cap + 3) & 0xff {
            COMMON_CFG => at.common = place,
            NOTIFY_CFG => {
                (at.notify, at.notify_stride) = (place, config.read(cap + 16).into());
            }
            DEVICE_CFG => at.device = place,
            _ => {}
        }
    }
    let msix = *config.capabilities(MSIX_CAP).first().expect("MSI-X");
    let table = bar + u64::from(config.read(msix + 4) & !7);
    mmio_write(table, 0xfee0_0000 | lapic_id() << 12);
    mmio_write(table + 4, 0);
    mmio_write(table + 8, msi_data(gsi));
    mmio_write(table + 12, 0);
    config.write(msix, 1 << 31); // Message Control: MSI-X Enable
    Device { base: bar, gsi, pci: Some(at) }
}

impl Structures {
    /// Read what virtio-mmio has in this register.
    pub fn read(&self, register: u64) -> u32 {
        match register {
            reg::STATUS => mmio_read8(self.common + 0x14).into(),
            // With MSI-X there is none.
            reg::INTERRUPT_STATUS => 0,
            reg::QUEUE_READY | reg::QUEUE_NUM_MAX => mmio_read16(self.place(register)).into(),
            _ => mmio_read(self.place(register)),
        }
    }

    /// Write what virtio-mmio has in this register.
    pub fn write(&self, register: u64, value: u32) {
        match register {
            reg::STATUS => mmio_write8(self.common + 0x14, value as u8),
            reg::INTERRUPT_ACK => {}
            reg::QUEUE_NOTIFY => {
                let queue = u64::from(value);
                mmio_write16(self.notify + queue * self.notify_stride, value as u16);
            }
            reg::QUEUE_READY => {
                mmio_write16(self.common + 0x1a, 0); // queue_msix_vector
                mmio_write16(self.place(register), value as u16);
            }
            reg::QUEUE_SEL | reg::QUEUE_NUM => mmio_write16(self.place(register), value as u16),
            _ => mmio_write(self.place(register), value),
        }
    }

    /// A 16-bit field of the configuration space.
    pub fn config16(&self, offset: u64) -> u16 {
        mmio_read16(self.device + offset)
    }

    /// Where a register of virtio-mmio is here. (Virtio 1.2, 4.1.4.3)
    fn place(&self, register: u64) -> u64 {
        let offset = match register {
            reg::DEVICE_FEATURES_SEL => 0x00,
            reg::DEVICE_FEATURES => 0x04,
            reg::DRIVER_FEATURES_SEL => 0x08,
            reg::DRIVER_FEATURES => 0x0c,
            reg::QUEUE_SEL => 0x16,
            reg::QUEUE_NUM | reg::QUEUE_NUM_MAX => 0x18,
            reg::QUEUE_READY => 0x1c,
            reg::QUEUE_DESC..reg::QUEUE_DRIVER => 0x20 + register - reg::QUEUE_DESC,
            reg::QUEUE_DRIVER..reg::QUEUE_DEVICE => 0x28 + register - reg::QUEUE_DRIVER,
            reg::QUEUE_DEVICE..reg::CONFIG => 0x30 + register - reg::QUEUE_DEVICE,
            _ => return self.device + register - reg::CONFIG,
        };
        self.common + offset
    }
}

fn mmio_read8(address: u64) -> u8 {
    super::cpu::load(address)
}

fn mmio_read16(address: u64) -> u16 {
    super::cpu::load(address)
}

fn mmio_write8(address: u64, value: u8) {
    super::cpu::store(address, value);
}

fn mmio_write16(address: u64, value: u16) {
    super::cpu::store(address, value);
}
