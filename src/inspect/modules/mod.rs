//! Which transports and disks a kernel and an initial ramdisk have drivers for: an instance gets
//! some that they can drive.
//!
//! A ramdisk is what somebody packed and may be made to hurt, so a process of its own unpacks it:
//! `__modules`, which has the file open, no other way to anything, few system calls, and little
//! memory and time. Its answer is in JSON.

mod inside;

pub(crate) use inside::HELPER;
pub use inside::look;

use crate::error::Result;
use crate::helper;
use crate::plan::{DiskBus, Drivers, TransportKind};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

/// Most bytes of the answer that are read.
const MAX_ANSWER: u64 = 4 << 10;
/// How long the look may take on a slow disk; its processor time is bounded besides.
const DEADLINE: Duration = Duration::from_secs(300);

/// What `ramdisk` has drivers for; nothing if that can't be told: it has no modules, or is packed
/// in a way that is not known here. That is no reason not to register it.
pub fn drivers(ramdisk: &File) -> Drivers {
    // Half a look could miss the one driver that matters.
    let said = ask(ramdisk).unwrap_or_default();
    // The default first, each once.
    let (transports, disks) = (
        [TransportKind::Pci, TransportKind::Mmio].into_iter(),
        [DiskBus::Virtio, DiskBus::Nvme].into_iter(),
    );
    Drivers {
        transports: transports.filter(|known| said.transports.contains(known)).collect(),
        disk_buses: disks.filter(|known| said.disk_buses.contains(known)).collect(),
    }
}

fn ask(ramdisk: &File) -> Result<Drivers> {
    helper::start(&HELPER, &[(ramdisk.as_fd(), OsStr::new(""))])?.ask(MAX_ANSWER, DEADLINE)
}

/// What an unpacked kernel has drivers for in itself, the default first. Linux's driver for PCI
/// has its name in it, and whoever looks for virtio-mmio in the ACPI tables has the id to look for.
/// Those of disks have their threads' and their driver's names in them.
/// (drivers/virtio/virtio_pci_common.c, virtio_mmio.c, drivers/block/virtio_blk.c,
/// drivers/nvme/host/core.c)
pub fn built_in(kernel: &[u8]) -> Drivers {
    let has = |mark: &&[u8]| memchr::memmem::find(kernel, mark).is_some();
    let transports =
        [(&b"\0virtio-pci\0"[..], TransportKind::Pci), (b"LNRO0005", TransportKind::Mmio)];
    let disks = [(&b"\0virtio_blk\0"[..], DiskBus::Virtio), (b"\0nvme-wq\0", DiskBus::Nvme)];
    Drivers {
        transports: transports.iter().filter(|(mark, _)| has(mark)).map(|(_, it)| *it).collect(),
        disk_buses: disks.iter().filter(|(mark, _)| has(mark)).map(|(_, it)| *it).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_the_drivers_that_it_names() {
        assert_eq!(built_in(crate::demo::KERNEL).transports, [TransportKind::Mmio]);
        let both = built_in(b"a\0virtio-pci\0b\0LNRO0005\0virtio_blk\0nvme-wq\0");
        assert_eq!(both.transports, [TransportKind::Pci, TransportKind::Mmio]);
        assert_eq!(both.disk_buses, [DiskBus::Virtio, DiskBus::Nvme]);
        assert_eq!(built_in(b"virtio-pci-modern"), Drivers::default());
    }
}
