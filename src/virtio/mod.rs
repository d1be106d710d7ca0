//! virtio devices and their transports (VIRTIO 1.2).
//!
//! A [`device::Device`] is what the guest sees apart from any bus: kind, features, queue sizes,
//! configuration. Beside it stand its [`device::Service`]s, each of which a
//! [`worker::Worker`] thread owns and feeds with the one drain loop. Features, status, queues and
//! interrupts belong to the [`transport`].

pub mod blk;
pub mod bucket;
pub mod chain;
pub mod command;
pub mod device;
pub mod fs;
pub mod net;
pub mod queue;
mod queue_thread;
pub mod rng;
pub mod scsi;
pub mod transport;
pub mod vsock;
pub mod worker;

#[cfg(test)]
mod conformance_devices;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod receive;
#[cfg(test)]
mod receive_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Feature bits that every device has, as masks. (VIRTIO 1.2, 6)
pub mod feature {
    use virtio_bindings::{virtio_config, virtio_ring};

    /// VIRTIO_F_VERSION_1: not a legacy driver. We have no legacy interface.
    pub const VERSION_1: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1;
    /// VIRTIO_F_INDIRECT_DESC: a descriptor may point at a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
    /// VIRTIO_F_EVENT_IDX: each side says at which index it next wants to be told.
    pub const EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;
    /// What the rings offer for every device.
    pub const RING: u64 = VERSION_1 | INDIRECT_DESC | EVENT_IDX;
}

/// Most notices that one device gives in its life: a guest can provoke them at will and they end in
/// a file.
const MAX_NOTICES: u32 = 16;

/// Where a device tells the user of what the guest or the host did wrong: one line a time, and
/// no more than [`MAX_NOTICES`] lines. Clones share the count; each device has its own.
#[derive(Clone)]
pub struct Notices {
    sink: Arc<dyn Fn(&str) + Send + Sync>,
    reported: Arc<AtomicU32>,
}

impl Notices {
    /// Notices of one device, which go to `sink`.
    pub fn new(sink: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { sink, reported: Arc::default() }
    }

    /// Tell one line.
    pub fn tell(&self, message: &str) {
        let reported = self.reported.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < MAX_NOTICES).then_some(n + 1)
        });
        match reported {
            Ok(n) if n + 1 == MAX_NOTICES => {
                (self.sink)(&format!("{message} (no more is reported of this device)"));
            }
            Ok(_) => (self.sink)(message),
            Err(_) => {}
        }
    }
}
