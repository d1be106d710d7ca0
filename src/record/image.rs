//! The record of an image, in the shape of EC2's API.
//!
//! Fields that EC2 has carry EC2's names, so `jq` scripts carry over. Unknown fields are refused.

use super::tag::Tag;
use super::uefi::UefiVariables;
use super::volume::default_volume_type;
use super::{Durability, Record};
use crate::error::Code;
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, SnapshotId};
use crate::plan::{DiskBus, TransportKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// EC2 Image (DescribeImages).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Image {
    /// The image's id.
    pub image_id: ImageId,
    /// 3 to 128 characters, unique per owner; never changes.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// RFC 3339, UTC, with milliseconds.
    pub creation_date: String,
    /// pending, available, failed or deregistered.
    pub state: ImageState,
    /// Guest architecture.
    pub architecture: Architecture,
    /// hvm (firmware; a kernel kept in the image boots directly too) or paravirtual.
    pub virtualization_type: VirtualizationType,
    /// The kernel that boots directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<KernelId>,
    /// Its initial ramdisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk_id: Option<RamdiskId>,
    /// The image's kernel command line; Spore adds the console, the root device and the instance's
    /// identity where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// ebs or instance-store.
    pub root_device_type: RootDeviceType,
    /// Device name of the root in the mapping, e.g. `/dev/vda`.
    pub root_device_name: String,
    /// The volumes of an instance, in order.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// Everybody may launch it.
    #[serde(default)]
    pub public: bool,
    /// Who else may launch it (EC2 attribute launchPermission); "everybody" is [`Image::public`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launch_permissions: Vec<LaunchPermission>,
    /// What must be accepted before it launches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<ProductCode>,
    /// What its owner charges for an hour of an instance: a decimal number, in whatever money they
    /// agree on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly_rate: Option<String>,
    /// `windows`, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Operating system and how it is charged, e.g. `Linux/UNIX`.
    #[serde(default = "linux")]
    pub platform_details: String,
    /// The firmware interface that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// What its instances' UEFI variables begin as; the firmware's own template if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi_variables: Option<UefiVariables>,
    /// What its guest is known to read metadata by; instances begin with the options that suit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imds_support: Option<ImdsSupport>,
    /// How its guest finds its devices, where that matters to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportKind>,
    /// What its guest's disks are, where that matters to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bus: Option<DiskBus>,
    /// The instance that it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_instance_id: Option<InstanceId>,
    /// The image that it was copied from, or that its instance was launched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image_id: Option<ImageId>,
    /// The region that it was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image_region: Option<String>,
    /// The manifest of the bundle that it was registered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_location: Option<String>,
    /// RFC 3339: from then on others don't find it unless they ask for deprecated ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation_time: Option<String>,
    /// Why its state is what it is, if that needs saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// The token that its copy was asked for under, with a digest of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<super::token::ClientToken>,
    /// What keeps it from being deregistered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregistration_protection: Option<DeregistrationProtection>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// What keeps an image from being deregistered. (EC2 EnableImageDeregistrationProtection)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeregistrationProtection {
    /// It goes on for a day after it is taken away.
    pub with_cooldown: bool,
    /// RFC 3339, UTC: when it ends, once it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl DeregistrationProtection {
    /// EC2's word for it at `now` (RFC 3339); `None` if it has ended.
    pub fn word(&self, now: &str) -> Option<String> {
        match (&self.until, self.with_cooldown) {
            (Some(until), _) if until.as_str() <= now => None,
            (Some(until), _) => Some(format!("disabled, in its cooldown until {until}")),
            (None, true) => Some("enabled-with-cooldown".to_owned()),
            (None, false) => Some("enabled-without-cooldown".to_owned()),
        }
    }
}

impl Image {
    /// The snapshots that its volumes begin as.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        let ebs = self.block_device_mappings.iter().filter_map(|m| m.ebs.as_ref());
        ebs.filter_map(|ebs| ebs.snapshot_id.as_ref())
    }

    /// The snapshot that its root begins as, if there is one.
    pub fn root_snapshot(&self) -> Option<&SnapshotId> {
        let mut mappings = self.block_device_mappings.iter();
        let root = mappings.find(|m| m.device_name == self.root_device_name)?;
        root.ebs.as_ref()?.snapshot_id.as_ref()
    }
}

/// What an image is if nobody says otherwise.
pub const LINUX: &str = "Linux/UNIX";

fn linux() -> String {
    LINUX.to_owned()
}

/// EC2 LaunchPermission: one account, or one group of accounts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LaunchPermission {
    /// A user's uid in decimal.
    UserId(String),
    /// A Unix group's gid in decimal.
    Group(String),
}

/// EC2 ProductCode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ProductCode {
    /// 1 to 64 letters, digits and dashes.
    pub product_code_id: String,
    /// Always `marketplace`.
    pub product_code_type: String,
}

/// EC2 StateReason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct StateReason {
    /// e.g. `Client.UserInitiatedShutdown`.
    pub code: String,
    /// `Code: sentence`.
    pub message: String,
}

impl StateReason {
    /// `code`, and `code: detail` as the message, in one line.
    pub fn new(code: &str, detail: &str) -> Self {
        let line = detail.lines().next().unwrap_or_default();
        Self { code: code.to_owned(), message: format!("{code}: {line}") }
    }
}

/// EC2 boot modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// A BIOS.
    LegacyBios,
    /// UEFI.
    Uefi,
    /// UEFI where there is one.
    UefiPreferred,
}

/// EC2 ImdsSupportValues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImdsSupport {
    /// Its guest gets itself a token (IMDSv2): instances refuse requests without one, and answers
    /// travel two hops, unless their launch says otherwise.
    #[serde(rename = "v2.0")]
    V2,
}

/// EC2 image states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// Its snapshots are not whole yet.
    Pending,
    /// It can be launched.
    Available,
    /// It never became available.
    Failed,
    /// It launches nothing new.
    Deregistered,
    /// Its owner has put it aside: it launches nothing, nobody else sees it.
    Disabled,
}

/// Guest architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 32-bit x86.
    #[serde(rename = "i386")]
    I386,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm: recorded, not launched on x86.
    #[serde(rename = "arm64")]
    Arm64,
}

/// EC2 virtualization types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtualizationType {
    /// Hardware virtual machine.
    Hvm,
    /// Direct kernel boot, PV-GRUB style.
    Paravirtual,
}

/// EC2 root device types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootDeviceType {
    /// The root is a volume and survives stop and start.
    #[serde(rename = "ebs")]
    Ebs,
    /// The root is gone when the instance ends.
    #[serde(rename = "instance-store")]
    InstanceStore,
}

/// EC2 BlockDeviceMapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BlockDeviceMapping {
    /// e.g. `/dev/vda`.
    pub device_name: String,
    /// The volume made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs: Option<EbsBlockDevice>,
    /// `ephemeralN`: an empty disk that is gone when the instance stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_name: Option<String>,
    /// There is no such device, whatever the image maps to it. Always empty, as in EC2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_device: Option<String>,
}

/// EC2 EbsBlockDevice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", try_from = "EbsJson")]
pub struct EbsBlockDevice {
    /// What the volume begins as; empty if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// GiB, rounded up; at least the snapshot's, and that if absent in a manifest.
    pub volume_size: u64,
    /// The volume goes with its instance. Absent in a manifest: the root does, others don't, as on
    /// EC2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
    /// EC2's name of what it is stored on. Recorded; every type is the same here.
    pub volume_type: String,
    /// The guest may only read it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// [`EbsBlockDevice`] as records, manifests and EC2's answers have it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct EbsJson {
    #[serde(default)]
    snapshot_id: Option<SnapshotId>,
    #[serde(default)]
    volume_size: u64,
    #[serde(default)]
    delete_on_termination: Option<bool>,
    #[serde(default = "default_volume_type")]
    volume_type: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    spore: EbsOwn,
}

/// What an answer has under `Spore`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct EbsOwn {
    #[serde(default)]
    read_only: bool,
}

impl TryFrom<EbsJson> for EbsBlockDevice {
    type Error = &'static str;
    fn try_from(json: EbsJson) -> Result<Self, &'static str> {
        if json.encrypted {
            return Err("Encrypted is not there: a volume can't be encrypted");
        }
        Ok(Self {
            snapshot_id: json.snapshot_id,
            volume_size: json.volume_size,
            delete_on_termination: json.delete_on_termination,
            volume_type: json.volume_type,
            read_only: json.read_only || json.spore.read_only,
        })
    }
}

impl Record for Image {
    type Id = ImageId;
    const DIRECTORY: &'static str = "images";
    const KIND: &'static str = "image";
    const NOT_FOUND: Code = Code::InvalidAMIIDNotFound;
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &ImageId {
        &self.image_id
    }

    /// Whoever comes next may have a deregistered one's name.
    fn name(&self) -> Option<&str> {
        Some(self.name.as_str()).filter(|_| self.state != ImageState::Deregistered)
    }

    /// EC2: the name of one that failed can be given again.
    fn holds_name(&self, made: bool) -> bool {
        match self.state {
            ImageState::Available | ImageState::Disabled => true,
            ImageState::Pending => made,
            ImageState::Failed | ImageState::Deregistered => false,
        }
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({
            "Name": self.name,
            "State": self.state,
            "Description": self.description,
            "Public": self.public,
            "LaunchPermissions": self.launch_permissions,
            "ProductCodes": self.product_codes,
            "HourlyRate": self.hourly_rate,
            "DeprecationTime": self.deprecation_time,
            "ImdsSupport": self.imds_support,
            "DeregistrationProtection": self.deregistration_protection,
            "Snapshots": self.snapshots().collect::<Vec<_>>(),
            "Tags": self.tags,
        })
    }
}
