//! What may be asked and changed of an instance.

use super::super::call::{Action, Call, decoded, json_of};
use super::images::AttributeValue;
use crate::error::{Code, Error, Result};
use crate::service::instances::{DescribeInstances, reservations};
use crate::service::launch::ModifyInstanceAttribute;
use crate::service::launch_data::MetadataOptions;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DescribeInstanceAttribute", describe_instance_attribute),
    ("DescribeInstanceCreditSpecifications", describe_instance_credit_specifications),
    ("ModifyInstanceAttribute", modify_instance_attribute),
    ("ModifyInstanceMetadataOptions", modify_instance_metadata_options),
    ("ResetInstanceAttribute", reset_instance_attribute),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    instance_id: String,
    attribute: String,
}

fn describe_instance_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let record = call.service.describe_instance(&asked.instance_id)?;
    let described = json_of(reservations(std::slice::from_ref(&record)))?;
    let of = |key: &str| described[0]["Instances"][0][key].clone();
    let value = |value: Value| match value {
        Value::Null => json!({}),
        value => json!({ "Value": value }),
    };
    let instance = &record.instance;
    let (key, value) = match asked.attribute.as_str() {
        "instanceType" => ("InstanceType", value(of("InstanceType"))),
        "kernel" => ("KernelId", value(of("KernelId"))),
        "ramdisk" => ("RamdiskId", value(of("RamdiskId"))),
        "userData" => ("UserData", {
            let (_, data) = call.service.instance_user_data(&asked.instance_id)?;
            value(data.map_or(Value::Null, |data| STANDARD.encode(data).into()))
        }),
        "rootDeviceName" => ("RootDeviceName", value(of("RootDeviceName"))),
        "blockDeviceMapping" => ("BlockDeviceMappings", of("BlockDeviceMappings")),
        "productCodes" => ("ProductCodes", of("ProductCodes")),
        "groupSet" => ("Groups", of("SecurityGroups")),
        "sourceDestCheck" => ("SourceDestCheck", value(true.into())),
        "ebsOptimized" => ("EbsOptimized", value(false.into())),
        "enaSupport" => ("EnaSupport", value(false.into())),
        "disableApiTermination" => ("DisableApiTermination", value(false.into())),
        "disableApiStop" => ("DisableApiStop", value(false.into())),
        "instanceInitiatedShutdownBehavior" => (
            "InstanceInitiatedShutdownBehavior",
            value(json_of(instance.instance_initiated_shutdown_behavior)?),
        ),
        other => return Err(no_attribute(other)),
    };
    Ok(json!({ "InstanceId": instance.instance_id, key: value }))
}

fn no_attribute(name: &str) -> Error {
    let why = format!("instances have no attribute '{}' here", name.escape_debug());
    Error::refused(Code::InvalidParameterValue, why)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Modified {
    instance_id: String,
    #[serde(default)]
    attribute: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    instance_type: Option<AttributeValue>,
    #[serde(default)]
    kernel: Option<AttributeValue>,
    #[serde(default)]
    ramdisk: Option<AttributeValue>,
    #[serde(default)]
    user_data: Option<AttributeValue>,
    #[serde(default)]
    block_device_mappings: Vec<Mapping>,
    #[serde(default)]
    source_dest_check: Option<Flag>,
    #[serde(default)]
    disable_api_termination: Option<Flag>,
    #[serde(default)]
    ebs_optimized: Option<Flag>,
}

/// EC2 AttributeBooleanValue.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Flag {
    value: bool,
}

/// EC2 InstanceBlockDeviceMappingSpecification.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping {
    device_name: String,
    ebs: Ebs,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs {
    delete_on_termination: bool,
}

fn modify_instance_attribute(call: &Call<'_>) -> Result<Value> {
    let mut asked: Modified = call.input()?;
    // The words of old name the attribute, and its value beside.
    let value = asked.value.take().map(|value| AttributeValue { value });
    match asked.attribute.as_deref() {
        None => {}
        Some("instanceType") => asked.instance_type = value,
        Some("kernel") => asked.kernel = value,
        Some("ramdisk") => asked.ramdisk = value,
        Some("userData") => asked.user_data = value,
        Some("blockDeviceMapping") => {}
        Some(other) => return Err(no_attribute(other)),
    }
    // What is always so here may be asked for.
    for (name, flag, always) in [
        ("SourceDestCheck", &asked.source_dest_check, true),
        ("DisableApiTermination", &asked.disable_api_termination, false),
        ("EbsOptimized", &asked.ebs_optimized, false),
    ] {
        if flag.as_ref().is_some_and(|flag| flag.value != always) {
            let why = format!("{name} is always {always} here");
            return Err(Error::refused(Code::UnsupportedOperation, why));
        }
    }
    let given = |value: Option<AttributeValue>| value.map(|value| value.value);
    // Empty takes it away.
    let file = |value: Option<AttributeValue>| {
        given(value).map(|text| if text.is_empty() { "none".to_owned() } else { text })
    };
    let user_data = given(asked.user_data).map(|text| decoded("UserData", &text)).transpose()?;
    let mappings = asked.block_device_mappings.into_iter();
    let request = ModifyInstanceAttribute {
        instance_id: asked.instance_id,
        instance_type: given(asked.instance_type),
        kernel: file(asked.kernel),
        ramdisk: file(asked.ramdisk),
        user_data,
        delete_on_termination: mappings
            .map(|mapping| (mapping.device_name, mapping.ebs.delete_on_termination))
            .collect(),
        ..ModifyInstanceAttribute::default()
    };
    let nothing = ModifyInstanceAttribute {
        instance_id: request.instance_id.clone(),
        ..ModifyInstanceAttribute::default()
    };
    match request == nothing {
        true => drop(call.service.describe_instance(&request.instance_id)?),
        false => drop(call.service.modify_instance_attribute(&request)?),
    }
    Ok(json!({}))
}

fn reset_instance_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let service = call.service;
    match asked.attribute.as_str() {
        "kernel" => drop(service.reset_instance_kernel(&asked.instance_id)?),
        "ramdisk" => drop(service.reset_instance_ramdisk(&asked.instance_id)?),
        // It is always true here.
        "sourceDestCheck" => drop(service.describe_instance(&asked.instance_id)?),
        other => {
            let shown = other.escape_debug();
            let why = format!("'{shown}' can't be reset; kernel, ramdisk and sourceDestCheck can");
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
    }
    Ok(json!({}))
}

fn modify_instance_metadata_options(call: &Call<'_>) -> Result<Value> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Asked {
        instance_id: String,
        #[serde(flatten)]
        options: MetadataOptions,
    }
    let asked: Asked = call.input()?;
    let request = ModifyInstanceAttribute {
        instance_id: asked.instance_id,
        metadata_options: asked.options.into(),
        ..ModifyInstanceAttribute::default()
    };
    let record = call.service.modify_instance_attribute(&request)?;
    Ok(json!({
        "InstanceId": record.instance.instance_id,
        "InstanceMetadataOptions": json_of(record.instance.metadata_options)?,
    }))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Credits {
    instance_ids: Vec<String>,
}

/// Nothing is throttled here, which EC2 calls unlimited.
fn describe_instance_credit_specifications(call: &Call<'_>) -> Result<Value> {
    let asked: Credits = call.input()?;
    let instance_ids = asked.instance_ids.clone();
    let request = DescribeInstances { instance_ids, filters: call.filters()? };
    let found = call.service.describe_instances(&request)?;
    let burst = found.iter().filter(|record| record.instance.instance_type.starts_with('t'));
    let credits = burst.map(
        |record| json!({ "InstanceId": record.instance.instance_id, "CpuCredits": "unlimited" }),
    );
    call.listed(
        "InstanceCreditSpecifications",
        &asked.instance_ids,
        credits.collect(),
        "InstanceId",
    )
}
