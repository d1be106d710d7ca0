//! Images of instances (EC2 CreateImage).
//!
//! The image is in the store as pending from the beginning, with the ids of its snapshots, while
//! this process holds its lock. The volumes are fixed at one instant and linked as pending
//! snapshots; the instance goes on. Then the snapshots are sealed and the image becomes available.
//! Whatever fails leaves a failed image and an instance as it was; if this process is killed,
//! whoever looks next finds the image pending and unlocked: it has failed.

use super::dir::InstanceDir;
use super::refresh::refresh;
use super::snapshots::{self, Begun};
use super::{hibernation, lifecycle, uefi};
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, SnapshotId};
use crate::image::manifest::{MAX_GIB, MAX_MAPPINGS};
use crate::image::{catalog, manifest};
use crate::kernel::{self, BootFiles};
use crate::record::image::{
    BlockDeviceMapping, BootMode, EbsBlockDevice, Image, ImageState, LINUX, RootDeviceType,
    StateReason,
};
use crate::record::instance::{Instance, Mapping, State};
use crate::record::tag::Tag;
use crate::record::uefi::UefiVariables;
use crate::record::volume::{Volume, default_volume_type};
use crate::snapshot::{self, Wanted};
use crate::store::{self, Durability, Locked, Store};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// What an image of an instance is to be.
#[derive(Clone, Debug)]
pub struct CreateImage {
    /// 3 to 128 characters, not taken.
    pub name: String,
    /// At most 255 characters.
    pub description: Option<String>,
    /// Do not shut a running guest down.
    pub no_reboot: bool,
    /// How long the guest may take to shut down.
    pub timeout: Duration,
    /// The image's tags.
    pub tags: Vec<Tag>,
    /// Its snapshots' tags.
    pub snapshot_tags: Vec<Tag>,
    /// What differs from the instance's mapping.
    pub changes: Vec<DeviceChange>,
}

/// A change of one device of the mapping, in the shape of EC2's BlockDeviceMapping. What is not
/// given stays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeviceChange {
    /// One of the instance's, or a new one.
    pub device_name: String,
    /// What of the volume differs.
    #[serde(default)]
    pub ebs: Option<EbsChange>,
    /// `ephemeralN`, for a new device.
    #[serde(default)]
    pub virtual_name: Option<String>,
    /// Empty: the device is left out.
    #[serde(default)]
    pub no_device: Option<String>,
}

/// What of a volume differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EbsChange {
    /// For a new device.
    #[serde(default)]
    pub snapshot_id: Option<SnapshotId>,
    /// GiB, no fewer than the volume has.
    #[serde(default)]
    pub volume_size: Option<u64>,
    /// EC2's volume type.
    #[serde(default)]
    pub volume_type: Option<String>,
    /// The volumes of new instances go with them.
    #[serde(default)]
    pub delete_on_termination: Option<bool>,
}

/// What came of it.
#[derive(Debug)]
pub struct Created {
    /// The image.
    pub image: Image,
    /// For how long the guest's disks stood still, in microseconds, if it was running.
    pub pause_us: Option<u64>,
    /// The guest did not shut down in time and was cut off.
    pub forced: bool,
}

/// Make an image of an instance. `begun` is told its id as soon as it is in the store, pending.
///
/// # Errors
/// `InvalidParameterValue` for an instance-store root or an impossible mapping,
/// `IncorrectInstanceState`, `InvalidAMIName.*`; no space or I/O errors: the image has failed then.
pub fn create(
    store: &Store,
    dir: &InstanceDir,
    request: CreateImage,
    begun: impl FnOnce(&ImageId) -> Result<()>,
) -> Result<Created> {
    let record = refresh(dir)?.ok_or_else(|| lifecycle::not_found(dir.id().as_str()))?;
    check_state(&record.instance)?;
    hibernation::check_none(&record, "a snapshot")?;
    catalog::check_name(store, &request.name)?;
    // Held until the image is there.
    let boot = kernel::own(
        store,
        record.instance.kernel_id.as_ref(),
        record.instance.ramdisk_id.as_ref(),
    )?;
    let image = image(store, (&record.instance, &boot), &request)?;
    let tags = request.snapshot_tags.clone();
    crate::record::tag::check_tags(&tags)?;
    let given = |id: &SnapshotId| {
        request
            .changes
            .iter()
            .any(|c| c.ebs.as_ref().is_some_and(|e| e.snapshot_id.as_ref() == Some(id)))
    };
    let mapped =
        image.block_device_mappings.iter().filter_map(|m| m.ebs.as_ref()?.snapshot_id.clone());
    let new: Vec<SnapshotId> = mapped.filter(|id| !given(id)).collect();
    let mut locked = catalog::begin(store, image)?;
    let id = locked.record.image_id.clone();
    match begun(&id).and_then(|()| work(store, dir, &mut locked, &request)) {
        Ok((pause_us, forced)) => Ok(Created { image: locked.record.clone(), pause_us, forced }),
        Err(error) => {
            abandon(store, locked, &new, &error);
            Err(error)
        }
    }
}

/// The image has failed, or is gone if that was the user's will.
fn abandon(store: &Store, mut locked: Locked<Image>, new: &[SnapshotId], error: &Error) {
    if store.context().cancelled() {
        let mappings = locked.record.block_device_mappings.clone();
        let _ = locked.remove();
        for id in mappings.into_iter().filter_map(|m| m.ebs?.snapshot_id) {
            if new.contains(&id) {
                let _ = snapshot::delete(store, &id, false);
            }
        }
        return;
    }
    locked.record.state = ImageState::Failed;
    locked.record.state_reason = Some(StateReason::new(
        error.code().map_or("Server.InternalError", Code::as_str),
        error.message(),
    ));
    // If even that can't be written, the next command finds it pending and without a holder.
    let _ = locked.save(Durability::Durable);
}

fn check_state(instance: &Instance) -> Result<()> {
    let id = &instance.instance_id;
    if instance.root_device_type == RootDeviceType::InstanceStore {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("{id} has an instance-store root; an image of it has to be bundled"),
        ));
    }
    match instance.state {
        State::Running | State::Stopped => Ok(()),
        state => Err(Error::refused(
            Code::IncorrectInstanceState,
            format!("{id} is {}; an image is made of a running or stopped instance", state.name()),
        )),
    }
}

/// Everything between the pending image and the available one.
fn work(
    store: &Store,
    dir: &InstanceDir,
    locked: &mut Locked<Image>,
    request: &CreateImage,
) -> Result<(Option<u64>, bool)> {
    let running = dir.record()?.is_some_and(|r| r.instance.state == State::Running);
    let restart = running && !request.no_reboot;
    let forced = restart && shut_down(dir, request.timeout)?;
    let begun = freeze(store, dir, &locked.record, request);
    locked.record.uefi_variables = variables(store, dir);
    // Whatever came of it, the instance goes on, and before the long part.
    let started =
        if restart { lifecycle::start(dir, true, None, false).map(|_| ()) } else { Ok(()) };
    let (pending, pause_us) = begun?;
    started?;
    let mut outcome = Ok(());
    for snapshot in pending {
        // After one that failed, the others still get what they need to be deleted.
        outcome = outcome.and(snapshots::complete(store, Some(dir), snapshot).map(|_| ()));
    }
    outcome?;
    locked.record.state = ImageState::Available;
    locked.save(Durability::Durable)?;
    Ok((pause_us, forced))
}

/// The instance's UEFI variables. An image without them begins with the firmware's own, which boots
/// all the same: what can't be carried is no reason to have no image.
fn variables(store: &Store, dir: &InstanceDir) -> Option<UefiVariables> {
    let begin = "the image's instances begin with the firmware's own variables";
    let warn = |error: &Error| store.context().warn(format_args!("{}; {begin}", error.message()));
    uefi::keep(dir).inspect_err(warn).ok().flatten()
}

/// Have the guest shut down. True if it had to be cut off.
fn shut_down(dir: &InstanceDir, timeout: Duration) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    lifecycle::ask_to_stop(dir)?;
    while dir.vmm_alive()? {
        if let Err(error) = dir.store().context().check() {
            // The guest may be halfway down: it comes up again by itself.
            lifecycle::complete_stop(dir)?;
            lifecycle::start(dir, true, None, false)?;
            return Err(error);
        }
        if Instant::now() >= deadline {
            lifecycle::complete_stop(dir)?;
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    lifecycle::complete_stop(dir)?;
    Ok(false)
}

/// Fix the volumes that the image has, all at one instant, and begin their snapshots.
fn freeze(
    store: &Store,
    dir: &InstanceDir,
    image: &Image,
    request: &CreateImage,
) -> Result<(Vec<Begun>, Option<u64>)> {
    let wanted = |mapping: &Mapping| -> Option<Wanted> {
        let ours = |m: &&BlockDeviceMapping| m.device_name == mapping.device_name;
        let mapped = image.block_device_mappings.iter().find(ours)?;
        Some(Wanted {
            snapshot_id: mapped.ebs.as_ref()?.snapshot_id.clone()?,
            description: format!("Created by CreateImage({}) for {}", dir.id(), image.image_id),
            tags: request.snapshot_tags.clone(),
        })
    };
    snapshots::freeze(store, dir, wanted)
}

/// The image as it is to be, with new ids for its snapshots.
fn image(
    store: &Store,
    (instance, boot): (&Instance, &BootFiles),
    request: &CreateImage,
) -> Result<Image> {
    let mut mappings = Vec::new();
    for mapping in &instance.block_device_mappings {
        let volume = store.volumes().get(&mapping.ebs.volume_id)?;
        let change = request.changes.iter().find(|c| c.device_name == mapping.device_name);
        mappings.extend(mapped(mapping, &volume, change)?);
    }
    for disk in &instance.spore.ephemeral {
        let change = request.changes.iter().find(|c| c.device_name == disk.device_name);
        if change.is_none() {
            mappings.push(BlockDeviceMapping {
                device_name: disk.device_name.clone(),
                ebs: None,
                virtual_name: Some(disk.virtual_name.clone()),
                no_device: None,
            });
        }
    }
    for change in &request.changes {
        let known = |m: &Mapping| m.device_name == change.device_name;
        if !instance.block_device_mappings.iter().any(known) {
            mappings.extend(added(store, change)?);
        }
    }
    check_mappings(&mappings, &instance.root_device_name)?;
    let source = store.images().get(&instance.image_id).ok();
    Ok(Image {
        image_id: ImageId::generate()?,
        name: request.name.clone(),
        description: request.description.clone(),
        owner_id: store.owner_id(),
        creation_date: store::now(),
        state: ImageState::Pending,
        architecture: instance.architecture,
        virtualization_type: instance.virtualization_type,
        kernel_id: boot.kernel_id(),
        ramdisk_id: boot.ramdisk_id(),
        command_line: instance.spore.image_command_line.clone(),
        root_device_type: RootDeviceType::Ebs,
        root_device_name: instance.root_device_name.clone(),
        block_device_mappings: mappings,
        public: false,
        launch_permissions: Vec::new(),
        // EC2: an image of a paid image's instance carries its codes.
        product_codes: source.as_ref().map(|image| image.product_codes.clone()).unwrap_or_default(),
        hourly_rate: source.as_ref().and_then(|image| image.hourly_rate.clone()),
        platform: source.as_ref().and_then(|image| image.platform.clone()),
        platform_details: source
            .as_ref()
            .map_or_else(|| LINUX.to_owned(), |image| image.platform_details.clone()),
        boot_mode: boot_mode(instance, source.as_ref()),
        uefi_variables: None,
        imds_support: source.as_ref().and_then(|image| image.imds_support),
        transport: source.as_ref().and_then(|image| image.transport),
        disk_bus: source.as_ref().and_then(|image| image.disk_bus),
        source_instance_id: Some(instance.instance_id.clone()),
        source_image_id: Some(instance.image_id.clone()),
        source_image_region: None,
        image_location: None,
        deprecation_time: None,
        deregistration_protection: None,
        state_reason: None,
        client_token: None,
        tags: request.tags.clone(),
    })
}

/// As its source's, or as it boots now where that has gone.
fn boot_mode(instance: &Instance, source: Option<&Image>) -> Option<BootMode> {
    match source {
        Some(image) => image.boot_mode.or(instance.current_instance_boot_mode),
        None => instance.current_instance_boot_mode,
    }
}

/// # Errors
/// `InvalidBlockDeviceMapping`: a device twice, too many, or no root.
fn check_mappings(mappings: &[BlockDeviceMapping], root: &str) -> Result<()> {
    let names = mappings.iter().map(|m| &m.device_name);
    if names.clone().enumerate().any(|(n, name)| names.clone().take(n).any(|other| other == name)) {
        return Err(mapping_error("a device is mapped twice; map it once"));
    }
    if mappings.len() > MAX_MAPPINGS {
        return Err(mapping_error(format!("an image has at most {MAX_MAPPINGS} block devices")));
    }
    if !mappings.iter().any(|m| m.device_name == root && m.ebs.is_some()) {
        return Err(mapping_error(format!("the image has to have its root device {}", root)));
    }
    Ok(())
}

fn mapping_error(why: impl Into<String>) -> Error {
    Error::refused(Code::InvalidBlockDeviceMapping, why)
}

/// One of the instance's devices in the image; none if it is left out.
fn mapped(
    mapping: &Mapping,
    volume: &Volume,
    change: Option<&DeviceChange>,
) -> Result<Option<BlockDeviceMapping>> {
    let name = &mapping.device_name;
    if change.is_some_and(|change| change.virtual_name.is_some()) {
        return Err(mapping_error(format!("{name} is a volume and can't become ephemeral")));
    }
    match change.and_then(|change| change.no_device.as_deref()) {
        None => {}
        Some("") => return Ok(None),
        Some(_) => return Err(mapping_error(format!("NoDevice of {name} must be empty"))),
    }
    let change = change.and_then(|change| change.ebs.clone()).unwrap_or_default();
    if change.snapshot_id.is_some() {
        return Err(mapping_error(format!("{name} is the instance's; its snapshot is made anew")));
    }
    let size = change.volume_size.unwrap_or(volume.size);
    if !(volume.size..=MAX_GIB).contains(&size) {
        return Err(mapping_error(format!(
            "{name} can't have {size} GiB: give {} to {MAX_GIB}",
            volume.size
        )));
    }
    let ebs = EbsBlockDevice {
        snapshot_id: Some(SnapshotId::generate()?),
        volume_size: size,
        delete_on_termination: change
            .delete_on_termination
            .or(Some(mapping.ebs.delete_on_termination)),
        volume_type: change.volume_type.unwrap_or_else(|| volume.volume_type.clone()),
        read_only: mapping.ebs.read_only,
    };
    Ok(Some(BlockDeviceMapping {
        device_name: name.clone(),
        ebs: Some(ebs),
        virtual_name: None,
        no_device: None,
    }))
}

/// A device that the instance does not have.
fn added(store: &Store, change: &DeviceChange) -> Result<Option<BlockDeviceMapping>> {
    let name = &change.device_name;
    manifest::check_device_name(name)?;
    let mut mapping = BlockDeviceMapping {
        device_name: name.clone(),
        ebs: None,
        virtual_name: change.virtual_name.clone(),
        no_device: None,
    };
    match (&change.ebs, &change.virtual_name, change.no_device.as_deref()) {
        (Some(ebs), None, None) => {
            let least = match &ebs.snapshot_id {
                Some(id) => manifest::snapshot_gib(store, id)?,
                None => 1,
            };
            let size = ebs.volume_size.or(ebs.snapshot_id.as_ref().map(|_| least)).unwrap_or(0);
            if !(least..=MAX_GIB).contains(&size) {
                return Err(mapping_error(format!(
                    "{name} can't have {size} GiB: give {least} to {MAX_GIB}"
                )));
            }
            mapping.ebs = Some(EbsBlockDevice {
                snapshot_id: ebs.snapshot_id.clone(),
                volume_size: size,
                delete_on_termination: Some(ebs.delete_on_termination.unwrap_or(false)),
                volume_type: ebs.volume_type.clone().unwrap_or_else(default_volume_type),
                read_only: false,
            });
        }
        (None, Some(name), None) => manifest::check_virtual_name(name)?,
        (None, None, Some("")) => return Ok(None),
        _ => {
            return Err(mapping_error(format!(
                "{name} has to be Ebs, VirtualName or an empty NoDevice, and one of them"
            )));
        }
    }
    Ok(Some(mapping))
}
