//! What the block layer is told of a disk: its files, how they are read, what the guest may have of
//! it.

use super::fd::PlanFd;
use crate::id::VolumeId;
use serde::{Deserialize, Serialize};

/// One block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPlan {
    /// The volume's id, which the guest reads as the disk's serial, without the dash.
    pub volume_id: VolumeId,
    /// Offered to the guest as VIRTIO_BLK_F_RO; no layer is opened writable.
    pub read_only: bool,
    /// Layers from the top (the volume's own overlay) down to the base. At least one.
    pub layers: Vec<LayerPlan>,
    /// Held open for the life of the VMM: it carries the flock that keeps others from using the
    /// volume.
    #[serde(default)]
    pub hold: Option<PlanFd>,
    /// How the host does the I/O.
    pub engine: Engine,
    /// Request queues, 1 to 64; usually one a vCPU, at most 4.
    pub queues: u16,
    /// What the guest may have of it.
    pub limits: DiskLimits,
}

/// What a guest may have of a disk, all of its queues together. Absent: as much as the host gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DiskLimits {
    /// Requests.
    pub iops: Option<Rate>,
    /// Bytes read and written.
    pub bandwidth: Option<Rate>,
}

impl DiskLimits {
    /// There are none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How much of something, on the average and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Rate {
    /// A second, at least 1.
    pub per_second: u64,
    /// At once after a while without any, at least 1.
    pub burst: u64,
}

/// One file of a disk's chain. Only the first layer of a writable disk is open for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// The open file.
    pub fd: PlanFd,
    /// Its format as recorded, never sniffed.
    pub format: DiskFormat,
}

/// The format of a disk file, as declared in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Sector n of the disk is at byte 512 n of the file.
    Raw,
    /// QEMU's qcow2, version 2 or 3. (docs/interop/qcow2.txt in QEMU)
    Qcow2,
}

/// How host I/O is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// io_uring if the host has it and lets us, else sync.
    #[default]
    Auto,
    /// io_uring(7).
    Uring,
    /// preadv(2) and pwritev(2).
    Sync,
}
