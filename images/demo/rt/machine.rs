//! The machine as a kernel finds it: memory, tables, devices.

use super::acpi::Acpi;
use super::blk::{self, Blk};
use super::boot::Boot;
use super::virtio::Device;
use super::{cpu, memory, nic, pci, rng};
use alloc::vec::Vec;

/// A machine that has been looked at and is ready for work.
pub struct Machine {
    /// What the loader said.
    pub boot: Boot,
    /// What the tables say.
    pub acpi: Acpi,
    /// Block devices.
    pub disks: Vec<Device>,
    /// Entropy devices.
    pub rngs: Vec<Device>,
    /// Network interfaces.
    pub nics: Vec<Device>,
}

impl Machine {
    /// Set the processor up and look around. `boot_params` is what the entry stub was given.
    pub fn start(boot_params: u64) -> Self {
        let boot = Boot::read(boot_params);
        cpu::init();
        let low = boot.ram.iter().find(|(start, len)| (*start..start + len).contains(&(1 << 20)));
        memory::extend(low.map_or(0, |(start, len)| start + len));
        let acpi = Acpi::read(&boot);
        let (mut disks, mut rngs, mut nics) = (Vec::new(), Vec::new(), Vec::new());
        let mut devices: Vec<_> = acpi.virtio.iter().filter_map(Device::probe).collect();
        devices.iter().for_each(|(device, _)| cpu::enable_irq(acpi.ioapic, device.gsi));
        if devices.is_empty() {
            devices = pci::probe();
        }
        for (device, id) in devices {
            match id {
                blk::ID => disks.push(device),
                rng::ID => rngs.push(device),
                nic::ID => nics.push(device),
                _ => {}
            }
        }
        Machine { boot, acpi, disks, rngs, nics }
    }

    /// Bring every processor up, one after the other.
    pub fn start_cpus(&self) -> usize {
        let me = cpu::lapic_id();
        self.acpi.cpus.iter().filter(|&&id| id != me).for_each(|&id| cpu::start_ap(id));
        self.acpi.cpus.len()
    }

    /// The root device, ready for plain requests.
    pub fn root(&self) -> Blk {
        Blk::plain(*self.disks.first().expect("a virtio block device"))
    }
}
