//! An NVM Express controller with one namespace, a disk. (NVM Express 1.4)
//!
//! It is a function on the PCI bus with MSI-X, and needs none of virtio's drivers: what EC2's
//! images boot from. The vCPUs' threads serve its registers and the admin queue; each I/O
//! submission queue has a thread, which works on the disk as virtio's does ([`blk`]): limits,
//! counters and notices are the same.
//!
//! A doorbell's write says how far its queue has come, so that each is an exit: an ioeventfd would
//! lose the number.
//!
//! [`blk`]: crate::virtio::blk

mod admin;
mod command;
mod controller;
mod identify;
mod io;
mod namespace;
mod prp;
mod queue;
mod registers;
mod shared;
#[cfg(test)]
mod tests;

pub use controller::{Controller, vectors};
pub use namespace::{Drive, Namespace};

use crate::block;
use crate::sys::seccomp::Allow;
use crate::virtio::device::DeviceType;

/// Its row: no device of virtio's has the id.
pub static TYPE: DeviceType = DeviceType {
    id: 0,
    pci_class: 0x01_0802, // mass storage, NVM, NVM Express I/O controller
    thread: "nvme",
    calls: &[
        block::CALLS,
        &[
            Allow::Call(libc::SYS_io_uring_enter), // engine uring, as virtio-blk
            Allow::Call(libc::SYS_preadv2),        // what the page cache has
        ],
    ],
};
