//! The record of a task: an import or an export that goes on behind the answer to its request.
//! (EC2 ImportImageTask, ImportSnapshotTask, ExportImageTask)

use super::Record;
use super::tag::Tag;
use super::token::ClientToken;
use crate::error::Code;
use crate::id::{ImageId, SnapshotId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Whoever does a task holds the flock of this file in its directory.
pub const WORKER: &str = "worker";

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Task {
    /// Its id.
    pub task_id: TaskId,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// RFC 3339, UTC: when it was asked for.
    pub creation_date: String,
    /// How far it is.
    pub status: TaskStatus,
    /// Why it is so, or what is to be known of what it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// Percent.
    #[serde(default)]
    pub progress: u8,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The token that it was asked for under, with a digest of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
    /// What is to be done.
    pub work: Work,
    /// The image that came of an import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<ImageId>,
    /// The snapshot that did, or that its root begins as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Work {
    /// Makes an image, whose name is the task's id.
    #[serde(rename_all = "PascalCase")]
    ImportImage {
        /// Of what.
        disk: DiskContainer,
    },
    /// Makes a snapshot.
    #[serde(rename_all = "PascalCase")]
    ImportSnapshot {
        /// Of what.
        disk: DiskContainer,
        /// Its id, which is known before: who goes on with the task sees whether it is there.
        snapshot_id: SnapshotId,
    },
    /// Writes the root disk of an image into a file that has the task's id in its name.
    #[serde(rename_all = "PascalCase")]
    ExportImage {
        /// Which.
        image_id: ImageId,
        /// The directory, absolute.
        directory: PathBuf,
        /// Where that is, as it was named.
        bucket: String,
        /// What the file's name begins with; it names no directory.
        prefix: String,
    },
}

/// Where a disk is that is imported. (EC2 ImageDiskContainer, SnapshotDiskContainer)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DiskContainer {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The format's name, if it is not to be told from the first bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where its content is.
    pub from: DiskSource,
}

/// What a disk's content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum DiskSource {
    /// A file of this machine's.
    #[serde(rename_all = "PascalCase")]
    File {
        /// Absolute.
        path: PathBuf,
        /// As it was named.
        url: String,
    },
    /// A snapshot that is there.
    Snapshot(SnapshotId),
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// It goes on, or will.
    Active,
    /// It is to end, and what it has made so far to go.
    Deleting,
    /// It was ended, or came to nothing.
    Deleted,
    /// The same of a snapshot that came to nothing: EC2's waiters look for this.
    Error,
    /// It is done.
    Completed,
}

impl TaskStatus {
    /// EC2's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Error => "error",
            Self::Completed => "completed",
        }
    }

    /// Whether somebody is to do something still.
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Active | Self::Deleting)
    }
}

impl Record for Task {
    type Id = TaskId;
    const DIRECTORY: &'static str = "tasks";
    const KIND: &'static str = "task";
    const NOT_FOUND: Code = Code::InvalidConversionTaskId;
    const LISTED_BY: &'static str = "DescribeImportImageTasks";
    const NAMES_ARE_SHARED: bool = true;

    fn id(&self) -> &TaskId {
        &self.task_id
    }

    fn name(&self) -> Option<&str> {
        None
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({ "Status": self.status, "StatusMessage": self.status_message })
    }
}
