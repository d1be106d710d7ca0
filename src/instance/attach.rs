//! Attaching volumes to instances and taking them off.
//!
//! A volume that a running instance's guest is asked to let go of is marked in the mapping, and
//! stays attached until the VMM says that it has gone, or the instance has stopped.

use super::attached::{attached_to, mapping};
use super::dir::{self, InstanceDir};
use super::fds::Fds;
use super::resources::{self, LINGER, while_in_use};
use super::{client, hibernation, lifecycle, prepare, snapshots};
use crate::control::{DiskState, Request, Status};
use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, VolumeId};
use crate::plan::TransportKind;
use crate::record::image::RootDeviceType;
use crate::record::instance::{Disk, Instance, InstanceRecord, MappedVolume, Mapping, State};
use crate::record::volume::{Attachment, Volume};
use crate::store::{self, Durability, Locked, Store};
use crate::volume;
use std::time::Duration;

/// Most volumes of an instance; each takes a device slot of the machine.
const MAX_VOLUMES: usize = 16;

/// Attach a volume to an instance as `device`. It stays when the instance is terminated. The guest
/// of one that runs is told, and takes it or not: [`state`] says.
///
/// # Errors
/// `VolumeInUse`, `IncorrectInstanceState` if it is neither stopped nor running,
/// `UnsupportedOperation` if it runs and has no PCI bus, `InvalidParameterValue` if the device's
/// name is malformed or taken, `AttachmentLimitExceeded`; its VMM can't.
pub fn attach(
    store: &Store,
    volume: &VolumeId,
    dir: &InstanceDir,
    device: &str,
) -> Result<Attachment> {
    let mut instance = lifecycle::current(dir)?;
    let runs = runs(&instance, "given a volume")?;
    if runs {
        settle(dir, &mut instance)?;
    }
    let mut volume = store.volumes().lock(volume)?;
    if let Some(user) = attached_to(store, &volume.record) {
        return Err(Error::refused(
            Code::VolumeInUse,
            format!("{} is attached to {user}; detach it first", volume.record.volume_id),
        ));
    }
    check_place(&instance.record.instance, device)?;
    let attachment = Attachment {
        instance_id: dir.id().clone(),
        device: device.to_owned(),
        // EC2's default for what is attached later.
        delete_on_termination: false,
        attach_time: Some(store::now()),
    };
    volume.record.attachment = Some(attachment.clone());
    volume.save(Durability::Durable)?;
    let ebs = MappedVolume {
        volume_id: volume.record.volume_id.clone(),
        delete_on_termination: false,
        read_only: false,
        detaching: false,
        attach_time: attachment.attach_time.clone(),
    };
    let mapping = Mapping { device_name: device.to_owned(), ebs };
    let it = &mut instance.record.instance;
    // The guest boots from its first disk.
    let at = if device == it.root_device_name { 0 } else { it.block_device_mappings.len() };
    it.block_device_mappings.insert(at, mapping.clone());
    dir::save(&mut instance)?;
    if runs && let Err(error) = plug(dir, &mut instance, &mapping) {
        instance.record.instance.block_device_mappings.remove(at);
        dir::save(&mut instance)?;
        volume.record.attachment = None;
        volume.save(Durability::Durable)?;
        return Err(error);
    }
    Ok(attachment)
}

/// Whether the instance runs, with a bus that volumes come to and go from; else it is stopped.
fn runs(instance: &Locked<InstanceRecord>, cannot: &str) -> Result<bool> {
    let it = &instance.record.instance;
    match it.state {
        State::Stopped => {
            hibernation::check_none(&instance.record, "another set of them").map(|()| false)
        }
        State::Running if it.spore.transport == TransportKind::Pci => Ok(true),
        State::Running => Err(Error::refused(
            Code::UnsupportedOperation,
            format!(
                "{} can't be {cannot} while it runs, for its devices are virtio-mmio: stop it first, or launch it \
                 with --transport pci",
                it.instance_id
            ),
        )),
        _ => Err(lifecycle::incorrect_state(
            instance,
            &format!("{cannot}; it must be stopped or running"),
        )),
    }
}

/// Check that a volume may be attached to the instance as `device`.
fn check_place(it: &Instance, device: &str) -> Result<()> {
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
    Ok(())
}

/// Hand a volume to the VMM of a running instance, whose record maps it already.
fn plug(dir: &InstanceDir, instance: &mut Locked<InstanceRecord>, mapping: &Mapping) -> Result<()> {
    let it = &instance.record.instance;
    let disk = it.device_of(Disk::Volume(mapping))?;
    let opened = resources::open_volume(dir.store(), &mapping.ebs.volume_id, false)?;
    let mut fds = Fds::default();
    let plan = prepare::open_disk(&mut fds, mapping, it, opened);
    let passed: Vec<_> = fds.numbered().map(|(fd, _)| fd).collect();
    client::ask_with(dir, &Request::Attach { disk, plan }, &passed)?;
    // Of use only where its memory outlives it, which a start checks.
    match client::status(dir) {
        Ok(status) => keep_status(instance, &status),
        Err(_) => Ok(()),
    }
}

/// Keep in the record of a running instance where its devices are.
fn keep_status(instance: &mut Locked<InstanceRecord>, status: &Status) -> Result<()> {
    let it = &mut instance.record.instance;
    it.spore.slots.clone_from(&status.slots);
    let engine = |disk| Some(status.disks.get(&it.device_of(disk).ok()?)?.engine);
    it.spore.engines = it.disks().map_while(engine).collect();
    dir::save(instance)
}

/// Take off a running instance those of its volumes that its guest has let go of since it was
/// asked.
fn settle(dir: &InstanceDir, instance: &mut Locked<InstanceRecord>) -> Result<()> {
    let mappings = &instance.record.instance.block_device_mappings;
    let going: Vec<Mapping> = mappings.iter().filter(|m| m.ebs.detaching).cloned().collect();
    if going.is_empty() {
        return Ok(());
    }
    let status = client::status(dir)?;
    for mapping in going {
        let device = instance.record.instance.device_of(Disk::Volume(&mapping))?;
        if !status.disks.contains_key(&device) {
            let id = &mapping.ebs.volume_id;
            instance.record.instance.block_device_mappings.retain(|m| m.ebs.volume_id != *id);
            keep_status(instance, &status)?;
            forget(dir.store(), id)?;
        }
    }
    Ok(())
}

/// The volume's record says no more that it is attached.
fn forget(store: &Store, volume: &VolumeId) -> Result<()> {
    store.volumes().update(volume, Durability::Durable, |volume| {
        volume.attachment = None;
        Ok(())
    })?;
    Ok(())
}

/// Take a volume off the instance that it is attached to. The guest of one that runs is asked to
/// let go of it, and does or not: [`state`] says. With `force` it is not asked.
///
/// # Errors
/// `IncorrectState` if it is attached to none, `IncorrectInstanceState` if that is neither stopped
/// nor running; `UnsupportedOperation` if it runs and the volume is its root or there is no PCI
/// bus; its VMM can't.
pub fn detach(store: &Store, volume: &VolumeId, force: bool) -> Result<Attachment> {
    let record = store.volumes().get(volume)?;
    let (Some(attachment), Some(user)) = (record.attachment.clone(), attached_to(store, &record))
    else {
        return Err(Error::refused(
            Code::IncorrectState,
            format!("{volume} is attached to no instance"),
        ));
    };
    let dir = InstanceDir::new(store, &user);
    let mut instance = lifecycle::current(&dir)?;
    if runs(&instance, "deprived of a volume")? {
        ask_to_go(&dir, &mut instance, volume, force)?;
        settle(&dir, &mut instance)?;
        return Ok(attachment);
    }
    instance.record.instance.block_device_mappings.retain(|m| m.ebs.volume_id != *volume);
    dir::save(&mut instance)?;
    forget(store, volume)?;
    Ok(attachment)
}

/// Have the guest of a running instance let go of a volume.
fn ask_to_go(
    dir: &InstanceDir,
    instance: &mut Locked<InstanceRecord>,
    volume: &VolumeId,
    force: bool,
) -> Result<()> {
    let it = &instance.record.instance;
    let Some(mapping) = mapping(it, volume) else { return Ok(()) };
    if mapping.device_name == it.root_device_name {
        let why = format!("{volume} is the root of {}; stop that first", dir.id());
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let disk = it.device_of(Disk::Volume(mapping))?;
    // Before it is done: whoever looks next finds out what became of it.
    mark(instance, volume, true)?;
    if !client::status(dir)?.disks.contains_key(&disk) {
        return Ok(());
    }
    let asked = client::ask_with(dir, &Request::Detach { disk, force }, &[]);
    asked.map(drop).or_else(|error| mark(instance, volume, false).and(Err(error)))
}

fn mark(instance: &mut Locked<InstanceRecord>, volume: &VolumeId, detaching: bool) -> Result<()> {
    let mappings = &mut instance.record.instance.block_device_mappings;
    let of = mappings.iter_mut().filter(|mapping| mapping.ebs.volume_id == *volume);
    of.for_each(|mapping| mapping.ebs.detaching = detaching);
    dir::save(instance)
}

/// How far a volume has come to the instance that it is attached to, or gone from it, in EC2's
/// words; `None` if it is attached to none. The VMM is asked only where a volume came or went while
/// it ran.
pub fn state(store: &Store, volume: &Volume) -> Option<(InstanceId, &'static str)> {
    let user = attached_to(store, volume)?;
    let dir = InstanceDir::new(store, &user);
    let attached = Some((user, DiskState::Attached.name()));
    let Ok(record) = dir::instances(store).get(dir.id()) else { return attached };
    let it = &record.instance;
    let Some(mapping) = mapping(it, &volume.volume_id) else { return attached };
    let detaching = mapping.ebs.detaching;
    if it.state != State::Running || !detaching && it.spore.slots.is_empty() {
        return attached;
    }
    let device = it.device_of(Disk::Volume(mapping)).ok()?;
    let Ok(status) = client::status(&dir) else { return attached };
    match status.disks.get(&device) {
        Some(disk) => Some((it.instance_id.clone(), disk.state.name())),
        // A command that was killed has not handed it over.
        None if !detaching => Some((it.instance_id.clone(), DiskState::Attaching.name())),
        None => {
            // If it can't be written down, the next look does it.
            let _ = lifecycle::current(&dir).and_then(|mut locked| settle(&dir, &mut locked));
            None
        }
    }
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
    if let Some(instance) = &instance {
        hibernation::check_none(&instance.record, "a larger one")?;
    }
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
