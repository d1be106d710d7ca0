//! The record of a volume, in the shape of EC2's API.

use super::Record;
use super::tag::{Tag, name_tag};
use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, SnapshotId, VolumeId};
use crate::plan::DiskFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One file of a chain, beside the record of the volume or snapshot that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Layer {
    /// Its name in the object's directory.
    pub file: LayerName,
    /// Its format, declared here and never sniffed.
    pub format: DiskFormat,
}

/// What a file of a chain may be called, whoever wrote the record that says so: `base`,
/// `overlay-HEX.qcow2` or a snapshot's id. So it is no path, and nothing else that is in an
/// object's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerName(String);

impl LayerName {
    /// What the lowest file of a volume's chain is called.
    pub const BASE: &'static str = "base";
    /// The content of a snapshot in its own directory.
    const DATA: &'static str = "data";

    /// The lowest file's.
    pub fn base() -> Self {
        Self(Self::BASE.to_owned())
    }

    /// That of a snapshot's own content.
    pub fn data() -> Self {
        Self(Self::DATA.to_owned())
    }

    /// Whether a file of that name is an overlay.
    pub fn is_overlay(&self) -> bool {
        self.0.starts_with("overlay-")
    }
}

impl From<&SnapshotId> for LayerName {
    fn from(id: &SnapshotId) -> Self {
        Self(id.to_string())
    }
}

impl std::ops::Deref for LayerName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for LayerName {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl std::fmt::Display for LayerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for LayerName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        let digits = name.strip_prefix("overlay-").and_then(|rest| rest.strip_suffix(".qcow2"));
        let hex = |d: &str| (1..=64).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_hexdigit());
        if name == Self::BASE || digits.is_some_and(hex) || name.parse::<SnapshotId>().is_ok() {
            return Ok(Self(name));
        }
        let shown: String = name.escape_debug().take(100).collect();
        Err(Error::failure(format!("'{shown}' is not the name of a layer")))
    }
}

impl From<LayerName> for String {
    fn from(name: LayerName) -> Self {
        name.0
    }
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
    /// Its last change of size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modification: Option<Modification>,
    /// The token that it was created under, with a digest of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<super::token::ClientToken>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// What a volume is if nobody says otherwise: EC2's default.
pub fn default_volume_type() -> String {
    "gp3".to_owned()
}

/// EC2 VolumeModification, which is done as soon as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Modification {
    /// GiB, rounded up, before.
    pub original_size: u64,
    /// GiB, rounded up, after.
    pub target_size: u64,
    /// RFC 3339, UTC.
    pub start_time: String,
    /// RFC 3339, UTC.
    pub end_time: String,
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
    /// RFC 3339, UTC: since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_time: Option<String>,
}

impl Record for Volume {
    type Id = VolumeId;
    const DIRECTORY: &'static str = "volumes";
    const KIND: &'static str = "volume";
    const NOT_FOUND: Code = Code::InvalidVolumeNotFound;

    fn id(&self) -> &VolumeId {
        &self.volume_id
    }

    fn name(&self) -> Option<&str> {
        name_tag(&self.tags)
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({
            "Size": self.size,
            "SnapshotId": self.snapshot_id,
            "InstanceId": self.attachment.as_ref().map(|a| &a.instance_id),
            "Tags": self.tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_called_nothing_else() {
        let layer = |name: &str| {
            let json = serde_json::json!({ "File": name, "Format": "raw" });
            serde_json::from_value::<Layer>(json)
        };
        for name in ["base", "overlay-0123456789abcdef.qcow2", "snap-0123456789abcdef0"] {
            assert_eq!(&*layer(name).unwrap().file, name);
        }
        for name in [
            "",
            ".",
            "..",
            "data",
            "lock",
            "record.json",
            "in-use",
            "users",
            "../../../etc/passwd",
            "overlay-.qcow2",
            "overlay-../x.qcow2",
            "overlay-a/b.qcow2",
            "snap-../x",
            "/etc/passwd",
            "base\0",
        ] {
            assert!(layer(name).is_err(), "{name:?}");
        }
    }
}
