//! Volumes: CreateVolume, DescribeVolumes, AttachVolume, DetachVolume, ModifyVolume, DeleteVolume.

use super::filter::{Filter, Filters, found, select};
pub use super::shape::volume::{DescribedVolume, VolumeAttachment, VolumeModification};
use super::{Service, idempotent, instances};
use crate::error::{Code, Error, Result};
use crate::instance::attach;
use crate::record::tag::{Tag, check_tags};
use crate::record::token::ClientToken;
use crate::record::volume::{Modification, Volume};
use crate::snapshot;
use crate::store::{Durability, Store, now};
use crate::volume::{NewVolume, create_empty, create_from_snapshot};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

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
    /// What tells this request from others: the same under it is done once.
    pub client_token: Option<ClientToken>,
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
    /// The instance, which must be stopped, or running with a PCI bus.
    pub instance_id: String,
    /// What it is called in the instance's block device mapping, e.g. `/dev/vdb`.
    pub device: String,
}

/// EC2 DetachVolume.
#[derive(Clone, Debug)]
pub struct DetachVolume {
    /// The volume.
    pub volume_id: String,
    /// The guest of an instance that runs is not asked, and told afterwards.
    pub force: bool,
}

/// How often it is looked whether a guest has taken a volume, or let go of it.
const LOOK: Duration = Duration::from_millis(50);

/// EC2's filters of DescribeVolumes, and where its answer has their values.
const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("attachment.attach-time", "Attachments.AttachTime"),
        ("attachment.delete-on-termination", "Attachments.DeleteOnTermination"),
        ("attachment.device", "Attachments.Device"),
        ("attachment.instance-id", "Attachments.InstanceId"),
        ("attachment.status", "Attachments.State"),
        ("availability-zone", "AvailabilityZone"),
        ("create-time", "CreateTime"),
        ("encrypted", "Encrypted"),
        ("owner-id", "OwnerId"),
        ("size", "Size"),
        ("snapshot-id", "SnapshotId"),
        ("status", "State"),
        ("volume-id", "VolumeId"),
        ("volume-type", "VolumeType"),
    ],
};

/// EC2's filters of DescribeVolumesModifications.
const MODIFIED: Filters = Filters {
    tags: "Tags",
    names: &[
        ("modification-state", "ModificationState"),
        ("original-size", "OriginalSize"),
        ("original-volume-type", "OriginalVolumeType"),
        ("start-time", "StartTime"),
        ("target-size", "TargetSize"),
        ("target-volume-type", "TargetVolumeType"),
        ("volume-id", "VolumeId"),
    ],
};

/// The names of the filters that there are.
pub fn filter_names() -> Vec<&'static str> {
    FILTERS.names.iter().map(|(name, _)| *name).collect()
}

impl Service {
    /// EC2 CreateVolume.
    ///
    /// # Errors
    /// The snapshot is unknown, the size too small or missing, a tag malformed; no space;
    /// `IdempotentParameterMismatch`.
    pub fn create_volume(&self, request: &CreateVolume) -> Result<DescribedVolume> {
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
            client_token: request.client_token.clone(),
        };
        let given = request.client_token.as_ref();
        let _turn = given.map(|given| idempotent::turn(&self.store, given)).transpose()?;
        if let Some(given) = given {
            let volumes = self.store.volumes().list()?.or_warn();
            let token = |volume: &Volume| volume.client_token.clone();
            if let Some(made) = idempotent::made(&self.store, volumes, token, given)? {
                return Ok(described(&self.store, made));
            }
        }
        let made = match &request.snapshot_id {
            Some(text) => {
                let snapshot = snapshot::resolve(&self.store, text)?;
                create_from_snapshot(&self.store, &snapshot, new, Durability::Durable)?
            }
            None => create_empty(&self.store, new, Durability::Durable)?,
        };
        Ok(described(&self.store, made))
    }

    /// EC2 DescribeVolumes.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_volumes(&self, request: &DescribeVolumes) -> Result<Vec<DescribedVolume>> {
        let volumes = self.store.volumes();
        let listed = match request.volume_ids.as_slice() {
            [] => volumes.list()?.or_warn(),
            ids => found(ids, |id| volumes.find(id))?,
        };
        let found = listed.into_iter().map(|volume| described(&self.store, volume)).collect();
        select(found, &request.filters, FILTERS)
    }

    /// EC2 AttachVolume.
    ///
    /// # Errors
    /// The volume or the instance is unknown; as [`attach::attach`]'s.
    pub fn attach_volume(&self, request: &AttachVolume) -> Result<VolumeAttachment> {
        let volume = self.store.volumes().resolve(&request.volume_id)?;
        let instance = instances::find(&self.store, &request.instance_id)?;
        let device = &request.device;
        let attachment = attach::attach(&self.store, &volume.volume_id, &instance, device)?;
        let volume = self.store.volumes().get(&volume.volume_id)?;
        let state = attach::state(&self.store, &volume).map_or("detached", |(_, state)| state);
        Ok(VolumeAttachment::of(&volume, &attachment, state))
    }

    /// EC2 DetachVolume.
    ///
    /// # Errors
    /// The volume is unknown; as [`attach::detach`]'s.
    pub fn detach_volume(&self, request: &DetachVolume) -> Result<VolumeAttachment> {
        let volume = self.store.volumes().resolve(&request.volume_id)?;
        let attachment = attach::detach(&self.store, &volume.volume_id, request.force)?;
        let state = attach::state(&self.store, &volume).map_or("detached", |(_, state)| state);
        Ok(VolumeAttachment::of(&volume, &attachment, state))
    }

    /// Wait until an attachment has the state `wanted`, `attached` or `detached`, as long as
    /// `timeout`.
    ///
    /// # Errors
    /// The volume has gone; it was interrupted; the time is up.
    pub fn await_attachment(
        &self,
        attachment: &VolumeAttachment,
        wanted: &str,
        timeout: Duration,
    ) -> Result<VolumeAttachment> {
        let deadline = Instant::now() + timeout;
        let mut attachment = attachment.clone();
        while attachment.state != wanted {
            let (id, instance) = (&attachment.volume_id, &attachment.instance_id);
            if Instant::now() >= deadline {
                let remedy = match attachment.state {
                    "attaching" => {
                        "its guest has not taken it: does its kernel have ACPI hot-plug of PCI?"
                    }
                    "busy" => "its guest uses it: unmount it there, or take it away by --force",
                    _ => "its guest does not answer: take it away by --force",
                };
                let state = attachment.state;
                return Err(Error::timeout(format!("{id} of {instance} is {state}; {remedy}")));
            }
            self.store.context().check()?;
            std::thread::sleep(LOOK);
            let volume = self.store.volumes().get(id)?;
            attachment.state =
                attach::state(&self.store, &volume).map_or("detached", |(_, state)| state);
        }
        Ok(attachment)
    }

    /// EC2 ModifyVolume: the new size in bytes, which a guest that runs is told.
    ///
    /// # Errors
    /// The volume is unknown; as [`attach::resize`]'s.
    pub fn modify_volume(&self, volume_id: &str, size: u64) -> Result<VolumeModification> {
        let before = self.store.volumes().resolve(volume_id)?;
        let start_time = now();
        let after = attach::resize(&self.store, &before.volume_id, size)?;
        let after =
            self.store.volumes().update(&after.volume_id, Durability::Durable, |record| {
                record.modification = Some(Modification {
                    original_size: before.size,
                    target_size: after.size,
                    start_time,
                    end_time: now(),
                });
                Ok(record.clone())
            })?;
        VolumeModification::of(&after).ok_or_else(|| Error::failure("the volume is as it was"))
    }

    /// EC2 DescribeVolumesModifications: the last one of each volume that has had any.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_volumes_modifications(
        &self,
        volume_ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<VolumeModification>> {
        let volumes = self.store.volumes();
        let listed = match volume_ids {
            [] => volumes.list()?.or_warn(),
            ids => found(ids, |id| volumes.find(id))?,
        };
        select(listed.iter().filter_map(VolumeModification::of).collect(), filters, MODIFIED)
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
    let attached = attach::state(store, &volume);
    DescribedVolume {
        used_bytes: overlay.metadata().ok().map(|metadata| metadata.blocks() * 512),
        attachment_state: attached.as_ref().map(|(_, state)| *state),
        instance_id: attached.map(|(instance, _)| instance),
        volume,
    }
}
