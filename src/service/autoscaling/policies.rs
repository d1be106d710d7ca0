//! Scaling policies: by how much a group's desired capacity changes.

use super::find::{change_named, check_name, group, groups, now_ms, own, validation};
use super::plan;
use crate::error::{Code, Error, Result};
use crate::record::autoscaling::{AutoScalingGroup, LifecycleState, Member};
pub use crate::record::scaling::{AdjustmentType, PolicyAction, ScalingPolicy, StepAdjustment};
use crate::service::Service;

/// Most policies of a group. (EC2 Auto Scaling, "Quotas")
const MAX_POLICIES: usize = 50;
/// Most steps of a policy. (the same)
const MAX_STEPS: usize = 20;

impl Service {
    /// PutScalingPolicy.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group, or it can't be so. `LimitExceeded`.
    pub fn put_scaling_policy(
        &self,
        name: &str,
        policy: &ScalingPolicy,
    ) -> Result<AutoScalingGroup> {
        check_name("a scaling policy", &policy.policy_name)?;
        check(&policy.action)?;
        change_named(&self.store, name, |group| {
            group.policies.retain(|one| one.policy_name != policy.policy_name);
            if group.policies.len() >= MAX_POLICIES {
                let why = format!("a group has {MAX_POLICIES} scaling policies at most");
                return Err(Error::refused(Code::LimitExceeded, why));
            }
            group.policies.push(policy.clone());
            Ok(group.clone())
        })
    }

    /// DeletePolicy, by its name or ARN.
    ///
    /// # Errors
    /// `ValidationError`: there is none.
    pub fn delete_policy(&self, name: Option<&str>, policy: &str) -> Result<()> {
        let (name, policy) = named(name, policy)?;
        change_named(&self.store, &name, |group| {
            let before = group.policies.len();
            group.policies.retain(|one| one.policy_name != policy);
            if group.policies.len() == before { Err(none(&policy)) } else { Ok(()) }
        })
    }

    /// DescribePolicies: of a group or all, those named or all.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group.
    pub fn describe_policies(
        &self,
        name: Option<&str>,
        policies: &[String],
    ) -> Result<Vec<(AutoScalingGroup, ScalingPolicy)>> {
        let groups = match name {
            Some(name) => vec![group(&self.store, name)?],
            None => own(&self.store, &groups(&self.store))?,
        };
        let mut found = Vec::new();
        for group in groups {
            let is = |policy: &&ScalingPolicy| {
                let ends =
                    |text: &String| text.ends_with(&format!(":policyName/{}", policy.policy_name));
                policies.is_empty()
                    || policies.iter().any(|text| *text == policy.policy_name || ends(text))
            };
            let chosen: Vec<ScalingPolicy> = group.policies.iter().filter(is).cloned().collect();
            found.extend(chosen.into_iter().map(|policy| (group.clone(), policy)));
        }
        Ok(found)
    }

    /// ExecutePolicy. A step policy wants a metric and the threshold that it has crossed.
    ///
    /// # Errors
    /// `ValidationError`: there is none, or it is not executed like that.
    /// `ScalingActivityInProgress`: the cooldown is to be honoured and not over.
    pub fn execute_policy(
        &self,
        name: Option<&str>,
        policy: &str,
        honor: bool,
        metric: Option<(f64, f64)>,
    ) -> Result<()> {
        let (name, policy) = named(name, policy)?;
        change_named(&self.store, &name, |group| {
            let found = group.policies.iter().find(|one| one.policy_name == policy);
            let found = found.ok_or_else(|| none(&policy))?.clone();
            execute(group, &found.action, honor, metric, now_ms())
        })
    }
}

/// The group's name and the policy's, of which an ARN has both.
fn named(name: Option<&str>, policy: &str) -> Result<(String, String)> {
    if let Some((before, policy)) = policy.split_once(":policyName/") {
        let of = before.rsplit_once("autoScalingGroupName/").map(|(_, name)| name.to_owned());
        let of = of.ok_or_else(|| validation("that is no ARN of a scaling policy"))?;
        return Ok((of, policy.to_owned()));
    }
    let name = name.ok_or_else(|| validation("give the group's name with the policy's"))?;
    Ok((name.to_owned(), policy.to_owned()))
}

fn none(policy: &str) -> Error {
    let shown: String = policy.escape_debug().take(100).collect();
    validation(format!("PolicyName not found: there is no scaling policy '{shown}'"))
}

fn check(action: &PolicyAction) -> Result<()> {
    match action {
        PolicyAction::SimpleScaling { .. } => Ok(()),
        PolicyAction::StepScaling { step_adjustments: steps, .. } => {
            if steps.is_empty() || steps.len() > MAX_STEPS {
                return Err(validation(format!("a step policy has 1 to {MAX_STEPS} steps")));
            }
            let bounds = steps.iter().flat_map(|step| {
                [step.metric_interval_lower_bound, step.metric_interval_upper_bound]
            });
            match bounds.flatten().all(f64::is_finite) {
                true => Ok(()),
                false => Err(validation("a bound of a step is no number")),
            }
        }
        PolicyAction::TargetTrackingScaling { target_value, .. } => {
            match target_value.is_finite() && (0.01..=100.0).contains(target_value) {
                true => Ok(()),
                false => Err(validation("the target of CPU utilization is 0.01 to 100 percent")),
            }
        }
    }
}

/// Changes the desired capacity as a policy says.
fn execute(
    group: &mut AutoScalingGroup,
    action: &PolicyAction,
    honor: bool,
    metric: Option<(f64, f64)>,
    now: u64,
) -> Result<()> {
    if honor && group.spore.cooldown_until > now {
        let why = "the group's cooldown is not over yet";
        return Err(Error::refused(Code::ScalingActivityInProgress, why));
    }
    match action {
        PolicyAction::SimpleScaling {
            adjustment_type,
            scaling_adjustment,
            min_adjustment_magnitude,
            cooldown,
        } => {
            adjust(group, *adjustment_type, *scaling_adjustment, *min_adjustment_magnitude);
            let seconds = u64::from(cooldown.unwrap_or(group.default_cooldown));
            group.spore.cooldown_until = now.saturating_add(seconds.saturating_mul(1000));
        }
        PolicyAction::StepScaling {
            adjustment_type,
            step_adjustments,
            min_adjustment_magnitude,
            ..
        } => {
            let missing = || validation("a step policy wants MetricValue and BreachThreshold");
            let (value, threshold) = metric.ok_or_else(missing)?;
            let beyond = value - threshold;
            let has = |step: &&StepAdjustment| {
                let (from, to) =
                    (step.metric_interval_lower_bound, step.metric_interval_upper_bound);
                // The bound that is nearer to the threshold belongs to the step.
                match beyond >= 0.0 {
                    true => {
                        from.is_none_or(|from| beyond >= from) && to.is_none_or(|to| beyond < to)
                    }
                    false => {
                        from.is_none_or(|from| beyond > from) && to.is_none_or(|to| beyond <= to)
                    }
                }
            };
            let step = step_adjustments.iter().find(has);
            let step =
                step.ok_or_else(|| validation("no step of the policy is for that metric"))?;
            adjust(group, *adjustment_type, step.scaling_adjustment, *min_adjustment_magnitude);
        }
        PolicyAction::TargetTrackingScaling { .. } => {
            let why = "a policy that tracks a target is executed by its metric alone";
            return Err(validation(why));
        }
    }
    Ok(())
}

fn adjust(group: &mut AutoScalingGroup, of: AdjustmentType, by: i32, least: Option<u32>) {
    let (now, by) = (i64::from(group.desired_capacity), i64::from(by));
    let wanted = match of {
        AdjustmentType::ChangeInCapacity => now + by,
        AdjustmentType::ExactCapacity => by,
        AdjustmentType::PercentChangeInCapacity => {
            // Towards zero, but never to it.
            let magnitude = (now * by.abs() / 100).max(i64::from(by != 0 && now > 0));
            now + magnitude.max(i64::from(least.unwrap_or(0))) * by.signum()
        }
    };
    let within = wanted.clamp(i64::from(group.min_size), i64::from(group.max_size));
    group.desired_capacity = u32::try_from(within).unwrap_or(group.desired_capacity);
}

/// The average CPU utilization of a group's instances, in percent: lately, and for a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Of the last seconds.
    pub lately: Option<f64>,
    /// Of the last minute.
    pub steadily: Option<f64>,
}

/// Whether a member counts for a metric.
pub fn is_warm(member: &Member, warmup: u64, now: u64) -> bool {
    let serves = member.lifecycle_state == LifecycleState::InService && !member.unhealthy;
    serves && now.saturating_sub(member.since) >= warmup
}

/// Milliseconds until a new instance counts for a policy's metric.
pub fn warmup(group: &AutoScalingGroup, policy: Option<u32>) -> u64 {
    u64::from(policy.unwrap_or(group.default_cooldown)) * 1000
}

/// The policies that track a target: the target, whether they only add, and the warmup.
pub fn tracking(group: &AutoScalingGroup) -> Vec<(f64, bool, u64)> {
    let policies = group.policies.iter().filter(|policy| policy.enabled);
    let tracks = policies.filter_map(|policy| match policy.action {
        PolicyAction::TargetTrackingScaling {
            target_value,
            disable_scale_in,
            estimated_instance_warmup,
        } => Some((target_value, disable_scale_in, warmup(group, estimated_instance_warmup))),
        _ => None,
    });
    tracks.collect()
}

/// Sets the desired capacity so that the load gets near the targets of the policies: as many as the
/// one that wants most says. Whether it has changed.
pub fn track(group: &mut AutoScalingGroup, load: Load, now: u64) -> bool {
    let policies = tracking(group);
    if policies.is_empty() || !plan::does(group, "AlarmNotification") || group.deleting {
        return false;
    }
    let wants = |&(target, only_adds, warmup): &(f64, bool, u64)| {
        let warm = group.instances.iter().filter(|one| is_warm(one, warmup, now)).count();
        let all = group.instances.iter().filter(|one| plan::counts(one)).count();
        let needed = |load: f64| (warm as f64 * load / target).ceil() as u32;
        let more = load.lately.filter(|load| *load > target).map(needed);
        if let Some(more) = more.filter(|more| *more > group.desired_capacity) {
            return more;
        }
        // Well below the target, and nothing comes or goes that would change it.
        let low = load.steadily.filter(|load| *load < 0.9 * target && !only_adds && warm == all);
        low.map_or(group.desired_capacity, |load| {
            needed(load).clamp(1, group.desired_capacity.max(1))
        })
    };
    let wanted = policies.iter().map(wants).max().unwrap_or(group.desired_capacity);
    let wanted = wanted.clamp(group.min_size, group.max_size);
    std::mem::replace(&mut group.desired_capacity, wanted) != wanted
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{group, launch};
    use super::*;

    #[test]
    fn an_adjustment_is_of_what_it_says_and_within_the_bounds() {
        use AdjustmentType::{ChangeInCapacity, ExactCapacity, PercentChangeInCapacity};
        for (of, by, least, expected) in [
            (ChangeInCapacity, 3, None, 13),
            (ChangeInCapacity, -30, None, 0),
            (ChangeInCapacity, i32::MAX, None, 100),
            (ExactCapacity, 7, None, 7),
            (PercentChangeInCapacity, 25, None, 12),
            (PercentChangeInCapacity, 1, None, 11),
            (PercentChangeInCapacity, -1, Some(4), 6),
            (PercentChangeInCapacity, 0, None, 10),
        ] {
            let mut group = group(10);
            adjust(&mut group, of, by, least);
            assert_eq!(group.desired_capacity, expected, "{of:?} {by}");
        }
    }

    #[test]
    fn the_step_is_that_of_the_metric() {
        let step = |from, to, by| StepAdjustment {
            metric_interval_lower_bound: from,
            metric_interval_upper_bound: to,
            scaling_adjustment: by,
        };
        let action = PolicyAction::StepScaling {
            adjustment_type: AdjustmentType::ChangeInCapacity,
            step_adjustments: vec![
                step(None, Some(-10.0), -1),
                step(Some(0.0), Some(10.0), 1),
                step(Some(10.0), None, 2),
            ],
            min_adjustment_magnitude: None,
            estimated_instance_warmup: None,
        };
        for (value, expected) in
            [(50.0, Some(6)), (59.9, Some(6)), (60.0, Some(7)), (40.0, Some(4)), (45.0, None)]
        {
            let mut group = group(5);
            let done = execute(&mut group, &action, false, Some((value, 50.0)), 0);
            assert_eq!(done.ok().map(|()| group.desired_capacity), expected, "{value}");
        }
    }

    #[test]
    fn a_target_is_tracked_up_at_once_and_down_when_it_is_calm() {
        let at = |load| Load { lately: Some(load), steadily: Some(load) };
        let mut group = group(2);
        (group.min_size, group.max_size) = (1, 6);
        group.policies.push(ScalingPolicy {
            policy_name: "cpu".into(),
            enabled: true,
            action: PolicyAction::TargetTrackingScaling {
                target_value: 50.0,
                disable_scale_in: false,
                estimated_instance_warmup: Some(10),
            },
        });
        plan::balance(&mut group, 0).unwrap();
        let sight = launch(&mut group, 0);
        plan::advance(&mut group, &sight, 0).unwrap();
        assert!(!track(&mut group, at(90.0), 9_000), "none of them is warm");
        assert!(track(&mut group, at(90.0), 10_000));
        assert_eq!(group.desired_capacity, 4);
        plan::balance(&mut group, 10_000).unwrap();
        let sight = launch(&mut group, 10_000);
        plan::advance(&mut group, &sight, 10_000).unwrap();
        assert!(!track(&mut group, at(10.0), 11_000), "new ones do not count yet");
        assert!(!track(&mut group, at(48.0), 30_000), "it is near the target");
        assert!(track(&mut group, at(10.0), 30_000));
        assert_eq!(group.desired_capacity, 1);
        group.suspended_processes.push("AlarmNotification".into());
        assert!(!track(&mut group, at(100.0), 30_000));
    }
}
