//! Auto Scaling groups.

use super::find::{
    change_named, check_name, configurations, group, groups, named, own, validation,
};
pub use super::plan::PROCESSES;
use super::reconcile;
use crate::error::{Code, Error, Result};
use crate::id::AutoScalingGroupId;
use crate::record::autoscaling::GroupSide;
pub use crate::record::autoscaling::{AutoScalingGroup, GroupTag, TerminationPolicy};
use crate::record::network::NetworkName;
pub use crate::record::scaling::LaunchSource;
use crate::record::tag::{Tag, check_tags};
use crate::service::Service;
use crate::store::{Durability, Store, now};

/// Most groups of an account. (EC2 Auto Scaling, "Quotas")
pub const MAX_GROUPS: usize = 200;
/// Most instances of a group.
const MAX_SIZE: u32 = 1000;
/// Most seconds of anything.
const MAX_SECONDS: u32 = 7 * 24 * 3600;
/// Seconds between two scalings by a simple policy, where nothing is said.
const COOLDOWN: u32 = 300;

/// What of a group is to be; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct GroupSettings {
    /// What its instances are launched from.
    pub launch: Option<LaunchSource>,
    /// As few instances.
    pub min_size: Option<u32>,
    /// As many.
    pub max_size: Option<u32>,
    /// As many as there are to be; as few as may be for a new one.
    pub desired_capacity: Option<u32>,
    /// Seconds.
    pub default_cooldown: Option<u32>,
    /// Seconds.
    pub health_check_grace_period: Option<u32>,
    /// Who goes first.
    pub termination_policies: Option<Vec<TerminationPolicy>>,
    /// New instances are protected from scale-in.
    pub new_instances_protected_from_scale_in: Option<bool>,
    /// What new instances hang on.
    pub network: Option<Option<NetworkName>>,
}

impl Service {
    /// CreateAutoScalingGroup. `spore serve` launches its instances.
    ///
    /// # Errors
    /// `AlreadyExists`, `LimitExceeded`, `ValidationError`.
    pub fn create_auto_scaling_group(
        &self,
        name: &str,
        settings: &GroupSettings,
        tags: &[GroupTag],
    ) -> Result<AutoScalingGroup> {
        let store = &self.store;
        check_name("an Auto Scaling group", name)?;
        check_group_tags(tags)?;
        let Some(launch) = settings.launch.clone() else {
            return Err(validation("a group needs a launch configuration or a launch template"));
        };
        let mut group = AutoScalingGroup {
            auto_scaling_group_id: AutoScalingGroupId::generate()?,
            auto_scaling_group_name: name.to_owned(),
            launch,
            min_size: 0,
            max_size: 0,
            desired_capacity: 0,
            default_cooldown: COOLDOWN,
            health_check_grace_period: 0,
            termination_policies: vec![TerminationPolicy::Default],
            new_instances_protected_from_scale_in: false,
            suspended_processes: Vec::new(),
            tags: tags.to_vec(),
            created_time: now(),
            instances: Vec::new(),
            activities: Vec::new(),
            policies: Vec::new(),
            scheduled_actions: Vec::new(),
            instance_refreshes: Vec::new(),
            deleting: false,
            spore: GroupSide { owner_id: store.owner_id(), ..GroupSide::default() },
        };
        let _lock = store.lock()?;
        set(store, &mut group, settings)?;
        let all = own(store, &groups(store))?;
        if all.iter().any(|one| one.auto_scaling_group_name == name) {
            let why = format!("there is an Auto Scaling group '{}' already", name.escape_debug());
            return Err(Error::refused(Code::AlreadyExists, why));
        }
        if all.len() >= MAX_GROUPS {
            let why = format!("there are {MAX_GROUPS} Auto Scaling groups; delete some");
            return Err(Error::refused(Code::LimitExceeded, why));
        }
        groups(store).create(Durability::Durable, |_| Ok(group))
    }

    /// DescribeAutoScalingGroups: those named as far as they are there, or all, by name.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn describe_auto_scaling_groups(&self, names: &[String]) -> Result<Vec<AutoScalingGroup>> {
        let mut all = own(&self.store, &groups(&self.store))?;
        all.retain(|one| names.is_empty() || names.contains(&one.auto_scaling_group_name));
        Ok(all)
    }

    /// The group of that name.
    ///
    /// # Errors
    /// `ValidationError`: there is none.
    pub fn describe_auto_scaling_group(&self, name: &str) -> Result<AutoScalingGroup> {
        group(&self.store, name)
    }

    /// UpdateAutoScalingGroup.
    ///
    /// # Errors
    /// `ValidationError`: there is none of that name, or it can't be so.
    pub fn update_auto_scaling_group(&self, name: &str, settings: &GroupSettings) -> Result<()> {
        change_named(&self.store, name, |group| {
            not_deleting(group)?;
            set(&self.store, group, settings)
        })
    }

    /// SetDesiredCapacity.
    ///
    /// # Errors
    /// `ValidationError`: it is not within the group's bounds. `ScalingActivityInProgress`: the
    /// cooldown is to be honoured and not over.
    pub fn set_desired_capacity(&self, name: &str, desired: u32, honor: bool) -> Result<()> {
        change_named(&self.store, name, |group| {
            not_deleting(group)?;
            if honor && group.spore.cooldown_until > super::find::now_ms() {
                let why = "the group's cooldown is not over yet";
                return Err(Error::refused(Code::ScalingActivityInProgress, why));
            }
            let settings =
                GroupSettings { desired_capacity: Some(desired), ..GroupSettings::default() };
            set(&self.store, group, &settings)
        })
    }

    /// DeleteAutoScalingGroup; with `force` its instances are terminated, by `spore serve` or, if
    /// that does not run, by this.
    ///
    /// # Errors
    /// `ResourceInUse`: it has instances.
    pub fn delete_auto_scaling_group(&self, name: &str, force: bool) -> Result<()> {
        let id = group(&self.store, name)?.auto_scaling_group_id;
        change_named(&self.store, name, |group| {
            if !force && !group.instances.is_empty() {
                let why = format!(
                    "the group '{}' has instances: set its sizes to 0, or force its deletion",
                    group.auto_scaling_group_name.escape_debug()
                );
                return Err(Error::refused(Code::ResourceInUse, why));
            }
            group.deleting = true;
            (group.min_size, group.max_size, group.desired_capacity) = (0, 0, 0);
            Ok(())
        })?;
        reconcile::finish_without_service(self, &id)
    }

    /// SuspendProcesses and ResumeProcesses; all of them if none is named.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group or process.
    pub fn suspend_processes(&self, name: &str, processes: &[String], suspend: bool) -> Result<()> {
        if let Some(unknown) = processes.iter().find(|name| !PROCESSES.contains(&name.as_str())) {
            let shown: String = unknown.escape_debug().take(60).collect();
            let there = PROCESSES.join(", ");
            return Err(validation(format!("'{shown}' is no scaling process; there are {there}")));
        }
        let all: Vec<String> = PROCESSES.map(str::to_owned).to_vec();
        let named = if processes.is_empty() { &all[..] } else { processes };
        change_named(&self.store, name, |group| {
            group.suspended_processes.retain(|process| !named.contains(process));
            if suspend {
                group.suspended_processes.extend_from_slice(named);
                group.suspended_processes.sort();
                group.suspended_processes.dedup();
            }
            Ok(())
        })
    }

    /// CreateOrUpdateTags, of a group.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group, or a tag is none.
    pub fn tag_auto_scaling_group(&self, name: &str, tags: &[GroupTag]) -> Result<()> {
        check_group_tags(tags)?;
        change_named(&self.store, name, |group| {
            group.tags.retain(|old| tags.iter().all(|new| new.key != old.key));
            group.tags.extend_from_slice(tags);
            check_group_tags(&group.tags)
        })
    }

    /// DeleteTags, of a group: those of these keys, and of that value where one is said.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group.
    pub fn untag_auto_scaling_group(
        &self,
        name: &str,
        tags: &[(String, Option<String>)],
    ) -> Result<()> {
        change_named(&self.store, name, |group| {
            group.tags.retain(|tag| {
                !tags.iter().any(|(key, value)| {
                    tag.key == *key && value.as_ref().is_none_or(|value| *value == tag.value)
                })
            });
            Ok(())
        })
    }

    /// Whether a process does what groups need.
    pub fn scales(&self) -> bool {
        reconcile::runs(&self.store)
    }
}

/// # Errors
/// `ValidationError`: one is no tag.
fn check_group_tags(tags: &[GroupTag]) -> Result<()> {
    let plain = |tag: &GroupTag| Tag { key: tag.key.clone(), value: tag.value.clone() };
    let plain: Vec<Tag> = tags.iter().map(plain).collect();
    check_tags(&plain).map_err(|error| validation(error.message()))
}

/// # Errors
/// `ValidationError`: the group is on its way out.
fn not_deleting(group: &AutoScalingGroup) -> Result<()> {
    match group.deleting {
        false => Ok(()),
        true => Err(validation("the group is pending delete")),
    }
}

/// Sets what is said in a group's record.
pub(super) fn set(
    store: &Store,
    group: &mut AutoScalingGroup,
    settings: &GroupSettings,
) -> Result<()> {
    if let Some(launch) = &settings.launch {
        if let LaunchSource::LaunchConfiguration(name) = launch {
            named(store, &configurations(store), name)?;
        }
        // It would end only when all are of the one that it began with.
        if group.instance_refreshes.first().is_some_and(|one| one.status.is_active()) {
            let why = "an instance refresh of the group goes on, whose instances are launched from \
                       what it began with; cancel it first";
            return Err(validation(why));
        }
        group.launch_from(launch.clone());
    }
    let GroupSettings { min_size, max_size, desired_capacity, .. } = *settings;
    let (min, max) = (min_size.unwrap_or(group.min_size), max_size.unwrap_or(group.max_size));
    if max > MAX_SIZE {
        return Err(validation(format!("a group has {MAX_SIZE} instances at most")));
    }
    if min > max {
        return Err(validation(format!("the minimum {min} is more than the maximum {max}")));
    }
    let desired = desired_capacity.unwrap_or(group.desired_capacity.clamp(min, max));
    if !(min..=max).contains(&desired) {
        let why = format!("the desired capacity {desired} is not within {min} and {max}");
        return Err(validation(why));
    }
    (group.min_size, group.max_size, group.desired_capacity) = (min, max, desired);
    let seconds = |new: Option<u32>, old: &mut u32| {
        let new = new.unwrap_or(*old);
        if new > MAX_SECONDS {
            return Err(validation(format!("{new} s are more than {MAX_SECONDS} s")));
        }
        *old = new;
        Ok(())
    };
    seconds(settings.default_cooldown, &mut group.default_cooldown)?;
    seconds(settings.health_check_grace_period, &mut group.health_check_grace_period)?;
    if let Some(policies) = &settings.termination_policies {
        group.termination_policies = policies.iter().copied().take(6).collect();
    }
    if let Some(protected) = settings.new_instances_protected_from_scale_in {
        group.new_instances_protected_from_scale_in = protected;
    }
    if let Some(network) = &settings.network {
        group.spore.network.clone_from(network);
    }
    Ok(())
}
