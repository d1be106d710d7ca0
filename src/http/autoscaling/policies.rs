//! Scaling policies and scheduled actions.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::service::autoscaling::policies::{
    AdjustmentType, PolicyAction, ScalingPolicy, StepAdjustment,
};
use crate::service::autoscaling::schedule::ScheduledAction;
use crate::service::autoscaling::shape;
use crate::service::time;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DeletePolicy", delete_policy),
    ("DeleteScheduledAction", delete_scheduled),
    ("DescribePolicies", describe_policies),
    ("DescribeScheduledActions", describe_scheduled),
    ("ExecutePolicy", execute),
    ("PutScalingPolicy", put_policy),
    ("PutScheduledUpdateGroupAction", put_scheduled),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    auto_scaling_group_name: String,
    policy_name: String,
    #[serde(default)]
    policy_type: Option<String>,
    #[serde(default)]
    adjustment_type: Option<AdjustmentType>,
    #[serde(default)]
    scaling_adjustment: Option<i32>,
    #[serde(default)]
    min_adjustment_magnitude: Option<u32>,
    #[serde(default)]
    cooldown: Option<u32>,
    #[serde(default)]
    step_adjustments: Vec<StepAdjustment>,
    // There is one metric, and no alarm that would have several values of it.
    #[serde(default, rename = "MetricAggregationType")]
    _metric_aggregation_type: Option<String>,
    #[serde(default)]
    estimated_instance_warmup: Option<u32>,
    #[serde(default)]
    target_tracking_configuration: Option<Tracking>,
    #[serde(default)]
    enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tracking {
    #[serde(default)]
    predefined_metric_specification: Option<Metric>,
    target_value: f64,
    #[serde(default)]
    disable_scale_in: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    predefined_metric_type: String,
}

fn missing(what: &str) -> Error {
    Error::refused(Code::ValidationError, format!("a policy of that type wants {what}"))
}

fn put_policy(call: &Call<'_>) -> Result<Value> {
    let asked: Policy = call.input()?;
    let kind = || asked.adjustment_type.ok_or_else(|| missing("AdjustmentType"));
    let action = match asked.policy_type.as_deref() {
        None | Some("SimpleScaling") => PolicyAction::SimpleScaling {
            adjustment_type: kind()?,
            scaling_adjustment: asked
                .scaling_adjustment
                .ok_or_else(|| missing("ScalingAdjustment"))?,
            min_adjustment_magnitude: asked.min_adjustment_magnitude,
            cooldown: asked.cooldown,
        },
        Some("StepScaling") => PolicyAction::StepScaling {
            adjustment_type: kind()?,
            step_adjustments: asked.step_adjustments.clone(),
            min_adjustment_magnitude: asked.min_adjustment_magnitude,
            estimated_instance_warmup: asked.estimated_instance_warmup,
        },
        Some("TargetTrackingScaling") => {
            let tracking = asked.target_tracking_configuration.as_ref();
            let tracking = tracking.ok_or_else(|| missing("TargetTrackingConfiguration"))?;
            let metric = tracking.predefined_metric_specification.as_ref();
            if metric.is_none_or(|one| one.predefined_metric_type != "ASGAverageCPUUtilization") {
                let why = "there is the metric ASGAverageCPUUtilization only";
                return Err(Error::refused(Code::UnsupportedOperation, why));
            }
            PolicyAction::TargetTrackingScaling {
                target_value: tracking.target_value,
                disable_scale_in: tracking.disable_scale_in,
                estimated_instance_warmup: asked.estimated_instance_warmup,
            }
        }
        Some(_) => {
            let why = "the policy types are SimpleScaling, StepScaling and TargetTrackingScaling";
            return Err(Error::refused(Code::UnsupportedOperation, why));
        }
    };
    let enabled = asked.enabled.unwrap_or(true);
    let policy = ScalingPolicy { policy_name: asked.policy_name.clone(), enabled, action };
    let group = call.service.put_scaling_policy(&asked.auto_scaling_group_name, &policy)?;
    Ok(json!({ "PolicyARN": shape::policy(&group, &policy)["PolicyARN"], "Alarms": [] }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    #[serde(default)]
    auto_scaling_group_name: Option<String>,
    policy_name: String,
    #[serde(default)]
    honor_cooldown: bool,
    #[serde(default)]
    metric_value: Option<f64>,
    #[serde(default)]
    breach_threshold: Option<f64>,
}

fn execute(call: &Call<'_>) -> Result<Value> {
    let asked: Named = call.input()?;
    let name = asked.auto_scaling_group_name.as_deref();
    let metric = asked.metric_value.zip(asked.breach_threshold);
    call.service.execute_policy(name, &asked.policy_name, asked.honor_cooldown, metric)?;
    Ok(json!({}))
}

fn delete_policy(call: &Call<'_>) -> Result<Value> {
    let asked: Named = call.input()?;
    call.service.delete_policy(asked.auto_scaling_group_name.as_deref(), &asked.policy_name)?;
    Ok(json!({}))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    auto_scaling_group_name: Option<String>,
    policy_names: Vec<String>,
    policy_types: Vec<String>,
    scheduled_action_names: Vec<String>,
}

fn describe_policies(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let name = asked.auto_scaling_group_name.as_deref();
    let found = call.service.describe_policies(name, &asked.policy_names)?;
    let mut answer: Vec<Value> =
        found.iter().map(|(group, policy)| shape::policy(group, policy)).collect();
    let types = &asked.policy_types;
    answer.retain(|one| types.is_empty() || types.iter().any(|kind| one["PolicyType"] == **kind));
    call.records("ScalingPolicies", answer, "PolicyARN")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scheduled {
    auto_scaling_group_name: String,
    scheduled_action_name: String,
    /// What StartTime was called once.
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    start_time: Option<String>,
    #[serde(default)]
    end_time: Option<String>,
    #[serde(default)]
    recurrence: Option<String>,
    #[serde(default)]
    min_size: Option<u32>,
    #[serde(default)]
    max_size: Option<u32>,
    #[serde(default)]
    desired_capacity: Option<u32>,
    #[serde(default)]
    time_zone: Option<String>,
}

fn put_scheduled(call: &Call<'_>) -> Result<Value> {
    let asked: Scheduled = call.input()?;
    if asked.time_zone.is_some_and(|zone| !["UTC", "Etc/UTC", "Etc/GMT"].contains(&&*zone)) {
        let why = "scheduled actions are in UTC here";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let ms = |text: &String| {
        let time = time::parse(text).and_then(|time| u64::try_from(time.as_millis()).ok());
        time.ok_or_else(|| {
            let shown: String = text.escape_debug().take(40).collect();
            Error::refused(Code::ValidationError, format!("'{shown}' is no time"))
        })
    };
    let start = asked.start_time.or(asked.time).as_ref().map(ms).transpose()?;
    let action = ScheduledAction {
        scheduled_action_name: asked.scheduled_action_name,
        start_time: start.unwrap_or(0),
        end_time: asked.end_time.as_ref().map(ms).transpose()?,
        recurrence: asked.recurrence,
        min_size: asked.min_size,
        max_size: asked.max_size,
        desired_capacity: asked.desired_capacity,
    };
    call.service.put_scheduled_action(&asked.auto_scaling_group_name, &action, start)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OneScheduled {
    auto_scaling_group_name: String,
    scheduled_action_name: String,
}

fn delete_scheduled(call: &Call<'_>) -> Result<Value> {
    let asked: OneScheduled = call.input()?;
    let OneScheduled { auto_scaling_group_name: name, scheduled_action_name: action } = &asked;
    call.service.delete_scheduled_action(name, action)?;
    Ok(json!({}))
}

fn describe_scheduled(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let name = asked.auto_scaling_group_name.as_deref();
    let found = call.service.describe_scheduled_actions(name, &asked.scheduled_action_names)?;
    let answer = found.iter().map(|(group, action)| shape::scheduled(group, action)).collect();
    call.in_order("ScheduledUpdateGroupActions", answer)
}
