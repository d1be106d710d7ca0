//! Volumes: CreateVolume, DescribeVolumes, AttachVolume, DetachVolume, ModifyVolume, DeleteVolume.

use super::filter::{Filter, Filters, select};
use super::{Service, instances};
use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, VolumeId};
use crate::instance::attach;
use crate::record::tag::{Tag, check_tags};
use crate::record::volume::{Attachment, Volume};
use crate::snapshot;
use crate::store::{Durability, Store};
use crate::volume::{NewVolume, create_empty, create_from_snapshot};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;

/// EC2's volume types.
pub const VOLUME_TYPES: [&str; 7] = ["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"];

/// EC2 CreateVolume.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// The snapshot that it begins as; empty without one.
    pub snapshot_id: Option<String>,
    /// Bytes; the snapshot's if absent.
    pub size: Option<u64>,
    /// One of [`VOLUME_TYPES`], which is recorded.
    pub volume_type: Option<String>,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// EC2 DescribeVolumes.
#[derive(Clone, Debug, Default)]
pub struct DescribeVolumes {
    /// Which; all if there is none.
    pub volume_ids: Vec<String>,
    /// Only those for which all of these hold.
    pub filters: Vec<Filter>,
}

/// EC2 AttachVolume.
#[derive(Clone, Debug)]
pub struct AttachVolume {
    /// The volume.
    pub volume_id: String,
    /// The instance, which must be stopped.
    pub instance_id: String,
    /// What it is called in the instance's block device mapping, e.g. `/dev/vdb`.
    pub device: String,
}

/// A volume, and what the record does not say of it.
#[derive(Clone, Debug, Serialize)]
pub struct DescribedVolume {
    /// The record.
    #[serde(flatten)]
    pub volume: Volume,
    /// The instance that it is attached to (EC2's state in-use), if that is so (else available).
    #[serde(skip)]
    pub instance_id: Option<InstanceId>,
    /// Bytes on the disk that its overlay takes, which is what it costs; unknown of another's.
    #[serde(skip)]
    pub used_bytes: Option<u64>,
}

/// EC2's answer to AttachVolume and DetachVolume.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeAttachment {
    /// The volume.
    pub volume_id: VolumeId,
    /// The instance.
    pub instance_id: InstanceId,
    /// What it is or was called there.
    pub device: String,
    /// It goes or would have gone with the instance.
    pub delete_on_termination: bool,
    /// `attached` or `detached`.
    pub state: &'static str,
}

/// EC2's filters of DescribeVolumes.
const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("attachment.delete-on-termination", "Attachment.DeleteOnTermination"),
        ("attachment.device", "Attachment.Device"),
        ("attachment.instance-id", "Attachment.InstanceId"),
        ("create-time", "CreateTime"),
        ("size", "Size"),
        ("snapshot-id", "SnapshotId"),
        ("volume-id", "VolumeId"),
        ("volume-type", "VolumeType"),
    ],
};

impl Service {
    /// EC2 CreateVolume.
    ///
    /// # Errors
    /// The snapshot is unknown, the size too small or missing, a tag malformed; no space.
    pub fn create_volume(&self, request: &CreateVolume) -> Result<Volume> {
        check_tags(&request.tags)?;
        if let Some(unknown) = request.volume_type.as_deref().filter(|t| !VOLUME_TYPES.contains(t))
        {
            let types = VOLUME_TYPES.join(", ");
            let why = format!("'{}' is no volume type; there are {types}", unknown.escape_debug());
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        let new = NewVolume {
            volume_id: None,
            size_bytes: request.size,
            volume_type: request.volume_type.clone(),
            attachment: None,
            tags: request.tags.clone(),
        };
        match &request.snapshot_id {
            Some(text) => {
                let snapshot = snapshot::resolve(&self.store, text)?;
                create_from_snapshot(&self.store, &snapshot, new, Durability::Durable)
            }
            None => create_empty(&self.store, new, Durability::Durable),
        }
    }

    /// EC2 DescribeVolumes.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_volumes(&self, request: &DescribeVolumes) -> Result<Vec<DescribedVolume>> {
        let volumes = self.store.volumes();
        let found = match request.volume_ids.as_slice() {
            [] => volumes.list()?.or_warn(),
            ids => ids.iter().map(|id| volumes.resolve(id)).collect::<Result<_>>()?,
        };
        let found = select(found, &request.filters, FILTERS)?;
        Ok(found.into_iter().map(|volume| described(&self.store, volume)).collect())
    }

    /// EC2 AttachVolume.
    ///
    /// # Errors
    /// The volume or the instance is unknown; as [`attach::attach`]'s.
    pub fn attach_volume(&self, request: &AttachVolume) -> Result<VolumeAttachment> {
        let volume = self.store.volumes().resolve(&request.volume_id)?.volume_id;
        let instance = instances::find(&self.store, &request.instance_id)?;
        let attachment = attach::attach(&self.store, &volume, &instance, &request.device)?;
        Ok(attached(volume, attachment, "attached"))
    }

    /// EC2 DetachVolume.
    ///
    /// # Errors
    /// The volume is unknown; as [`attach::detach`]'s.
    pub fn detach_volume(&self, volume_id: &str) -> Result<VolumeAttachment> {
        let volume = self.store.volumes().resolve(volume_id)?.volume_id;
        let attachment = attach::detach(&self.store, &volume)?;
        Ok(attached(volume, attachment, "detached"))
    }

    /// EC2 ModifyVolume: the new size in bytes.
    ///
    /// # Errors
    /// The volume is unknown; as [`attach::resize`]'s.
    pub fn modify_volume(&self, volume_id: &str, size: u64) -> Result<Volume> {
        let volume = self.store.volumes().resolve(volume_id)?.volume_id;
        attach::resize(&self.store, &volume, size)
    }

    /// EC2 DeleteVolume.
    ///
    /// # Errors
    /// The volume is unknown; as [`attach::delete`]'s.
    pub fn delete_volume(&self, volume_id: &str) -> Result<()> {
        attach::delete(&self.store, &self.store.volumes().resolve(volume_id)?)
    }
}

fn described(store: &Store, volume: Volume) -> DescribedVolume {
    let top = volume.layers.first().map_or("", |layer| &layer.file);
    let overlay = store.volumes().dir(&volume.volume_id).join(top);
    DescribedVolume {
        used_bytes: overlay.metadata().ok().map(|metadata| metadata.blocks() * 512),
        instance_id: attach::attached_to(store, &volume),
        volume,
    }
}

fn attached(volume_id: VolumeId, attachment: Attachment, state: &'static str) -> VolumeAttachment {
    let Attachment { instance_id, device, delete_on_termination, .. } = attachment;
    VolumeAttachment { volume_id, instance_id, device, delete_on_termination, state }
}
