//! Changing a stopped instance (EC2 ModifyInstanceAttribute), and how the guest of one that may run
//! gets at its metadata (ModifyInstanceMetadataOptions).

use super::dir::{self, InstanceDir, USER_DATA};
use super::launch::{check_size, uuid};
use super::{buses, cdroms, firmware, hibernation, host, lifecycle, network, types, vpc};
use crate::boot::cmdline;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{KernelId, RamdiskId};
use crate::kernel;
use crate::plan::{CpuModel, PvGrub};
use crate::record::image::RootDeviceType;
use crate::record::instance::{Instance, InstanceRecord, NestedVirtualization, State};
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::network::Network;
use crate::record::tag::{Tag, set_tags};
use crate::store::{Durability, Store, check_owner};
use std::path::PathBuf;

/// What is to be changed; what is `None` or empty stays.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Preset name: its CPUs and its memory.
    pub instance_type: Option<String>,
    /// vCPUs, over the type's.
    pub cpus: Option<u8>,
    /// Bytes of RAM, over the type's.
    pub memory: Option<u64>,
    /// Which instructions its guest finds.
    pub cpu_model: Option<CpuModel>,
    /// Whether its guest may run virtual machines of its own.
    pub nested_virtualization: Option<bool>,
    /// The tag Name.
    pub name: Option<String>,
    /// What boots: a kernel, or the firmware.
    pub kernel: Option<Option<KernelId>>,
    /// The firmware, in place of the host's own; the instance has no kernel then.
    pub firmware: Option<PathBuf>,
    /// Its ramdisk, or that it has none.
    pub ramdisk: Option<Option<RamdiskId>>,
    /// The discs in its CD-ROM drives from now on.
    pub cdroms: Option<Vec<PathBuf>>,
    /// Kept with the instance; empty for none.
    pub user_data: Option<Vec<u8>>,
    /// What its network interfaces hang on from now on, and the pairs of queues of each.
    pub networks: Option<(Vec<Network>, u8)>,
    /// How its guest gets at its metadata.
    pub metadata_options: MetadataOptionsRequest,
    /// Whether it gets it as a volume labelled CIDATA.
    pub no_cloud: Option<bool>,
    /// Device names, and whether their volumes go with the instance.
    pub delete_on_termination: Vec<(String, bool)>,
}

/// Change an instance that is stopped: all of it, or nothing if something is refused.
///
/// # Errors
/// `UnsupportedOperation` for an instance-store root, `IncorrectInstanceState`, also for another
/// machine than a hibernated one's memory is of; `InvalidParameterValue` for an unknown type,
/// `InvalidInstanceAttributeValue` for an unknown device, `InvalidParameterCombination` for
/// networks that no instance can have.
pub fn modify(
    store: &Store,
    dir: &InstanceDir,
    changes: &Changes,
    host_memory: u64,
) -> Result<InstanceRecord> {
    let record = dir.record()?.ok_or_else(|| lifecycle::not_found(dir.id().as_str()))?;
    if record.instance.root_device_type == RootDeviceType::InstanceStore {
        return Err(Error::refused(
            Code::UnsupportedOperation,
            format!("{} has an instance-store root and can't be changed", dir.id()),
        ));
    }
    let mut locked = lifecycle::stopped(dir, "changed")?;
    let before = locked.record.instance.clone();
    let instance = &mut locked.record.instance;
    resize(instance, changes, host_memory)?;
    modify_processor(instance, changes)?;
    if let Some(name) = &changes.name {
        set_tags(&mut instance.tags, &[Tag { key: "Name".into(), value: name.clone() }])?;
    }
    modify_boot(instance, changes)?;
    if let Some(ramdisk) = &changes.ramdisk {
        instance.ramdisk_id.clone_from(ramdisk);
    }
    if changes.kernel.is_some() || changes.ramdisk.is_some() {
        let (kernel, ramdisk) = (instance.kernel_id.as_ref(), instance.ramdisk_id.as_ref());
        let drivers = kernel::drivers(store, kernel, ramdisk);
        buses::fit(instance, &drivers);
    }
    if let Some((networks, queues)) = &changes.networks {
        network::check(networks)?;
        let id = &instance.instance_id;
        let mut interfaces = network::interfaces(networks, *queues, id)?;
        let placed = interfaces.iter_mut().map(|interface| (id.clone(), interface));
        vpc::place(store, placed.collect(), &[], false)?;
        instance.network_interfaces = interfaces;
    }
    metadata(instance, changes)?;
    hibernation::check_same_machine(&before, instance)?;
    let mut volumes = Vec::new();
    for (device, delete) in &changes.delete_on_termination {
        let found = instance.block_device_mappings.iter_mut().find(|m| m.device_name == *device);
        let Some(mapping) = found else {
            return Err(Error::refused(
                Code::InvalidInstanceAttributeValue,
                format!("{} has no volume at {}", instance.instance_id, device.escape_debug()),
            ));
        };
        mapping.ebs.delete_on_termination = *delete;
        volumes.push((mapping.ebs.volume_id.clone(), *delete));
    }
    if let Some(bytes) = &changes.user_data {
        replace_user_data(dir, bytes)?;
    }
    // The volume's record is what counts at the end, the instance's is what is shown: the former
    // first.
    for (volume, delete) in volumes {
        store.volumes().update(&volume, Durability::Durable, |volume| {
            if let Some(attachment) = &mut volume.attachment {
                attachment.delete_on_termination = delete;
            }
            Ok(())
        })?;
    }
    dir::save(&mut locked)?;
    Ok(locked.record.clone())
}

/// Change how the guest of an instance gets at its metadata. One that runs is answered so at once;
/// by another UUID it knows at its next start.
///
/// # Errors
/// `InvalidParameterValue` for tags that can't be metadata; it is terminated.
pub fn metadata_options(
    dir: &InstanceDir,
    request: MetadataOptionsRequest,
) -> Result<InstanceRecord> {
    let mut locked = lifecycle::current(dir)?;
    check_owner(locked.store(), &locked.record)?;
    let state = locked.record.instance.state;
    if matches!(state, State::ShuttingDown | State::Terminated) {
        let why = format!("{} is {}", dir.id(), state.name());
        return Err(Error::refused(Code::IncorrectInstanceState, why));
    }
    let changes = Changes { metadata_options: request, ..Changes::default() };
    metadata(&mut locked.record.instance, &changes)?;
    dir::save(&mut locked)?;
    vpc::update(dir, &locked.record)?;
    Ok(locked.record.clone())
}

/// How the guest gets at its metadata, and by which UUID it knows.
fn metadata(instance: &mut Instance, changes: &Changes) -> Result<()> {
    let options = changes.metadata_options.over(instance.metadata_options);
    options.check_tags(&instance.tags)?;
    instance.metadata_options = options;
    if let Some(no_cloud) = changes.no_cloud {
        instance.spore.no_cloud = no_cloud;
    }
    instance.spore.uuid = uuid(&instance.instance_id, &options, &instance.network_interfaces);
    Ok(())
}

/// The CPUs and the memory of a preset, and those over them.
fn resize(instance: &mut Instance, changes: &Changes, host_memory: u64) -> Result<()> {
    let preset = changes.instance_type.as_deref().map(types::find).transpose()?;
    let (cpus, memory) = match preset {
        Some(preset) => (preset.cpus, preset.memory_mib << 20),
        None => (instance.cpu_options.core_count, instance.spore.memory),
    };
    let (cpus, memory) = (changes.cpus.unwrap_or(cpus), changes.memory.unwrap_or(memory));
    let changed = (cpus, memory) != (instance.cpu_options.core_count, instance.spore.memory);
    if changed {
        check_size(cpus, memory)?;
    }
    if changed && memory > host_memory {
        return Err(Error::refused(
            Code::InsufficientInstanceCapacity,
            format!(
                "an instance of {} MiB exceeds this host's memory of {} MiB; choose a smaller type or --memory",
                memory >> 20,
                host_memory >> 20
            ),
        ));
    }
    if let Some(preset) = preset {
        instance.instance_type = preset.name.to_owned();
    }
    instance.cpu_options.core_count = cpus;
    instance.spore.memory = memory;
    Ok(())
}

/// What its guest sees of this host's processor, which must have it.
fn modify_processor(instance: &mut Instance, changes: &Changes) -> Result<()> {
    if let Some(model) = changes.cpu_model {
        instance.spore.cpu_model = model;
    }
    if let Some(nested) = changes.nested_virtualization {
        instance.cpu_options.nested_virtualization = NestedVirtualization::of(nested);
    }
    match (changes.cpu_model, changes.nested_virtualization) {
        (None, None) => Ok(()),
        _ => host::check(&instance.processor()),
    }
}

/// A kernel's command line stays in the record while firmware boots, for the next kernel. An
/// instance that firmware has booted from its first day gets one as at a launch.
fn modify_boot(instance: &mut Instance, changes: &Changes) -> Result<()> {
    if let Some(kernel) = &changes.kernel {
        instance.kernel_id.clone_from(kernel);
        instance.spore.firmware = None;
        if kernel.is_some() && instance.spore.command_line.is_empty() {
            let given = instance.spore.image_command_line.as_deref().unwrap_or_default();
            let identity = (&instance.instance_id, instance.ami_launch_index);
            let root = instance.spore.disk_bus.root_device();
            instance.spore.command_line = cmdline::assemble(given, "", root, identity)?;
        }
    }
    if let Some(firmware) = &changes.firmware {
        instance.kernel_id = None;
        instance.spore.firmware = Some(firmware.clone());
        instance.current_instance_boot_mode = Some(firmware::mode_of(firmware));
    }
    if let Some(discs) = &changes.cdroms {
        instance.spore.cdroms = cdroms::resolve(discs)?;
    }
    // Firmware has none, and a boot menu names its own.
    if instance.kernel_id.as_ref().is_none_or(|kernel| PvGrub::of(kernel).is_some()) {
        instance.ramdisk_id = None;
    }
    Ok(())
}

/// The new content, whole or not at all.
fn replace_user_data(dir: &InstanceDir, bytes: &[u8]) -> Result<()> {
    let owned = dir.owned()?;
    let written = match bytes {
        [] => owned.remove_if_there(USER_DATA),
        _ => owned.replace(USER_DATA, bytes, true),
    };
    written.or_fail(|| format!("write {}", dir.file(USER_DATA).display()))
}
