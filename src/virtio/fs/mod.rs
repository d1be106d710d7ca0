//! The file system device: a directory of the host's in the guest. (VIRTIO 1.2, 5.11)
//!
//! A confined process, [`crate::share`], follows names and opens files; the device passes requests
//! on to it and answers back. What is opened comes as a descriptor, and the device reads and writes
//! it itself, straight into guest memory.

mod handler;
mod shared;

pub use shared::{HIGH_PRIORITY, REQUESTS};

use crate::error::Result;
use crate::sys::seccomp::Allow;
use crate::virtio::Notices;
use crate::virtio::device::{Device, DeviceState, DeviceType, Service, Services, copy_config};
use handler::Handler;
use shared::Shared;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Its row.
pub static TYPE: DeviceType = DeviceType {
    id: 26,
    pci_class: 0x01_8000, // mass storage, other
    thread: "virtio-fs",
    calls: &[&[
        Allow::Call(libc::SYS_sendmsg),  // requests to the server
        Allow::Call(libc::SYS_recvmsg),  // its answers, with files
        Allow::Call(libc::SYS_preadv),   // the guest's reads
        Allow::Call(libc::SYS_pwritev),  // its writes
        Allow::Call(libc::SYS_pwrite64), // likewise, of one piece
    ]],
};
/// Version of the saved state, which is nothing.
const STATE_VERSION: u16 = 1;

/// Sizes of both: a request of 1 MiB has a descriptor for each of its pages, and some more.
const SIZES: [u16; 2] = [128, 1024];
/// Most bytes of a tag. (5.11.4)
const TAG: usize = 36;

/// A file system device.
pub struct Fs {
    shared: Arc<Shared>,
    /// Tag and number of request queues. (struct virtio_fs_config)
    config: [u8; TAG + 4],
}

impl Fs {
    /// The device that the guest knows by `tag`, of at most 36 bytes, and what serves its queues:
    /// by `server`, the socket of a share's server, which does not block.
    pub fn create(tag: &str, server: OwnedFd, notices: Notices) -> (Arc<Self>, Services) {
        let mut config = [0; TAG + 4];
        let bytes = &tag.as_bytes()[..tag.len().min(TAG)];
        config[..bytes.len()].copy_from_slice(bytes);
        config[TAG] = 1;
        let new_driver = AtomicBool::new(false);
        let (name, server) = (format!("share {tag}"), Arc::new(server));
        let (to_server, why_lost) = (Arc::downgrade(&server), OnceLock::new());
        let shared = Shared { name, new_driver, notices, server: to_server, why_lost };
        let shared = Arc::new(shared);
        let handler = Box::new(Handler::new(shared.clone(), server));
        let services = vec![Service { queues: HIGH_PRIORITY..REQUESTS + 1, handler }];
        (Arc::new(Self { shared, config }), services)
    }

    /// Why the share's server is gone, if it is: the guest has I/O errors from then on.
    pub fn lost(&self) -> Option<String> {
        self.shared.lost()
    }
}

impl Device for Fs {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        copy_config(&self.config, offset, out);
    }

    fn reset(&self) {
        // The thread of its queues does it: this one may close nothing.
        self.shared.new_driver.store(true, Ordering::SeqCst);
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(&TYPE, STATE_VERSION, &())
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        state.decode(self.name(), &TYPE, STATE_VERSION)
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
