//! `spore asg policy …`: how groups scale.

use super::answer;
use super::output::{self, Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::autoscaling::policies::{AdjustmentType, PolicyAction, ScalingPolicy};
use crate::service::autoscaling::shape;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Verbs on scaling policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Give a group a policy, in place of one of that name
    ///
    /// A policy with --target-cpu acts by itself while 'spore serve' runs. One with --adjust acts
    /// when 'spore asg policy execute' says so.
    #[command(after_long_help = "\
Examples:
  spore asg policy put web busy --target-cpu 60
  spore asg policy put web more --adjust +2 --cooldown 60
  spore asg policy put web half --adjust -50%")]
    Put(PutArgs),
    /// List groups' policies
    #[command(
        visible_alias = "list",
        after_long_help = "Examples:\n  spore asg policy ls\n  spore asg policy ls web -o json"
    )]
    Ls {
        /// The group [default: all]
        group: Option<String>,
    },
    /// Do what a policy says, once
    #[command(after_long_help = "Examples:\n  spore asg policy execute web more")]
    Execute {
        /// The group
        group: String,
        /// The policy
        policy: String,
        /// Be refused until the cooldown of the last one is over
        #[arg(long)]
        honor_cooldown: bool,
    },
    /// Take policies away from a group
    #[command(
        visible_alias = "rm",
        after_long_help = "Examples:\n  spore asg policy delete web busy more"
    )]
    Delete {
        /// The group
        group: String,
        /// The policies
        #[arg(required = true, value_name = "POLICY")]
        policies: Vec<String>,
    },
}

/// Arguments of `asg policy put`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("action").required(true).args(["target_cpu", "adjust"])))]
#[command(override_usage = "spore asg policy put [OPTIONS] <GROUP> <POLICY>")]
pub struct PutArgs {
    /// The group
    group: String,
    /// The policy's name
    policy: String,
    /// Keep the instances' average use of their vCPUs near this
    #[arg(long, value_name = "PERCENT")]
    target_cpu: Option<f64>,
    /// Only add instances
    #[arg(long, requires = "target_cpu")]
    no_scale_in: bool,
    /// Seconds until a new instance counts [default: the group's cooldown]
    #[arg(long, value_name = "SECONDS", requires = "target_cpu")]
    warmup: Option<u32>,
    /// So many more or fewer: +2, -1; so many: =4; so many percent: +50%
    #[arg(long, value_name = "CHANGE", allow_hyphen_values = true, value_parser = adjustment)]
    adjust: Option<Adjustment>,
    /// Seconds until the next one [default: the group's cooldown]
    #[arg(long, value_name = "SECONDS", requires = "adjust")]
    cooldown: Option<u32>,
}

/// By how much, and of what.
type Adjustment = (AdjustmentType, i32);

fn adjustment(text: &str) -> std::result::Result<Adjustment, String> {
    let none = || format!("'{text}' is no change: give +2, -1, =4 or +50%");
    let (kind, number) = match (text.strip_prefix('='), text.strip_suffix('%')) {
        (Some(number), None) if !number.starts_with(['+', '-']) => {
            (AdjustmentType::ExactCapacity, number)
        }
        (None, Some(number)) if number.starts_with(['+', '-']) => {
            (AdjustmentType::PercentChangeInCapacity, number)
        }
        (None, None) if text.starts_with(['+', '-']) => (AdjustmentType::ChangeInCapacity, text),
        _ => return Err(none()),
    };
    Ok((kind, number.parse().map_err(|_| none())?))
}

/// Do a command on policies.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(service: &Service, ui: &Ui, command: &PolicyCommand) -> Result<ExitCode> {
    match command {
        PolicyCommand::Put(args) => put(service, ui, args)?,
        PolicyCommand::Ls { group } => list(service, ui, group.as_deref())?,
        PolicyCommand::Execute { group, policy, honor_cooldown } => {
            service.execute_policy(Some(group), policy, *honor_cooldown, None)?;
        }
        PolicyCommand::Delete { group, policies } => {
            return answer::delete(ui, policies, |policy| {
                service.delete_policy(Some(group), policy)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn put(service: &Service, ui: &Ui, args: &PutArgs) -> Result<()> {
    let action = match args.adjust {
        Some((adjustment_type, scaling_adjustment)) => PolicyAction::SimpleScaling {
            adjustment_type,
            scaling_adjustment,
            min_adjustment_magnitude: None,
            cooldown: args.cooldown,
        },
        None => PolicyAction::TargetTrackingScaling {
            target_value: args.target_cpu.unwrap_or_default(),
            disable_scale_in: args.no_scale_in,
            estimated_instance_warmup: args.warmup,
        },
    };
    let policy = ScalingPolicy { policy_name: args.policy.clone(), enabled: true, action };
    let group = service.put_scaling_policy(&args.group, &policy)?;
    let arn = shape::policy(&group, &policy)["PolicyARN"].clone();
    let answer = json!({ "PolicyARN": arn, "Alarms": [] });
    answer::whole(ui, "PolicyName", &policy.policy_name, answer)
}

fn list(service: &Service, ui: &Ui, group: Option<&str>) -> Result<()> {
    let found = service.describe_policies(group, &[])?;
    let row = |described: &Value| {
        let text = |name: &str| described[name].as_str().unwrap_or_default().to_owned();
        vec![
            Cell::Text(text("AutoScalingGroupName")),
            Cell::Text(text("PolicyName")),
            Cell::Text(text("PolicyType")),
            Cell::Text(does(described)),
        ]
    };
    let described: Vec<Value> =
        found.iter().map(|(group, policy)| shape::policy(group, policy)).collect();
    let table = Table {
        columns: vec![
            Column::text("AutoScalingGroupName", "GROUP"),
            Column::text("PolicyName", "POLICY"),
            Column::new("PolicyType", "TYPE"),
            Column::new("Action", "ACTION"),
        ],
        rows: described.iter().map(row).collect(),
        ids: found.iter().map(|(_, policy)| policy.policy_name.clone()).collect(),
        json: json!({ "ScalingPolicies": described }),
    };
    output::emit(&ui.output, &table)
}

/// What a policy does, as `asg policy put` takes it where it can.
fn does(policy: &Value) -> String {
    let tracking = &policy["TargetTrackingConfiguration"];
    if let Some(target) = tracking["TargetValue"].as_f64() {
        let only_out = if tracking["DisableScaleIn"] == true { ", never in" } else { "" };
        return format!("CPU at {target} %{only_out}");
    }
    let kind = policy["AdjustmentType"].as_str().unwrap_or_default();
    match policy["ScalingAdjustment"].as_i64() {
        Some(by) if kind == "ExactCapacity" => format!("={by}"),
        Some(by) if kind == "PercentChangeInCapacity" => format!("{by:+}%"),
        Some(by) => format!("{by:+}"),
        None => {
            let steps = policy["StepAdjustments"].as_array().map_or(0, Vec::len);
            let plural = if steps == 1 { "" } else { "s" };
            format!("{steps} step{plural} of {kind}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_one_kind() {
        use AdjustmentType::{ChangeInCapacity, ExactCapacity, PercentChangeInCapacity};
        for (text, expected) in [
            ("+2", (ChangeInCapacity, 2)),
            ("-1", (ChangeInCapacity, -1)),
            ("=4", (ExactCapacity, 4)),
            ("=0", (ExactCapacity, 0)),
            ("-50%", (PercentChangeInCapacity, -50)),
        ] {
            assert_eq!(adjustment(text), Ok(expected), "{text}");
        }
        for bad in ["", "2", "=+4", "=4%", "50%", "+", "+x", "+99999999999", "%"] {
            assert!(adjustment(bad).is_err(), "{bad}");
        }
    }
}
