//! Launch configurations.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::record::image::BlockDeviceMapping;
use crate::service::autoscaling::configurations::{InstanceMetadataOptions, LaunchData};
use crate::service::autoscaling::shape;
use crate::service::launch_data::ebs;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CreateLaunchConfiguration", create),
    ("DeleteLaunchConfiguration", delete),
    ("DescribeLaunchConfigurations", describe),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    launch_configuration_name: String,
    image_id: String,
    #[serde(default)]
    instance_type: Option<String>,
    #[serde(default)]
    key_name: Option<String>,
    #[serde(default)]
    security_groups: Vec<String>,
    #[serde(default)]
    user_data: Option<String>,
    #[serde(default)]
    kernel_id: Option<String>,
    #[serde(default)]
    ramdisk_id: Option<String>,
    #[serde(default)]
    block_device_mappings: Vec<Value>,
    #[serde(default)]
    metadata_options: Option<InstanceMetadataOptions>,
    // What instances use can always be seen, and the way out needs no address.
    #[serde(default, rename = "InstanceMonitoring")]
    _instance_monitoring: Option<Value>,
    #[serde(default, rename = "AssociatePublicIpAddress")]
    _associate_public_ip_address: bool,
    #[serde(default, rename = "PlacementTenancy")]
    _placement_tenancy: Option<String>,
}

fn create(call: &Call<'_>) -> Result<Value> {
    let asked: Created = call.input()?;
    let mappings = asked.block_device_mappings.iter().map(mapping).collect::<Result<_>>()?;
    let launch = LaunchData {
        image_id: asked.image_id,
        instance_type: asked.instance_type,
        key_name: asked.key_name,
        security_groups: asked.security_groups,
        user_data: asked.user_data,
        kernel_id: asked.kernel_id,
        ramdisk_id: asked.ramdisk_id,
        block_device_mappings: mappings,
        metadata_options: asked.metadata_options,
    };
    call.service.create_launch_configuration(&asked.launch_configuration_name, &launch, None)?;
    Ok(json!({}))
}

/// BlockDeviceMapping, of which NoDevice is a truth and not a text here.
fn mapping(value: &Value) -> Result<BlockDeviceMapping> {
    let mut value = value.clone();
    if let Some(asked) = value.get("Ebs") {
        value["Ebs"] = ebs(asked)?;
    }
    let none = value.as_object_mut().and_then(|value| value.shift_remove("NoDevice"));
    if none == Some(Value::Bool(true)) {
        value["NoDevice"] = "".into();
    }
    BlockDeviceMapping::deserialize(&value).map_err(|error| {
        Error::refused(Code::ValidationError, format!("BlockDeviceMappings: {error}"))
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    launch_configuration_names: Vec<String>,
}

fn describe(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let found = call.service.describe_launch_configurations(&asked.launch_configuration_names)?;
    let answer = found.iter().map(shape::configuration).collect();
    call.records("LaunchConfigurations", answer, "LaunchConfigurationName")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    launch_configuration_name: String,
}

fn delete(call: &Call<'_>) -> Result<Value> {
    let asked: Deleted = call.input()?;
    call.service.delete_launch_configuration(&asked.launch_configuration_name)?;
    Ok(json!({}))
}
