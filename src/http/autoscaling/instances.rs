//! What is done to instances of groups.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::service::autoscaling::groups::AutoScalingGroup;
use crate::service::autoscaling::shape;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("AttachInstances", attach),
    ("DescribeAutoScalingInstances", describe),
    ("DetachInstances", detach),
    ("EnterStandby", enter_standby),
    ("ExitStandby", exit_standby),
    ("SetInstanceHealth", set_health),
    ("SetInstanceProtection", set_protection),
    ("TerminateInstanceInAutoScalingGroup", terminate),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Members {
    auto_scaling_group_name: String,
    #[serde(default)]
    instance_ids: Vec<String>,
    #[serde(default)]
    should_decrement_desired_capacity: bool,
}

fn attach(call: &Call<'_>) -> Result<Value> {
    let asked: Members = call.input()?;
    call.service.attach_instances(&asked.auto_scaling_group_name, &asked.instance_ids)?;
    Ok(json!({}))
}

fn detach(call: &Call<'_>) -> Result<Value> {
    moved(call, |call, asked| {
        let Members { auto_scaling_group_name: name, instance_ids: ids, .. } = asked;
        call.service.detach_instances(name, ids, asked.should_decrement_desired_capacity)
    })
}

fn enter_standby(call: &Call<'_>) -> Result<Value> {
    moved(call, |call, asked| {
        let Members { auto_scaling_group_name: name, instance_ids: ids, .. } = asked;
        call.service.enter_standby(name, ids, asked.should_decrement_desired_capacity)
    })
}

fn exit_standby(call: &Call<'_>) -> Result<Value> {
    moved(call, |call, asked| {
        call.service.exit_standby(&asked.auto_scaling_group_name, &asked.instance_ids)
    })
}

type Move = fn(&Call<'_>, &Members) -> Result<Vec<crate::record::scaling::Activity>>;

fn moved(call: &Call<'_>, act: Move) -> Result<Value> {
    let asked: Members = call.input()?;
    let group = call.service.describe_auto_scaling_group(&asked.auto_scaling_group_name)?;
    let done = act(call, &asked)?;
    let answer: Vec<Value> = done.iter().map(|one| shape::activity(&group, one)).collect();
    Ok(json!({ "Activities": answer }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Terminated {
    instance_id: String,
    should_decrement_desired_capacity: bool,
}

fn terminate(call: &Call<'_>) -> Result<Value> {
    let asked: Terminated = call.input()?;
    let group = of(call, &asked.instance_id)?;
    let decrement = asked.should_decrement_desired_capacity;
    let done = call.service.terminate_in_auto_scaling_group(&asked.instance_id, decrement)?;
    Ok(json!({ "Activity": shape::activity(&group, &done) }))
}

/// The group of an instance.
fn of(call: &Call<'_>, instance: &str) -> Result<AutoScalingGroup> {
    let found = call.service.describe_auto_scaling_instances(&[instance.to_owned()])?;
    found.into_iter().next().map(|(group, _)| group).ok_or_else(|| {
        let shown: String = instance.escape_debug().take(60).collect();
        let why = format!("the instance '{shown}' is not in an Auto Scaling group");
        Error::refused(Code::ValidationError, why)
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    instance_id: String,
    health_status: String,
    #[serde(default = "yes")]
    should_respect_grace_period: bool,
}

fn yes() -> bool {
    true
}

fn set_health(call: &Call<'_>) -> Result<Value> {
    let asked: Health = call.input()?;
    let healthy = match asked.health_status.to_ascii_lowercase().as_str() {
        "healthy" => true,
        "unhealthy" => false,
        _ => {
            let why = "an instance is Healthy or Unhealthy";
            return Err(Error::refused(Code::ValidationError, why));
        }
    };
    let respect = asked.should_respect_grace_period;
    call.service.set_instance_health(&asked.instance_id, healthy, respect)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Protection {
    auto_scaling_group_name: String,
    instance_ids: Vec<String>,
    #[serde(default)]
    protected_from_scale_in: bool,
}

fn set_protection(call: &Call<'_>) -> Result<Value> {
    let asked: Protection = call.input()?;
    let Protection { auto_scaling_group_name: name, instance_ids: ids, .. } = &asked;
    call.service.set_instance_protection(name, ids, asked.protected_from_scale_in)?;
    Ok(json!({}))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    instance_ids: Vec<String>,
}

fn describe(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let found = call.service.describe_auto_scaling_instances(&asked.instance_ids)?;
    let answer = found.iter().map(|(group, member)| shape::details(group, member)).collect();
    call.records("AutoScalingInstances", answer, "InstanceId")
}
