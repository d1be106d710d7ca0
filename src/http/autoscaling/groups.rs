//! Groups.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::service::autoscaling::configurations::MAX_CONFIGURATIONS;
use crate::service::autoscaling::groups::{
    AutoScalingGroup, GroupSettings, GroupTag, LaunchSource, MAX_GROUPS, TerminationPolicy,
};
use crate::service::autoscaling::shape;
use crate::service::launch_templates::Specification;
use crate::service::shape::ZONE;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CreateAutoScalingGroup", create),
    ("DeleteAutoScalingGroup", delete),
    ("DescribeAccountLimits", limits),
    ("DescribeAutoScalingGroups", describe),
    ("DescribeScalingActivities", activities),
    ("DescribeTerminationPolicyTypes", policy_types),
    ("SetDesiredCapacity", set_desired_capacity),
    ("UpdateAutoScalingGroup", update),
];

/// What CreateAutoScalingGroup and UpdateAutoScalingGroup share.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Group {
    auto_scaling_group_name: String,
    #[serde(default)]
    launch_configuration_name: Option<String>,
    #[serde(default)]
    launch_template: Option<Specification>,
    #[serde(default)]
    min_size: Option<u32>,
    #[serde(default)]
    max_size: Option<u32>,
    #[serde(default)]
    desired_capacity: Option<u32>,
    #[serde(default)]
    default_cooldown: Option<u32>,
    #[serde(default)]
    availability_zones: Vec<String>,
    #[serde(default)]
    health_check_type: Option<String>,
    #[serde(default)]
    health_check_grace_period: Option<u32>,
    #[serde(default, rename = "VPCZoneIdentifier")]
    vpc_zone_identifier: Option<String>,
    #[serde(default)]
    termination_policies: Vec<String>,
    #[serde(default)]
    new_instances_protected_from_scale_in: Option<bool>,
    #[serde(default)]
    tags: Vec<GroupTagRequest>,
}

/// Auto Scaling's Tag.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupTagRequest {
    /// The group's name.
    #[serde(default)]
    pub resource_id: Option<String>,
    /// `auto-scaling-group`.
    #[serde(default)]
    pub resource_type: Option<String>,
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: Option<String>,
    /// Instances get it.
    #[serde(default)]
    pub propagate_at_launch: Option<bool>,
}

impl GroupTagRequest {
    /// As the group has it.
    pub fn tag(self) -> GroupTag {
        GroupTag {
            key: self.key,
            value: self.value.unwrap_or_default(),
            propagate_at_launch: self.propagate_at_launch.unwrap_or(false),
        }
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::refused(Code::ValidationError, why)
}

impl Group {
    fn settings(&self, call: &Call<'_>) -> Result<GroupSettings> {
        match self.health_check_type.as_deref() {
            None | Some("EC2") => {}
            Some(_) => {
                let why = "HealthCheckType is EC2 here: there are no load balancers to ask";
                return Err(Error::refused(Code::UnsupportedOperation, why));
            }
        }
        if let Some(other) = self.availability_zones.iter().find(|zone| *zone != ZONE) {
            let shown: String = other.escape_debug().take(60).collect();
            return Err(invalid(format!("the zone '{shown}' is not there; there is {ZONE}")));
        }
        let network = match self.vpc_zone_identifier.as_deref() {
            None => None,
            Some(subnet) if subnet.contains(',') => {
                let why = "a group's instances are all in one subnet here";
                return Err(Error::refused(Code::UnsupportedOperation, why));
            }
            Some(subnet) => Some(Some(call.service.network_of_subnet(subnet)?)),
        };
        let policies = self.termination_policies.iter().map(|name| {
            let found = TerminationPolicy::ALL.iter().find(|(known, _)| known == name);
            let unknown = || invalid("a termination policy is unknown");
            found.map(|(_, policy)| *policy).ok_or_else(unknown)
        });
        let policies = policies.collect::<Result<Vec<_>>>()?;
        let launch = match (&self.launch_configuration_name, &self.launch_template) {
            (Some(_), Some(_)) => {
                let why = "a group has a launch configuration or a launch template, and not both";
                return Err(invalid(why));
            }
            (Some(name), None) => Some(LaunchSource::LaunchConfiguration(name.clone())),
            (None, Some(named)) => Some(call.service.launch_template_source(named)?),
            (None, None) => None,
        };
        Ok(GroupSettings {
            launch,
            min_size: self.min_size,
            max_size: self.max_size,
            desired_capacity: self.desired_capacity,
            default_cooldown: self.default_cooldown,
            health_check_grace_period: self.health_check_grace_period,
            termination_policies: (!policies.is_empty()).then_some(policies),
            new_instances_protected_from_scale_in: self.new_instances_protected_from_scale_in,
            network,
        })
    }
}

fn create(call: &Call<'_>) -> Result<Value> {
    let mut asked: Group = call.input()?;
    let mut settings = asked.settings(call)?;
    settings.network = Some(settings.network.flatten().or_else(|| call.network.cloned()));
    let tags: Vec<GroupTag> =
        std::mem::take(&mut asked.tags).into_iter().map(GroupTagRequest::tag).collect();
    call.service.create_auto_scaling_group(&asked.auto_scaling_group_name, &settings, &tags)?;
    Ok(json!({}))
}

fn update(call: &Call<'_>) -> Result<Value> {
    let asked: Group = call.input()?;
    let settings = asked.settings(call)?;
    call.service.update_auto_scaling_group(&asked.auto_scaling_group_name, &settings)?;
    Ok(json!({}))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    auto_scaling_group_names: Vec<String>,
    #[serde(rename = "IncludeInstances")]
    _include_instances: bool,
}

fn describe(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let filters = call.filters()?;
    let mut found = call.service.describe_auto_scaling_groups(&asked.auto_scaling_group_names)?;
    for filter in &filters {
        let accepts = |group: &AutoScalingGroup| {
            let mut tags = group.tags.iter();
            match filter.name.as_str() {
                "tag-key" => Ok(tags.any(|tag| filter.accepts(&tag.key))),
                "tag-value" => Ok(tags.any(|tag| filter.accepts(&tag.value))),
                name => {
                    let unknown = || invalid("the filters are tag-key, tag-value and tag:KEY");
                    let key = name.strip_prefix("tag:").ok_or_else(unknown)?;
                    Ok(tags.any(|tag| tag.key == key && filter.accepts(&tag.value)))
                }
            }
        };
        let mut kept = Vec::new();
        for group in found {
            if accepts(&group)? {
                kept.push(group);
            }
        }
        found = kept;
    }
    let networks = match found.iter().any(|group| group.spore.network.is_some()) {
        true => call.service.describe_networks(&[], &[])?,
        false => Vec::new(),
    };
    let answer = found.iter().map(|group| {
        let network =
            networks.iter().find(|one| Some(&one.vpc.spore.name) == group.spore.network.as_ref());
        shape::group(group, network.map(|one| one.vpc.spore.subnet_id.as_str()))
    });
    call.records("AutoScalingGroups", answer.collect(), "AutoScalingGroupName")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    auto_scaling_group_name: String,
    #[serde(default)]
    force_delete: bool,
}

fn delete(call: &Call<'_>) -> Result<Value> {
    let asked: Deleted = call.input()?;
    call.service.delete_auto_scaling_group(&asked.auto_scaling_group_name, asked.force_delete)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Desired {
    auto_scaling_group_name: String,
    desired_capacity: u32,
    #[serde(default)]
    honor_cooldown: bool,
}

fn set_desired_capacity(call: &Call<'_>) -> Result<Value> {
    let asked: Desired = call.input()?;
    let Desired { auto_scaling_group_name: name, desired_capacity, honor_cooldown } = &asked;
    call.service.set_desired_capacity(name, *desired_capacity, *honor_cooldown)?;
    Ok(json!({}))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Activities {
    activity_ids: Vec<String>,
    auto_scaling_group_name: Option<String>,
    #[serde(rename = "IncludeDeletedGroups")]
    _include_deleted_groups: bool,
}

fn activities(call: &Call<'_>) -> Result<Value> {
    let asked: Activities = call.input()?;
    let groups = match &asked.auto_scaling_group_name {
        Some(name) => vec![call.service.describe_auto_scaling_group(name)?],
        None => call.service.describe_auto_scaling_groups(&[])?,
    };
    let mut answer = Vec::new();
    for group in &groups {
        let wanted = |id: &String| asked.activity_ids.is_empty() || asked.activity_ids.contains(id);
        let chosen = group.activities.iter().filter(|one| wanted(&one.activity_id));
        answer.extend(chosen.map(|one| shape::activity(group, one)));
    }
    call.in_order("Activities", answer)
}

#[derive(Deserialize)]
struct Nothing {}

fn limits(call: &Call<'_>) -> Result<Value> {
    let Nothing {} = call.input()?;
    Ok(json!({
        "MaxNumberOfAutoScalingGroups": MAX_GROUPS,
        "MaxNumberOfLaunchConfigurations": MAX_CONFIGURATIONS,
        "NumberOfAutoScalingGroups": call.service.describe_auto_scaling_groups(&[])?.len(),
        "NumberOfLaunchConfigurations": call.service.describe_launch_configurations(&[])?.len(),
    }))
}

fn policy_types(_: &Call<'_>) -> Result<Value> {
    let names = TerminationPolicy::ALL.map(|(name, _)| name);
    Ok(json!({ "TerminationPolicyTypes": names }))
}
