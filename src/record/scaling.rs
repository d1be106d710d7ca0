//! What an Auto Scaling group's record has beside its instances: activities, policies, scheduled
//! actions and instance refreshes, in the shapes of Auto Scaling's API.

use serde::{Deserialize, Serialize};

/// Amazon EC2 Auto Scaling Activity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Activity {
    /// Its id.
    pub activity_id: String,
    /// What is done.
    pub description: String,
    /// Why.
    pub cause: String,
    /// RFC 3339, UTC.
    pub start_time: String,
    /// The same of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// How far it is.
    pub status_code: ActivityStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
}

/// ScalingActivityStatusCode, as far as there are such here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    /// It goes on.
    InProgress,
    /// It is done.
    Successful,
    /// It was not.
    Failed,
    /// It is not wanted any more.
    Cancelled,
}

impl ActivityStatus {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

/// ScalingPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ScalingPolicy {
    /// Its name, which no other of its group has.
    pub policy_name: String,
    /// Whether it does anything.
    pub enabled: bool,
    /// What it does.
    pub action: PolicyAction,
}

/// What a policy does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "PolicyType", deny_unknown_fields)]
pub enum PolicyAction {
    /// One adjustment.
    #[serde(rename_all = "PascalCase")]
    SimpleScaling {
        /// Of what the adjustment is.
        adjustment_type: AdjustmentType,
        /// By how much.
        scaling_adjustment: i32,
        /// By that many instances at least, where it is a percentage.
        #[serde(default)]
        min_adjustment_magnitude: Option<u32>,
        /// Seconds until the next one; the group's own without.
        #[serde(default)]
        cooldown: Option<u32>,
    },
    /// An adjustment by how far a metric is beyond its threshold.
    #[serde(rename_all = "PascalCase")]
    StepScaling {
        /// Of what the adjustments are.
        adjustment_type: AdjustmentType,
        /// Each with its bounds.
        step_adjustments: Vec<StepAdjustment>,
        /// By that many instances at least, where it is a percentage.
        #[serde(default)]
        min_adjustment_magnitude: Option<u32>,
        /// Seconds until a new instance counts.
        #[serde(default)]
        estimated_instance_warmup: Option<u32>,
    },
    /// As many instances as keep their average CPU utilization near a value.
    #[serde(rename_all = "PascalCase")]
    TargetTrackingScaling {
        /// That value, in percent.
        target_value: f64,
        /// It only adds instances.
        disable_scale_in: bool,
        /// Seconds until a new instance counts.
        #[serde(default)]
        estimated_instance_warmup: Option<u32>,
    },
}

/// AdjustmentType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdjustmentType {
    /// So many more.
    ChangeInCapacity,
    /// So many.
    ExactCapacity,
    /// So many percent more.
    PercentChangeInCapacity,
}

/// StepAdjustment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct StepAdjustment {
    /// From here beyond the threshold; unbounded without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_interval_lower_bound: Option<f64>,
    /// To below here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_interval_upper_bound: Option<f64>,
    /// By how much.
    pub scaling_adjustment: i32,
}

/// ScheduledUpdateGroupAction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ScheduledAction {
    /// Its name, which no other of its group has.
    pub scheduled_action_name: String,
    /// Milliseconds since the epoch: when it is done the next time.
    pub start_time: u64,
    /// From when on it is not done any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<u64>,
    /// When it is done again, in cron's words, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrence: Option<String>,
    /// The group's new minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u32>,
    /// The same of its maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u32>,
    /// The same of its desired capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_capacity: Option<u32>,
}

/// InstanceRefreshStatus, as far as there are such here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefreshStatus {
    /// Instances are replaced.
    InProgress,
    /// All are.
    Successful,
    /// They can't be.
    Failed,
    /// It was ended.
    Cancelled,
    /// The former ones are brought back.
    RollbackInProgress,
    /// They are back.
    RollbackSuccessful,
    /// They can't be brought back.
    RollbackFailed,
}

impl RefreshStatus {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::RollbackInProgress => "RollbackInProgress",
            Self::RollbackSuccessful => "RollbackSuccessful",
            Self::RollbackFailed => "RollbackFailed",
        }
    }

    /// Whether something is still done.
    pub fn is_active(self) -> bool {
        matches!(self, Self::InProgress | Self::RollbackInProgress)
    }
}

/// InstanceRefresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct InstanceRefresh {
    /// Its id.
    pub instance_refresh_id: String,
    /// How far it is.
    pub status: RefreshStatus,
    /// Why it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Milliseconds since the epoch.
    pub start_time: u64,
    /// The same of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<u64>,
    /// Instances that it has to replace in all.
    pub instances: u32,
    /// Those that are to be replaced still.
    pub instances_to_update: u32,
    /// What instances are launched from after it.
    pub to: LaunchSource,
    /// What they were launched from before.
    pub from: LaunchSource,
    /// Launches that failed, and instances that died, since it began.
    pub failures: u32,
    /// How it goes about it.
    pub preferences: RefreshPreferences,
}

/// RefreshPreferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RefreshPreferences {
    /// Percent of the desired capacity that stays in service.
    pub min_healthy_percentage: u32,
    /// Seconds until a new instance counts as in service.
    pub instance_warmup: u32,
    /// Those that are launched from the same already stay.
    pub skip_matching: bool,
    /// The former ones are brought back if it fails.
    pub auto_rollback: bool,
}

/// What a group's instances are launched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LaunchSource {
    /// The launch configuration of that name.
    LaunchConfiguration(String),
    /// A launch template.
    #[serde(rename_all = "PascalCase")]
    LaunchTemplate {
        /// Its id.
        launch_template_id: String,
        /// Its name.
        launch_template_name: String,
        /// A number, `$Latest` or `$Default`.
        version: String,
    },
}

impl LaunchSource {
    /// The launch configuration's name, if it is one.
    pub fn launch_configuration(&self) -> Option<&str> {
        match self {
            Self::LaunchConfiguration(name) => Some(name),
            Self::LaunchTemplate { .. } => None,
        }
    }
}
