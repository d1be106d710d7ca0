//! EC2 Image, as DescribeImages answers.

use super::{HYPERVISOR, USAGE_OPERATION, is_empty};
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, SnapshotId};
use crate::plan::{DiskBus, TransportKind};
use crate::record::image::{
    Architecture, BootMode, Image, ImageState, ImdsSupport, LaunchPermission, ProductCode,
    RootDeviceType, StateReason, VirtualizationType,
};
use crate::record::tag::Tag;
use crate::store::now;
use serde::{Serialize, Serializer};

/// An image, with what follows from its place. As JSON it is EC2's Image.
#[derive(Clone, Debug)]
pub struct DescribedImage {
    /// The record.
    pub image: Image,
    /// The manifest of its bundle, or its owner and name.
    pub image_location: String,
    /// `amazon`: it comes with the store. `aws-marketplace`: it has a product code.
    pub image_owner_alias: Option<&'static str>,
    /// RFC 3339.
    pub last_launched_time: Option<String>,
    /// Bytes of its root volume, if its snapshot is there.
    pub root_size: Option<u64>,
}

impl Serialize for DescribedImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape::of(self).serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    image_id: &'a ImageId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    owner_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_owner_alias: Option<&'static str>,
    image_location: &'a str,
    image_type: &'static str,
    creation_date: &'a str,
    state: ImageState,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<&'a StateReason>,
    public: bool,
    architecture: Architecture,
    virtualization_type: VirtualizationType,
    hypervisor: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    platform_details: &'a str,
    usage_operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_mode: Option<BootMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imds_support: Option<ImdsSupport>,
    ena_support: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_id: Option<&'a KernelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramdisk_id: Option<&'a RamdiskId>,
    root_device_type: RootDeviceType,
    root_device_name: &'a str,
    block_device_mappings: Vec<Mapping<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    product_codes: &'a [ProductCode],
    #[serde(skip_serializing_if = "Option::is_none")]
    source_instance_id: Option<&'a InstanceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_image_id: Option<&'a ImageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_image_region: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecation_time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregistration_protection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_launched_time: Option<&'a str>,
    tags: &'a [Tag],
    #[serde(skip_serializing_if = "is_empty")]
    spore: Own<'a>,
}

/// EC2 BlockDeviceMapping.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping<'a> {
    device_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ebs: Option<Ebs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_device: Option<&'a str>,
}

/// EC2 EbsBlockDevice.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<&'a SnapshotId>,
    volume_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_on_termination: Option<bool>,
    volume_type: &'a str,
    encrypted: bool,
    #[serde(skip_serializing_if = "is_empty")]
    spore: EbsOwn,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EbsOwn {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Own<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    command_line: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<TransportKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bus: Option<DiskBus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hourly_rate: Option<&'a str>,
    /// Bytes of the root volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
}

impl<'a> Shape<'a> {
    fn of(described: &'a DescribedImage) -> Self {
        let image = &described.image;
        Self {
            image_id: &image.image_id,
            name: &image.name,
            description: image.description.as_deref(),
            owner_id: &image.owner_id,
            image_owner_alias: described.image_owner_alias,
            image_location: &described.image_location,
            image_type: "machine",
            creation_date: &image.creation_date,
            state: image.state,
            state_reason: image.state_reason.as_ref(),
            public: image.public,
            architecture: image.architecture,
            virtualization_type: image.virtualization_type,
            hypervisor: HYPERVISOR,
            platform: image.platform.as_deref(),
            platform_details: &image.platform_details,
            usage_operation: USAGE_OPERATION,
            boot_mode: image.boot_mode,
            imds_support: image.imds_support,
            // Its guest has virtio's network device, and not Amazon's.
            ena_support: false,
            kernel_id: image.kernel_id.as_ref(),
            ramdisk_id: image.ramdisk_id.as_ref(),
            root_device_type: image.root_device_type,
            root_device_name: &image.root_device_name,
            block_device_mappings: mappings(image),
            product_codes: &image.product_codes,
            source_instance_id: image.source_instance_id.as_ref(),
            source_image_id: image.source_image_id.as_ref(),
            source_image_region: image.source_image_region.as_deref(),
            deprecation_time: image.deprecation_time.as_deref(),
            deregistration_protection: image
                .deregistration_protection
                .as_ref()
                .and_then(|protection| protection.word(&now())),
            last_launched_time: described.last_launched_time.as_deref(),
            tags: &image.tags,
            spore: Own {
                command_line: image.command_line.as_deref(),
                transport: image.transport,
                disk_bus: image.disk_bus,
                hourly_rate: image.hourly_rate.as_deref(),
                size_bytes: described.root_size,
            },
        }
    }
}

fn mappings(image: &Image) -> Vec<Mapping<'_>> {
    let mappings = image.block_device_mappings.iter().map(|mapping| Mapping {
        device_name: &mapping.device_name,
        ebs: mapping.ebs.as_ref().map(|ebs| Ebs {
            snapshot_id: ebs.snapshot_id.as_ref(),
            volume_size: ebs.volume_size,
            delete_on_termination: ebs.delete_on_termination,
            volume_type: &ebs.volume_type,
            encrypted: false,
            spore: EbsOwn { read_only: ebs.read_only },
        }),
        virtual_name: mapping.virtual_name.as_deref(),
        no_device: mapping.no_device.as_deref(),
    });
    mappings.collect()
}

/// EC2 ImageAttribute with `LaunchPermissions`, as DescribeImageAttribute answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LaunchPermissions<'a> {
    image_id: &'a ImageId,
    launch_permissions: Vec<Permission<'a>>,
}

/// EC2 LaunchPermission. Of groups EC2 has `all` only; a Unix group's gid stands there, too.
#[derive(Clone, Debug, Serialize)]
enum Permission<'a> {
    UserId(&'a str),
    Group(&'a str),
}

impl<'a> LaunchPermissions<'a> {
    /// Those of an image.
    pub fn of(image: &'a Image) -> Self {
        let all = image.public.then_some(Permission::Group("all"));
        let some = image.launch_permissions.iter().map(|entry| match entry {
            LaunchPermission::UserId(id) => Permission::UserId(id),
            LaunchPermission::Group(id) => Permission::Group(id),
        });
        let launch_permissions = all.into_iter().chain(some).collect();
        Self { image_id: &image.image_id, launch_permissions }
    }
}
