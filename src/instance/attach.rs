//! Attaching volumes to instances and taking them off.

use super::attached::{attached_to, mapping};
use super::dir::{self, InstanceDir};
use super::resources::{LINGER, while_in_use};
use super::{lifecycle, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::VolumeId;
use crate::record::image::RootDeviceType;
use crate::record::instance::{Disk, MappedVolume, Mapping, State};
use crate::record::volume::{Attachment, Volume};
use crate::store::{self, Durability, Store};
use crate::volume;
use std::time::Duration;

/// Most volumes of an instance; each takes a device slot of the machine.
const MAX_VOLUMES: usize = 16;

/// Attach a volume to a stopped instance as `device`. It stays when the instance is terminated.
///
/// # Errors
/// `VolumeInUse`, `IncorrectInstanceState` if it is not stopped, `InvalidParameterValue` if the
/// device's name is malformed or taken, `AttachmentLimitExceeded`.
pub fn attach(
    store: &Store,
    volume: &VolumeId,
    instance: &InstanceDir,
    device: &str,
) -> Result<Attachment> {
    let mut locked = lifecycle::stopped(instance, "given a volume")?;
    let mut volume = store.volumes().lock(volume)?;
    let id = volume.record.volume_id.clone();
    if let Some(user) = attached_to(store, &volume.record) {
        return Err(Error::refused(
            Code::VolumeInUse,
            format!("{id} is attached to {user}; detach it first"),
        ));
    }
    let it = &mut locked.record.instance;
    if it.root_device_type == RootDeviceType::InstanceStore {
        return Err(Error::refused(
            Code::UnsupportedOperation,
            format!("{} has an instance-store root and can't be changed", it.instance_id),
        ));
    }
    crate::image::manifest::check_device_name(device)?;
    let mapped = it.block_device_mappings.iter().any(|m| m.device_name == device);
    if mapped || it.spore.ephemeral.iter().any(|e| e.device_name == device) {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("{device} of {} is taken; choose another device name", it.instance_id),
        ));
    }
    if it.block_device_mappings.len() >= MAX_VOLUMES {
        return Err(Error::refused(
            Code::AttachmentLimitExceeded,
            format!("{} has {MAX_VOLUMES} volumes, which is the most", it.instance_id),
        ));
    }
    let attachment = Attachment {
        instance_id: it.instance_id.clone(),
        device: device.to_owned(),
        // EC2's default for what is attached later.
        delete_on_termination: false,
        attach_time: Some(store::now()),
    };
    volume.record.attachment = Some(attachment.clone());
    volume.save(Durability::Durable)?;
    let ebs = MappedVolume {
        volume_id: id,
        delete_on_termination: false,
        read_only: false,
        attach_time: attachment.attach_time.clone(),
    };
    let mapping = Mapping { device_name: device.to_owned(), ebs };
    // The guest boots from its first disk.
    let at = if device == it.root_device_name { 0 } else { it.block_device_mappings.len() };
    it.block_device_mappings.insert(at, mapping);
    dir::save(&mut locked)?;
    Ok(attachment)
}

/// Take a volume off the stopped instance that it is attached to.
///
/// # Errors
/// `IncorrectState` if it is attached to none, `IncorrectInstanceState` if that is not stopped.
pub fn detach(store: &Store, volume: &VolumeId) -> Result<Attachment> {
    let record = store.volumes().get(volume)?;
    let (Some(attachment), Some(user)) = (record.attachment.clone(), attached_to(store, &record))
    else {
        return Err(Error::refused(
            Code::IncorrectState,
            format!("{volume} is attached to no instance"),
        ));
    };
    let mut locked = lifecycle::stopped(&InstanceDir::new(store, &user), "deprived of a volume")?;
    locked.record.instance.block_device_mappings.retain(|m| m.ebs.volume_id != *volume);
    dir::save(&mut locked)?;
    store.volumes().update(volume, Durability::Durable, |volume| {
        volume.attachment = None;
        Ok(())
    })?;
    Ok(attachment)
}

/// Delete a volume that is attached to nothing.
///
/// # Errors
/// `VolumeInUse`: a stopped instance needs its volumes too.
pub fn delete(store: &Store, record: &Volume) -> Result<()> {
    if let Some(user) = attached_to(store, record) {
        return Err(Error::refused(
            Code::VolumeInUse,
            format!(
                "{} is attached to {user}; detach it or terminate that first",
                record.volume_id
            ),
        ));
    }
    // The kernel may take a while to let go of it for the VMM that it was last attached to.
    while_in_use(LINGER, || volume::delete(store, &record.volume_id))
}

/// Make a volume larger, to `size` bytes. A guest that runs on it is told; others see it at their
/// next start.
///
/// # Errors
/// `InvalidParameterValue` if that is smaller or beyond 16 TiB; `VolumeInUse` if an instance that
/// runs can't be told; `UnsupportedOperation` if one has it for reading.
pub fn resize(store: &Store, id: &VolumeId, size: u64) -> Result<Volume> {
    let user = attached_to(store, &store.volumes().get(id)?);
    let user = user.map(|user| InstanceDir::new(store, &user));
    // Nobody starts, stops, attaches or detaches meanwhile.
    let instance = user.as_ref().map(lifecycle::current).transpose()?;
    let state = instance.as_ref().map(|locked| locked.record.instance.state);
    let mut locked = store.volumes().lock(id)?;
    let size = volume::grown(&locked.record, size)?;
    if let (Some(dir), Some(instance), Some(State::Running)) = (&user, &instance, state)
        && let Some(mapping) = mapping(&instance.record.instance, id)
    {
        if mapping.ebs.read_only {
            let why = format!("{} has {id} for reading; stop it first", dir.id());
            return Err(Error::refused(Code::UnsupportedOperation, why));
        }
        let disk = instance.record.instance.device_of(Disk::Volume(mapping))?;
        snapshots::grow(dir, &disk, &mut locked, size)?;
        return Ok(locked.record.clone());
    }
    let limit = if state.is_some_and(State::is_active) { Duration::ZERO } else { LINGER };
    while_in_use(limit, || volume::resize(&mut locked, size))?;
    Ok(locked.record.clone())
}
