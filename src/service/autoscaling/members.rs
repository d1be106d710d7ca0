//! What is done to instances of groups.

use super::find::{
    change, change_named, instance_id, member, now_ms, of_instance, own, validation,
};
use super::{activity, plan};
use crate::error::{Error, Result};
use crate::id::InstanceId;
use crate::record::autoscaling::{AutoScalingGroup, LifecycleState, Member};
use crate::record::instance::State;
use crate::record::scaling::{Activity, ActivityStatus};
use crate::service::{Service, instances, tags};
use std::time::Duration;

/// Most instances of a request. (EC2 Auto Scaling API Reference, AttachInstances)
const MAX_INSTANCES: usize = 20;

impl Service {
    /// TerminateInstanceInAutoScalingGroup: the activity that does it.
    ///
    /// # Errors
    /// `ValidationError`: it is of no group, or its group would have fewer than it may have.
    pub fn terminate_in_auto_scaling_group(&self, id: &str, decrement: bool) -> Result<Activity> {
        let id = instance_id(id)?;
        let group = of_instance(&self.store, &id)?;
        change(&self.store, &group.auto_scaling_group_id, |group| {
            if decrement {
                lower(group, 1)?;
            }
            let cause = "instance was taken out of service in response to a user request";
            let activity = plan::terminate(group, &id, cause)?;
            let found = group.activities.iter().find(|one| one.activity_id == activity);
            found.cloned().ok_or_else(|| Error::failure("the activity is not there"))
        })
    }

    /// SetInstanceHealth. `respect` leaves one alone that is new, by the group's grace period.
    ///
    /// # Errors
    /// `ValidationError`: it is of no group.
    pub fn set_instance_health(&self, id: &str, healthy: bool, respect: bool) -> Result<()> {
        let id = instance_id(id)?;
        let group = of_instance(&self.store, &id)?;
        change(&self.store, &group.auto_scaling_group_id, |group| {
            let grace = Duration::from_secs(u64::from(group.health_check_grace_period));
            if let Some(member) = member(group, &id) {
                let age = Duration::from_millis(now_ms().saturating_sub(member.launched));
                if healthy || !respect || age >= grace {
                    member.unhealthy = !healthy;
                }
            }
            Ok(())
        })
    }

    /// SetInstanceProtection.
    ///
    /// # Errors
    /// `ValidationError`: one of them is not in the group.
    pub fn set_instance_protection(
        &self,
        name: &str,
        ids: &[String],
        protected: bool,
    ) -> Result<()> {
        let ids = parsed(ids)?;
        change_named(&self.store, name, |group| {
            each(group, &ids, |member| {
                member.protected_from_scale_in = protected;
                Ok(())
            })
        })
    }

    /// AttachInstances.
    ///
    /// # Errors
    /// `ValidationError`: one does not run, or is in a group; there would be too many.
    pub fn attach_instances(&self, name: &str, ids: &[String]) -> Result<()> {
        let ids = parsed(ids)?;
        let mut records = Vec::new();
        // Nobody else attaches meanwhile.
        let _lock = self.store.lock()?;
        for id in &ids {
            let record = instances::record(&instances::find(&self.store, id.as_str())?)?;
            if record.owner_id != self.store.owner_id() {
                return Err(validation(format!("the instance {id} is another account's")));
            }
            if record.instance.state != State::Running {
                return Err(validation(format!("the instance {id} does not run")));
            }
            if of_instance(&self.store, id).is_ok() {
                return Err(validation(format!("the instance {id} is in a group already")));
            }
            records.push(record.instance);
        }
        change_named(&self.store, name, |group| {
            more(group, records.len())?;
            for instance in &records {
                let description = format!("Attaching EC2 instance: {}", instance.instance_id);
                let activity_id = activity::begin(group, &description, ATTACHED)?;
                activity::end(group, &activity_id, ActivityStatus::Successful, None);
                group.instances.push(Member {
                    token: String::new(),
                    instance_id: Some(instance.instance_id.clone()),
                    lifecycle_state: LifecycleState::InService,
                    unhealthy: false,
                    protected_from_scale_in: group.new_instances_protected_from_scale_in,
                    launch: None,
                    instance_type: instance.instance_type.clone(),
                    image_id: Some(instance.image_id.clone()),
                    since: now_ms(),
                    launched: now_ms(),
                    activity_id,
                });
            }
            Ok(())
        })?;
        ids.iter().try_for_each(|id| tags::set_group(&self.store, id, Some(name)))
    }

    /// DetachInstances: they live on; the activities.
    ///
    /// # Errors
    /// `ValidationError`: one is not in the group, or there would be too few.
    pub fn detach_instances(
        &self,
        name: &str,
        ids: &[String],
        decrement: bool,
    ) -> Result<Vec<Activity>> {
        let ids = parsed(ids)?;
        let done = change_named(&self.store, name, |group| {
            each(group, &ids, |_| Ok(()))?;
            if decrement {
                lower(group, ids.len())?;
            }
            let is =
                |member: &Member| member.instance_id.as_ref().is_some_and(|id| ids.contains(id));
            group.instances.retain(|member| !is(member));
            said(group, &ids, "Detaching", "instances were detached in response to a user request")
        })?;
        ids.iter().try_for_each(|id| tags::set_group(&self.store, id, None))?;
        Ok(done)
    }

    /// EnterStandby; the activities.
    ///
    /// # Errors
    /// `ValidationError`: one is not in the group or not in service, or there would be too few.
    pub fn enter_standby(
        &self,
        name: &str,
        ids: &[String],
        decrement: bool,
    ) -> Result<Vec<Activity>> {
        let ids = parsed(ids)?;
        change_named(&self.store, name, |group| {
            each(group, &ids, |member| {
                to(member, LifecycleState::InService, LifecycleState::Standby)
            })?;
            if decrement {
                lower(group, ids.len())?;
            }
            said(
                group,
                &ids,
                "Moving to Standby",
                "instances were moved in response to a user request",
            )
        })
    }

    /// ExitStandby; the activities.
    ///
    /// # Errors
    /// `ValidationError`: one is not in the group or not set aside, or there would be too many.
    pub fn exit_standby(&self, name: &str, ids: &[String]) -> Result<Vec<Activity>> {
        let ids = parsed(ids)?;
        change_named(&self.store, name, |group| {
            each(group, &ids, |member| {
                to(member, LifecycleState::Standby, LifecycleState::InService)
            })?;
            more(group, ids.len())?;
            said(
                group,
                &ids,
                "Moving out of Standby",
                "instances were moved in response to a user request",
            )
        })
    }

    /// DescribeAutoScalingInstances: those named as far as they are in a group, or all.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn describe_auto_scaling_instances(
        &self,
        ids: &[String],
    ) -> Result<Vec<(AutoScalingGroup, Member)>> {
        let groups = own(&self.store, &super::find::groups(&self.store))?;
        let mut found = Vec::new();
        for group in groups {
            let chosen = |member: &&Member| {
                let id = member.instance_id.as_ref();
                id.is_some_and(|id| ids.is_empty() || ids.iter().any(|one| one == id.as_str()))
            };
            let members: Vec<Member> = group.instances.iter().filter(chosen).cloned().collect();
            found.extend(members.into_iter().map(|member| (group.clone(), member)));
        }
        Ok(found)
    }
}

const ATTACHED: &str = "an instance was attached in response to a user request";

fn parsed(ids: &[String]) -> Result<Vec<InstanceId>> {
    if ids.is_empty() || ids.len() > MAX_INSTANCES {
        return Err(validation(format!("give 1 to {MAX_INSTANCES} instances")));
    }
    let mut ids = ids.iter().map(|id| instance_id(id)).collect::<Result<Vec<_>>>()?;
    ids.sort();
    ids.dedup();
    Ok(ids)
}

fn each(
    group: &mut AutoScalingGroup,
    ids: &[InstanceId],
    mut act: impl FnMut(&mut Member) -> Result<()>,
) -> Result<()> {
    let name = group.auto_scaling_group_name.clone();
    ids.iter().try_for_each(|id| {
        let none = || validation(format!("the instance {id} is not in the group '{name}'"));
        act(member(group, id).ok_or_else(none)?)
    })
}

fn to(member: &mut Member, from: LifecycleState, to: LifecycleState) -> Result<()> {
    if member.lifecycle_state != from {
        let id = member.instance_id.as_ref().map(InstanceId::as_str).unwrap_or_default();
        let (is, from) = (member.lifecycle_state.as_str(), from.as_str());
        return Err(validation(format!("the instance {id} is {is} and not {from}")));
    }
    (member.lifecycle_state, member.since) = (to, now_ms());
    Ok(())
}

/// Wants so many more instances of a group.
///
/// # Errors
/// `ValidationError`: it may not have as many.
fn more(group: &mut AutoScalingGroup, by: usize) -> Result<()> {
    let by = u32::try_from(by).unwrap_or(u32::MAX);
    let (desired, max) = (group.desired_capacity.saturating_add(by), group.max_size);
    if desired > max {
        return Err(validation(format!("the group may have {max} instances at most")));
    }
    group.desired_capacity = desired;
    Ok(())
}

/// Lowers a group's desired capacity.
fn lower(group: &mut AutoScalingGroup, by: usize) -> Result<()> {
    let by = u32::try_from(by).unwrap_or(u32::MAX);
    match group.desired_capacity.checked_sub(by).filter(|desired| *desired >= group.min_size) {
        Some(desired) => group.desired_capacity = desired,
        None => {
            let min = group.min_size;
            let why = format!("the group has {min} instances at least: lower its minimum first");
            return Err(validation(why));
        }
    }
    Ok(())
}

/// Activities that are done with it.
fn said(
    group: &mut AutoScalingGroup,
    ids: &[InstanceId],
    what: &str,
    cause: &str,
) -> Result<Vec<Activity>> {
    for id in ids {
        let activity = activity::begin(group, &format!("{what} EC2 instance: {id}"), cause)?;
        activity::end(group, &activity, ActivityStatus::Successful, None);
    }
    Ok(group.activities.iter().take(ids.len()).cloned().collect())
}
