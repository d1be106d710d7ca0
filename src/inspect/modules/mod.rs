//! Which transports a kernel and an initial ramdisk have drivers for: an instance gets one that they can drive.
//!
//! A ramdisk is what somebody packed and may be made to hurt, so a process of its own unpacks it: `__modules`, which has the
//! file open, no other way to anything, few system calls, and little memory and time. Its answer is a word a line.

mod inside;

pub(crate) use inside::HELPER;
pub use inside::look;

use crate::child;
use crate::error::{OrFail, Result};
use crate::plan::Transport;
use std::fs::File;

/// Most bytes of the answer that are read.
const MAX_ANSWER: u64 = 4 << 10;

/// The transports that `ramdisk` has drivers for, the default first; none if that can't be told: it has no modules, or
/// is packed in a way that is not known here. That is no reason not to register it.
pub fn transports(ramdisk: &File) -> Vec<Transport> {
    ask(ramdisk).unwrap_or_default()
}

fn ask(ramdisk: &File) -> Result<Vec<Transport>> {
    let file = ramdisk.try_clone().or_fail(|| "pass the ramdisk on")?;
    let (status, answer) = child::ask(&HELPER, &[(file, "")], MAX_ANSWER)?;
    // Half a look could miss the one driver that matters.
    Ok(if status.success() { understand(&answer) } else { Vec::new() })
}

fn understand(answer: &str) -> Vec<Transport> {
    let said = |word: &str| answer.lines().any(|line| line == word);
    let known = [("pci", Transport::Pci), ("mmio", Transport::Mmio)];
    known.into_iter().filter(|(word, _)| said(word)).map(|(_, transport)| transport).collect()
}

/// The transports that an unpacked kernel has drivers for in itself, the default first. Linux's driver for PCI has its name
/// in it, and whoever looks for virtio-mmio in the ACPI tables has the id to look for.
/// (drivers/virtio/virtio_pci_common.c, virtio_mmio.c)
pub fn built_in(kernel: &[u8]) -> Vec<Transport> {
    let known = [(&b"\0virtio-pci\0"[..], Transport::Pci), (b"LNRO0005", Transport::Mmio)];
    let has = |mark: &[u8]| memchr::memmem::find(kernel, mark).is_some();
    known.into_iter().filter(|(mark, _)| has(mark)).map(|(_, transport)| transport).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_the_drivers_that_it_names() {
        assert_eq!(built_in(crate::demo::KERNEL), [Transport::Mmio]);
        assert_eq!(built_in(b"a\0virtio-pci\0b\0LNRO0005\0"), [Transport::Pci, Transport::Mmio]);
        assert_eq!(built_in(b"virtio-pci-modern"), []);
    }
}
