//! A controller's disk, as its machine knows it.

use crate::block::{Disk, Engine, Queue};
use crate::control::DiskStatus;
use crate::id::VolumeId;
use crate::plan::DiskLimits;
use crate::virtio::Notices;
use crate::virtio::blk::DiskDevice;
use crate::virtio::blk::shared::Shared;
use std::io;
use std::sync::{Arc, OnceLock};

/// Most I/O queues.
const MAX_QUEUES: u16 = 64;

/// Who is told that a namespace has another size.
pub trait Changed: Send + Sync {
    /// It has.
    fn namespace_changed(&self);
}

/// The one namespace of a controller.
pub struct Namespace {
    pub(super) disk: Arc<Shared>,
    pub(super) controller: OnceLock<Arc<dyn Changed>>,
    engine: Engine,
}

/// What a controller is made of.
pub struct Drive {
    /// Its disk.
    pub namespace: Arc<Namespace>,
    /// What the user calls the disk.
    pub(super) device: String,
    /// Bytes.
    pub(super) granularity: u32,
    /// One for each I/O submission queue.
    pub(super) queues: Vec<Box<dyn Queue>>,
}

impl Drive {
    /// A disk with so many queues into it. The guest reads `volume` as its serial number, and
    /// `device` as what the user calls it.
    ///
    /// # Errors
    /// `queues` is not 1 to 64, or the host cannot give the disk's queues (see [`Disk::queue`]).
    pub fn create(
        volume: &VolumeId,
        device: &str,
        disk: &Arc<dyn Disk>,
        engine: Engine,
        queues: u16,
        (limits, notices): (DiskLimits, Notices),
    ) -> io::Result<Self> {
        if !(1..=MAX_QUEUES).contains(&queues) {
            let message =
                format!("disk {volume} has {queues} queues; it may have 1 to {MAX_QUEUES}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let shared = Arc::new(Shared::of(volume, &**disk, limits, notices));
        let queues = (0..queues).map(|_| disk.queue(engine)).collect::<io::Result<Vec<_>>>()?;
        let engine = queues.first().map_or(engine, |queue| queue.engine());
        let namespace = Namespace { disk: shared, controller: OnceLock::new(), engine };
        Ok(Self {
            namespace: Arc::new(namespace),
            device: device.to_owned(),
            granularity: disk.discard_granularity(),
            queues,
        })
    }
}

impl DiskDevice for Namespace {
    fn status(&self) -> DiskStatus {
        self.disk.status(self.engine)
    }

    fn grow(&self, size: u64) {
        if self.disk.grow(size).is_some()
            && let Some(controller) = self.controller.get()
        {
            controller.namespace_changed();
        }
    }
}
