//! The record of an instance, in the shapes of EC2's API (DescribeInstances).

pub use super::image::StateReason;
use super::image::{
    Architecture, BootMode, LINUX, ProductCode, RootDeviceType, VirtualizationType,
};
use super::limits::CgroupLimits;
use super::metadata::MetadataOptions;
use super::network::NetworkInterface;
use super::restart::RestartPolicy;
use super::share::Share;
use super::tag::{Tag, name_tag};
pub use super::token::ClientToken;
use super::volume::LayerName;
use crate::error::{Code, Result};
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, ReservationId, VolumeId};
use crate::plan::{
    CpuModel, DeviceId, DiskBus, DiskLimits, Engine, NetLimits, Processor, SavedEnvironment,
    TransportKind,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// An instance and what EC2 says of its reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct InstanceRecord {
    /// What launched it together with others.
    pub reservation_id: ReservationId,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// EC2's Instance.
    pub instance: Instance,
}

/// EC2 Instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Instance {
    /// The instance's id.
    pub instance_id: InstanceId,
    /// The image it was launched from.
    pub image_id: ImageId,
    /// Its state.
    pub state: State,
    /// Why it is in that state, if that needs saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// 0-based position in its reservation.
    pub ami_launch_index: u32,
    /// Preset name.
    pub instance_type: String,
    /// RFC 3339, UTC: when it was launched or last started.
    pub launch_time: String,
    /// Guest architecture.
    pub architecture: Architecture,
    /// hvm or paravirtual.
    pub virtualization_type: VirtualizationType,
    /// The kernel that boots directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<KernelId>,
    /// Its initial ramdisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk_id: Option<RamdiskId>,
    /// e.g. `/dev/vda`.
    pub root_device_name: String,
    /// ebs or instance-store.
    pub root_device_type: RootDeviceType,
    /// Its volumes, in order. An instance-store root is none: the VMM's open descriptors are all
    /// that keeps it.
    pub block_device_mappings: Vec<Mapping>,
    /// Its network interfaces, by their device index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<NetworkInterface>,
    /// vCPUs.
    pub cpu_options: CpuOptions,
    /// Whether it can be hibernated.
    #[serde(default)]
    pub hibernation_options: HibernationOptions,
    /// The key pair that it was launched with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// What told its launch from others, where the request said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
    /// What firmware boots it where no kernel does; a BIOS if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_instance_boot_mode: Option<BootMode>,
    /// How its guest gets at its metadata.
    #[serde(default)]
    pub metadata_options: MetadataOptions,
    /// What the guest's own power-off does.
    pub instance_initiated_shutdown_behavior: ShutdownBehavior,
    /// Tags; `Name` is the instance's name.
    pub tags: Vec<Tag>,
    /// Its image's, when it was launched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<ProductCode>,
    /// Its image's: operating system and how it is charged.
    #[serde(default = "linux", skip_serializing_if = "is_linux")]
    pub platform_details: String,
    /// What EC2 has no word for.
    pub spore: Spore,
}

impl Instance {
    /// What firmware boots it by; none where a kernel is entered directly.
    pub fn boot_mode(&self) -> Option<BootMode> {
        let by_firmware = self.kernel_id.is_none();
        by_firmware.then(|| self.current_instance_boot_mode.unwrap_or(BootMode::LegacyBios))
    }
}

fn linux() -> String {
    LINUX.to_owned()
}

fn is_linux(platform_details: &str) -> bool {
    platform_details == LINUX
}

/// Spore's own part of an instance's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Spore {
    /// Bytes of RAM.
    pub memory: u64,
    /// The firmware, in place of the host's own, where there is no kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// The whole kernel command line; empty where firmware boots.
    pub command_line: String,
    /// What that was made of: its image's, for images made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_command_line: Option<String>,
    /// Added to the arguments of the boot menu's entry at every boot, if a menu says what boots.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub append: String,
    /// The title of the boot menu's entry that its last launch or start booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_entry: Option<String>,
    /// What the boot menu would have saved on its root volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_environment: Option<SavedEnvironment>,
    /// The public half of its key pair, as it was at its launch: a line of authorized_keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// A read-only volume labelled CIDATA has its metadata.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cloud: bool,
    /// SMBIOS UUID, whose first digits are `ec2` where there is metadata as on EC2.
    pub uuid: String,
    /// Which instructions its guest finds.
    #[serde(default, skip_serializing_if = "CpuModel::is_host")]
    pub cpu_model: CpuModel,
    /// How the guest finds its devices.
    #[serde(default)]
    pub transport: TransportKind,
    /// What its disks are to the guest.
    #[serde(default, skip_serializing_if = "DiskBus::is_virtio")]
    pub disk_bus: DiskBus,
    /// The engine asked for.
    pub engine: Engine,
    /// What the guest may have of each of its disks.
    #[serde(default, skip_serializing_if = "DiskLimits::are_none")]
    pub disk_limits: DiskLimits,
    /// What the guest may have of each of its network interfaces.
    #[serde(default, skip_serializing_if = "NetLimits::are_none")]
    pub net_limits: NetLimits,
    /// The engine in use by each of [`Instance::disks`] while running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<Engine>,
    /// The slots of its machine's devices, if volumes have come or gone while it ran: the order of
    /// the devices does not tell them then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<DeviceId, u8>,
    /// Disks that are empty at every boot, after the volumes in the guest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ephemeral: Vec<Ephemeral>,
    /// Directories of the host's that the guest sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// The files that are discs in its CD-ROM drives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cdroms: Vec<PathBuf>,
    /// What it may take of the host.
    #[serde(default, skip_serializing_if = "CgroupLimits::is_none")]
    pub cgroup_limits: CgroupLimits,
    /// The control group that holds it to that while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_group: Option<PathBuf>,
    /// The VMM's process id while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it is started again.
    #[serde(default, skip_serializing_if = "RestartPolicy::is_no")]
    pub restart: RestartPolicy,
    /// How often it was.
    #[serde(default)]
    pub restarts: u32,
    /// How many times it has been up: 0 until the first launch succeeds.
    pub starts: u32,
    /// Where in the console log its current (or last) run begins, in bytes.
    pub console_start: u64,
    /// Milliseconds since the epoch: when its guest was made to forget what it has told on its
    /// console, and will tell anew at its next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<u64>,
    /// What the image's owner charges for an hour, when it was launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly_rate: Option<String>,
    /// Milliseconds since the epoch: when its last run ended, or the last sign of life of one that
    /// was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// What a hibernated instance's memory belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernated: Option<Hibernated>,
    /// Milliseconds since the epoch of its termination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated_at: Option<u64>,
}

/// EC2 HibernationOptions. Every instance can be hibernated whose root is a volume, as on EC2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct HibernationOptions {
    /// It can be.
    pub configured: bool,
}

impl Default for HibernationOptions {
    fn default() -> Self {
        Self { configured: true }
    }
}

/// A hibernated instance's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Hibernated {
    /// The volumes and instance-store disks as it knows them.
    pub volumes: Vec<VolumeMark>,
    /// The host's boot (/proc/sys/kernel/random/boot_id) in which a VMM was started to go on from
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resuming: Option<String>,
}

/// What tells that a volume has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct VolumeMark {
    /// The volume; of an instance-store disk, its serial number.
    pub volume_id: VolumeId,
    /// The volume's files, the top first.
    pub layers: Vec<LayerName>,
    /// Bytes of its top.
    pub size: u64,
    /// When that was last written: seconds since the epoch, and nanoseconds.
    pub modified: (i64, i64),
}

/// An instance-store disk beside the root: `ephemeralN` of an image's mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ephemeral {
    /// e.g. `/dev/vdb`.
    pub device_name: String,
    /// `ephemeralN`.
    pub virtual_name: String,
    /// GiB.
    pub size: u64,
}

/// One of an instance's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk<'a> {
    /// The root, which lasts as long as the VMM.
    InstanceStore,
    /// A volume.
    Volume(&'a Mapping),
    /// Empty at every boot.
    Ephemeral(&'a Ephemeral),
}

impl Instance {
    /// What its guest sees of the host's processor.
    pub fn processor(&self) -> Processor {
        let nested = self.cpu_options.nested_virtualization.is_enabled();
        Processor { model: self.spore.cpu_model, nested }
    }

    /// Its disks while it runs, in the order in which the VMM and the guest count them.
    pub fn disks(&self) -> impl Iterator<Item = Disk<'_>> {
        let root = self.is_instance_store(&self.root_device_name).then_some(Disk::InstanceStore);
        let volumes = self.block_device_mappings.iter().map(Disk::Volume);
        let ephemeral = self.spore.ephemeral.iter().map(Disk::Ephemeral);
        root.into_iter().chain(volumes).chain(ephemeral)
    }

    /// What a VMM calls one of [`Instance::disks`].
    ///
    /// # Errors
    /// The record has a device name that is none.
    pub fn device_of(&self, disk: Disk<'_>) -> Result<DeviceId> {
        match disk {
            Disk::InstanceStore => &self.root_device_name,
            Disk::Volume(mapping) => &mapping.device_name,
            Disk::Ephemeral(ephemeral) => &ephemeral.device_name,
        }
        .parse()
    }

    /// What a CD-ROM drive is called, by its place among them: its serial number to the guest.
    pub fn cdrom(index: usize) -> String {
        format!("cdrom{index}")
    }

    /// True of the device of a root that goes with the VMM.
    pub fn is_instance_store(&self, device: &str) -> bool {
        self.root_device_type == RootDeviceType::InstanceStore && device == self.root_device_name
    }

    /// The value of tag `Name`.
    pub fn name(&self) -> Option<&str> {
        name_tag(&self.tags)
    }
}

/// EC2 InstanceBlockDeviceMapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Mapping {
    /// e.g. `/dev/vda`.
    pub device_name: String,
    /// The volume.
    pub ebs: MappedVolume,
}

/// EC2 EbsInstanceBlockDevice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct MappedVolume {
    /// The volume's id.
    pub volume_id: VolumeId,
    /// The volume goes with the instance.
    pub delete_on_termination: bool,
    /// The guest may only read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// The guest is asked to let go of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detaching: bool,
    /// RFC 3339, UTC: since when it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_time: Option<String>,
}

/// EC2 CpuOptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CpuOptions {
    /// Cores.
    pub core_count: u8,
    /// Threads of each; always 1.
    pub threads_per_core: u8,
    /// Whether the guest may run virtual machines of its own.
    #[serde(default, skip_serializing_if = "NestedVirtualization::is_disabled")]
    pub nested_virtualization: NestedVirtualization,
}

impl CpuOptions {
    /// So many cores of this processor.
    pub fn of(core_count: u8, processor: Processor) -> Self {
        let nested_virtualization = NestedVirtualization::of(processor.nested);
        Self { core_count, threads_per_core: 1, nested_virtualization }
    }
}

/// EC2 NestedVirtualizationSpecification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NestedVirtualization {
    /// The guest sees a processor without VMX and SVM.
    #[default]
    Disabled,
    /// It sees the host's.
    Enabled,
}

impl NestedVirtualization {
    /// It is so, or not.
    pub fn of(enabled: bool) -> Self {
        if enabled { Self::Enabled } else { Self::Disabled }
    }

    /// It is.
    pub fn is_enabled(self) -> bool {
        self == Self::Enabled
    }

    fn is_disabled(&self) -> bool {
        !self.is_enabled()
    }
}

/// What the guest's own power-off does (EC2 InstanceInitiatedShutdownBehavior).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownBehavior {
    /// The instance stops and may be started again.
    Stop,
    /// The instance and its volumes go.
    Terminate,
}

/// EC2 instance states. As JSON: `{"Code": 16, "Name": "running"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "StateJson", into = "StateJson")]
pub enum State {
    /// Being launched or started.
    Pending,
    /// Its VMM runs.
    Running,
    /// Being terminated.
    ShuttingDown,
    /// Gone; the record is kept for a while.
    Terminated,
    /// Asked to stop.
    Stopping,
    /// Not running; may be started.
    Stopped,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct StateJson {
    code: u8,
    name: String,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::ShuttingDown,
        Self::Terminated,
        Self::Stopping,
        Self::Stopped,
    ];

    /// EC2's code.
    pub fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    /// EC2's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// A VMM is, or may be, at work.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Stopped | Self::Terminated)
    }
}

impl From<State> for StateJson {
    fn from(state: State) -> Self {
        Self { code: state.code(), name: state.name().to_owned() }
    }
}

impl TryFrom<StateJson> for State {
    type Error = String;
    fn try_from(json: StateJson) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|s| s.name() == json.name && s.code() == json.code);
        found.ok_or_else(|| format!("no instance state {} '{}'", json.code, json.name))
    }
}

impl super::Record for InstanceRecord {
    type Id = InstanceId;
    const DIRECTORY: &'static str = "instances";
    const KIND: &'static str = "instance";
    const NOT_FOUND: Code = Code::InvalidInstanceIDNotFound;
    const LISTED_BY: &'static str = "spore ls";
    const NAMES_ARE_SHARED: bool = true;

    fn id(&self) -> &InstanceId {
        &self.instance.instance_id
    }

    /// A terminated instance has lost its name to whoever takes it next.
    fn name(&self) -> Option<&str> {
        self.instance.name().filter(|_| self.instance.state != State::Terminated)
    }

    fn index(&self) -> Option<u32> {
        Some(self.instance.ami_launch_index)
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        let instance = &self.instance;
        json!({
            "State": instance.state.name(),
            "ImageId": instance.image_id,
            "InstanceType": instance.instance_type,
            "ProductCodes": instance.product_codes,
            "HourlyRate": instance.spore.hourly_rate,
            "EndedAt": instance.spore.ended_at,
            "Tags": instance.tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_ec2s() {
        assert_eq!(
            serde_json::to_string(&State::ShuttingDown).unwrap(),
            r#"{"Code":32,"Name":"shutting-down"}"#
        );
        for state in State::ALL {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
        assert!(serde_json::from_str::<State>(r#"{"Code":16,"Name":"stopped"}"#).is_err());
    }

    #[test]
    fn a_reason_is_one_line() {
        let reason = StateReason::new("Server.InternalError", "a\nb");
        assert_eq!(reason.message, "Server.InternalError: a");
    }
}
