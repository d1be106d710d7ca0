//! Volumes.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::service::volumes::{AttachVolume, CreateVolume, DescribeVolumes, DetachVolume};
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("AttachVolume", attach_volume),
    ("CreateVolume", create_volume),
    ("DeleteVolume", delete_volume),
    ("DescribeVolumeAttribute", describe_volume_attribute),
    ("DescribeVolumeStatus", describe_volume_status),
    ("DescribeVolumes", describe_volumes),
    ("DescribeVolumesModifications", describe_volumes_modifications),
    ("DetachVolume", detach_volume),
    ("ModifyVolume", modify_volume),
    ("ModifyVolumeAttribute", modify_volume_attribute),
];

const GIB: u64 = 1 << 30;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    volume_ids: Vec<String>,
}

fn found(call: &Call<'_>, asked: &Described) -> Result<Vec<Value>> {
    let (volume_ids, filters) = (asked.volume_ids.clone(), call.filters()?);
    let found = call.service.describe_volumes(&DescribeVolumes { volume_ids, filters })?;
    found.iter().map(json_of).collect()
}

fn describe_volumes(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    call.listed("Volumes", &asked.volume_ids, found(call, &asked)?, "VolumeId")
}

fn describe_volume_status(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let status = |volume: Value| {
        json!({
            "VolumeId": volume["VolumeId"],
            "AvailabilityZone": volume["AvailabilityZone"],
            "VolumeStatus": {
                "Status": "ok",
                "Details": [
                    { "Name": "io-enabled", "Status": "passed" },
                    { "Name": "io-performance", "Status": "not-applicable" },
                ],
            },
            "Events": [],
            "Actions": [],
        })
    };
    let found = found(call, &asked)?.into_iter().map(status).collect();
    call.listed("VolumeStatuses", &asked.volume_ids, found, "VolumeId")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    // There is one zone.
    #[serde(default, rename = "AvailabilityZone")]
    _availability_zone: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    snapshot_id: Option<String>,
    #[serde(default)]
    volume_type: Option<String>,
    // Every volume is as fast as the host's disk.
    #[serde(default, rename = "Iops")]
    _iops: Option<u32>,
    #[serde(default, rename = "Throughput")]
    _throughput: Option<u32>,
}

fn create_volume(call: &Call<'_>) -> Result<Value> {
    let asked: Created = call.input()?;
    let size = asked.size.map(|gib| gib.checked_mul(GIB).ok_or_else(|| too_large(gib)));
    let request = CreateVolume {
        snapshot_id: asked.snapshot_id,
        size: size.transpose()?,
        volume_type: asked.volume_type,
        tags: call.tags("volume", &["volume"])?,
        client_token: call.client_token(),
    };
    let mut answer = json_of(call.service.create_volume(&request)?)?;
    // EC2 does not know yet whether it will have any.
    answer.as_object_mut().map(|answer| answer.shift_remove("Attachments"));
    Ok(answer)
}

fn too_large(gib: u64) -> Error {
    Error::refused(Code::InvalidParameterValue, format!("a volume of {gib} GiB is too large"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attached {
    volume_id: String,
    instance_id: String,
    device: String,
}

fn attach_volume(call: &Call<'_>) -> Result<Value> {
    let Attached { volume_id, instance_id, device } = call.input()?;
    json_of(call.service.attach_volume(&AttachVolume { volume_id, instance_id, device })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Detached {
    volume_id: String,
    #[serde(default)]
    instance_id: Option<String>,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    force: bool,
}

fn detach_volume(call: &Call<'_>) -> Result<Value> {
    let asked: Detached = call.input()?;
    let request = Described { volume_ids: vec![asked.volume_id.clone()] };
    let volume = found(call, &request)?.into_iter().next().unwrap_or_default();
    let attachment = &volume["Attachments"][0];
    for (given, key) in [(&asked.instance_id, "InstanceId"), (&asked.device, "Device")] {
        let Some(given) = given else { continue };
        if attachment[key].as_str() != Some(given) {
            let why = format!("{} is not attached to {}", asked.volume_id, given.escape_debug());
            return Err(Error::refused(Code::IncorrectState, why));
        }
    }
    let request = DetachVolume { volume_id: asked.volume_id, force: asked.force };
    json_of(call.service.detach_volume(&request)?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Modified {
    volume_id: String,
    #[serde(default)]
    size: Option<u64>,
}

fn modify_volume(call: &Call<'_>) -> Result<Value> {
    let asked: Modified = call.input()?;
    let Some(gib) = asked.size else {
        let why = "The request must contain the parameter Size";
        return Err(Error::refused(Code::MissingParameter, why));
    };
    let size = gib.checked_mul(GIB).ok_or_else(|| too_large(gib))?;
    let modification = call.service.modify_volume(&asked.volume_id, size)?;
    Ok(json!({ "VolumeModification": json_of(modification)? }))
}

fn describe_volumes_modifications(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let ids = &asked.volume_ids;
    let found = call.service.describe_volumes_modifications(ids, &call.filters()?)?;
    let found = found.iter().map(json_of).collect::<Result<_>>()?;
    call.listed("VolumesModifications", ids, found, "VolumeId")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    volume_id: String,
    #[serde(default)]
    attribute: Option<String>,
    #[serde(default, rename = "AutoEnableIO")]
    auto_enable_io: Option<Flag>,
}

/// EC2 AttributeBooleanValue.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Flag {
    value: bool,
}

/// A volume's I/O is never kept back here.
fn describe_volume_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    let volume_ids = vec![asked.volume_id];
    let found = found(call, &Described { volume_ids })?;
    let id = found.first().map(|volume| volume["VolumeId"].clone());
    match asked.attribute.as_deref() {
        Some("autoEnableIO") => Ok(json!({ "VolumeId": id, "AutoEnableIO": { "Value": true } })),
        Some("productCodes") => Ok(json!({ "VolumeId": id, "ProductCodes": [] })),
        other => {
            let shown = other.unwrap_or_default().escape_debug();
            let why = format!("volumes have no attribute '{shown}' here");
            Err(Error::refused(Code::InvalidParameterValue, why))
        }
    }
}

fn modify_volume_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    found(call, &Described { volume_ids: vec![asked.volume_id] })?;
    match asked.auto_enable_io {
        Some(Flag { value: true }) => Ok(json!({})),
        Some(_) => {
            let why = "AutoEnableIO is always true here";
            Err(Error::refused(Code::UnsupportedOperation, why))
        }
        None => {
            let why = "The request must contain the parameter AutoEnableIO";
            Err(Error::refused(Code::MissingParameter, why))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    volume_id: String,
}

fn delete_volume(call: &Call<'_>) -> Result<Value> {
    let asked: Deleted = call.input()?;
    call.service.delete_volume(&asked.volume_id)?;
    Ok(json!({}))
}
