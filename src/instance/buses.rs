//! How a guest finds its devices, and what its disks are.

use crate::error::{Code, Error, Result};
use crate::plan::{DiskBus, Drivers, TransportKind};
use crate::record::instance::Instance;

/// `usual`, unless there is no driver for it and is one for another.
fn fitting<T: Copy + PartialEq>(usual: T, drivers: &[T]) -> T {
    let other = drivers.first().filter(|_| !drivers.contains(&usual));
    other.copied().unwrap_or(usual)
}

/// Those of a new instance: what is asked for, else what the guest has drivers for. `bios`: it
/// boots by the host's own firmware, from virtio disks alone.
///
/// # Errors
/// `InvalidParameterCombination`: what is asked for can't be.
pub fn buses(
    (transport, disk_bus): (Option<TransportKind>, Option<DiskBus>),
    drivers: &Drivers,
    bios: bool,
) -> Result<(TransportKind, DiskBus)> {
    let refuse = |why: &str| Err(Error::refused(Code::InvalidParameterCombination, why));
    let usual = TransportKind::default();
    if disk_bus == Some(DiskBus::Nvme) {
        if transport == Some(TransportKind::Mmio) {
            return refuse(
                "NVMe disks are on a PCI bus: `DiskBus` nvme and `Transport` mmio exclude each other",
            );
        }
        if bios {
            return refuse(
                "the host's firmware boots from virtio disks here: give `DiskBus` virtio, a `KernelId`, or a `Firmware` with a driver for NVMe",
            );
        }
        return Ok((TransportKind::Pci, DiskBus::Nvme));
    }
    let transport = transport.unwrap_or_else(|| fitting(usual, &drivers.transports));
    let fits = match transport {
        TransportKind::Pci if !bios => fitting(DiskBus::Virtio, &drivers.disk_buses),
        _ => DiskBus::Virtio,
    };
    Ok((transport, disk_bus.unwrap_or(fits)))
}

/// Have an instance's fit what boots from now on.
pub fn fit(instance: &mut Instance, drivers: &Drivers) {
    let bios = instance.kernel_id.is_none() && instance.spore.firmware.is_none();
    let spore = &mut instance.spore;
    spore.transport = fitting(spore.transport, &drivers.transports);
    let before = spore.disk_bus;
    spore.disk_bus = match spore.transport {
        TransportKind::Pci if !bios => fitting(before, &drivers.disk_buses),
        _ => DiskBus::Virtio,
    };
    // The root as it was assumed, if nobody named another.
    let (from, to) = (before.root_device(), spore.disk_bus.root_device());
    let word = |word: &str| match word.strip_prefix("root=") {
        Some(root) if root == from => format!("root={to}"),
        _ => word.to_owned(),
    };
    if from != to {
        let words: Vec<String> = spore.command_line.split(' ').map(word).collect();
        spore.command_line = words.join(" ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_what_is_asked_for_or_what_the_guest_can_drive() {
        let (mmio, pci) = (TransportKind::Mmio, TransportKind::Pci);
        let (virtio, nvme) = (DiskBus::Virtio, DiskBus::Nvme);
        let chosen = |asked, transports: &[TransportKind], disks: &[DiskBus], bios| {
            let drivers = Drivers { transports: transports.into(), disk_buses: disks.into() };
            buses(asked, &drivers, bios).map_err(|error| error.message().to_owned())
        };
        assert_eq!(chosen((None, None), &[], &[], false), Ok((pci, virtio)));
        assert_eq!(chosen((None, None), &[], &[nvme], false), Ok((pci, nvme)));
        assert_eq!(chosen((None, None), &[pci], &[virtio, nvme], false), Ok((pci, virtio)));
        assert_eq!(chosen((None, None), &[mmio], &[nvme], false), Ok((mmio, virtio)));
        assert_eq!(chosen((None, None), &[], &[nvme], true), Ok((pci, virtio)));
        assert_eq!(chosen((None, Some(virtio)), &[], &[nvme], false), Ok((pci, virtio)));
        assert_eq!(chosen((None, Some(nvme)), &[mmio], &[], false), Ok((pci, nvme)));
        let refused = |asked, bios| chosen(asked, &[], &[], bios).unwrap_err();
        assert!(refused((Some(mmio), Some(nvme)), false).contains("exclude each other"));
        assert!(refused((None, Some(nvme)), true).contains("boots from virtio disks"));
    }
}
