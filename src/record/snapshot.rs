//! The record of a snapshot, in the shape of EC2's API.

use super::tag::{Tag, name_tag};
use super::token::ClientToken;
use super::volume::Layer;
use super::{Durability, Record};
use crate::error::Code;
use crate::id::{SnapshotId, VolumeId};
use crate::plan::DiskFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The content's file name in a snapshot's directory.
pub const DATA: &str = "data";
/// The content so far of one that is written block by block.
pub const BLOCKS: &str = "blocks";
/// The SHA-256 of each block that was written; zeros of all others.
pub const WRITTEN: &str = "written";

/// EC2 Snapshot: immutable content of one volume, in `data` beside the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Snapshot {
    /// The snapshot's id.
    pub snapshot_id: SnapshotId,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// RFC 3339, UTC.
    pub start_time: String,
    /// GiB, rounded up.
    pub volume_size: u64,
    /// Exact size of the disk in bytes, a multiple of 512.
    pub size_bytes: u64,
    /// Format of the file, declared here and never sniffed.
    pub format: DiskFormat,
    /// What is below `data`, top first: files that it shares with other snapshots and volumes. None
    /// if it is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// Digest of the disk's content as the guest sees it, hexadecimal ([`crate::snapshot::digest`]
    /// says how); empty until completed.
    pub digest: String,
    /// pending, completed, error or deleted.
    #[serde(default)]
    pub state: SnapshotState,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_message: Option<String>,
    /// The volume that it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// How it is written, or was, if that is block by block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_write: Option<DirectWrite>,
}

/// What StartSnapshot says of a snapshot whose blocks a client writes. (EBS direct APIs)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DirectWrite {
    /// The request's ClientToken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
    /// Whose blocks those are that are not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_snapshot_id: Option<SnapshotId>,
    /// How many minutes after its last block an unfinished one is in error.
    pub timeout: u64,
    /// Nothing is written any more: whoever holds its lock completes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub completing: bool,
}

impl Snapshot {
    /// The record of a completed snapshot whose `data` is all of it, without description or tags.
    pub fn flat(
        snapshot_id: SnapshotId,
        (owner_id, start_time): (String, String),
        size_bytes: u64,
        (format, digest): (DiskFormat, String),
    ) -> Self {
        Self {
            snapshot_id,
            owner_id,
            start_time,
            volume_size: size_bytes.div_ceil(1 << 30),
            size_bytes,
            format,
            layers: Vec::new(),
            digest,
            state: SnapshotState::Completed,
            state_message: None,
            volume_id: None,
            description: String::new(),
            tags: Vec::new(),
            direct_write: None,
        }
    }
}

/// EC2 snapshot states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// Its content is fixed and not yet sealed: its maker holds its lock until it is.
    Pending,
    /// It is whole and its digest is known.
    #[default]
    Completed,
    /// It never became whole.
    Error,
    /// It exists for nobody any more. Volumes of other accounts begin as it, and keep its content
    /// until they are deleted.
    Deleted,
}

impl Record for Snapshot {
    type Id = SnapshotId;
    const DIRECTORY: &'static str = "snapshots";
    const KIND: &'static str = "snapshot";
    const NOT_FOUND: Code = Code::InvalidSnapshotNotFound;
    const REMOVAL: Durability = Durability::Durable;
    // It never changes, so what its own file takes on the medium is what it costs.
    const CONTENT: Option<&'static str> = Some(DATA);

    fn id(&self) -> &SnapshotId {
        &self.snapshot_id
    }

    fn name(&self) -> Option<&str> {
        name_tag(&self.tags)
    }

    fn is_deleted(&self) -> bool {
        self.state == SnapshotState::Deleted
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({ "VolumeSize": self.volume_size, "State": self.state, "Tags": self.tags })
    }
}
