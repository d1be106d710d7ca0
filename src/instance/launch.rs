//! From what was asked for to N exact plans, without touching anything.

use super::buses::buses;
use super::firmware;
use super::ids::Ids;
pub use super::launch_metadata::{LaunchKey, LaunchMetadata, uuid};
use super::mapping::{self, VolumePlan};
use super::network;
use super::types::{self, InstanceType};
use crate::boot::cmdline;
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, ReservationId};
use crate::image::manifest::check_root_size;
use crate::mem::layout::{MIN_MEMORY, PAGE};
use crate::plan::{
    CpuModel, DiskBus, DiskLimits, Drivers, Engine, NetLimits, Processor, PvGrub, TransportKind,
};
use crate::record::image::{
    Architecture, BlockDeviceMapping, BootMode, Image, ImageState, ProductCode, RootDeviceType,
    VirtualizationType,
};
use crate::record::instance::{Ephemeral, ShutdownBehavior};
use crate::record::limits::CgroupLimits;
use crate::record::metadata::{MetadataOptions, MetadataOptionsRequest};
use crate::record::network::{MAX_PORTS, Network, NetworkInterface, PublishedPort};
use crate::record::restart::RestartPolicy;
use crate::record::share::Share;
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
use serde::Serialize;
use std::path::PathBuf;

/// Most instances of one request.
pub const MAX_COUNT: u32 = 1000;
/// Most vCPUs of an instance.
pub const MAX_CPUS: u8 = 64;

/// What `run` asks for (EC2 RunInstances). Fields left `None` are the image's or the type's.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// As many at least, or none (EC2 MinCount).
    pub min_count: u32,
    /// As many if possible (EC2 MaxCount).
    pub max_count: u32,
    /// Preset name.
    pub instance_type: Option<String>,
    /// vCPUs over the preset's.
    pub cpus: Option<u8>,
    /// Bytes of RAM over the preset's.
    pub memory: Option<u64>,
    /// A kernel over the image's.
    pub kernel: Option<KernelId>,
    /// A ramdisk over the image's.
    pub ramdisk: Option<RamdiskId>,
    /// Boot the root device with this firmware.
    pub firmware: Option<PathBuf>,
    /// Boot the root device so, in place of what the image says.
    pub boot_mode: Option<BootMode>,
    /// A kernel command line in place of the image's.
    pub command_line: Option<String>,
    /// Appended to the command line.
    pub append: String,
    /// The entry of the root volume's boot menu, for the first boot: index, id or title.
    pub boot_entry: Option<String>,
    /// In place of the image's.
    pub root_device_type: Option<RootDeviceType>,
    /// The guest's power-off terminates the instance.
    pub terminate_on_shutdown: bool,
    /// When they are started again.
    pub restart: RestartPolicy,
    /// Over the image's block device mapping.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// How the host does disk I/O.
    pub engine: Engine,
    /// What each guest may have of each of its disks.
    pub disk_limits: DiskLimits,
    /// What each network interface hangs on, in order.
    pub networks: Vec<Network>,
    /// Ports of the host's that are passed on to the first interface on a network of the store's.
    pub ports: Vec<PublishedPort>,
    /// Each port that the security groups open to all is passed on, too.
    pub publish_all: bool,
    /// The security groups of each interface on one of the store's networks, by id or name; the
    /// default one for none.
    pub groups: Vec<String>,
    /// Pairs of queues of each network interface; 0: one.
    pub queues: u8,
    /// What each guest may have of each of its network interfaces.
    pub net_limits: NetLimits,
    /// Which instructions each guest finds.
    pub cpu_model: CpuModel,
    /// Whether each guest may run virtual machines of its own; not, where nothing is said.
    pub nested_virtualization: Option<bool>,
    /// How the guest finds its devices, in place of what the image asks for.
    pub transport: Option<TransportKind>,
    /// What its disks are, in place of what the image asks for.
    pub disk_bus: Option<DiskBus>,
    /// Launch no more than the host has memory for, all that runs included.
    pub no_overcommit: bool,
    /// What each may take of the host.
    pub cgroup_limits: CgroupLimits,
    /// Tags of every instance.
    pub tags: Vec<Tag>,
    /// The name of the key pair: none of them for `none`, the store's own where it is not given.
    pub key_name: Option<String>,
    /// What tells this launch from others: the same under it is done once.
    pub client_token: Option<ClientToken>,
    /// That key pair, once it is found.
    pub key: Option<LaunchKey>,
    /// How the guests get at their metadata.
    pub metadata_options: MetadataOptionsRequest,
    /// They get it as a volume labelled CIDATA.
    pub no_cloud: bool,
    /// Directories of the host's that the guests see.
    pub shares: Vec<Share>,
    /// Discs in CD-ROM drives: files of the host's.
    pub cdroms: Vec<PathBuf>,
}

impl Request {
    /// What each guest sees of the host's processor.
    pub fn processor(&self) -> Processor {
        Processor { model: self.cpu_model, nested: self.nested_virtualization.unwrap_or(false) }
    }
}

/// What a kernel and its ramdisk are known to have drivers for.
pub type Known<'a> = dyn Fn(Option<&KernelId>, Option<&RamdiskId>) -> Drivers + 'a;

/// The host's limits.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Bytes of RAM.
    pub memory: u64,
    /// Bytes of RAM of the instances that run or are being launched.
    pub taken: u64,
}

/// One instance, fully resolved. Clones differ in the identity, the index, the uuid and the command
/// line's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaunchPlan {
    /// Its id.
    pub instance_id: InstanceId,
    /// Its reservation's.
    pub reservation_id: ReservationId,
    /// Its image's.
    pub image_id: ImageId,
    /// 0-based.
    pub launch_index: u32,
    /// Preset name.
    pub instance_type: String,
    /// vCPUs.
    pub cpus: u8,
    /// What the guest sees of the host's processor.
    #[serde(skip_serializing_if = "Processor::is_default")]
    pub processor: Processor,
    /// Bytes of RAM.
    pub memory: u64,
    /// The image's.
    pub architecture: Architecture,
    /// hvm or paravirtual.
    pub virtualization_type: VirtualizationType,
    /// What boots; without one, firmware boots the root device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelId>,
    /// Its ramdisk.
    pub ramdisk: Option<RamdiskId>,
    /// The firmware, in place of the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// What firmware boots; a BIOS if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// The whole kernel command line; empty where firmware boots.
    pub command_line: String,
    /// What it was made of: the image's, or what the request gave in its place.
    pub image_command_line: Option<String>,
    /// Added to what a boot menu says, if one does; the command line is empty then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub append: String,
    /// The menu's entry for the first boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_entry: Option<String>,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Volumes to make, the root first.
    pub volumes: Vec<VolumePlan>,
    /// Empty disks that last as long as the VM, after the volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ephemeral: Vec<Ephemeral>,
    /// ebs or instance-store.
    pub root_device_type: RootDeviceType,
    /// What the guest's own power-off does.
    pub shutdown_behavior: ShutdownBehavior,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How the host does disk I/O.
    pub engine: Engine,
    /// What the guest may have of each of its disks.
    #[serde(skip_serializing_if = "DiskLimits::are_none")]
    pub disk_limits: DiskLimits,
    /// Its network interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<NetworkInterface>,
    /// What the guest may have of each of them.
    #[serde(skip_serializing_if = "NetLimits::are_none")]
    pub net_limits: NetLimits,
    /// How the guest finds its devices.
    pub transport: TransportKind,
    /// What its disks are.
    #[serde(skip_serializing_if = "DiskBus::is_virtio")]
    pub disk_bus: DiskBus,
    /// Tags.
    pub tags: Vec<Tag>,
    /// What the guest is told of itself.
    #[serde(skip_serializing_if = "LaunchMetadata::is_default")]
    pub metadata: LaunchMetadata,
    /// Directories of the host's that the guest sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Discs in its CD-ROM drives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cdroms: Vec<PathBuf>,
    /// What its launch is told from others by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
    /// What it may take of the host.
    #[serde(skip_serializing_if = "CgroupLimits::is_none")]
    pub cgroup_limits: CgroupLimits,
    /// The image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<ProductCode>,
    /// The image's.
    #[serde(skip)]
    pub platform_details: String,
    /// The image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly_rate: Option<String>,
}

/// Decide everything about a launch. The result has `max_count` plans, or fewer, but at least
/// `min_count`, if no more fit into the memory that is left of the host's.
///
/// # Errors
/// A request that can't be met, with EC2's code.
pub fn resolve(
    request: &Request,
    image: &Image,
    host: Host,
    known: &Known,
    ids: &mut dyn Ids,
) -> Result<Vec<LaunchPlan>> {
    check_image(image)?;
    let (preset, cpus, memory) = size(request, image)?;
    let count = count(request, memory, host)?;
    let BootRecords { kernel, ramdisk } = boot_records(request, image)?;
    let drivers = known(kernel.as_ref(), ramdisk.as_ref());
    let (transport, disk_bus) = hung_on(request, image, kernel.is_some(), &drivers)?;
    let mappings = mapping::merged(image, &request.block_device_mappings)?;
    let (volumes, ephemeral) = mapping::disks(image, &mappings)?;
    let root_device_type = root_device(request, image, volumes.first())?;
    let given = request.command_line.as_ref().or(image.command_line.as_ref());
    let (base, root) = (given.map_or("", String::as_str), disk_bus.root_device());
    let menu = check_menu(request, kernel.as_ref())?;
    check_networks(request)?;
    let (metadata, reservation_id) = (metadata(request, image)?, ids.reservation()?);
    let plan = |launch_index: u32| {
        let instance_id = ids.instance()?;
        let line = || cmdline::assemble(base, &request.append, root, (&instance_id, launch_index));
        let command_line = (kernel.is_some() && !menu).then(line).transpose()?.unwrap_or_default();
        let network_interfaces = interfaces(request, &instance_id)?;
        Ok(LaunchPlan {
            uuid: uuid(&instance_id, &metadata.options, &network_interfaces),
            network_interfaces,
            command_line,
            image_command_line: given.cloned(),
            append: appended(menu, base, request),
            boot_entry: request.boot_entry.clone(),
            instance_id,
            reservation_id: reservation_id.clone(),
            image_id: image.image_id.clone(),
            launch_index,
            instance_type: preset.name.to_owned(),
            cpus,
            processor: request.processor(),
            memory,
            architecture: image.architecture,
            virtualization_type: image.virtualization_type,
            kernel: kernel.clone(),
            ramdisk: ramdisk.clone(),
            firmware: request.firmware.clone(),
            boot_mode: firmware::mode(request.boot_mode, image, transport, kernel.is_some())?,
            volumes: volumes.clone(),
            ephemeral: ephemeral.clone(),
            root_device_type,
            shutdown_behavior: shutdown_behavior(request),
            restart: request.restart,
            engine: request.engine,
            disk_limits: request.disk_limits,
            net_limits: request.net_limits,
            transport,
            disk_bus,
            tags: request.tags.clone(),
            metadata: metadata.clone(),
            shares: request.shares.clone(),
            cdroms: request.cdroms.clone(),
            client_token: request.client_token.clone(),
            cgroup_limits: request.cgroup_limits,
            product_codes: image.product_codes.clone(),
            platform_details: image.platform_details.clone(),
            hourly_rate: image.hourly_rate.clone(),
        })
    };
    (0..count).map(plan).collect()
}

/// What the devices hang on, and the disks.
fn hung_on(
    request: &Request,
    image: &Image,
    kernel: bool,
    drivers: &Drivers,
) -> Result<(TransportKind, DiskBus)> {
    let asked = (request.transport.or(image.transport), request.disk_bus.or(image.disk_bus));
    buses(asked, drivers, !kernel && request.firmware.is_none())
}

/// How the guests get at their metadata, and whom they let in.
fn metadata(request: &Request, image: &Image) -> Result<LaunchMetadata> {
    let options = MetadataOptions::of_image(image.imds_support);
    let options = request.metadata_options.over(options);
    options.check_tags(&request.tags)?;
    Ok(LaunchMetadata { options, no_cloud: request.no_cloud, key: request.key.clone() })
}

/// What is added to the arguments of a boot menu's entry, if a menu says what boots.
fn appended(menu: bool, base: &str, request: &Request) -> String {
    match menu {
        true => [base, &request.append].join(" ").trim().into(),
        false => String::new(),
    }
}

/// The type of the root device, which can be what the request wants of it.
fn root_device(
    request: &Request,
    image: &Image,
    root: Option<&VolumePlan>,
) -> Result<RootDeviceType> {
    let kind = request.root_device_type.unwrap_or(image.root_device_type);
    check_root_size(kind, root.map_or(0, |root| root.size))?;
    request.restart.check(request.terminate_on_shutdown, kind)?;
    Ok(kind)
}

fn shutdown_behavior(request: &Request) -> ShutdownBehavior {
    match request.terminate_on_shutdown {
        true => ShutdownBehavior::Terminate,
        false => ShutdownBehavior::Stop,
    }
}

fn interfaces(request: &Request, instance: &InstanceId) -> Result<Vec<NetworkInterface>> {
    let mut interfaces = network::interfaces(&request.networks, request.queues, instance)?;
    let named =
        |interface: &&mut NetworkInterface| matches!(interface.spore.network, Network::Named(_));
    if let Some(first) = interfaces.iter_mut().find(named) {
        first.spore.ports.clone_from(&request.ports);
    }
    Ok(interfaces)
}

/// Checks that the instances can have such interfaces, and that there are any where something is
/// said of them.
fn check_networks(request: &Request) -> Result<()> {
    let networks = &request.networks;
    let refuse = |why: String| Err(Error::refused(Code::InvalidParameterCombination, why));
    if networks.is_empty() && !request.net_limits.are_none() {
        let why = "net.bandwidth and net.pps limit nothing: the instance has no network; give a `NetworkInterface`";
        return refuse(why.into());
    }
    if networks.is_empty() && request.queues > 1 {
        return refuse(
            "`Queues` counts those of a network interface; give a `NetworkInterface`".into(),
        );
    }
    network::check(networks)?;
    let on_network = networks.iter().any(|network| matches!(network, Network::Named(_)));
    if (request.publish_all || !request.ports.is_empty()) && !on_network {
        return refuse("-p passes a port on by a network; give --network default".into());
    }
    if request.ports.len() > MAX_PORTS {
        return refuse(format!("an instance has at most {MAX_PORTS} ports of the host's"));
    }
    let fixed = request.ports.iter().find(|port| port.host_port != 0);
    if let Some(port) = fixed.filter(|_| request.max_count > 1) {
        return refuse(format!(
            "port {} is one instance's: give -n 1, or 0:{} for a port of each one's own",
            port.host(),
            port.guest_port
        ));
    }
    match networks.iter().find(|network| matches!(network, Network::Tap(_))) {
        Some(network) if request.max_count > 1 => refuse(format!(
            "{network} is one instance's: give -n 1, and each further instance a tap of its own"
        )),
        _ => Ok(()),
    }
}

/// What boots directly.
struct BootRecords {
    kernel: Option<KernelId>,
    ramdisk: Option<RamdiskId>,
}

/// A kernel, or else firmware boots the root device.
fn boot_records(request: &Request, image: &Image) -> Result<BootRecords> {
    let wrong = |message: String| Err(Error::refused(Code::InvalidParameterCombination, message));
    if request.firmware.is_some() && request.kernel.is_some() {
        return wrong(
            "`Firmware` boots from disk and `KernelId` does not; give one of them".into(),
        );
    }
    let kernel = match request.firmware {
        Some(_) => None,
        None => request.kernel.as_ref().or(image.kernel_id.as_ref()),
    };
    if kernel.is_none() {
        let name = &image.name;
        if request.firmware.is_none()
            && image.virtualization_type == VirtualizationType::Paravirtual
        {
            return wrong(format!(
                "image '{name}' is paravirtual and has no kernel; give one with `KernelId`"
            ));
        }
        if request.ramdisk.is_some() || request.command_line.is_some() || !request.append.is_empty()
        {
            return wrong(format!(
                "image '{name}' boots from its disk: a ramdisk or a kernel command line needs `KernelId`"
            ));
        }
        return Ok(BootRecords { kernel: None, ramdisk: None });
    }
    // A ramdisk belongs to its kernel: with another kernel the image's is not used.
    let ramdisk = match (&request.ramdisk, &request.kernel) {
        (Some(own), _) => Some(own.clone()),
        (None, Some(_)) => None,
        (None, None) => image.ramdisk_id.clone(),
    };
    Ok(BootRecords { kernel: kernel.cloned(), ramdisk })
}

/// Whether a boot menu says what boots.
fn check_menu(request: &Request, kernel: Option<&KernelId>) -> Result<bool> {
    let menu = kernel.and_then(PvGrub::of).is_some();
    let refuse = |why: &str| Err(Error::refused(Code::InvalidParameterCombination, why));
    if menu && request.ramdisk.is_some() {
        return refuse("PV-GRUB loads the ramdisk that the root volume's menu names; give none");
    }
    if menu && request.command_line.is_some() {
        return refuse("the root volume's menu has the kernel's arguments; `Append` adds to them");
    }
    if !menu && request.boot_entry.is_some() {
        return refuse(
            "`BootEntry` is for an image whose kernel is aki-pv-grub-hd0 or aki-pv-grub-hd00",
        );
    }
    Ok(menu)
}

fn check_image(image: &Image) -> Result<()> {
    if image.state != ImageState::Available {
        return Err(Error::refused(
            Code::InvalidAMIIDUnavailable,
            format!(
                "image '{}' is {:?}; only an available image launches",
                image.name, image.state
            )
            .to_lowercase(),
        ));
    }
    if image.architecture == Architecture::Arm64 {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("image '{}' is for arm64; this host runs x86_64", image.name),
        ));
    }
    Ok(())
}

fn size(request: &Request, image: &Image) -> Result<(&'static InstanceType, u8, u64)> {
    let tagged = image.tags.iter().find(|tag| tag.key == types::IMAGE_TAG).map(|tag| &tag.value);
    let name = request.instance_type.as_ref().or(tagged).map_or(types::DEFAULT, String::as_str);
    let preset = types::find(name)?;
    let cpus = request.cpus.unwrap_or(preset.cpus);
    let memory = request.memory.unwrap_or(preset.memory_mib << 20);
    check_size(cpus, memory)?;
    Ok((preset, cpus, memory))
}

/// # Errors
/// No machine can have so many CPUs or so much memory.
pub fn check_size(cpus: u8, memory: u64) -> Result<()> {
    if !(1..=MAX_CPUS).contains(&cpus) {
        return Err(Error::usage(format!("`CoreCount` is {cpus}; give 1 to {MAX_CPUS}")));
    }
    if memory < MIN_MEMORY || !memory.is_multiple_of(PAGE) {
        return Err(Error::usage(format!(
            "`Memory` is {memory} bytes; give at least {} MiB and a multiple of 4 KiB",
            MIN_MEMORY >> 20
        )));
    }
    Ok(())
}

/// How many fit, as EC2's MinCount and MaxCount mean it.
fn count(request: &Request, memory: u64, host: Host) -> Result<u32> {
    let (min, max) = (request.min_count, request.max_count);
    if min == 0 || min > max {
        return Err(Error::usage(format!(
            "-n {} asks for no instance; give -n N or -n MIN:MAX with 1 <= MIN <= MAX",
            if min == max { min.to_string() } else { format!("{min}:{max}") }
        )));
    }
    if max > MAX_COUNT {
        return Err(Error::refused(
            Code::InstanceLimitExceeded,
            format!(
                "-n {max} is more than the {MAX_COUNT} instances that one run may launch; use several runs"
            ),
        ));
    }
    let mib = |bytes: u64| bytes >> 20;
    if memory > host.memory {
        return Err(Error::refused(
            Code::InsufficientInstanceCapacity,
            format!(
                "an instance of {} MiB exceeds this host's memory of {} MiB; give a smaller `Memory` or `InstanceType`",
                mib(memory),
                mib(host.memory)
            ),
        ));
    }
    let left = host.memory.saturating_sub(host.taken);
    let fit = u32::try_from(left / memory).unwrap_or(u32::MAX);
    if fit < min && request.no_overcommit {
        return Err(Error::refused(
            Code::InsufficientInstanceCapacity,
            format!(
                "{min} instances of {} MiB exceed the {} MiB that running instances leave of this host's {} MiB; {fit} \
                 fit, or give a smaller `Memory` or `InstanceType`",
                mib(memory),
                mib(left),
                mib(host.memory)
            ),
        ));
    }
    Ok(max.min(fit).max(min))
}

/// What to say of a launch with which instances have more memory than the host: idle clones share
/// what they have of their image, so it may well do.
pub fn overcommitted(plans: &[LaunchPlan], host: Host) -> Option<String> {
    let why = too_large(plans.iter().map(|plan| plan.memory).sum(), host)?;
    Some(format!("{why} (`NoOvercommit` refuses this)"))
}

/// Why `new` bytes of memory more are more than the host has, if they are.
pub fn too_large(new: u64, host: Host) -> Option<String> {
    let mib = |bytes: u64| bytes >> 20;
    let all = host.taken.saturating_add(new);
    (all > host.memory).then(|| {
        format!(
            "all instances together may use {} MiB of memory, and this host has {} MiB; guests that use theirs will be \
             slow or killed",
            mib(all),
            mib(host.memory)
        )
    })
}

#[cfg(test)]
#[path = "launch_tests.rs"]
mod tests;
