//! Scaling processes.

use super::super::call::{Action, Call};
use crate::error::Result;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DescribeAdjustmentTypes", adjustment_types),
    ("DescribeScalingProcessTypes", process_types),
    ("ResumeProcesses", resume),
    ("SuspendProcesses", suspend),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processes {
    auto_scaling_group_name: String,
    #[serde(default)]
    scaling_processes: Vec<String>,
}

fn suspend(call: &Call<'_>) -> Result<Value> {
    set(call, true)
}

fn resume(call: &Call<'_>) -> Result<Value> {
    set(call, false)
}

fn set(call: &Call<'_>, suspend: bool) -> Result<Value> {
    let Processes { auto_scaling_group_name: name, scaling_processes: processes } = call.input()?;
    call.service.suspend_processes(&name, &processes, suspend)?;
    Ok(json!({}))
}

fn process_types(_: &Call<'_>) -> Result<Value> {
    let names = crate::service::autoscaling::groups::PROCESSES;
    Ok(json!({ "Processes": names.map(|name| json!({ "ProcessName": name })) }))
}

fn adjustment_types(_: &Call<'_>) -> Result<Value> {
    let names = ["ChangeInCapacity", "ExactCapacity", "PercentChangeInCapacity"];
    Ok(json!({ "AdjustmentTypes": names.map(|name| json!({ "AdjustmentType": name })) }))
}
