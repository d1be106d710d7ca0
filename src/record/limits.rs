//! What an object may have at most.

use serde::{Deserialize, Serialize};

/// Largest disk in bytes: EC2's limit for a volume, 16 TiB.
pub const MAX_SIZE: u64 = 16 << 40;

/// What an instance may take of the host, by a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CgroupLimits {
    /// Percent of one CPU: 1 to 6400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<u32>,
    /// Bytes of memory, the guest's and the VMM's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<u64>,
}

impl CgroupLimits {
    /// True if it may take what it gets.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
