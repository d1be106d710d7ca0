//! What an image is registered by, and the image that follows from it.

use crate::error::{Code, Error, Result};
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, SnapshotId};
use crate::plan::{DiskBus, PvGrub, ROOT_DEVICE, TransportKind};
use crate::record::image::{
    Architecture, BlockDeviceMapping, BootMode, EbsBlockDevice, Image, ImageState, ImdsSupport,
    LINUX, RootDeviceType, VirtualizationType,
};
use crate::record::snapshot::SnapshotState;
use crate::record::tag::{Tag, check_tags};
use crate::record::uefi::UefiVariables;
use crate::record::volume::default_volume_type;
use crate::store::{Store, check_owner, now};
use crate::{boot, snapshot};
use serde::Deserialize;

/// Largest volume in GiB: EC2's.
pub const MAX_GIB: u64 = crate::record::limits::MAX_SIZE >> 30;

/// Largest root of an instance-store image in GiB: EC2's.
const MAX_INSTANCE_STORE_GIB: u64 = 10;

/// Most block devices of an image; each takes a device slot of the machine.
pub const MAX_MAPPINGS: usize = 16;

/// What `register` is told, in the shape and with the names of EC2's RegisterImage. Unknown fields
/// are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Manifest {
    /// 3 to 128 characters, not taken.
    pub name: String,
    /// At most 255 characters.
    #[serde(default)]
    pub description: Option<String>,
    /// x86_64 if absent.
    #[serde(default)]
    pub architecture: Option<Architecture>,
    /// paravirtual with a kernel, hvm without, if absent.
    #[serde(default)]
    pub virtualization_type: Option<VirtualizationType>,
    /// A registered kernel.
    #[serde(default)]
    pub kernel_id: Option<KernelId>,
    /// A registered initial ramdisk.
    #[serde(default)]
    pub ramdisk_id: Option<RamdiskId>,
    /// The kernel command line.
    #[serde(default)]
    pub command_line: Option<String>,
    /// ebs if absent.
    #[serde(default)]
    pub root_device_type: Option<RootDeviceType>,
    /// [`ROOT_DEVICE`] if absent.
    #[serde(default)]
    pub root_device_name: Option<String>,
    /// The volumes. A `VolumeSize` that is absent is the snapshot's.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// The firmware interface that the image needs.
    #[serde(default)]
    pub boot_mode: Option<BootMode>,
    /// What a copy brings of its source's UEFI variables; no manifest can say so.
    #[serde(skip)]
    pub uefi_variables: Option<UefiVariables>,
    /// `v2.0`: instances refuse IMDSv1 unless their launch says otherwise.
    #[serde(default)]
    pub imds_support: Option<ImdsSupport>,
    /// How its guest finds its devices; what suits its ramdisk if absent.
    #[serde(default)]
    pub transport: Option<TransportKind>,
    /// What its guest's disks are, in place of what it has drivers for.
    #[serde(default)]
    pub disk_bus: Option<DiskBus>,
    /// `windows`, or nothing.
    #[serde(default)]
    pub platform: Option<String>,
    /// What `image create` made it of; no manifest can say so.
    #[serde(skip)]
    pub source_instance_id: Option<InstanceId>,
    /// What `image copy` or `image create` made it of; no manifest can say so.
    #[serde(skip)]
    pub source_image_id: Option<ImageId>,
    /// Where `image copy` found that; no manifest can say so.
    #[serde(skip)]
    pub source_image_region: Option<String>,
    /// The bundle's manifest, for one that is registered from a bundle; no other manifest can say
    /// so.
    #[serde(skip)]
    pub image_location: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl Manifest {
    /// Read a manifest.
    ///
    /// # Errors
    /// It is no JSON, lacks a field, has one that is unknown or of a wrong type: the line says
    /// which and where.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| {
            Error::refused(Code::InvalidManifest, format!("the manifest is malformed: {e}"))
        })
    }

    /// The manifest of an image whose only volume begins as `snapshot`.
    pub fn with_root(name: &str, snapshot: SnapshotId) -> Self {
        let ebs = EbsBlockDevice {
            snapshot_id: Some(snapshot),
            volume_size: 0,
            delete_on_termination: None,
            volume_type: default_volume_type(),
            read_only: false,
        };
        Self {
            name: name.to_owned(),
            description: None,
            architecture: None,
            virtualization_type: None,
            kernel_id: None,
            ramdisk_id: None,
            command_line: None,
            root_device_type: None,
            root_device_name: None,
            block_device_mappings: vec![BlockDeviceMapping {
                device_name: ROOT_DEVICE.to_owned(),
                ebs: Some(ebs),
                virtual_name: None,
                no_device: None,
            }],
            boot_mode: None,
            uefi_variables: None,
            imds_support: None,
            transport: None,
            disk_bus: None,
            platform: None,
            source_instance_id: None,
            source_image_id: None,
            source_image_region: None,
            image_location: None,
            tags: Vec::new(),
        }
    }
}

/// The image that a manifest describes, if all of it holds.
pub(crate) fn resolve_manifest(store: &Store, manifest: Manifest, id: ImageId) -> Result<Image> {
    resolve_with(store, manifest, id, &|id| snapshot_gib(store, id))
}

/// How many GiB a snapshot needs that an image may be made of.
///
/// # Errors
/// It does not exist, is another's (`AuthFailure`) or not whole (`IncorrectState`).
pub fn snapshot_gib(store: &Store, id: &SnapshotId) -> Result<u64> {
    let snapshot = snapshot::settled(store, store.snapshots().get(id)?);
    check_owner(store, &snapshot)?;
    if snapshot.state != SnapshotState::Completed {
        let why = snapshot.state_message.as_deref().unwrap_or("it is still being made");
        return Err(Error::refused(Code::IncorrectState, format!("{id} is not completed: {why}")));
    }
    Ok(snapshot.volume_size)
}

/// How many GiB a snapshot needs, if it may be used.
pub(crate) type Gib<'a> = &'a dyn Fn(&SnapshotId) -> Result<u64>;

/// What an image with this kernel is for.
fn architecture_of(store: &Store, kernel: Option<&KernelId>) -> Result<Architecture> {
    let kernel = kernel.map(|id| store.kernels().get(id)).transpose()?;
    Ok(kernel.map_or(Architecture::X86_64, |kernel| kernel.architecture))
}

/// # Errors
/// What PV-GRUB's kernels don't go with.
fn check_pv_grub(manifest: &Manifest) -> Result<()> {
    let pv_grub = manifest.kernel_id.as_ref().and_then(PvGrub::of).is_some();
    if pv_grub && manifest.ramdisk_id.is_some() {
        return Err(invalid(
            "PV-GRUB loads the ramdisk that the root volume's menu names; give none",
        ));
    }
    if pv_grub && manifest.virtualization_type == Some(VirtualizationType::Hvm) {
        return Err(invalid("PV-GRUB's kernels are for virtualization type paravirtual"));
    }
    Ok(())
}

/// As [`resolve_manifest`], for snapshots that need not be in the store yet.
pub(crate) fn resolve_with(
    store: &Store,
    manifest: Manifest,
    id: ImageId,
    gib: Gib<'_>,
) -> Result<Image> {
    check_tags(&manifest.tags)?;
    check_description(manifest.description.as_deref())?;
    let platform_details = platform_details(manifest.platform.as_deref())?;
    let architecture = architecture_of(store, manifest.kernel_id.as_ref())?;
    if let Some(ramdisk) = &manifest.ramdisk_id {
        store.ramdisks().get(ramdisk)?;
        if manifest.kernel_id.is_none() {
            return Err(invalid(
                "a ramdisk needs the kernel that it belongs to; give a kernel too",
            ));
        }
    }
    check_pv_grub(&manifest)?;
    check_command_line(manifest.command_line.as_deref())?;
    let virtualization = match manifest.kernel_id {
        Some(_) => VirtualizationType::Paravirtual,
        None => VirtualizationType::Hvm,
    };
    let root_device_name = manifest.root_device_name.unwrap_or_else(|| ROOT_DEVICE.to_owned());
    let mappings = resolve_mappings(gib, manifest.block_device_mappings, &root_device_name)?;
    let root_device_type = manifest.root_device_type.unwrap_or(RootDeviceType::Ebs);
    let root = mappings.iter().find(|m| m.device_name == root_device_name);
    let size = root.and_then(|m| m.ebs.as_ref()).map_or(0, |ebs| ebs.volume_size);
    check_root_size(root_device_type, size)?;
    Ok(Image {
        image_id: id,
        name: manifest.name,
        description: manifest.description,
        owner_id: store.owner_id(),
        creation_date: now(),
        state: ImageState::Available,
        architecture: manifest.architecture.unwrap_or(architecture),
        virtualization_type: manifest.virtualization_type.unwrap_or(virtualization),
        kernel_id: manifest.kernel_id,
        ramdisk_id: manifest.ramdisk_id,
        command_line: manifest.command_line,
        root_device_type,
        root_device_name,
        block_device_mappings: mappings,
        public: false,
        launch_permissions: Vec::new(),
        product_codes: Vec::new(),
        hourly_rate: None,
        platform: manifest.platform,
        platform_details: platform_details.to_owned(),
        boot_mode: manifest.boot_mode,
        uefi_variables: manifest.uefi_variables,
        imds_support: manifest.imds_support,
        transport: manifest.transport,
        disk_bus: manifest.disk_bus,
        source_instance_id: manifest.source_instance_id,
        source_image_id: manifest.source_image_id,
        source_image_region: manifest.source_image_region,
        image_location: manifest.image_location,
        deprecation_time: None,
        deregistration_protection: None,
        state_reason: None,
        client_token: None,
        tags: manifest.tags,
    })
}

fn check_command_line(text: Option<&str>) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    boot::cmdline::check(text)?;
    if text.contains(char::is_control) {
        return Err(invalid("the kernel command line contains a control character; take it out"));
    }
    Ok(())
}

/// EC2's PlatformDetails.
fn platform_details(platform: Option<&str>) -> Result<&'static str> {
    match platform {
        None => Ok(LINUX),
        Some("windows") => Ok("Windows"),
        Some(_) => Err(invalid("a Platform is windows, or is not given")),
    }
}

/// # Errors
/// `InvalidParameterValue`: it is longer than EC2 allows.
pub fn check_description(text: Option<&str>) -> Result<()> {
    if text.is_some_and(|text| text.chars().count() > 255) {
        return Err(invalid("the description is longer than 255 characters; shorten it"));
    }
    Ok(())
}

fn invalid(why: impl Into<String>) -> Error {
    Error::refused(Code::InvalidParameterValue, why)
}

fn resolve_mappings(
    gib: Gib<'_>,
    mut mappings: Vec<BlockDeviceMapping>,
    root: &str,
) -> Result<Vec<BlockDeviceMapping>> {
    if mappings.len() > MAX_MAPPINGS {
        return Err(invalid(format!(
            "there are {} block devices; an image has at most {MAX_MAPPINGS}",
            mappings.len()
        )));
    }
    for index in 0..mappings.len() {
        let (before, rest) = mappings.split_at_mut(index);
        let Some(mapping) = rest.first_mut() else { break };
        let name = mapping.device_name.clone();
        let shown = name.escape_debug();
        check_device_name(&name)?;
        if before.iter().any(|other| other.device_name == name) {
            return Err(invalid(format!("the device {shown} is mapped twice; map it once")));
        }
        resolve_mapping(gib, mapping).map_err(|e| e.context(format!("device {shown}")))?;
        if let Some(ebs) = &mut mapping.ebs {
            ebs.delete_on_termination.get_or_insert(name == root);
        }
    }
    let root_has_content = mappings.iter().any(|mapping| {
        mapping.device_name == root
            && mapping.ebs.as_ref().is_some_and(|ebs| ebs.snapshot_id.is_some())
    });
    if !root_has_content {
        return Err(invalid(format!(
            "the root device {} is not mapped to a snapshot; map it or name another root device",
            root.escape_debug()
        )));
    }
    Ok(mappings)
}

/// A device is a volume, or `ephemeralN`, or none: one of the three.
fn resolve_mapping(gib: Gib<'_>, mapping: &mut BlockDeviceMapping) -> Result<()> {
    match (&mut mapping.ebs, &mapping.virtual_name, &mapping.no_device) {
        (Some(ebs), None, None) => resolve_ebs(gib, ebs),
        (None, Some(name), None) => check_virtual_name(name),
        (None, None, Some(text)) if text.is_empty() => Ok(()),
        (None, None, None) => Err(invalid("it lacks Ebs; say what it is")),
        _ => Err(invalid("it is Ebs, VirtualName or an empty NoDevice; give one of them")),
    }
}

/// # Errors
/// `InvalidParameterValue`: it is not one of EC2's, `ephemeral0` to `ephemeral23`.
pub fn check_virtual_name(name: &str) -> Result<()> {
    let number = name.strip_prefix("ephemeral").and_then(|n| n.parse::<u8>().ok());
    match number.filter(|n| *n < 24 && name == format!("ephemeral{n}")) {
        Some(_) => Ok(()),
        None => Err(invalid(format!(
            "'{}' is not a virtual name; there are ephemeral0 to ephemeral23",
            name.escape_debug()
        ))),
    }
}

/// # Errors
/// `InvalidManifest`: an instance-store root is larger than EC2's limit.
pub fn check_root_size(root_device_type: RootDeviceType, gib: u64) -> Result<()> {
    if root_device_type == RootDeviceType::InstanceStore && gib > MAX_INSTANCE_STORE_GIB {
        return Err(Error::refused(
            Code::InvalidManifest,
            format!(
                "the root has {gib} GiB; with an instance-store root it may have {MAX_INSTANCE_STORE_GIB}, else use ebs"
            ),
        ));
    }
    Ok(())
}

/// # Errors
/// `InvalidParameterValue`: it is no device name.
pub fn check_device_name(name: &str) -> Result<()> {
    let stem = name.strip_prefix("/dev/").unwrap_or(name);
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if (1..=32).contains(&stem.len()) && stem.chars().all(fine) {
        return Ok(());
    }
    let shown = name.escape_debug();
    Err(invalid(format!("'{shown}' is not a device name such as {ROOT_DEVICE}")))
}

fn resolve_ebs(gib: Gib<'_>, ebs: &mut EbsBlockDevice) -> Result<()> {
    if let Some(id) = &ebs.snapshot_id {
        let least = gib(id)?;
        if ebs.volume_size == 0 {
            ebs.volume_size = least;
        }
        if ebs.volume_size < least {
            return Err(invalid(format!(
                "a volume of {} GiB can't hold {id}, which has {least} GiB",
                ebs.volume_size
            )));
        }
    }
    if !(1..=MAX_GIB).contains(&ebs.volume_size) {
        return Err(invalid(format!(
            "a volume of {} GiB can't be made: it may have 1 to {MAX_GIB}",
            ebs.volume_size
        )));
    }
    Ok(())
}
