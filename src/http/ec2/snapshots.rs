//! Snapshots.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::service::snapshots::{
    CopySnapshot, CreateSnapshot, DescribeSnapshots, DescribedSnapshot, SnapshotInfo,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CopySnapshot", copy_snapshot),
    ("CreateSnapshot", create_snapshot),
    ("CreateSnapshots", create_snapshots),
    ("DeleteSnapshot", delete_snapshot),
    ("DescribeSnapshotAttribute", describe_snapshot_attribute),
    ("DescribeSnapshots", describe_snapshots),
    ("ModifySnapshotAttribute", modify_snapshot_attribute),
    ("ResetSnapshotAttribute", reset_snapshot_attribute),
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    snapshot_ids: Vec<String>,
    owner_ids: Vec<String>,
    restorable_by_user_ids: Vec<String>,
}

fn describe_snapshots(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let snapshot_ids = asked.snapshot_ids.clone();
    let request = DescribeSnapshots { snapshot_ids, filters: call.filters()? };
    let mut found = call.service.describe_snapshots(&request)?;
    let is = |owner: &str, who: &String| {
        who == owner || who == "all" || who == "self" && owner == call.account
    };
    found.retain(|described| {
        let owner = described.snapshot.owner_id.as_str();
        let any = |list: &[String]| list.is_empty() || list.iter().any(|who| is(owner, who));
        any(&asked.owner_ids) && any(&asked.restorable_by_user_ids)
    });
    let found = found.iter().map(json_of).collect::<Result<_>>()?;
    call.listed("Snapshots", &asked.snapshot_ids, found, "SnapshotId")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    volume_id: String,
    #[serde(default)]
    description: String,
}

fn create_snapshot(call: &Call<'_>) -> Result<Value> {
    let asked: Created = call.input()?;
    let tags = call.tags("snapshot", &["snapshot"])?;
    let request =
        CreateSnapshot { volume_id: asked.volume_id, description: asked.description, tags };
    let snapshot = call.service.create_snapshot(&request)?;
    let mut answer = json_of(DescribedSnapshot::of(snapshot))?;
    // EC2 says so of a snapshot that is asked for, and not of one that was just made.
    answer.as_object_mut().map(|answer| answer.shift_remove("StorageTier"));
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfInstance {
    instance_specification: InstanceSpecification,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceSpecification {
    instance_id: String,
}

fn create_snapshots(call: &Call<'_>) -> Result<Value> {
    let asked: OfInstance = call.input()?;
    let request = CreateSnapshot {
        volume_id: asked.instance_specification.instance_id,
        description: asked.description,
        tags: call.tags("snapshot", &["snapshot"])?,
    };
    let made = call.service.create_snapshots(&request)?;
    let made =
        made.iter().map(|made| json_of(SnapshotInfo::of(made))).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "Snapshots": made }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Copied {
    source_snapshot_id: String,
    source_region: String,
    // Where the client signed a request for another region that it need not make.
    #[serde(default, rename = "PresignedUrl")]
    _presigned_url: Option<String>,
    #[serde(default)]
    destination_region: Option<String>,
    #[serde(default)]
    description: String,
}

/// Answers as soon as the copy is there, pending; in a bucket it is there when it is whole.
fn copy_snapshot(call: &Call<'_>) -> Result<Value> {
    let asked: Copied = call.input()?;
    let destination = asked.destination_region.as_deref();
    let request = CopySnapshot {
        source_snapshot_id: asked.source_snapshot_id,
        source_region: call.other_region(&asked.source_region),
        destination_region: destination.and_then(|name| call.other_region(name)),
        description: asked.description,
        tags: call.tags("snapshot", &["snapshot"])?,
    };
    let tags = json_of(&request.tags)?;
    let id = call.behind(move |service, announce| {
        let copy = service.copy_snapshot(&request, &mut |id| announce(id.to_owned()))?;
        announce(copy.snapshot_id.to_string());
        Ok(())
    })?;
    Ok(json!({ "SnapshotId": id, "Tags": tags }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    snapshot_id: String,
}

fn delete_snapshot(call: &Call<'_>) -> Result<Value> {
    let asked: Deleted = call.input()?;
    let results = call.service.delete_snapshots(&[asked.snapshot_id], None, false)?;
    results.into_iter().collect::<Result<()>>()?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    snapshot_id: String,
    #[serde(default)]
    attribute: Option<String>,
    #[serde(default, rename = "CreateVolumePermission")]
    _create_volume_permission: Option<Value>,
    #[serde(default, rename = "GroupNames")]
    _group_names: Vec<String>,
    #[serde(default, rename = "OperationType")]
    _operation_type: Option<String>,
    #[serde(default, rename = "UserIds")]
    _user_ids: Vec<String>,
}

fn no_attribute(name: Option<&str>) -> Error {
    let shown = name.unwrap_or_default().escape_debug();
    let why = format!("snapshots have no attribute '{shown}' here");
    Error::refused(Code::InvalidParameterValue, why)
}

fn describe_snapshot_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    let (snapshot, permissions) = call.service.create_volume_permissions(&asked.snapshot_id)?;
    match asked.attribute.as_deref() {
        Some("createVolumePermission") => Ok(json!({
            "SnapshotId": snapshot.snapshot_id,
            "CreateVolumePermissions": json_of(permissions)?,
        })),
        Some("productCodes") => {
            Ok(json!({ "SnapshotId": snapshot.snapshot_id, "ProductCodes": [] }))
        }
        other => Err(no_attribute(other)),
    }
}

/// Who may make volumes of a snapshot follows from the images that have it.
fn modify_snapshot_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    call.service.create_volume_permissions(&asked.snapshot_id)?;
    let why = "a snapshot is not shared alone here: whoever may launch an image of it may make \
               volumes of it; use ModifyImageAttribute";
    Err(Error::refused(Code::UnsupportedOperation, why))
}

fn reset_snapshot_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: Attribute = call.input()?;
    let (_, permissions) = call.service.create_volume_permissions(&asked.snapshot_id)?;
    match asked.attribute.as_deref() {
        Some("createVolumePermission") if permissions.is_empty() => Ok(json!({})),
        Some("createVolumePermission") => modify_snapshot_attribute(call),
        other => Err(no_attribute(other)),
    }
}
