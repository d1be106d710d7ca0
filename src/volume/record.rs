//! The record of a volume.

use crate::id::{InstanceId, SnapshotId, VolumeId};
use crate::image::record::Tag;
use crate::plan::DiskFormat;
use serde::{Deserialize, Serialize};

/// EC2 Volume: a qcow2 overlay in `overlay.qcow2` beside the record, and `base`, a hard link to the snapshot's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Volume {
    /// The volume's id.
    pub volume_id: VolumeId,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// RFC 3339, UTC.
    pub create_time: String,
    /// GiB, rounded up.
    pub size: u64,
    /// Exact size in bytes.
    pub size_bytes: u64,
    /// What it began as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// The format of `base`, if there is one; it outlives the snapshot's own record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_format: Option<DiskFormat>,
    /// The instance it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// EC2 VolumeAttachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Attachment {
    /// The instance.
    pub instance_id: InstanceId,
    /// e.g. `/dev/vda`.
    pub device: String,
    /// The volume goes with its instance.
    pub delete_on_termination: bool,
}
