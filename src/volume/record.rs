//! The record of a volume.

use crate::id::{InstanceId, SnapshotId, VolumeId};
use crate::image::record::Tag;
use crate::plan::DiskFormat;
use serde::{Deserialize, Serialize};

/// One file of a chain, beside the record of the volume or snapshot that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Layer {
    /// Its name in the object's directory.
    pub file: String,
    /// Its format, declared here and never sniffed.
    pub format: DiskFormat,
}

/// EC2 Volume: qcow2 overlays beside the record, and below them hard links to the snapshot's files.
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
    /// EC2's name of what it is stored on. Recorded; every type is the same here.
    #[serde(default = "default_volume_type")]
    pub volume_type: String,
    /// Its files, top first. The first is the volume's own overlay, which alone is written.
    pub layers: Vec<Layer>,
    /// The instance it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// What a volume is if nobody says otherwise: EC2's default.
pub fn default_volume_type() -> String {
    "gp3".to_owned()
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
