//! Tags of groups.

use super::super::call::{Action, Call};
use super::groups::GroupTagRequest;
use crate::error::{Code, Error, Result};
use crate::service::autoscaling::shape;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] =
    &[("CreateOrUpdateTags", create), ("DeleteTags", delete), ("DescribeTags", describe)];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    tags: Vec<GroupTagRequest>,
}

/// The group that a tag is of.
fn group(tag: &GroupTagRequest) -> Result<String> {
    let refuse = |why: &str| Err(Error::refused(Code::ValidationError, why));
    match (tag.resource_type.as_deref(), &tag.resource_id) {
        (None | Some("auto-scaling-group"), Some(name)) => Ok(name.clone()),
        (_, None) => refuse("a tag has no ResourceId"),
        _ => refuse("tags here are of the resource type auto-scaling-group"),
    }
}

fn create(call: &Call<'_>) -> Result<Value> {
    let asked: Tagged = call.input()?;
    for tag in asked.tags {
        let name = group(&tag)?;
        call.service.tag_auto_scaling_group(&name, &[tag.tag()])?;
    }
    Ok(json!({}))
}

fn delete(call: &Call<'_>) -> Result<Value> {
    let asked: Tagged = call.input()?;
    for tag in asked.tags {
        let name = group(&tag)?;
        call.service.untag_auto_scaling_group(&name, &[(tag.key, tag.value)])?;
    }
    Ok(json!({}))
}

#[derive(Deserialize)]
struct Nothing {}

fn describe(call: &Call<'_>) -> Result<Value> {
    let Nothing {} = call.input()?;
    let filters = call.filters()?;
    let mut answer = Vec::new();
    for group in call.service.describe_auto_scaling_groups(&[])? {
        answer.extend(group.tags.iter().map(|tag| shape::tag(&group, tag)));
    }
    for filter in &filters {
        let key = match filter.name.as_str() {
            "auto-scaling-group" => "ResourceId",
            "key" => "Key",
            "value" => "Value",
            "propagate-at-launch" => "PropagateAtLaunch",
            _ => {
                let why = "the filters are auto-scaling-group, key, value and propagate-at-launch";
                return Err(Error::refused(Code::ValidationError, why));
            }
        };
        answer.retain(|tag| match &tag[key] {
            Value::String(text) => filter.accepts(text),
            other => filter.accepts(&other.to_string()),
        });
    }
    call.in_order("Tags", answer)
}
