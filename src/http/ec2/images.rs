//! Images.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::id::ImageId;
use crate::record::image::{Architecture, ImdsSupport, RootDeviceType};
use crate::service::create_image::{CreateImage, DeviceChange};
use crate::service::deregister::DeregisterImages;
use crate::service::image_attributes::{Change, Exposure, ModifyImageAttribute, protection};
use crate::service::images::{DescribeImages, LaunchPermissions};
use crate::service::register::{Boot, RegisterImage, Root, is_bundle};
use crate::service::transfer::{CopyImage, KeyFiles};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CopyImage", copy_image),
    ("CreateImage", create_image),
    ("DeregisterImage", deregister_image),
    ("DescribeImageAttribute", describe_image_attribute),
    ("DescribeImages", describe_images),
    ("DisableImage", disable_image),
    ("DisableImageDeprecation", disable_image_deprecation),
    ("DisableImageDeregistrationProtection", disable_image_deregistration_protection),
    ("EnableImage", enable_image),
    ("EnableImageDeprecation", enable_image_deprecation),
    ("EnableImageDeregistrationProtection", enable_image_deregistration_protection),
    ("ModifyImageAttribute", modify_image_attribute),
    ("RegisterImage", register_image),
    ("ResetImageAttribute", reset_image_attribute),
];

/// How long a guest may take to shut down for an image of its disks.
const SHUTDOWN: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Described {
    image_ids: Vec<String>,
    owners: Vec<String>,
    executable_users: Vec<String>,
    include_deprecated: bool,
    include_disabled: bool,
}

fn describe_images(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let request = DescribeImages {
        image_ids: asked.image_ids.clone(),
        owners: asked.owners,
        executable_users: asked.executable_users,
        filters: call.filters()?,
        catalog: None,
        include_deprecated: asked.include_deprecated,
        include_disabled: asked.include_disabled,
    };
    let images = call.service.describe_images(&request)?;
    let images = images.iter().map(json_of).collect::<Result<_>>()?;
    call.listed("Images", &asked.image_ids, images, "ImageId")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    instance_id: String,
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    no_reboot: bool,
    #[serde(default)]
    block_device_mappings: Vec<DeviceChange>,
}

/// Answers as soon as the image is there, pending.
fn create_image(call: &Call<'_>) -> Result<Value> {
    let asked: Created = call.input()?;
    let request = CreateImage {
        name: asked.name,
        description: asked.description,
        no_reboot: asked.no_reboot,
        timeout: SHUTDOWN,
        tags: call.tags("image", &["image", "snapshot"])?,
        snapshot_tags: call.tags("snapshot", &["image", "snapshot"])?,
        changes: asked.block_device_mappings,
    };
    let instance = asked.instance_id;
    let id = call.behind(move |service, announce| {
        let begun = |image: &ImageId| {
            announce(image.to_string());
            Ok(())
        };
        service.create_image(&instance, request, begun).map(drop)
    })?;
    Ok(json!({ "ImageId": id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registered {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    image_location: Option<String>,
    #[serde(default)]
    root_device_name: Option<String>,
    #[serde(default)]
    block_device_mappings: Vec<Mapping>,
    #[serde(default)]
    kernel_id: Option<String>,
    #[serde(default)]
    ramdisk_id: Option<String>,
    #[serde(default)]
    architecture: Option<Architecture>,
    #[serde(default)]
    virtualization_type: Option<String>,
    #[serde(default)]
    imds_support: Option<String>,
    #[serde(default)]
    boot_mode: Option<String>,
    #[serde(default)]
    uefi_data: Option<String>,
    // What a guest has here is virtio's, whatever it says of Amazon's devices.
    #[serde(default, rename = "EnaSupport")]
    _ena_support: Option<bool>,
    #[serde(default, rename = "SriovNetSupport")]
    _sriov_net_support: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping {
    device_name: String,
    #[serde(default)]
    ebs: Option<Value>,
    #[serde(default)]
    virtual_name: Option<String>,
    #[serde(default)]
    no_device: Option<String>,
}

fn register_image(call: &Call<'_>) -> Result<Value> {
    let asked: Registered = call.input()?;
    let tags = call.tags("image", &["image"])?;
    if let Some(location) = asked.image_location.filter(|location| is_bundle(location)) {
        let keys = KeyFiles::default();
        let root = Root::Bundle { location, keys };
        let boot = Boot { description: asked.description, tags, ..Boot::default() };
        let image = call.service.register_image(&RegisterImage { name: asked.name, root, boot })?;
        return Ok(json!({ "ImageId": image.image_id }));
    }
    if asked.uefi_data.is_some() {
        let why = "UefiData can't be given: an image made of an instance (CreateImage) carries its variables";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let missing = |what: &str| {
        let why = format!("The request must contain the parameter {what}");
        Error::refused(Code::MissingParameter, why)
    };
    let mappings = asked.block_device_mappings.iter().map(|mapping| {
        let mut value = json!({ "DeviceName": mapping.device_name });
        if let Some(ebs) = &mapping.ebs {
            value["Ebs"] = crate::service::launch_data::ebs(ebs)?;
        }
        for (key, text) in
            [("VirtualName", &mapping.virtual_name), ("NoDevice", &mapping.no_device)]
        {
            if let Some(text) = text {
                value[key] = text.as_str().into();
            }
        }
        Ok(value)
    });
    let mappings = mappings.collect::<Result<Vec<Value>>>()?;
    // Of an image of one disk the root is that.
    let first = || asked.block_device_mappings.first().map(|first| first.device_name.clone());
    let root = asked.root_device_name.or_else(first).ok_or_else(|| missing("RootDeviceName"))?;
    let mut manifest = json!({
        "Name": asked.name.ok_or_else(|| missing("Name"))?,
        "RootDeviceName": root,
        "BlockDeviceMappings": mappings,
        "Tags": json_of(tags)?,
    });
    let architecture = asked.architecture.map(json_of).transpose()?;
    for (key, value) in [
        ("Description", asked.description.map(Value::from)),
        ("KernelId", asked.kernel_id.map(Value::from)),
        ("RamdiskId", asked.ramdisk_id.map(Value::from)),
        ("Architecture", architecture),
        ("VirtualizationType", asked.virtualization_type.map(Value::from)),
        ("ImdsSupport", asked.imds_support.map(Value::from)),
        ("BootMode", asked.boot_mode.map(Value::from)),
        ("RootDeviceType", Some(json_of(RootDeviceType::Ebs)?)),
    ] {
        if let Some(value) = value {
            manifest[key] = value;
        }
    }
    let image = call.service.register_manifest(manifest.to_string().as_bytes())?;
    Ok(json!({ "ImageId": image.image_id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Copied {
    source_image_id: String,
    source_region: String,
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    copy_image_tags: bool,
}

/// Answers as soon as the copy is there, pending; in a bucket it is there when it is whole.
fn copy_image(call: &Call<'_>) -> Result<Value> {
    let asked: Copied = call.input()?;
    let request = CopyImage {
        source_image_id: asked.source_image_id,
        source_region: call.other_region(&asked.source_region),
        destination_region: None,
        name: asked.name,
        description: asked.description,
        copy_image_tags: asked.copy_image_tags,
        tags: call.tags("image", &["image", "snapshot"])?,
        client_token: call.client_token(),
    };
    let id = call.behind(move |service, announce| {
        let image = service.copy_image(&request, &mut |id| announce(id.to_owned()))?;
        announce(image.image_id.to_string());
        Ok(())
    })?;
    Ok(json!({ "ImageId": id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deregistered {
    image_id: String,
    #[serde(default)]
    delete_associated_snapshots: bool,
}

fn deregister_image(call: &Call<'_>) -> Result<Value> {
    let asked: Deregistered = call.input()?;
    let request = DeregisterImages {
        image_ids: vec![asked.image_id],
        region: None,
        delete_associated_snapshots: asked.delete_associated_snapshots,
    };
    let results = call.service.deregister_images(&request)?;
    results
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::failure("nothing was asked")))
        .and_then(json_of)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    image_id: String,
    attribute: String,
}

fn describe_image_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    let image = call.service.describe_image_attribute(&asked.image_id)?;
    let value =
        |value: Option<String>| value.map_or_else(|| json!({}), |value| json!({ "Value": value }));
    let (name, value) = match asked.attribute.as_str() {
        "launchPermission" => return json_of(LaunchPermissions::of(&image)),
        "description" => ("Description", value(image.description)),
        "kernel" => ("KernelId", value(image.kernel_id.map(|id| id.to_string()))),
        "ramdisk" => ("RamdiskId", value(image.ramdisk_id.map(|id| id.to_string()))),
        "productCodes" => ("ProductCodes", json_of(image.product_codes)?),
        "deregistrationProtection" => ("DeregistrationProtection", value(Some(protection(&image)))),
        "bootMode" => (
            "BootMode",
            match image.boot_mode {
                Some(mode) => json!({ "Value": json_of(mode)? }),
                None => json!({}),
            },
        ),
        "imdsSupport" => (
            "ImdsSupport",
            match image.imds_support {
                Some(support) => json!({ "Value": json_of(support)? }),
                None => json!({}),
            },
        ),
        "blockDeviceMapping" => ("BlockDeviceMappings", {
            let request =
                DescribeImages { image_ids: vec![asked.image_id], ..DescribeImages::default() };
            let described = call.service.describe_images(&request)?;
            let mappings = described.first().map(json_of).transpose()?;
            mappings.map_or_else(|| json!([]), |mut image| image["BlockDeviceMappings"].take())
        }),
        other => return Err(no_attribute(other)),
    };
    Ok(json!({ "ImageId": image.image_id, name: value }))
}

fn no_attribute(name: &str) -> Error {
    let why = format!("images have no attribute '{}' here", name.escape_debug());
    Error::refused(Code::InvalidParameterValue, why)
}

/// EC2 AttributeValue.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttributeValue {
    /// The value.
    #[serde(default)]
    pub value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Modified {
    image_id: String,
    #[serde(default)]
    attribute: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    description: Option<AttributeValue>,
    #[serde(default)]
    imds_support: Option<AttributeValue>,
    #[serde(default)]
    launch_permission: Permissions,
    #[serde(default)]
    operation_type: Option<String>,
    #[serde(default)]
    product_codes: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    user_ids: Vec<String>,
}

/// EC2 LaunchPermissionModifications.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Permissions {
    add: Vec<Permission>,
    remove: Vec<Permission>,
}

/// EC2 LaunchPermission.
#[derive(Deserialize)]
enum Permission {
    UserId(String),
    Group(String),
}

impl Permission {
    /// As the command line says it.
    fn spelled(&self) -> String {
        match self {
            Self::UserId(id) => format!("{{UserId={id}}}"),
            Self::Group(name) => format!("{{Group={name}}}"),
        }
    }
}

fn modify_image_attribute(call: &Call<'_>) -> Result<Value> {
    let mut asked: Modified = call.input()?;
    let value = asked.value.take();
    match asked.attribute.as_deref() {
        Some("description") => asked.description = value.map(|value| AttributeValue { value }),
        Some("imdsSupport") => asked.imds_support = value.map(|value| AttributeValue { value }),
        Some("launchPermission" | "productCodes") | None => {}
        Some(other) => return Err(no_attribute(other)),
    }
    // The words of old, of which each request has one list.
    let users = asked.user_ids.into_iter().map(Permission::UserId);
    let listed = users.chain(asked.user_groups.into_iter().map(Permission::Group));
    match asked.operation_type.as_deref() {
        Some("remove") => asked.launch_permission.remove.extend(listed),
        _ => asked.launch_permission.add.extend(listed),
    }
    let list =
        |list: &[Permission]| list.iter().map(Permission::spelled).collect::<Vec<_>>().join(",");
    let Permissions { add, remove } = &asked.launch_permission;
    let sides = [("Add", list(add)), ("Remove", list(remove))];
    let sides: Vec<String> = sides
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(word, list)| format!("{word}=[{list}]"))
        .collect();
    let launch_permission: Option<Change> = match sides.is_empty() {
        true => None,
        false => Some(sides.join(",").parse()?),
    };
    let imds_support = match asked.imds_support.as_ref().map(|support| support.value.as_str()) {
        None => None,
        Some("v2.0") => Some(ImdsSupport::V2),
        Some(other) => {
            let why = format!("ImdsSupport is '{}'; it can be v2.0", other.escape_debug());
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
    };
    let request = ModifyImageAttribute {
        image_id: asked.image_id,
        description: asked.description.map(|description| description.value),
        product_codes: asked.product_codes,
        hourly_rate: None,
        imds_support,
        launch_permission,
    };
    call.service.modify_image_attribute(&request, |exposure| exposed(call, exposure))?;
    Ok(json!({}))
}

fn reset_image_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    if asked.attribute != "launchPermission" {
        return Err(no_attribute(&asked.attribute));
    }
    let change = Change { reset: true, ..Change::default() };
    call.service
        .modify_launch_permission(&asked.image_id, &change, |exposure| exposed(call, exposure))?;
    Ok(json!({}))
}

/// What becomes public is looked into. EC2 has no word for making it so all the same, which is the
/// command line's; where nobody could look, nothing is known to be exposed.
fn exposed(call: &Call<'_>, exposure: &Exposure) -> Result<()> {
    if exposure.secrets.is_empty() {
        exposure.unknown.iter().for_each(|why| call.service.warn(why));
        return Ok(());
    }
    exposure
        .refuse()
        .map_err(|error| error.remedy("'spore image share' lists them, and has a word for it"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deprecated {
    image_id: String,
    #[serde(default)]
    deprecate_at: Option<String>,
}

fn enable_image_deprecation(call: &Call<'_>) -> Result<Value> {
    let asked: Deprecated = call.input()?;
    call.service.deprecate_image(&asked.image_id, asked.deprecate_at.as_deref())?;
    Ok(json!({}))
}

fn disable_image_deprecation(call: &Call<'_>) -> Result<Value> {
    let asked: Deprecated = call.input()?;
    call.service.deprecate_image(&asked.image_id, None)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfImage {
    image_id: String,
    #[serde(default)]
    with_cooldown: bool,
}

fn disable_image(call: &Call<'_>) -> Result<Value> {
    let asked: OfImage = call.input()?;
    call.service.set_image_enabled(&asked.image_id, false)?;
    Ok(json!({ "Return": true }))
}

fn enable_image(call: &Call<'_>) -> Result<Value> {
    let asked: OfImage = call.input()?;
    call.service.set_image_enabled(&asked.image_id, true)?;
    Ok(json!({ "Return": true }))
}

fn enable_image_deregistration_protection(call: &Call<'_>) -> Result<Value> {
    let asked: OfImage = call.input()?;
    let word = call.service.protect_image(&asked.image_id, asked.with_cooldown)?;
    Ok(json!({ "Return": word }))
}

fn disable_image_deregistration_protection(call: &Call<'_>) -> Result<Value> {
    let asked: OfImage = call.input()?;
    Ok(json!({ "Return": call.service.unprotect_image(&asked.image_id)? }))
}
