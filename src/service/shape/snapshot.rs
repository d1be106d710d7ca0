//! EC2 Snapshot and SnapshotInfo, as CreateSnapshot, CreateSnapshots and DescribeSnapshots answer.

use crate::id::{SnapshotId, VolumeId};
use crate::plan::DiskFormat;
use crate::record::snapshot::{Snapshot, SnapshotState};
use crate::record::tag::Tag;
use crate::record::volume::Layer;
use serde::{Serialize, Serializer};

/// EC2's id of the volume of a snapshot that was made of none.
const NO_VOLUME: &str = "vol-ffffffff";

/// A snapshot. As JSON it is EC2's Snapshot.
#[derive(Clone, Debug)]
pub struct DescribedSnapshot {
    /// The record.
    pub snapshot: Snapshot,
}

impl Serialize for DescribedSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape::of(&self.snapshot).serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    #[serde(flatten)]
    info: SnapshotInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_message: Option<&'a str>,
    storage_tier: &'static str,
}

/// EC2 SnapshotInfo, which of several at once is answered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnapshotInfo<'a> {
    snapshot_id: &'a SnapshotId,
    volume_id: &'a str,
    owner_id: &'a str,
    start_time: &'a str,
    volume_size: u64,
    state: SnapshotState,
    progress: &'static str,
    description: &'a str,
    encrypted: bool,
    tags: &'a [Tag],
    spore: Own<'a>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Own<'a> {
    size_bytes: u64,
    format: DiskFormat,
    #[serde(skip_serializing_if = "str::is_empty")]
    digest: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    layers: &'a [Layer],
}

impl<'a> SnapshotInfo<'a> {
    /// Of a record.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot_id: &snapshot.snapshot_id,
            volume_id: snapshot.volume_id.as_ref().map_or(NO_VOLUME, VolumeId::as_str),
            owner_id: &snapshot.owner_id,
            start_time: &snapshot.start_time,
            volume_size: snapshot.volume_size,
            state: snapshot.state,
            progress: if snapshot.state == SnapshotState::Completed { "100%" } else { "0%" },
            description: &snapshot.description,
            encrypted: false,
            tags: &snapshot.tags,
            spore: Own {
                size_bytes: snapshot.size_bytes,
                format: snapshot.format,
                digest: &snapshot.digest,
                layers: &snapshot.layers,
            },
        }
    }
}

impl<'a> Shape<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            info: SnapshotInfo::of(snapshot),
            state_message: snapshot.state_message.as_deref(),
            storage_tier: "standard",
        }
    }
}
