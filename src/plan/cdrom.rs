//! What a CD-ROM drive is told.

use super::disk::{DiskLimits, Engine};
use super::fd::PlanFd;
use serde::{Deserialize, Serialize};

/// A CD-ROM drive behind a SCSI host device. (VIRTIO 1.2, 5.6)
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CdromPlan {
    /// What is on the disc, whole blocks of 2048 bytes; open for reading.
    pub disc: PlanFd,
    /// How the host does the I/O.
    pub engine: Engine,
    /// What the guest may have of it.
    pub limits: DiskLimits,
}
