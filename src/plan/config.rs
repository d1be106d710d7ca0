//! What a virtual machine is.

use super::cdrom::CdromPlan;
use super::device::{DeviceConfig, DeviceId, DeviceKind};
use super::disk::DiskPlan;
use super::fd::PlanFd;
use super::menu::MenuPlan;
use super::net::NetPlan;
use super::processor::Processor;
use super::share::SharePlan;
use super::vsock::VsockPlan;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a guest calls its first virtio disk, which has its root: the root's device name unless an
/// image says another.
pub const ROOT_DEVICE: &str = "/dev/vda";

/// Device numbers on a PCI bus.
const PCI_DEVICES: u8 = 32;

/// Slots in which disks may come while the guest runs. Each costs a kernel a line and some work as
/// it boots.
const FREE_SLOTS: usize = 8;

/// A virtual machine: what the guest finds, whichever host it runs on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Virtual CPUs, 1 to 64.
    pub cpus: u8,
    /// What each of them is.
    #[serde(default)]
    pub processor: Processor,
    /// Guest RAM in bytes, a multiple of 4 KiB and at least 16 MiB.
    pub memory: u64,
    /// What runs first.
    pub boot: BootPlan,
    /// What devices hang on.
    pub chipset: Chipset,
    /// The virtio devices. Firmware looks for a boot record on the disks in this order.
    pub devices: Vec<DeviceConfig>,
}

impl VmConfig {
    /// Its disks, in the order of its devices.
    pub fn disks(&self) -> impl Iterator<Item = (&DeviceConfig, &DiskPlan)> {
        self.devices.iter().filter_map(|device| match &device.kind {
            DeviceKind::Disk(disk) => Some((device, disk)),
            _ => None,
        })
    }

    /// Its network interfaces, in the order of its devices.
    pub fn interfaces(&self) -> impl Iterator<Item = (&DeviceConfig, &NetPlan)> {
        self.devices.iter().filter_map(|device| match &device.kind {
            DeviceKind::Net(net) => Some((device, net)),
            _ => None,
        })
    }

    /// Its socket devices.
    pub fn sockets(&self) -> impl Iterator<Item = &VsockPlan> {
        self.devices.iter().filter_map(|device| match &device.kind {
            DeviceKind::Vsock(vsock) => Some(vsock),
            _ => None,
        })
    }

    /// Its file system devices.
    pub fn shares(&self) -> impl Iterator<Item = &SharePlan> {
        self.devices.iter().filter_map(|device| match &device.kind {
            DeviceKind::Share(share) => Some(share),
            _ => None,
        })
    }

    /// Its CD-ROM drives, in the order of its devices.
    pub fn cdroms(&self) -> impl Iterator<Item = (&DeviceConfig, &CdromPlan)> {
        self.devices.iter().filter_map(|device| match &device.kind {
            DeviceKind::Cdrom(cdrom) => Some((device, cdrom)),
            _ => None,
        })
    }

    /// The PCI slots that take devices, and give them up, while the guest runs: bit n is slot n.
    /// They are those of the disks but the first, and the next [`FREE_SLOTS`] that are empty.
    pub fn hot_slots(&self) -> u32 {
        let bit = |slot: u8| 1u32.checked_shl(slot.into()).unwrap_or(0);
        let taken = self.devices.iter().fold(0, |taken, device| taken | bit(device.slot));
        let disks = self.disks().skip(1).fold(0, |disks, (device, _)| disks | bit(device.slot));
        let free = (0..self.boot.pci_slots()).filter(|slot| taken & bit(*slot) == 0);
        free.take(FREE_SLOTS).fold(disks, |slots, slot| slots | bit(slot))
    }

    /// Check that each device has a name and a slot of its own, below `slots`, the chipset's number
    /// of them, and that each interface is one that a guest can have.
    ///
    /// # Errors
    /// One has not; the line names it.
    pub fn check(&self, slots: usize) -> Result<()> {
        for (index, device) in self.devices.iter().enumerate() {
            let (id, slot) = (&device.id, device.slot);
            if usize::from(slot) >= slots {
                let most = format!("a machine has room for {slots} devices, in slots from 0 on");
                return Err(Error::failure(format!("device {id} is in slot {slot}; {most}")));
            }
            let before = &self.devices[..index];
            if before.iter().any(|other| other.id == *id) {
                return Err(Error::failure(format!("two devices are named {id}; rename one")));
            }
            if let Some(other) = before.iter().find(|other| other.slot == slot) {
                let both = format!("{} and {id} are both in slot {slot}", other.id);
                return Err(Error::failure(format!("devices {both}; move one")));
            }
        }
        if self.chipset.disk_bus == DiskBus::Nvme && self.chipset.transport != TransportKind::Pci {
            return Err(Error::failure("NVMe controllers are on a PCI bus, which it has not"));
        }
        self.interfaces().try_for_each(|(device, net)| net.check(&device.id))
    }
}

/// What devices hang on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chipset {
    /// How the guest finds its virtio devices.
    pub transport: TransportKind,
    /// What its disks are.
    #[serde(default)]
    pub disk_bus: DiskBus,
}

/// What a guest's disks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// virtio block devices, over the transport. (VIRTIO 1.2, 5.2)
    #[default]
    Virtio,
    /// NVMe controllers with a namespace each, on the PCI bus: EC2's, and what many a ramdisk has a
    /// driver for that has none of virtio's.
    Nvme,
}

impl DiskBus {
    /// What every machine has.
    pub fn is_virtio(&self) -> bool {
        *self == Self::Virtio
    }

    /// What a guest calls the first disk.
    pub fn root_device(self) -> &'static str {
        match self {
            Self::Virtio => ROOT_DEVICE,
            Self::Nvme => "/dev/nvme0n1",
        }
    }
}

/// What a kernel and its initial ramdisk are known to have drivers for, the default first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drivers {
    /// Transports of virtio devices.
    pub transports: Vec<TransportKind>,
    /// Disks.
    pub disk_buses: Vec<DiskBus>,
}

/// How a guest finds its virtio devices. (VIRTIO 1.2, 4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Registers in memory, named by the ACPI tables; a line of the I/O APIC each. (4.2)
    Mmio,
    /// Functions on a PCI bus, with MSI-X. (4.1) An interrupt costs the guest no exits, and a disk
    /// image whose ramdisk was made for one host has no other driver.
    #[default]
    Pci,
}

/// What a VM executes first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum BootPlan {
    /// A kernel is entered directly by the Linux 64-bit boot protocol
    /// (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Direct {
        /// An ELF vmlinux (as registration leaves it) or a bzImage. Absent where a hibernated
        /// machine goes on and a menu says what its next reset boots.
        kernel: Option<PlanFd>,
        /// The initial ramdisk, if any.
        initrd: Option<PlanFd>,
        /// The whole kernel command line.
        cmdline: String,
        /// Where these came from, if that is to be read again before each reset.
        #[serde(default)]
        menu: Option<Box<MenuPlan>>,
    },
    /// Firmware runs the boot record, or the boot loader, of the first disk that has one.
    Firmware {
        /// What ends at 4 GiB.
        image: PlanFd,
        /// What that is.
        #[serde(default)]
        kind: FirmwareKind,
        /// UEFI's variables, open for reading and writing.
        #[serde(default)]
        variables: Option<PlanFd>,
    },
}

/// Kinds of firmware. Each finds the machine that it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirmwareKind {
    /// SeaBIOS for a machine without PCI: at most 256 KiB.
    #[default]
    Bios,
    /// OVMF, on the chipset that it calls i440FX; its variables lie below it in flash memory.
    Uefi,
}

impl BootPlan {
    /// The disk whose boot menu is read again before each reset.
    pub fn menu_disk(&self) -> Option<&DeviceId> {
        match self {
            Self::Direct { menu, .. } => menu.as_ref().map(|menu| &menu.disk),
            Self::Firmware { .. } => None,
        }
    }

    /// Whether UEFI firmware boots.
    pub fn is_uefi(&self) -> bool {
        matches!(self, Self::Firmware { kind: FirmwareKind::Uefi, .. })
    }

    /// PCI devices that a machine has room for beside the chipset's own: the host bridge, and where
    /// UEFI firmware looks for it an ISA bridge.
    pub fn pci_slots(&self) -> u8 {
        PCI_DEVICES - if self.is_uefi() { 2 } else { 1 }
    }

    /// The descriptors that it names.
    pub fn fds(&self) -> impl Iterator<Item = PlanFd> {
        let fds = match self {
            Self::Direct { kernel, initrd, menu, .. } => {
                [*kernel, *initrd, menu.as_ref().map(|menu| menu.reader)]
            }
            Self::Firmware { image, variables, .. } => [Some(*image), *variables, None],
        };
        fds.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy(id: &str, slot: u8) -> DeviceConfig {
        DeviceConfig { id: id.parse().unwrap(), slot, kind: DeviceKind::Entropy }
    }

    fn check(devices: Vec<DeviceConfig>) -> Result<()> {
        let (kind, variables) = (FirmwareKind::Bios, None);
        let boot = BootPlan::Firmware { image: PlanFd(4), kind, variables };
        let chipset = Chipset::default();
        let processor = Processor::default();
        VmConfig { cpus: 1, processor, memory: 16 << 20, boot, chipset, devices }.check(19)
    }

    #[test]
    fn an_interface_has_queues_and_an_mtu_that_a_guest_can_have() {
        let net = |taps: usize, mtu| {
            let taps = (10..).map(PlanFd).take(taps).collect();
            let mac = "02:00:00:00:00:01".parse().unwrap();
            let kind = DeviceKind::Net(NetPlan { taps, mac, mtu, limits: Default::default() });
            check(vec![DeviceConfig { id: "eth0".parse().unwrap(), slot: 0, kind }])
        };
        assert!(net(1, 68).is_ok() && net(8, u16::MAX).is_ok());
        for (taps, mtu, why) in [
            (0, 1500, "0 pairs of queues"),
            (9, 1500, "1 to 8"),
            (1, 67, "device eth0 has an MTU of 67"),
        ] {
            let error = net(taps, mtu).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn each_device_has_a_name_and_a_slot_of_its_own() {
        assert!(check(vec![]).is_ok());
        assert!(check(vec![entropy("a", 18), entropy("b", 0), entropy("c", 7)]).is_ok());
        for (devices, why) in [
            (vec![entropy("a", 19)], "device a is in slot 19"),
            (vec![entropy("a", 0), entropy("a", 1)], "two devices are named a"),
            (vec![entropy("a", 3), entropy("b", 3)], "devices a and b are both in slot 3"),
        ] {
            let error = check(devices).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
