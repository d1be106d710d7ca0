//! What a file system device is told.

use super::fd::PlanFd;
use serde::{Deserialize, Serialize};

/// A file system device. (VIRTIO 1.2, 5.11)
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharePlan {
    /// What the guest knows it by, at most 36 bytes.
    pub tag: String,
    /// The socket of the server of the directory. It does not block.
    pub server: PlanFd,
}
