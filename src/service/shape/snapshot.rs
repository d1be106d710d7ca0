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
    /// Bytes that are there of it while it is pending.
    pub written: u64,
}

impl DescribedSnapshot {
    /// One that was just made, or of which nothing is there yet.
    pub fn of(snapshot: Snapshot) -> Self {
        Self { snapshot, written: 0 }
    }
}

impl Serialize for DescribedSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Snapshot { state, size_bytes, .. } = self.snapshot;
        let progress = percent(state, size_bytes, self.written);
        Shape {
            info: SnapshotInfo { progress, ..SnapshotInfo::of(&self.snapshot) },
            state_message: self.snapshot.state_message.as_deref(),
            storage_tier: "standard",
        }
        .serialize(serializer)
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
    progress: String,
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
            progress: percent(snapshot.state, snapshot.size_bytes, 0),
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

/// How much of a snapshot of `size` bytes is there, of which so many are written: all once it is
/// completed, and never all before.
fn percent(state: SnapshotState, size: u64, written: u64) -> String {
    let percent = match state {
        SnapshotState::Completed => 100,
        SnapshotState::Pending => {
            written.saturating_mul(100).checked_div(size).unwrap_or(0).min(99)
        }
        SnapshotState::Error | SnapshotState::Deleted => 0,
    };
    format!("{percent}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_is_written_and_100_only_of_what_is_completed() {
        assert_eq!(percent(SnapshotState::Pending, 4 << 30, 0), "0%");
        assert_eq!(percent(SnapshotState::Pending, 4 << 30, 1 << 30), "25%");
        assert_eq!(percent(SnapshotState::Pending, 4 << 30, 4 << 30), "99%");
        assert_eq!(percent(SnapshotState::Pending, 512, u64::MAX), "99%");
        assert_eq!(percent(SnapshotState::Pending, 0, 512), "0%");
        assert_eq!(percent(SnapshotState::Completed, 4 << 30, 0), "100%");
        assert_eq!(percent(SnapshotState::Error, 4 << 30, 1 << 30), "0%");
    }
}
