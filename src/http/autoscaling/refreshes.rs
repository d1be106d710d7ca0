//! Instance refreshes.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::service::autoscaling::refresh::{MIN_HEALTHY, RefreshPreferences};
use crate::service::autoscaling::shape;
use crate::service::launch_templates::Specification;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CancelInstanceRefresh", cancel),
    ("DescribeInstanceRefreshes", describe),
    ("RollbackInstanceRefresh", roll_back),
    ("StartInstanceRefresh", start),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Started {
    auto_scaling_group_name: String,
    #[serde(default)]
    strategy: Option<String>,
    #[serde(default)]
    preferences: Preferences,
    #[serde(default)]
    desired_configuration: DesiredConfiguration,
}

/// What the group launches from after it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DesiredConfiguration {
    launch_template: Option<Specification>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Preferences {
    min_healthy_percentage: Option<u32>,
    instance_warmup: Option<u32>,
    skip_matching: bool,
    auto_rollback: bool,
}

fn start(call: &Call<'_>) -> Result<Value> {
    let asked: Started = call.input()?;
    if asked.strategy.is_some_and(|strategy| strategy != "Rolling") {
        let why = "there is the strategy Rolling only";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let preferences = RefreshPreferences {
        min_healthy_percentage: asked.preferences.min_healthy_percentage.unwrap_or(MIN_HEALTHY),
        instance_warmup: asked.preferences.instance_warmup.unwrap_or(0),
        skip_matching: asked.preferences.skip_matching,
        auto_rollback: asked.preferences.auto_rollback,
    };
    let name = &asked.auto_scaling_group_name;
    let desired = asked.desired_configuration.launch_template;
    let desired = desired.map(|named| call.service.launch_template_source(&named)).transpose()?;
    let id = call.service.start_instance_refresh(name, desired, preferences)?;
    Ok(json!({ "InstanceRefreshId": id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    auto_scaling_group_name: String,
    #[serde(default)]
    instance_refresh_ids: Vec<String>,
    // Nothing is waited for: what is being replaced comes up anyway.
    #[serde(default, rename = "WaitForTransitioningInstances")]
    _wait_for_transitioning_instances: bool,
}

fn cancel(call: &Call<'_>) -> Result<Value> {
    let asked: Named = call.input()?;
    let id = call.service.cancel_instance_refresh(&asked.auto_scaling_group_name)?;
    Ok(json!({ "InstanceRefreshId": id }))
}

fn roll_back(call: &Call<'_>) -> Result<Value> {
    let asked: Named = call.input()?;
    let id = call.service.rollback_instance_refresh(&asked.auto_scaling_group_name)?;
    Ok(json!({ "InstanceRefreshId": id }))
}

fn describe(call: &Call<'_>) -> Result<Value> {
    let Named { auto_scaling_group_name: name, instance_refresh_ids: ids, .. } = call.input()?;
    let (group, found) = call.service.describe_instance_refreshes(&name, &ids)?;
    let answer = found.iter().map(|one| shape::refresh(&group, one)).collect();
    call.in_order("InstanceRefreshes", answer)
}
