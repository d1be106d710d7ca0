//! EC2 Volume, VolumeAttachment and VolumeModification.

use super::ZONE;
use crate::id::{InstanceId, SnapshotId, VolumeId};
use crate::record::tag::Tag;
use crate::record::volume::{Attachment, Layer, Volume};
use serde::{Serialize, Serializer};

/// A volume, and what the record does not say of it. As JSON it is EC2's Volume.
#[derive(Clone, Debug)]
pub struct DescribedVolume {
    /// The record.
    pub volume: Volume,
    /// The instance that it is attached to (EC2's state in-use), if that is so (else available).
    pub instance_id: Option<InstanceId>,
    /// EC2 VolumeAttachmentState, if it is attached.
    pub attachment_state: Option<&'static str>,
    /// Bytes on the disk that its overlay takes, which is what it costs; unknown of another's.
    pub used_bytes: Option<u64>,
}

impl DescribedVolume {
    /// EC2 VolumeState.
    pub fn state(&self) -> &'static str {
        if self.instance_id.is_some() { "in-use" } else { "available" }
    }
}

impl Serialize for DescribedVolume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape::of(self).serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    volume_id: &'a VolumeId,
    owner_id: &'a str,
    create_time: &'a str,
    size: u64,
    /// Empty of one that began as none, as EC2 has it.
    snapshot_id: &'a str,
    volume_type: &'a str,
    state: &'static str,
    availability_zone: &'static str,
    attachments: Vec<VolumeAttachment>,
    encrypted: bool,
    multi_attach_enabled: bool,
    tags: &'a [Tag],
    spore: Own<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Own<'a> {
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_bytes: Option<u64>,
    layers: &'a [Layer],
}

impl<'a> Shape<'a> {
    fn of(described: &'a DescribedVolume) -> Self {
        let DescribedVolume { volume, used_bytes, .. } = described;
        let attached = volume.attachment.as_ref().filter(|_| described.instance_id.is_some());
        let attached = attached.map(|a| {
            VolumeAttachment::of(volume, a, described.attachment_state.unwrap_or("attached"))
        });
        Self {
            volume_id: &volume.volume_id,
            owner_id: &volume.owner_id,
            create_time: &volume.create_time,
            size: volume.size,
            snapshot_id: volume.snapshot_id.as_ref().map_or("", SnapshotId::as_str),
            volume_type: &volume.volume_type,
            state: described.state(),
            availability_zone: ZONE,
            attachments: attached.into_iter().collect(),
            encrypted: false,
            multi_attach_enabled: false,
            tags: &volume.tags,
            spore: Own {
                size_bytes: volume.size_bytes,
                used_bytes: *used_bytes,
                layers: &volume.layers,
            },
        }
    }
}

/// EC2 VolumeAttachment, which AttachVolume and DetachVolume answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeAttachment {
    /// The volume.
    pub volume_id: VolumeId,
    /// The instance.
    pub instance_id: InstanceId,
    /// What it is or was called there.
    pub device: String,
    /// EC2 VolumeAttachmentState.
    pub state: &'static str,
    /// RFC 3339.
    pub attach_time: String,
    /// It goes or would have gone with the instance.
    pub delete_on_termination: bool,
}

impl VolumeAttachment {
    /// That of a volume. `state` is EC2's VolumeAttachmentState.
    pub fn of(volume: &Volume, attachment: &Attachment, state: &'static str) -> Self {
        // Records of an older Spore don't say when.
        let attach_time = attachment.attach_time.as_ref().unwrap_or(&volume.create_time).clone();
        let Attachment { instance_id, device, delete_on_termination, .. } = attachment.clone();
        let volume_id = volume.volume_id.clone();
        Self { volume_id, instance_id, device, state, attach_time, delete_on_termination }
    }
}

/// EC2 VolumeModification, which ModifyVolume and DescribeVolumesModifications answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeModification {
    /// The volume.
    pub volume_id: VolumeId,
    /// Always `completed`.
    pub modification_state: &'static str,
    /// GiB, rounded up, before.
    pub original_size: u64,
    /// GiB, rounded up, now.
    pub target_size: u64,
    /// EC2's name of what it is stored on.
    pub original_volume_type: String,
    /// The same.
    pub target_volume_type: String,
    /// Percent.
    pub progress: u8,
    /// RFC 3339.
    pub start_time: String,
    /// RFC 3339.
    pub end_time: String,
}

impl VolumeModification {
    /// The last one of a volume.
    pub fn of(volume: &Volume) -> Option<Self> {
        let last = volume.modification.clone()?;
        Some(Self {
            volume_id: volume.volume_id.clone(),
            modification_state: "completed",
            original_size: last.original_size,
            target_size: last.target_size,
            original_volume_type: volume.volume_type.clone(),
            target_volume_type: volume.volume_type.clone(),
            progress: 100,
            start_time: last.start_time,
            end_time: last.end_time,
        })
    }
}
