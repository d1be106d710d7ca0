//! Which transports a kernel and an initial ramdisk have drivers for: an instance gets one that
//! they can drive.
//!
//! A ramdisk is what somebody packed and may be made to hurt, so a process of its own unpacks it:
//! `__modules`, which has the file open, no other way to anything, few system calls, and little
//! memory and time. Its answer is a list in JSON.

mod inside;

pub(crate) use inside::HELPER;
pub use inside::look;

use crate::error::Result;
use crate::helper;
use crate::plan::TransportKind;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

/// Most bytes of the answer that are read.
const MAX_ANSWER: u64 = 4 << 10;
/// How long the look may take on a slow disk; its processor time is bounded besides.
const DEADLINE: Duration = Duration::from_secs(300);

/// The transports that `ramdisk` has drivers for, the default first; none if that can't be told: it
/// has no modules, or is packed in a way that is not known here. That is no reason not to register
/// it.
pub fn transports(ramdisk: &File) -> Vec<TransportKind> {
    // Half a look could miss the one driver that matters.
    let said = ask(ramdisk).unwrap_or_default();
    // The default first, each once.
    [TransportKind::Pci, TransportKind::Mmio]
        .into_iter()
        .filter(|known| said.contains(known))
        .collect()
}

fn ask(ramdisk: &File) -> Result<Vec<TransportKind>> {
    helper::start(&HELPER, &[(ramdisk.as_fd(), OsStr::new(""))])?.ask(MAX_ANSWER, DEADLINE)
}

/// The transports that an unpacked kernel has drivers for in itself, the default first. Linux's
/// driver for PCI has its name in it, and whoever looks for virtio-mmio in the ACPI tables has the
/// id to look for. (drivers/virtio/virtio_pci_common.c, virtio_mmio.c)
pub fn built_in(kernel: &[u8]) -> Vec<TransportKind> {
    let known = [(&b"\0virtio-pci\0"[..], TransportKind::Pci), (b"LNRO0005", TransportKind::Mmio)];
    let has = |mark: &[u8]| memchr::memmem::find(kernel, mark).is_some();
    known.into_iter().filter(|(mark, _)| has(mark)).map(|(_, transport)| transport).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_the_drivers_that_it_names() {
        assert_eq!(built_in(crate::demo::KERNEL), [TransportKind::Mmio]);
        assert_eq!(
            built_in(b"a\0virtio-pci\0b\0LNRO0005\0"),
            [TransportKind::Pci, TransportKind::Mmio]
        );
        assert_eq!(built_in(b"virtio-pci-modern"), []);
    }
}
