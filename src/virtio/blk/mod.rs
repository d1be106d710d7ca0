//! The block device. (VIRTIO 1.2, 5.2)

pub(crate) mod executor;
mod handler;
mod pending;
pub(crate) mod request;
pub(crate) mod shared;
mod throttle;
pub(crate) mod work;

use crate::block::{self, Disk, Engine};
use crate::control::DiskStatus;
use crate::error::{Error, Result};
use crate::id::VolumeId;
use crate::plan::DiskLimits;
use crate::sys::seccomp::Allow;
use crate::virtio::Notices;
use crate::virtio::device::{
    Device, DeviceState, DeviceType, Service, Services, Signal, copy_config,
};
use handler::BlkQueue;
use serde::{Deserialize, Serialize};
use shared::{
    Geometry, MAX_RANGE_SECTORS, MAX_RANGES, QUEUE_SIZE, SECTOR, SEG_MAX, SIZE_MAX, Shared, bit,
};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use virtio_bindings::virtio_blk::*;

/// Its row.
pub static TYPE: DeviceType = DeviceType {
    id: 2,
    pci_class: 0x01_8000, // other mass storage controller
    thread: "virtio-blk",
    calls: &[
        block::CALLS,
        &[
            Allow::Call(libc::SYS_io_uring_enter), // engine uring; the ring itself takes reads, writes and syncs of its own files only
            Allow::Call(libc::SYS_preadv2),        // what the page cache has
        ],
    ],
};
/// Most request queues.
const MAX_QUEUES: u16 = 64;
/// Bytes of the capacity, the configuration's first field. (5.2.4)
const CAPACITY_LEN: usize = 8;
/// Host pages, in which unaligned I/O is slower, as a power of two of logical blocks.
const PHYSICAL_BLOCK_EXP: u8 = 3;

/// The state of a block device: what the guest believes of the disk.
#[derive(Serialize, Deserialize)]
struct BlkState {
    /// Features offered.
    features: u64,
    /// The configuration space.
    config: Vec<u8>,
}

/// Version of [`BlkState`].
const STATE_VERSION: u16 = 1;

/// A disk as the guest sees it.
pub struct Blk {
    shared: Arc<Shared>,
    features: u64,
    config: Mutex<Config>,
    guest: OnceLock<Arc<dyn Signal>>,
    queue_sizes: Vec<u16>,
    engine: Engine,
}

/// The configuration space.
struct Config {
    bytes: Vec<u8>,
    /// How often the host has changed it.
    generation: u32,
}

impl Blk {
    /// The device and a service for each of its queues, with a queue of its own into `disk`.
    /// The guest reads `volume` as the disk's serial.
    ///
    /// # Errors
    /// `queues` is not 1 to 64, or the host cannot give the disk's queues (see [`Disk::queue`]).
    pub fn create(
        volume: &VolumeId,
        disk: &Arc<dyn Disk>,
        engine: Engine,
        queues: u16,
        limits: DiskLimits,
        notices: Notices,
    ) -> io::Result<(Arc<Self>, Services)> {
        if !(1..=MAX_QUEUES).contains(&queues) {
            let message =
                format!("disk {volume} has {queues} queues; it may have 1 to {MAX_QUEUES}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let shared = Arc::new(Shared::of(volume, &**disk, limits, notices));
        let geometry = shared.geometry();
        let (mut services, mut in_use) = (Services::new(), engine);
        for number in 0..queues {
            let queue = disk.queue(engine)?;
            in_use = queue.engine();
            let handler = Box::new(BlkQueue::new(shared.clone(), number, queue));
            services.push(Service { queues: number..number + 1, handler });
        }
        let bytes = config(geometry, queues, disk.discard_granularity());
        let device = Self {
            shared,
            features: features(geometry.read_only),
            config: Mutex::new(Config { bytes, generation: 0 }),
            guest: OnceLock::new(),
            queue_sizes: vec![QUEUE_SIZE; queues.into()],
            engine: in_use,
        };
        Ok((Arc::new(device), services))
    }

    /// Its bytes and their number are right between any two statements.
    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a disk's device is to its machine, whatever the guest sees of it.
pub trait DiskDevice: Send + Sync {
    /// The engine in use and the counters.
    fn status(&self) -> DiskStatus;
    /// Tells the guest that the disk has `size` bytes now, if it has grown.
    fn grow(&self, size: u64);
}

impl DiskDevice for Blk {
    fn status(&self) -> DiskStatus {
        self.shared.status(self.engine)
    }

    /// 5.2.4: a change of capacity is a change of the configuration.
    fn grow(&self, size: u64) {
        let Some(size) = self.shared.grow(size) else { return };
        let mut config = self.config();
        config.bytes[..CAPACITY_LEN].copy_from_slice(&(size / SECTOR).to_le_bytes());
        config.generation = config.generation.wrapping_add(1);
        drop(config);
        if let Some(guest) = self.guest.get() {
            guest.config_changed();
        }
    }
}

fn features(read_only: bool) -> u64 {
    let always = bit(VIRTIO_BLK_F_SIZE_MAX)
        | bit(VIRTIO_BLK_F_SEG_MAX)
        | bit(VIRTIO_BLK_F_BLK_SIZE)
        | bit(VIRTIO_BLK_F_TOPOLOGY)
        | bit(VIRTIO_BLK_F_FLUSH)
        | bit(VIRTIO_BLK_F_MQ);
    if read_only {
        always | bit(VIRTIO_BLK_F_RO)
    } else {
        always | bit(VIRTIO_BLK_F_DISCARD) | bit(VIRTIO_BLK_F_WRITE_ZEROES)
    }
}

/// struct virtio_blk_config, up to and with write_zeroes_may_unmap. (5.2.4)
fn config(geometry: Geometry, queues: u16, discard_granularity: u32) -> Vec<u8> {
    let mut config = Vec::with_capacity(60);
    config.extend((geometry.size / SECTOR).to_le_bytes()); // capacity
    config.extend(SIZE_MAX.to_le_bytes());
    config.extend(SEG_MAX.to_le_bytes());
    config.extend([0; 4]); // geometry: not offered
    config.extend((SECTOR as u32).to_le_bytes()); // blk_size
    config.extend([PHYSICAL_BLOCK_EXP, 0]); // topology: physical_block_exp, alignment_offset
    config.extend((1u16 << PHYSICAL_BLOCK_EXP).to_le_bytes()); // min_io_size
    config.extend(0u32.to_le_bytes()); // opt_io_size: no preference
    config.extend([0, 0]); // writeback: not offered; padding
    config.extend(queues.to_le_bytes()); // num_queues
    config.extend(MAX_RANGE_SECTORS.to_le_bytes()); // max_discard_sectors
    config.extend(MAX_RANGES.to_le_bytes()); // max_discard_seg
    config.extend((discard_granularity / SECTOR as u32).max(1).to_le_bytes()); // discard_sector_alignment
    config.extend(MAX_RANGE_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
    config.extend(MAX_RANGES.to_le_bytes()); // max_write_zeroes_seg
    config.extend([1, 0, 0, 0]); // write_zeroes_may_unmap; padding
    config
}

impl Device for Blk {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        copy_config(&self.config().bytes, offset, out);
    }

    fn config_generation(&self) -> u32 {
        self.config().generation
    }

    fn connect(&self, guest: Arc<dyn Signal>) {
        // Once, as the transport does it.
        let _ = self.guest.set(guest);
    }

    fn save(&self) -> DeviceState {
        let state = BlkState { features: self.features, config: self.config().bytes.clone() };
        DeviceState::new(self.kind(), STATE_VERSION, &state)
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        let state: BlkState = state.decode(self.name(), self.kind(), STATE_VERSION)?;
        if state.features == self.features && state.config == self.config().bytes {
            return Ok(());
        }
        Err(Error::failure(format!(
            "the saved state is of another disk than {}: size, layout or read-only differ",
            self.shared.name
        )))
    }
}

#[cfg(test)]
mod tests;
