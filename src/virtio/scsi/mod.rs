//! The SCSI host device with one target, a CD-ROM drive. (VIRTIO 1.2, 5.6)
//!
//! The device carries commands and answers, which say nothing of virtio; the drive ([`unit`]) is
//! SPC-4's and MMC-6's. What its disc has is read as virtio-blk reads a disk ([`blk`]): limits,
//! counters and notices are the same.
//!
//! [`blk`]: crate::virtio::blk

mod data;
mod handler;
mod request;
mod sense;
mod target;
mod unit;

pub use target::{CONTROL, EVENT, REQUESTS};

use crate::block::{Disk, Engine};
use crate::control::DiskStatus;
use crate::error::{Error, Result};
use crate::plan::DiskLimits;
use crate::sys::seccomp::Allow;
use crate::virtio::Notices;
use crate::virtio::blk::DiskDevice;
use crate::virtio::blk::shared::Shared;
use crate::virtio::device::{Device, DeviceState, DeviceType, Service, Services, copy_config};
use handler::Handler;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::{Arc, Mutex};
use target::{Guest, Sizes, Target};
use unit::Unit;

/// Its row.
pub static TYPE: DeviceType = DeviceType {
    id: 8,
    pci_class: 0x01_0000, // SCSI storage controller
    thread: "virtio-scsi",
    calls: &[&[
        Allow::Call(libc::SYS_preadv),         // the disc, engine sync
        Allow::Call(libc::SYS_pread64),        // likewise, of one piece
        Allow::Call(libc::SYS_preadv2),        // what the page cache has
        Allow::Call(libc::SYS_io_uring_enter), // engine uring; the ring takes reads of its own file only
    ]],
};
/// Version of [`ScsiState`].
const STATE_VERSION: u16 = 1;

/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 128;
/// Bytes of struct virtio_scsi_config. (5.6.4)
const CONFIG: usize = 36;
/// Where that has sense_size and cdb_size, which the driver writes.
const SENSE_SIZE: usize = 20;
const CDB_SIZE: usize = 24;
/// Bytes of an event, and most sectors of 512 bytes of a transfer, as the driver is told.
const EVENT_SIZE: u32 = 16;
const MAX_SECTORS: u32 = unit::MAX_TRANSFER / 512;

/// The saved state.
#[derive(Serialize, Deserialize)]
struct ScsiState {
    sizes: Sizes,
    /// Blocks of the disc.
    blocks: u64,
    drive: unit::State,
}

/// A CD-ROM drive behind its host device.
pub struct Scsi {
    target: Arc<Target>,
    engine: Engine,
}

impl Scsi {
    /// The device, and what serves its queues. The drive is called `name`, and has `disc` in it,
    /// which nobody writes.
    ///
    /// # Errors
    /// The host cannot give the disc's queue (see [`Disk::queue`]).
    pub fn create(
        name: &str,
        disc: &Arc<dyn Disk>,
        engine: Engine,
        limits: DiskLimits,
        notices: Notices,
    ) -> io::Result<(Arc<Self>, Services)> {
        let disk = Shared::named(format!("CD-ROM drive {name}"), &**disc, limits, notices);
        let unit = Unit::new(name, disk.geometry().size);
        let guest = Mutex::new(Guest { sizes: Sizes::default(), unit });
        let target = Arc::new(Target { disk: Arc::new(disk), guest });
        let queue = disc.queue(engine)?;
        let engine = queue.engine();
        let handler = Box::new(Handler::new(target.clone(), queue));
        let services = vec![Service { queues: CONTROL..REQUESTS + 1, handler }];
        Ok((Arc::new(Self { target, engine }), services))
    }
}

/// struct virtio_scsi_config. (5.6.4)
fn config(sizes: Sizes) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    // One request queue; descriptors less those of request and response; and commands at a time.
    let (segments, commands) = (u32::from(QUEUE_SIZE) - 2, u32::from(QUEUE_SIZE));
    let words = [1, segments, MAX_SECTORS, commands, EVENT_SIZE, sizes.sense, sizes.cdb];
    for (field, word) in config.chunks_exact_mut(4).zip(words) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    // max_channel, max_target and max_lun are 0: there is one of each.
    config
}

impl DiskDevice for Scsi {
    fn status(&self) -> DiskStatus {
        self.target.disk.status(self.engine)
    }

    /// A disc does not.
    fn grow(&self, _size: u64) {}
}

impl Device for Scsi {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        &self.target.disk.name
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 3]
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        copy_config(&config(self.target.guest().sizes), offset, out);
    }

    /// A size that is none stays as it was. (5.6.4.1: the driver writes these two fields alone)
    fn write_config(&self, offset: u64, bytes: &[u8]) {
        let (Ok(offset), Ok(bytes)) = (usize::try_from(offset), <[u8; 4]>::try_from(bytes)) else {
            return;
        };
        let mut guest = self.target.guest();
        let (mut sizes, value) = (guest.sizes, u32::from_le_bytes(bytes));
        match offset {
            SENSE_SIZE => sizes.sense = value,
            CDB_SIZE => sizes.cdb = value,
            _ => return,
        }
        if sizes.are_sound() {
            guest.sizes = sizes;
        }
    }

    fn reset(&self) {
        let mut guest = self.target.guest();
        guest.sizes = Sizes::default();
        guest.unit.power_on();
    }

    fn save(&self) -> DeviceState {
        let guest = self.target.guest();
        let (blocks, drive) = (guest.unit.blocks(), guest.unit.state);
        DeviceState::new(&TYPE, STATE_VERSION, &ScsiState { sizes: guest.sizes, blocks, drive })
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        let state: ScsiState = state.decode(self.name(), &TYPE, STATE_VERSION)?;
        let refuse = |why: &str| {
            Err(Error::failure(format!("the saved state of {}: {why}", self.target.disk.name)))
        };
        if !state.sizes.are_sound() {
            return refuse("its sizes are none that a driver can choose");
        }
        let mut guest = self.target.guest();
        if state.blocks != guest.unit.blocks() {
            return refuse("its disc had another size; give that file back");
        }
        guest.sizes = state.sizes;
        guest.unit.state = state.drive;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
