//! Groups and what belongs to them in the shapes of Auto Scaling's API.

use crate::record::autoscaling::{AutoScalingGroup, GroupTag, LaunchConfiguration, Member};
use crate::record::scaling::{
    Activity, ActivityStatus, InstanceRefresh, LaunchSource, RefreshStatus, ScalingPolicy,
    ScheduledAction,
};
use crate::service::shape::ZONE;
use crate::store::rfc3339;
use serde_json::{Value, json};
use std::time::Duration;

/// Milliseconds since the epoch as a time.
pub fn time(ms: u64) -> String {
    rfc3339(Duration::from_millis(ms))
}

/// The name of an object beyond its account. (AWS General Reference, "ARNs")
pub fn arn(account: &str, kind: &str, id: &str, name: &str) -> String {
    let region = crate::service::shape::REGION;
    format!("arn:aws:autoscaling:{region}:{account}:{kind}:{id}:{name}")
}

fn group_arn(group: &AutoScalingGroup) -> String {
    let name = format!("autoScalingGroupName/{}", group.auto_scaling_group_name);
    let id = group.auto_scaling_group_id.as_str();
    arn(&group.spore.owner_id, "autoScalingGroup", id, &name)
}

/// AutoScalingGroup. `subnet` is its network's.
pub fn group(group: &AutoScalingGroup, subnet: Option<&str>) -> Value {
    let members = group.instances.iter().filter(|member| member.instance_id.is_some());
    let suspended = group.suspended_processes.iter().map(|process| {
        json!({ "ProcessName": process, "SuspensionReason": "User suspended this process" })
    });
    let tags = group.tags.iter().map(|one| tag(group, one));
    let mut answer = json!({
        "AutoScalingGroupName": group.auto_scaling_group_name,
        "AutoScalingGroupARN": group_arn(group),
        "MinSize": group.min_size,
        "MaxSize": group.max_size,
        "DesiredCapacity": group.desired_capacity,
        "DefaultCooldown": group.default_cooldown,
        "AvailabilityZones": [ZONE],
        "LoadBalancerNames": [],
        "TargetGroupARNs": [],
        "HealthCheckType": "EC2",
        "HealthCheckGracePeriod": group.health_check_grace_period,
        "Instances": members.map(instance).collect::<Vec<_>>(),
        "CreatedTime": group.created_time,
        "SuspendedProcesses": suspended.collect::<Vec<_>>(),
        "VPCZoneIdentifier": subnet.unwrap_or_default(),
        "EnabledMetrics": [],
        "Tags": tags.collect::<Vec<_>>(),
        "TerminationPolicies":
            group.termination_policies.iter().map(|one| one.as_str()).collect::<Vec<_>>(),
        "NewInstancesProtectedFromScaleIn": group.new_instances_protected_from_scale_in,
        "CapacityRebalance": false,
        "TrafficSources": [],
    });
    source(&group.launch, &mut answer);
    if group.deleting {
        answer["Status"] = "Delete in progress".into();
    }
    answer
}

/// The members of an answer that say what something is launched from.
fn source(launch: &LaunchSource, answer: &mut Value) {
    match launch {
        LaunchSource::LaunchConfiguration(name) => {
            answer["LaunchConfigurationName"] = name.as_str().into();
        }
        LaunchSource::LaunchTemplate { launch_template_id, launch_template_name, version } => {
            answer["LaunchTemplate"] = json!({
                "LaunchTemplateId": launch_template_id,
                "LaunchTemplateName": launch_template_name,
                "Version": version,
            });
        }
    }
}

fn instance(member: &Member) -> Value {
    let mut answer = json!({
        "InstanceId": member.instance_id,
        "InstanceType": member.instance_type,
        "AvailabilityZone": ZONE,
        "LifecycleState": member.lifecycle_state.as_str(),
        "HealthStatus": if member.unhealthy { "Unhealthy" } else { "Healthy" },
        "ProtectedFromScaleIn": member.protected_from_scale_in,
    });
    if let Some(launch) = &member.launch {
        source(launch, &mut answer);
    }
    if let Some(image) = &member.image_id {
        answer["ImageId"] = image.as_str().into();
    }
    answer
}

/// AutoScalingInstanceDetails.
pub fn details(group: &AutoScalingGroup, member: &Member) -> Value {
    let mut answer = instance(member);
    answer["AutoScalingGroupName"] = group.auto_scaling_group_name.as_str().into();
    answer["HealthStatus"] = if member.unhealthy { "UNHEALTHY" } else { "HEALTHY" }.into();
    answer
}

/// TagDescription.
pub fn tag(group: &AutoScalingGroup, tag: &GroupTag) -> Value {
    json!({
        "ResourceId": group.auto_scaling_group_name,
        "ResourceType": "auto-scaling-group",
        "Key": tag.key,
        "Value": tag.value,
        "PropagateAtLaunch": tag.propagate_at_launch,
    })
}

/// Activity.
pub fn activity(group: &AutoScalingGroup, activity: &Activity) -> Value {
    let ended = activity.status_code != ActivityStatus::InProgress;
    let details = json!({ "Subnet ID": "", "Availability Zone": ZONE });
    let mut answer = json!({
        "ActivityId": activity.activity_id,
        "AutoScalingGroupName": group.auto_scaling_group_name,
        "AutoScalingGroupARN": group_arn(group),
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.start_time,
        "StatusCode": activity.status_code.as_str(),
        "Progress": if ended { 100 } else { 50 },
        "Details": details.to_string(),
    });
    if let Some(end) = &activity.end_time {
        answer["EndTime"] = end.as_str().into();
    }
    if let Some(message) = &activity.status_message {
        answer["StatusMessage"] = message.as_str().into();
    }
    answer
}

/// LaunchConfiguration.
pub fn configuration(one: &LaunchConfiguration) -> Value {
    let name = format!("launchConfigurationName/{}", one.launch_configuration_name);
    let id = one.launch_configuration_id.as_str();
    let launch = &one.launch;
    let mut answer = json!({
        "LaunchConfigurationName": one.launch_configuration_name,
        "LaunchConfigurationARN": arn(&one.owner_id, "launchConfiguration", id, &name),
        "ImageId": launch.image_id,
        "KeyName": launch.key_name.as_deref().unwrap_or_default(),
        "SecurityGroups": launch.security_groups,
        "ClassicLinkVPCSecurityGroups": [],
        "UserData": launch.user_data.as_deref().unwrap_or_default(),
        "InstanceType": launch.instance_type.as_deref().unwrap_or_default(),
        "KernelId": launch.kernel_id.as_deref().unwrap_or_default(),
        "RamdiskId": launch.ramdisk_id.as_deref().unwrap_or_default(),
        "BlockDeviceMappings": launch.block_device_mappings,
        "InstanceMonitoring": { "Enabled": false },
        "CreatedTime": one.created_time,
        "EbsOptimized": false,
    });
    if let Some(options) = &launch.metadata_options {
        let mut options = json!(options);
        if let Some(options) = options.as_object_mut() {
            options.retain(|_, value| !value.is_null());
        }
        answer["MetadataOptions"] = options;
    }
    answer
}

/// InstanceRefresh.
pub fn refresh(group: &AutoScalingGroup, refresh: &InstanceRefresh) -> Value {
    let preferences = &refresh.preferences;
    let done = refresh.instances.saturating_sub(refresh.instances_to_update);
    let percent = match refresh.status {
        RefreshStatus::Successful | RefreshStatus::RollbackSuccessful => 100,
        _ => done.saturating_mul(100).checked_div(refresh.instances).unwrap_or(0),
    };
    let mut answer = json!({
        "InstanceRefreshId": refresh.instance_refresh_id,
        "AutoScalingGroupName": group.auto_scaling_group_name,
        "Status": refresh.status.as_str(),
        "StartTime": time(refresh.start_time),
        "PercentageComplete": percent,
        "InstancesToUpdate": refresh.instances_to_update,
        "Preferences": {
            "MinHealthyPercentage": preferences.min_healthy_percentage,
            "InstanceWarmup": preferences.instance_warmup,
            "SkipMatching": preferences.skip_matching,
            "AutoRollback": preferences.auto_rollback,
        },
        "Strategy": "Rolling",
    });
    if let Some(end) = refresh.end_time {
        answer["EndTime"] = time(end).into();
    }
    if let Some(why) = &refresh.status_reason {
        answer["StatusReason"] = why.as_str().into();
    }
    if let LaunchSource::LaunchTemplate { .. } = refresh.to {
        let mut desired = json!({});
        source(&refresh.to, &mut desired);
        answer["DesiredConfiguration"] = desired;
    }
    answer
}

/// ScalingPolicy.
pub fn policy(group: &AutoScalingGroup, policy: &ScalingPolicy) -> Value {
    let name = &policy.policy_name;
    let names = format!("autoScalingGroupName/{}:policyName/{name}", group.auto_scaling_group_name);
    let id = group.auto_scaling_group_id.as_str();
    let mut answer = json!(policy.action);
    if let Some(answer) = answer.as_object_mut() {
        answer.retain(|_, value| !value.is_null());
        if answer.get("PolicyType").is_some_and(|kind| kind == "TargetTrackingScaling") {
            let metric = json!({ "PredefinedMetricType": "ASGAverageCPUUtilization" });
            let tracking = json!({
                "PredefinedMetricSpecification": metric,
                "TargetValue": answer.remove("TargetValue"),
                "DisableScaleIn": answer.remove("DisableScaleIn"),
            });
            answer.insert("TargetTrackingConfiguration".into(), tracking);
        }
    }
    answer["AutoScalingGroupName"] = group.auto_scaling_group_name.as_str().into();
    answer["PolicyName"] = name.as_str().into();
    answer["PolicyARN"] = arn(&group.spore.owner_id, "scalingPolicy", id, &names).into();
    answer["Enabled"] = policy.enabled.into();
    answer["Alarms"] = json!([]);
    if answer.get("StepAdjustments").is_none() {
        answer["StepAdjustments"] = json!([]);
    }
    answer
}

/// ScheduledUpdateGroupAction.
pub fn scheduled(group: &AutoScalingGroup, action: &ScheduledAction) -> Value {
    let name = &action.scheduled_action_name;
    let names = format!(
        "autoScalingGroupName/{}:scheduledActionName/{name}",
        group.auto_scaling_group_name
    );
    let id = group.auto_scaling_group_id.as_str();
    let mut answer = json!(action);
    if let Some(answer) = answer.as_object_mut() {
        answer.retain(|_, value| !value.is_null());
    }
    let start = time(action.start_time);
    answer["AutoScalingGroupName"] = group.auto_scaling_group_name.as_str().into();
    answer["ScheduledActionARN"] =
        arn(&group.spore.owner_id, "scheduledUpdateGroupAction", id, &names).into();
    answer["Time"] = start.as_str().into();
    answer["StartTime"] = start.into();
    if let Some(end) = action.end_time {
        answer["EndTime"] = time(end).into();
    }
    answer
}
