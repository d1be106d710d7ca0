//! From a record to everything that a VMM needs open: files, volumes, sockets, locks.

use super::boot_menu::{self, Layers};
use super::dir::{self, CONSOLE, InstanceDir, USER_DATA};
use super::fds::Fds;
use super::launch::LaunchPlan;
use super::shares::{self, Servers};
use super::{cdroms, cgroup, ephemeral, firmware, host, metadata, network, resources, uefi};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::VolumeId;
use crate::instance::mapping::VolumePlan;
use crate::plan::{
    BootPlan, Chipset, DeviceConfig, DeviceId, DeviceKind, DiskBus, DiskFormat, DiskPlan,
    FirmwareKind, LayerPlan, PvGrub, VmConfig, VmPlan, VsockPlan,
};
use crate::record::image::{BootMode, RootDeviceType};
use crate::record::instance::{
    CpuOptions, Disk, HibernationOptions, Instance, InstanceRecord, MappedVolume, Mapping, Spore,
    State,
};
use crate::store::beneath::Owned;
use crate::store::{self, Durability, Locked, Store};
use crate::volume::Opened;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What the entropy device is called.
const ENTROPY: &str = "entropy";
/// What the socket device is called.
const VSOCK: &str = "vsock";
/// Connections to a socket of the VMM's that wait to be let in, as many as std's.
const BACKLOG: i32 = 128;
/// What the disk with the metadata is called.
const METADATA: &str = "cidata";

/// Most request queues of a disk: more vCPUs share them.
const MAX_QUEUES: u16 = 4;

/// A VM ready to be spawned: the plan and the descriptors that it names.
#[derive(Debug)]
pub struct Prepared {
    /// The plan; its descriptor numbers are those of `fds`.
    pub plan: VmPlan,
    /// Descriptors and their numbers in the VMM.
    pub fds: Fds,
    /// The servers of its shared directories, which end with the VMM.
    pub servers: Servers,
    /// The control group that it and they are put into.
    pub group: Option<PathBuf>,
    /// Our end of the ready pipe.
    pub ready: File,
}

/// Make the instance and its volumes. It appears pending and with its lock held.
///
/// # Errors
/// No space, no permission, a snapshot is gone; everything is undone then.
pub fn make(
    store: &Store,
    plan: &LaunchPlan,
    user_data: Option<&[u8]>,
) -> Result<(InstanceDir, Locked<InstanceRecord>)> {
    // Not synced: what a power failure takes now has never run. It is saved durably when it is up.
    let mappings = mappings(plan)?;
    let mut locked = dir::instances(store).create_locked(Durability::Volatile, |_| {
        let mut record = record(store, plan);
        // Before there are any: whoever finds the VMM running and its launcher dead knows them by
        // this.
        let lasts = |mapping: &&Mapping| !record.instance.is_instance_store(&mapping.device_name);
        let lasting = mappings.iter().filter(lasts).cloned().collect();
        record.instance.block_device_mappings = lasting;
        Ok(record)
    })?;
    locked.record.instance.block_device_mappings = mappings;
    let dir = InstanceDir::new(store, &plan.instance_id);
    match furnish(&dir, &locked, plan, user_data) {
        Ok(()) => Ok((dir, locked)),
        Err(error) => {
            let _ = undo(store, locked);
            Err(error)
        }
    }
}

fn furnish(
    dir: &InstanceDir,
    locked: &Locked<InstanceRecord>,
    plan: &LaunchPlan,
    user_data: Option<&[u8]>,
) -> Result<()> {
    if let Some(bytes) = user_data {
        let mut file = dir.open_log(USER_DATA)?;
        file.write_all(bytes).or_fail(|| format!("write {}", dir.file(USER_DATA).display()))?;
    }
    for (volume, mapping) in plan.volumes.iter().zip(&locked.record.instance.block_device_mappings)
    {
        resources::create_volume(dir.store(), &mapping.ebs.volume_id, volume, plan)?;
    }
    Ok(())
}

/// The plan's volumes, which are yet to be made.
fn mappings(plan: &LaunchPlan) -> Result<Vec<Mapping>> {
    let mapping = |volume: &VolumePlan| {
        Ok(Mapping {
            device_name: volume.device_name.clone(),
            ebs: MappedVolume {
                volume_id: VolumeId::generate()?,
                delete_on_termination: volume.delete_on_termination,
                read_only: volume.read_only,
                detaching: false,
                attach_time: Some(store::now()),
            },
        })
    };
    plan.volumes.iter().map(mapping).collect()
}

/// Remove an instance whose VMM is gone, as if it had never been.
///
/// # Errors
/// Something of it can't be removed. The next command does it again: the record is pending, or says
/// that it ended.
pub fn undo(store: &Store, locked: Locked<InstanceRecord>) -> Result<()> {
    if let Some(group) = &locked.record.instance.spore.control_group {
        cgroup::remove(group);
    }
    resources::remove_volumes(store, &locked.record)?;
    locked.remove()
}

/// The record that a plan begins as.
fn record(store: &Store, plan: &LaunchPlan) -> InstanceRecord {
    InstanceRecord {
        reservation_id: plan.reservation_id.clone(),
        owner_id: store.owner_id(),
        instance: Instance {
            instance_id: plan.instance_id.clone(),
            image_id: plan.image_id.clone(),
            state: State::Pending,
            state_reason: None,
            ami_launch_index: plan.launch_index,
            instance_type: plan.instance_type.clone(),
            launch_time: store::now(),
            architecture: plan.architecture,
            virtualization_type: plan.virtualization_type,
            kernel_id: plan.kernel.clone(),
            ramdisk_id: plan.ramdisk.clone(),
            root_device_name: plan
                .volumes
                .first()
                .map_or_else(String::new, |v: &VolumePlan| v.device_name.clone()),
            root_device_type: plan.root_device_type,
            block_device_mappings: Vec::new(),
            network_interfaces: plan.network_interfaces.clone(),
            cpu_options: CpuOptions::of(plan.cpus, plan.processor),
            hibernation_options: HibernationOptions {
                configured: plan.root_device_type == RootDeviceType::Ebs,
            },
            key_name: plan.metadata.key.as_ref().map(|key| key.name.clone()),
            client_token: plan.client_token.clone(),
            current_instance_boot_mode: plan.boot_mode,
            metadata_options: plan.metadata.options,
            instance_initiated_shutdown_behavior: plan.shutdown_behavior,
            tags: plan.tags.clone(),
            product_codes: plan.product_codes.clone(),
            platform_details: plan.platform_details.clone(),
            spore: own_part(plan),
        },
    }
}

/// What EC2 has no word for.
fn own_part(plan: &LaunchPlan) -> Spore {
    Spore {
        memory: plan.memory,
        firmware: plan.firmware.clone(),
        command_line: plan.command_line.clone(),
        image_command_line: plan.image_command_line.clone(),
        append: plan.append.clone(),
        boot_entry: None,
        boot_environment: None,
        no_cloud: plan.metadata.no_cloud,
        public_key: plan.metadata.key.as_ref().map(|key| key.public_key.clone()),
        uuid: plan.uuid.clone(),
        cpu_model: plan.processor.model,
        transport: plan.transport,
        disk_bus: plan.disk_bus,
        engine: plan.engine,
        disk_limits: plan.disk_limits,
        net_limits: plan.net_limits,
        engines: Vec::new(),
        slots: BTreeMap::new(),
        restart: plan.restart,
        restarts: 0,
        ephemeral: plan.ephemeral.clone(),
        shares: plan.shares.clone(),
        cdroms: plan.cdroms.clone(),
        pid: None,
        starts: 0,
        console_start: 0,
        forgotten: None,
        cgroup_limits: plan.cgroup_limits,
        control_group: None,
        hourly_rate: plan.hourly_rate.clone(),
        ended_at: None,
        hibernated: None,
        terminated_at: None,
    }
}

/// How a VMM is to begin.
#[derive(Debug, Default)]
pub struct Beginning<'a> {
    /// Its launcher waits until it says that it runs.
    pub wait: bool,
    /// The entry of the boot menu, where one says what boots.
    pub entry: Option<&'a str>,
    /// The memory file of a hibernated instance.
    pub memory: Option<File>,
    /// The pipe whose end-of-file ends it.
    pub lifeline: Option<&'a OwnedFd>,
}

/// Open everything that the VMM of a pending instance needs. The caller holds the instance's lock.
///
/// # Errors
/// A file of the instance, its kernel or its volumes can't be opened; its boot menu has nothing
/// that boots.
pub fn open(
    dir: &InstanceDir,
    record: &mut InstanceRecord,
    beginning: Beginning<'_>,
) -> Result<Prepared> {
    let Beginning { wait, entry, memory, lifeline } = beginning;
    let lifeline = lifeline.map(OwnedFd::try_clone).transpose().or_fail(|| "keep a lifeline")?;
    let mut fds = Fds::default();
    begin(&mut record.instance, memory.is_some())?;
    dir.remove_sockets()?;
    let console = dir.open_log(CONSOLE)?;
    record.instance.spore.console_start =
        console.metadata().or_fail(|| format!("read {}", dir.file(CONSOLE).display()))?.len();
    // First: whether a tap can be had is the host's to say.
    let interfaces = network::open(&mut fds, dir, record)?;
    let instance = record.instance.clone();
    let mut devices = Vec::new();
    let mut root = None;
    for mapping in &instance.block_device_mappings {
        let opened =
            resources::open_volume(dir.store(), &mapping.ebs.volume_id, mapping.ebs.read_only)?;
        if mapping.device_name == instance.root_device_name {
            root = Some(boot_menu::layers(&opened)?);
        }
        let id = instance.device_of(Disk::Volume(mapping))?;
        devices.push((id, DeviceKind::Disk(open_disk(&mut fds, mapping, &instance, opened))));
    }
    devices.extend(disks_of_a_run(dir, &mut fds, &instance, memory.is_some())?);
    devices.push((ENTROPY.parse()?, DeviceKind::Entropy));
    devices.extend(interfaces);
    devices.push((VSOCK.parse()?, DeviceKind::Vsock(sockets(dir, &mut fds)?)));
    let (shared, servers) = shares::open(&mut fds, &instance)?;
    devices.extend(shared);
    devices.extend(cdroms::open(&mut fds, &instance)?);
    let boot = match instance.kernel_id.as_ref().and_then(PvGrub::of) {
        Some(from) if memory.is_some() => boot_menu::at_reset(&mut fds, &instance, from)?,
        _ => boot(dir, &mut fds, record, root, entry)?,
    };
    resources::release_instance_store(dir.store(), &mut record.instance)?;
    let (ready, ready_end) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_fail(|| "create a pipe")?;
    let plan = VmPlan {
        instance_id: instance.instance_id.clone(),
        launch_index: instance.ami_launch_index,
        uuid: instance.spore.uuid.clone(),
        oem_strings: metadata::credentials(&instance),
        config: config(&instance, boot, devices),
        cpuid: host::cpuid().to_vec(),
        console: fds.add(console),
        times: Some(fds.add(dir.open_times()?)),
        control: Some(fds.add(listen(dir, dir.control_path()?, SocketType::STREAM)?)),
        report: fds.add(dir.open_report()?),
        ready: wait.then(|| fds.add(ready_end)),
        lock: Some(fds.add(dir.take_vmm_lock()?)),
        lifeline: lifeline.map(|fd| fds.add(fd)),
        first_io: None,
        resume: memory.map(|file| fds.add(file)),
        sandbox: true,
    };
    // Last: what fails before leaves none.
    let limits = record.instance.spore.cgroup_limits;
    let group = (!limits.is_none()).then(|| cgroup::make(dir.id(), &limits)).transpose()?;
    record.instance.spore.control_group.clone_from(&group);
    Ok(Prepared { plan, fds, servers, group, ready: ready.into() })
}

/// The machine of an instance.
fn config(instance: &Instance, boot: BootPlan, devices: Vec<(DeviceId, DeviceKind)>) -> VmConfig {
    let spore = &instance.spore;
    VmConfig {
        cpus: instance.cpu_options.core_count,
        processor: instance.processor(),
        memory: spore.memory,
        boot,
        chipset: Chipset { transport: spore.transport, disk_bus: spore.disk_bus },
        devices: in_slots(devices, &spore.slots),
    }
}

/// A machine that does not go on has its devices in order, nothing to let go of, and a processor
/// that this host can give it.
fn begin(instance: &mut Instance, goes_on: bool) -> Result<()> {
    if goes_on {
        return Ok(());
    }
    instance.spore.slots.clear();
    instance.block_device_mappings.retain(|mapping| !mapping.ebs.detaching);
    host::check(&instance.processor())
}

/// The disks that are new at every boot, or as they were if the instance goes on: empty ones, and
/// the volume labelled CIDATA.
fn disks_of_a_run(
    dir: &InstanceDir,
    fds: &mut Fds,
    instance: &Instance,
    goes_on: bool,
) -> Result<Vec<(DeviceId, DeviceKind)>> {
    let begin = if goes_on { ephemeral::open } else { ephemeral::create };
    let mut disks = Vec::new();
    for disk in &instance.spore.ephemeral {
        let plan = ephemeral_disk(fds, begin(dir, disk)?, ephemeral::serial(dir, disk)?, instance);
        disks.push((instance.device_of(Disk::Ephemeral(disk))?, DeviceKind::Disk(plan)));
    }
    if instance.spore.no_cloud {
        let disk = metadata_disk(fds, metadata::volume(dir, instance)?, instance)?;
        disks.push((METADATA.parse()?, DeviceKind::Disk(disk)));
    }
    Ok(disks)
}

/// Devices in slots of their order; those of a machine that goes on, in the slots that it `had`.
fn in_slots(
    devices: Vec<(DeviceId, DeviceKind)>,
    had: &BTreeMap<DeviceId, u8>,
) -> Vec<DeviceConfig> {
    let device = |(slot, (id, kind))| {
        let slot = had.get(&id).copied().unwrap_or(slot);
        DeviceConfig { id, slot, kind }
    };
    (0..=u8::MAX).zip(devices).map(device).collect()
}

/// What the VMM executes first: the firmware that boots the root device, a kernel, or what a boot
/// menu says.
fn boot(
    dir: &InstanceDir,
    fds: &mut Fds,
    record: &mut InstanceRecord,
    root: Option<Layers>,
    entry: Option<&str>,
) -> Result<BootPlan> {
    let instance = &mut record.instance;
    if let Some(from) = instance.kernel_id.as_ref().and_then(PvGrub::of) {
        return boot_menu::boot(dir.store(), fds, instance, from, root, entry);
    }
    if entry.is_some() {
        return Err(Error::refused(
            Code::InvalidParameterCombination,
            format!("{} does not boot by PV-GRUB: `BootEntry` has no meaning", dir.id()),
        ));
    }
    let Some(kernel) = &instance.kernel_id else {
        return by_firmware(dir, fds, instance);
    };
    Ok(BootPlan::Direct {
        kernel: Some(fds.add(resources::open_kernel(dir.store(), kernel)?)),
        initrd: match &instance.ramdisk_id {
            Some(id) => Some(fds.add(resources::open_ramdisk(dir.store(), id)?)),
            None => None,
        },
        cmdline: instance.spore.command_line.clone(),
        menu: None,
    })
}

/// The firmware of an instance; with its variables, if it is UEFI.
fn by_firmware(dir: &InstanceDir, fds: &mut Fds, instance: &Instance) -> Result<BootPlan> {
    let given = instance.spore.firmware.as_deref();
    if instance.current_instance_boot_mode != Some(BootMode::Uefi) {
        let image = fds.add(firmware::open(given)?);
        return Ok(BootPlan::Firmware { image, kind: FirmwareKind::Bios, variables: None });
    }
    // It may have gone since: then the variables are there, or begin as the firmware's own.
    let image = dir.store().images().get(&instance.image_id).ok();
    let variables = image.as_ref().and_then(|image| image.uefi_variables.as_ref());
    let (code, variables) = uefi::open(dir, given, variables)?;
    let (image, variables) = (fds.add(code), Some(fds.add(variables)));
    Ok(BootPlan::Firmware { image, kind: FirmwareKind::Uefi, variables })
}

/// A volume as a disk of the instance.
pub(super) fn open_disk(
    fds: &mut Fds,
    mapping: &Mapping,
    instance: &Instance,
    opened: Opened,
) -> DiskPlan {
    let volume = &mapping.ebs;
    let layers = opened
        .layers
        .into_iter()
        .map(|(file, format): (File, DiskFormat)| LayerPlan { fd: fds.add(file), format })
        .collect();
    DiskPlan {
        volume_id: volume.volume_id.clone(),
        read_only: volume.read_only,
        layers,
        hold: Some(fds.add(opened.hold)),
        engine: instance.spore.engine,
        queues: queues(instance),
        limits: instance.spore.disk_limits,
    }
}

fn ephemeral_disk(fds: &mut Fds, file: File, serial: VolumeId, instance: &Instance) -> DiskPlan {
    DiskPlan {
        volume_id: serial,
        read_only: false,
        layers: vec![LayerPlan { fd: fds.add(file), format: DiskFormat::Qcow2 }],
        hold: None,
        engine: instance.spore.engine,
        queues: queues(instance),
        limits: instance.spore.disk_limits,
    }
}

fn sockets(dir: &InstanceDir, fds: &mut Fds) -> Result<VsockPlan> {
    let stream = listen(dir, dir.vsock_path()?, SocketType::STREAM)?;
    let seqpacket = listen(dir, dir.vsock_seqpacket_path()?, SocketType::SEQPACKET)?;
    Ok(VsockPlan { stream: fds.add(stream), seqpacket: fds.add(seqpacket) })
}

/// The volume labelled CIDATA, which one queue is enough for.
fn metadata_disk(fds: &mut Fds, file: File, instance: &Instance) -> Result<DiskPlan> {
    Ok(DiskPlan {
        volume_id: metadata::volume_id(&instance.instance_id)?,
        read_only: true,
        layers: vec![LayerPlan { fd: fds.add(file), format: DiskFormat::Raw }],
        hold: None,
        engine: instance.spore.engine,
        queues: least_queues(instance),
        limits: instance.spore.disk_limits,
    })
}

fn queues(instance: &Instance) -> u16 {
    u16::from(instance.cpu_options.core_count).clamp(least_queues(instance), MAX_QUEUES)
}

/// EDK2's driver for NVMe makes two I/O queues, and takes no controller with fewer. (NvmExpressDxe)
fn least_queues(instance: &Instance) -> u16 {
    match instance.spore.disk_bus {
        DiskBus::Virtio => 1,
        DiskBus::Nvme => 2,
    }
}

/// A listening socket, 0600 in the instance's 0700 directory. It does not block: a program that is
/// gone before it is let in keeps the VMM's thread from nothing.
fn listen(dir: &InstanceDir, (path, _dir): (PathBuf, Owned), kind: SocketType) -> Result<OwnedFd> {
    let doing = || format!("create a socket of {}", dir.id());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, kind, flags, None).or_fail(doing)?;
    bind(&listener, &SocketAddrUnix::new(&path).or_fail(doing)?).or_fail(doing)?;
    rustix::net::listen(&listener, BACKLOG).or_fail(doing)?;
    rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR).or_fail(doing)?;
    Ok(listener)
}
