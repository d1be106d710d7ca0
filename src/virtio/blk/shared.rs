//! What all queues of one disk share, and the bounds of what a request may ask for.

use super::throttle::Throttle;
use crate::block::{Disk, Engine};
use crate::control::{DiskState, DiskStatus};
use crate::id::VolumeId;
use crate::plan::DiskLimits;
use crate::virtio::Notices;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

/// Bytes of a sector, whatever the logical block size. (5.2.4)
pub const SECTOR: u64 = 512;
/// Descriptors of each request queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Most data segments of a request: a queue's descriptors less header and status.
pub(super) const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Most bytes of a data segment (VIRTIO_BLK_F_SIZE_MAX): more than a driver has a use for.
pub(super) const SIZE_MAX: u32 = 1 << 20;
/// Most bytes of a request's data, 254 MiB.
pub(crate) const MAX_DATA: u32 = SEG_MAX * SIZE_MAX;
/// Most ranges of one discard or write-zeroes request.
pub(crate) const MAX_RANGES: u32 = 32;
/// Most sectors of one such range, 1 GiB: it bounds the metadata that one request can touch.
pub(crate) const MAX_RANGE_SECTORS: u32 = (1 << 30) / SECTOR as u32;

/// A feature as a mask.
pub(super) const fn bit(feature: u32) -> u64 {
    1 << feature
}

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// Size in bytes, a multiple of [`SECTOR`].
    pub size: u64,
    /// No writes.
    pub read_only: bool,
}

/// What all queues of one disk share.
pub(crate) struct Shared {
    /// In a sentence.
    pub name: String,
    /// The volume's id without its dash, which has no room in the 20 bytes: as EC2 has it for NVMe.
    /// (5.2.6: VIRTIO_BLK_T_GET_ID)
    pub serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    /// Bytes, a multiple of [`SECTOR`]. It only grows.
    pub size: AtomicU64,
    /// No writes.
    pub read_only: bool,
    /// Where the user hears of what goes wrong.
    pub notices: Notices,
    /// What the guest may have, if that is limited.
    pub(super) throttle: Option<Mutex<Throttle>>,
    /// Host errors (errno, 0 for others) that were reported already.
    pub reported: Mutex<BTreeSet<i32>>,
    /// Bytes that the guest has read.
    pub read_bytes: AtomicU64,
    /// Bytes that it has written.
    pub write_bytes: AtomicU64,
    /// Flushes that it had done.
    pub flushes: AtomicU64,
    /// Requests that failed.
    pub errors: AtomicU64,
}

impl Shared {
    /// That of a disk of this volume.
    pub fn of(volume: &VolumeId, disk: &dyn Disk, limits: DiskLimits, notices: Notices) -> Self {
        let mut serial = [0; VIRTIO_BLK_ID_BYTES as usize];
        let id = volume.as_str().bytes().filter(|&byte| byte != b'-');
        for (to, from) in serial.iter_mut().zip(id) {
            *to = from;
        }
        Self { serial, ..Self::named(format!("disk {volume}"), disk, limits, notices) }
    }

    /// That of a disk of no volume, which notices call `name`.
    pub fn named(name: String, disk: &dyn Disk, limits: DiskLimits, notices: Notices) -> Self {
        Self {
            name,
            serial: [0; VIRTIO_BLK_ID_BYTES as usize],
            size: AtomicU64::new(disk.size() / SECTOR * SECTOR),
            read_only: disk.read_only(),
            notices,
            throttle: (!limits.are_none()).then(|| Mutex::new(Throttle::new(limits))),
            reported: Mutex::default(),
            read_bytes: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// The disk has `size` bytes now: in whole sectors, if it has grown.
    pub fn grow(&self, size: u64) -> Option<u64> {
        let size = size / SECTOR * SECTOR;
        (size > self.size.fetch_max(size, Ordering::AcqRel)).then_some(size)
    }

    /// The counters, under this engine.
    pub fn status(&self, engine: Engine) -> DiskStatus {
        DiskStatus {
            engine,
            state: DiskState::default(),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }

    /// What requests are checked against.
    pub fn geometry(&self) -> Geometry {
        Geometry { size: self.size.load(Ordering::Acquire), read_only: self.read_only }
    }

    /// The host could not do it: the guest sees an I/O error, the user one notice for each kind.
    pub fn host_error(&self, doing: &str, error: &io::Error) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if !reported.insert(error.raw_os_error().unwrap_or(0)) {
            return;
        }
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room on the host's file system that holds the volume"
            }
            _ => "check the host's storage",
        };
        self.notices.tell(&format!(
            "{}: cannot {doing}: {error}; the guest got an I/O error: {remedy}",
            self.name
        ));
    }
}
