//! Tags.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::record::tag::Tag;
use crate::service::images::{Catalog, DescribeImages};
use crate::service::instances::{DescribeInstances, reservations};
use crate::service::snapshots::DescribeSnapshots;
use crate::service::tags::TagToDelete;
use crate::service::volumes::DescribeVolumes;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] =
    &[("CreateTags", create_tags), ("DeleteTags", delete_tags), ("DescribeTags", describe_tags)];

/// EC2 Tag, of which a value may be absent.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GivenTag {
    key: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    resources: Vec<String>,
    #[serde(default)]
    tags: Vec<GivenTag>,
}

fn create_tags(call: &Call<'_>) -> Result<Value> {
    let asked: Tagged = call.input()?;
    let tags = asked.tags.into_iter();
    let tags: Vec<Tag> =
        tags.map(|tag| Tag { key: tag.key, value: tag.value.unwrap_or_default() }).collect();
    let results = call.service.create_tags(&asked.resources, &tags)?;
    results.into_iter().collect::<Result<()>>()?;
    Ok(json!({}))
}

fn delete_tags(call: &Call<'_>) -> Result<Value> {
    let asked: Tagged = call.input()?;
    if asked.tags.is_empty() {
        let why = "give the keys of the tags to delete: all at once is not there";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let tags = asked.tags.into_iter();
    let tags: Vec<_> = tags.map(|tag| TagToDelete { key: tag.key, value: tag.value }).collect();
    asked.resources.iter().try_for_each(|resource| call.service.delete_tags(resource, &tags))?;
    Ok(json!({}))
}

#[derive(Deserialize)]
struct Nothing {}

fn describe_tags(call: &Call<'_>) -> Result<Value> {
    let Nothing {} = call.input()?;
    let filters = call.filters()?;
    let known = ["resource-id", "resource-type", "key", "value"];
    if let Some(unknown) = filters.iter().find(|f| !known.contains(&f.name.as_str())) {
        let why = format!(
            "the filter '{}' is unknown; there are {}",
            unknown.name.escape_debug(),
            known.join(", ")
        );
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let mut tags = all(call)?;
    tags.retain(|tag| {
        let value = |filter: &str| {
            let key = match filter {
                "resource-id" => "ResourceId",
                "resource-type" => "ResourceType",
                "key" => "Key",
                _ => "Value",
            };
            tag[key].as_str().unwrap_or_default().to_owned()
        };
        filters.iter().all(|filter| filter.accepts(&value(&filter.name)))
    });
    call.listed("Tags", &[], tags, "Order").map(|mut answer| {
        for tag in answer["Tags"].as_array_mut().into_iter().flatten() {
            tag.as_object_mut().map(|tag| tag.shift_remove("Order"));
        }
        answer
    })
}

/// The tags of everything that is the caller's.
fn all(call: &Call<'_>) -> Result<Vec<Value>> {
    let service = call.service;
    let mut found = Vec::new();
    let mut add = |kind: &str, id: &Value, tags: &Value| {
        for tag in tags.as_array().into_iter().flatten() {
            let order = [id, &tag["Key"]].map(|part| part.as_str().unwrap_or_default()).join(" ");
            found.push(json!({
                "ResourceId": id, "ResourceType": kind, "Key": tag["Key"], "Value": tag["Value"],
                "Order": order,
            }));
        }
    };
    let instances = service.describe_instances(&DescribeInstances::default())?;
    let reservations = json_of(reservations(&instances))?;
    let mine = DescribeImages { catalog: Some(Catalog::Mine), ..DescribeImages::default() };
    let images = json_of(service.describe_images(&mine)?)?;
    let volumes = json_of(service.describe_volumes(&DescribeVolumes::default())?)?;
    let snapshots = json_of(service.describe_snapshots(&DescribeSnapshots::default())?)?;
    let templates = json_of(service.describe_launch_templates(&[], &[], &[])?)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for reservation in list(&reservations) {
        if reservation["OwnerId"] == call.account.as_str() {
            for instance in list(&reservation["Instances"]) {
                add("instance", &instance["InstanceId"], &instance["Tags"]);
            }
        }
    }
    let kinds = [
        ("image", "ImageId", images),
        ("volume", "VolumeId", volumes),
        ("snapshot", "SnapshotId", snapshots),
    ];
    for pair in service.describe_key_pairs(&[], &[])? {
        add("key-pair", &json!(pair.key_pair_id), &json_of(pair.tags)?);
    }
    for (kind, key, objects) in kinds {
        for object in list(&objects).iter().filter(|o| o["OwnerId"] == call.account.as_str()) {
            add(kind, &object[key], &object["Tags"]);
        }
    }
    // They are the caller's own.
    for template in list(&templates) {
        add("launch-template", &template["LaunchTemplateId"], &template["Tags"]);
    }
    Ok(found)
}
