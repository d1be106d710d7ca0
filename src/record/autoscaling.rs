//! The records of Auto Scaling groups and launch configurations, in the shapes of Amazon EC2 Auto
//! Scaling's API.

use super::image::BlockDeviceMapping;
use super::metadata::{Endpoint, HopLimit, HttpTokens};
use super::network::NetworkName;
use super::scaling::{Activity, InstanceRefresh, LaunchSource, ScalingPolicy, ScheduledAction};
use super::{Durability, Record};
use crate::error::Code;
use crate::id::{AutoScalingGroupId, ImageId, InstanceId, LaunchConfigurationId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// LaunchConfiguration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LaunchConfiguration {
    /// Its id.
    pub launch_configuration_id: LaunchConfigurationId,
    /// Its name, which no other of its owner's has.
    pub launch_configuration_name: String,
    /// RFC 3339, UTC.
    pub created_time: String,
    /// What its instances are.
    pub launch: LaunchData,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// The group that it was made for, with which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_for: Option<String>,
}

/// What a launch configuration launches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct LaunchData {
    /// The image.
    pub image_id: String,
    /// Preset name.
    pub instance_type: Option<String>,
    /// The key pair's name.
    pub key_name: Option<String>,
    /// Ids or names.
    pub security_groups: Vec<String>,
    /// In base64.
    pub user_data: Option<String>,
    /// A kernel over the image's.
    pub kernel_id: Option<String>,
    /// A ramdisk over the image's.
    pub ramdisk_id: Option<String>,
    /// Over the image's.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// How guests get at their metadata.
    pub metadata_options: Option<InstanceMetadataOptions>,
}

/// InstanceMetadataOptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct InstanceMetadataOptions {
    /// Whether a token has to be given.
    pub http_tokens: Option<HttpTokens>,
    /// How far answers go.
    pub http_put_response_hop_limit: Option<HopLimit>,
    /// Whether there is any.
    pub http_endpoint: Option<Endpoint>,
}

/// AutoScalingGroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AutoScalingGroup {
    /// Its id.
    pub auto_scaling_group_id: AutoScalingGroupId,
    /// Its name, which no other of its owner's has.
    pub auto_scaling_group_name: String,
    /// What its instances are launched from.
    pub launch: LaunchSource,
    /// As few instances.
    pub min_size: u32,
    /// As many.
    pub max_size: u32,
    /// As many as there are to be.
    pub desired_capacity: u32,
    /// Seconds between two scalings by a simple policy.
    pub default_cooldown: u32,
    /// Seconds until a new instance's status checks count.
    pub health_check_grace_period: u32,
    /// Who goes first; the default policy if there is none.
    pub termination_policies: Vec<TerminationPolicy>,
    /// New instances are protected from scale-in.
    pub new_instances_protected_from_scale_in: bool,
    /// What is not done by itself.
    pub suspended_processes: Vec<String>,
    /// Tags, which its instances get where they say so.
    pub tags: Vec<GroupTag>,
    /// RFC 3339, UTC.
    pub created_time: String,
    /// Its instances, the oldest first.
    pub instances: Vec<Member>,
    /// What was done, the latest first.
    pub activities: Vec<Activity>,
    /// How it scales.
    pub policies: Vec<ScalingPolicy>,
    /// What is done at a time.
    pub scheduled_actions: Vec<ScheduledAction>,
    /// Instance refreshes, the latest first.
    pub instance_refreshes: Vec<InstanceRefresh>,
    /// It is to be deleted once its instances are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// What Auto Scaling has no word for.
    pub spore: GroupSide,
}

/// Spore's own part of a group's record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GroupSide {
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// What its instances hang on; nothing without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkName>,
    /// Milliseconds since the epoch: until then no simple policy scales.
    #[serde(default)]
    pub cooldown_until: u64,
    /// Launches in a row that came to nothing.
    #[serde(default)]
    pub failures: u32,
    /// Milliseconds since the epoch: nothing is launched until then.
    #[serde(default)]
    pub retry_at: u64,
    /// What it launches from with the number that its template's version had when somebody last
    /// looked; as the group says without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbered: Option<LaunchSource>,
}

impl AutoScalingGroup {
    /// What an instance is launched from now.
    pub fn source(&self) -> &LaunchSource {
        self.spore.numbered.as_ref().unwrap_or(&self.launch)
    }

    /// Launches from something else from now on. What failed by the former one may work by this.
    pub fn launch_from(&mut self, launch: LaunchSource) {
        self.launch = launch;
        self.spore.numbered = None;
        (self.spore.failures, self.spore.retry_at) = (0, 0);
    }
}

/// An instance of a group, from the intent to launch it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Member {
    /// The ClientToken of its launch, by which it is found if whoever launched it has died.
    pub token: String,
    /// Which, once it is launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Where in a group's life it is.
    pub lifecycle_state: LifecycleState,
    /// It is to be replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
    /// Scaling in leaves it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected_from_scale_in: bool,
    /// What it was launched from; attached ones have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<LaunchSource>,
    /// Its type.
    #[serde(default)]
    pub instance_type: String,
    /// Its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<ImageId>,
    /// Milliseconds since the epoch: since when it is in its state.
    pub since: u64,
    /// The same of its launch.
    pub launched: u64,
    /// The activity that launches or terminates it.
    pub activity_id: String,
}

/// LifecycleState, as far as there are such here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifecycleState {
    /// Being launched.
    Pending,
    /// At work.
    InService,
    /// Set aside by its user.
    Standby,
    /// Being terminated.
    Terminating,
}

impl LifecycleState {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InService => "InService",
            Self::Standby => "Standby",
            Self::Terminating => "Terminating",
        }
    }
}

/// A tag of a group. (TagDescription)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GroupTag {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
    /// Instances that are launched get it.
    #[serde(default)]
    pub propagate_at_launch: bool,
}

/// Which instance goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationPolicy {
    /// Of an old launch configuration or template first, then the oldest.
    Default,
    /// The oldest.
    OldestInstance,
    /// The newest.
    NewestInstance,
    /// Of the oldest launch configuration.
    OldestLaunchConfiguration,
    /// Of another launch template than the group's.
    OldestLaunchTemplate,
    /// The one whose hour is nearest to its end.
    ClosestToNextInstanceHour,
}

impl TerminationPolicy {
    /// All that there are.
    pub const ALL: [(&'static str, Self); 6] = [
        ("ClosestToNextInstanceHour", Self::ClosestToNextInstanceHour),
        ("Default", Self::Default),
        ("NewestInstance", Self::NewestInstance),
        ("OldestInstance", Self::OldestInstance),
        ("OldestLaunchConfiguration", Self::OldestLaunchConfiguration),
        ("OldestLaunchTemplate", Self::OldestLaunchTemplate),
    ];

    /// The API's name.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, policy)| *policy == self).map_or("", |(name, _)| name)
    }
}

impl Record for LaunchConfiguration {
    type Id = LaunchConfigurationId;
    const DIRECTORY: &'static str = "launch-configurations";
    const KIND: &'static str = "launch configuration";
    const NOT_FOUND: Code = Code::ValidationError;
    const LISTED_BY: &'static str = "spore asg show";
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &LaunchConfigurationId {
        &self.launch_configuration_id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.launch_configuration_name)
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({ "Name": self.launch_configuration_name, "ImageId": self.launch.image_id })
    }
}

impl Record for AutoScalingGroup {
    type Id = AutoScalingGroupId;
    const DIRECTORY: &'static str = "auto-scaling-groups";
    const KIND: &'static str = "Auto Scaling group";
    const NOT_FOUND: Code = Code::ValidationError;
    const LISTED_BY: &'static str = "spore asg ls";
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &AutoScalingGroupId {
        &self.auto_scaling_group_id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.auto_scaling_group_name)
    }

    fn owner(&self) -> &str {
        &self.spore.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({
            "Name": self.auto_scaling_group_name,
            "MinSize": self.min_size,
            "MaxSize": self.max_size,
            "DesiredCapacity": self.desired_capacity,
            "Launch": self.launch,
            "SuspendedProcesses": self.suspended_processes,
        })
    }
}
