//! What a group needs next, as a change of its record: nothing else is touched here.

use super::activity;
use super::find::{member, now_ms, uuid, validation};
use crate::error::Result;
use crate::id::InstanceId;
use crate::record::autoscaling::{AutoScalingGroup, LifecycleState, Member, TerminationPolicy};
use crate::record::instance::State;
use crate::record::scaling::ActivityStatus;
use std::collections::BTreeMap;

/// What a group does by itself, and can be suspended. (EC2 Auto Scaling, "Types of processes")
pub const PROCESSES: [&str; 9] = [
    "AZRebalance",
    "AddToLoadBalancer",
    "AlarmNotification",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
];

/// Most launches that are intended at once.
const MAX_AT_ONCE: usize = 20;
/// An instance that ends earlier than so many milliseconds after its launch counts as a launch that
/// failed.
const EARLY: u64 = 60_000;
/// After so many milliseconds without a failure the former ones are forgotten.
const FORGOTTEN: u64 = 30_000;
/// Most milliseconds between two launches that fail.
const MAX_PAUSE: u64 = 300_000;

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its state; `None`: it is gone.
    pub state: Option<State>,
    /// A status check has failed.
    pub impaired: bool,
}

/// How a group's instances are, as far as somebody has looked.
pub type Sight = BTreeMap<InstanceId, Seen>;

/// Whether the group does that by itself.
pub fn does(group: &AutoScalingGroup, process: &str) -> bool {
    !group.suspended_processes.iter().any(|suspended| suspended == process)
}

/// Whether a member counts for the desired capacity.
pub fn counts(member: &Member) -> bool {
    matches!(member.lifecycle_state, LifecycleState::Pending | LifecycleState::InService)
}

/// Brings a group's record one step on, by how its instances are.
///
/// # Errors
/// There is no randomness.
pub fn advance(group: &mut AutoScalingGroup, sight: &Sight, now: u64) -> Result<()> {
    in_service(group, sight, now);
    if does(group, "HealthCheck") {
        check_health(group, sight, now);
    }
    if does(group, "ReplaceUnhealthy") && does(group, "Terminate") {
        replace_unhealthy(group)?;
    }
    let settled = |member: &Member| now.saturating_sub(member.since) > FORGOTTEN;
    if group.spore.failures > 0
        && now.saturating_sub(group.spore.retry_at) > FORGOTTEN
        && group.instances.iter().all(settled)
    {
        group.spore.failures = 0;
    }
    Ok(())
}

/// Has as many instances intended, or marked to go, as the desired capacity says.
///
/// # Errors
/// There is no randomness.
pub fn balance(group: &mut AutoScalingGroup, now: u64) -> Result<()> {
    let desired = usize::try_from(group.desired_capacity).unwrap_or(usize::MAX);
    let there = group.instances.iter().filter(|member| counts(member)).count();
    if there > desired && does(group, "Terminate") {
        for _ in desired..there {
            let Some(at) = first_to_go(group, now) else { break };
            let cause = format!(
                "an instance was taken out of service in response to a difference between desired \
                 and actual capacity, shrinking the capacity from {there} to {desired}"
            );
            go(group, at, &cause)?;
        }
    }
    let may = does(group, "Launch") && now >= group.spore.retry_at && !group.deleting;
    let open = group.instances.iter().filter(|one| one.instance_id.is_none()).count();
    if there < desired && may {
        let cause = format!(
            "an instance was started in response to a difference between desired and actual \
             capacity, increasing the capacity from {there} to {desired}"
        );
        for _ in there..desired.min(there + MAX_AT_ONCE.saturating_sub(open)) {
            intend(group, &cause, now)?;
        }
    }
    Ok(())
}

/// Writes down that an instance is to be launched.
fn intend(group: &mut AutoScalingGroup, cause: &str, now: u64) -> Result<()> {
    let activity_id = activity::begin(group, "Launching a new EC2 instance", cause)?;
    group.instances.push(Member {
        token: uuid()?,
        instance_id: None,
        lifecycle_state: LifecycleState::Pending,
        unhealthy: false,
        protected_from_scale_in: group.new_instances_protected_from_scale_in,
        launch: Some(group.source().clone()),
        instance_type: String::new(),
        image_id: None,
        since: now,
        launched: now,
        activity_id,
    });
    Ok(())
}

/// Those that run are in service.
fn in_service(group: &mut AutoScalingGroup, sight: &Sight, now: u64) {
    let mut up = Vec::new();
    for member in &mut group.instances {
        let seen = member.instance_id.as_ref().and_then(|id| sight.get(id));
        let runs = seen.is_some_and(|seen| seen.state == Some(State::Running));
        if runs && member.lifecycle_state == LifecycleState::Pending {
            (member.lifecycle_state, member.since) = (LifecycleState::InService, now);
            up.push(member.activity_id.clone());
        }
    }
    up.iter().for_each(|id| activity::end(group, id, ActivityStatus::Successful, None));
}

/// Those that have ended, or whose status checks fail, are unhealthy.
fn check_health(group: &mut AutoScalingGroup, sight: &Sight, now: u64) {
    let grace = u64::from(group.health_check_grace_period).saturating_mul(1000);
    let mut early = false;
    for member in group.instances.iter_mut().filter(|member| counts(member) && !member.unhealthy) {
        let Some(seen) = member.instance_id.as_ref().and_then(|id| sight.get(id)) else { continue };
        let ended = !matches!(seen.state, Some(State::Running | State::Pending));
        let age = now.saturating_sub(member.launched);
        member.unhealthy = ended || seen.impaired && age >= grace;
        early |= ended && age < EARLY;
    }
    if early {
        failed(group, now);
    }
}

/// Counts a launch that came to nothing, after which the next one waits a while.
pub fn failed(group: &mut AutoScalingGroup, now: u64) {
    group.spore.failures = group.spore.failures.saturating_add(1);
    let pause = 500u64.saturating_mul(1 << group.spore.failures.min(16)).min(MAX_PAUSE);
    group.spore.retry_at = now.saturating_add(pause);
    if let Some(refresh) = group.instance_refreshes.first_mut().filter(|one| one.status.is_active())
    {
        refresh.failures = refresh.failures.saturating_add(1);
    }
}

fn replace_unhealthy(group: &mut AutoScalingGroup) -> Result<()> {
    let cause = "an instance was taken out of service in response to an EC2 health check indicating \
                 it has been terminated, stopped or is impaired";
    while let Some(at) =
        group.instances.iter().position(|member| member.unhealthy && counts(member))
    {
        go(group, at, cause)?;
    }
    Ok(())
}

/// Marks an instance to be terminated; the activity that says so.
///
/// # Errors
/// `ValidationError`: it is not in the group.
pub fn terminate(group: &mut AutoScalingGroup, id: &InstanceId, cause: &str) -> Result<String> {
    let going = |member: &&mut Member| member.lifecycle_state == LifecycleState::Terminating;
    if let Some(member) = member(group, id).filter(going) {
        return Ok(member.activity_id.clone());
    }
    let at = group.instances.iter().position(|member| member.instance_id.as_ref() == Some(id));
    let none = || validation(format!("the instance {id} is not in the group"));
    go(group, at.ok_or_else(none)?, cause)
}

fn go(group: &mut AutoScalingGroup, at: usize, cause: &str) -> Result<String> {
    let Some(member) = group.instances.get_mut(at) else {
        return Err(validation("there is no such instance"));
    };
    let (launching, before) = (member.activity_id.clone(), member.lifecycle_state);
    member.lifecycle_state = LifecycleState::Terminating;
    member.since = now_ms();
    let what = member.instance_id.as_ref().map_or_else(
        || "Terminating an instance that is being launched".to_owned(),
        |id| format!("Terminating EC2 instance: {id}"),
    );
    if before == LifecycleState::Pending {
        activity::end(group, &launching, ActivityStatus::Cancelled, None);
    }
    let activity = activity::begin(group, &what, cause)?;
    if let Some(member) = group.instances.get_mut(at) {
        member.activity_id.clone_from(&activity);
    }
    Ok(activity)
}

/// Who goes first when a group has too many: what is not up yet, then as its policies say.
fn first_to_go(group: &AutoScalingGroup, now: u64) -> Option<usize> {
    let key = |member: &Member| {
        let policies = group.termination_policies.iter();
        let keys = policies.map(|policy| rank(group, *policy, member, now));
        let last = (1, member.launched);
        let keys: Vec<(u64, u64)> = keys.chain([last]).collect();
        (member.instance_id.is_some(), !member.unhealthy, keys)
    };
    let may = |member: &Member| counts(member) && !member.protected_from_scale_in;
    let candidates = group.instances.iter().enumerate().filter(|(_, member)| may(member));
    candidates.min_by_key(|(_, member)| key(member)).map(|(at, _)| at)
}

/// How soon a member goes by a policy: the least goes first.
fn rank(
    group: &AutoScalingGroup,
    policy: TerminationPolicy,
    member: &Member,
    now: u64,
) -> (u64, u64) {
    const HOUR: u64 = 3_600_000;
    let is_current = u64::from(member.launch.as_ref() == Some(group.source()));
    match policy {
        TerminationPolicy::OldestInstance => (0, member.launched),
        TerminationPolicy::NewestInstance => (0, u64::MAX - member.launched),
        TerminationPolicy::ClosestToNextInstanceHour => {
            (0, HOUR - now.saturating_sub(member.launched) % HOUR)
        }
        TerminationPolicy::Default => (is_current, member.launched),
        // Among those of one configuration the next policy decides.
        TerminationPolicy::OldestLaunchConfiguration | TerminationPolicy::OldestLaunchTemplate => {
            (is_current, 0)
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::autoscaling::GroupSide;
    use crate::record::scaling::LaunchSource;

    /// A group that wants so many, and has none.
    pub fn group(desired: u32) -> AutoScalingGroup {
        AutoScalingGroup {
            auto_scaling_group_id: "asg-00000000000000001".parse().unwrap(),
            auto_scaling_group_name: "web".into(),
            launch: LaunchSource::LaunchConfiguration("a".into()),
            min_size: 0,
            max_size: 100,
            desired_capacity: desired,
            default_cooldown: 300,
            health_check_grace_period: 0,
            termination_policies: vec![TerminationPolicy::Default],
            new_instances_protected_from_scale_in: false,
            suspended_processes: vec![],
            tags: vec![],
            created_time: String::new(),
            instances: vec![],
            activities: vec![],
            policies: vec![],
            scheduled_actions: vec![],
            instance_refreshes: vec![],
            deleting: false,
            spore: GroupSide::default(),
        }
    }

    /// As if all that are intended were launched at that time.
    pub fn launch(group: &mut AutoScalingGroup, now: u64) -> Sight {
        let seen = Seen { state: Some(State::Running), impaired: false };
        for member in group.instances.iter_mut().filter(|one| one.instance_id.is_none()) {
            member.instance_id = Some(InstanceId::generate().unwrap());
            member.launched = now;
        }
        group.instances.iter().map(|one| (one.instance_id.clone().unwrap(), seen)).collect()
    }

    fn going(group: &AutoScalingGroup) -> Vec<usize> {
        let going = |(at, one): (usize, &Member)| (!counts(one)).then_some(at);
        group.instances.iter().enumerate().filter_map(going).collect()
    }

    #[test]
    fn as_many_are_intended_as_are_wanted_and_no_more() {
        let mut group = group(3);
        for _ in 0..3 {
            balance(&mut group, 1).unwrap();
        }
        assert_eq!((group.instances.len(), group.activities.len()), (3, 3));
        let sight = launch(&mut group, 1);
        advance(&mut group, &sight, 2).unwrap();
        assert!(group.instances.iter().all(|one| one.lifecycle_state == LifecycleState::InService));
        assert!(group.activities.iter().all(|one| one.status_code == ActivityStatus::Successful));
        let tokens: std::collections::HashSet<_> =
            group.instances.iter().map(|one| &one.token).collect();
        assert_eq!(tokens.len(), 3);
    }

    #[test]
    fn a_dead_instance_is_replaced_and_many_of_them_are_waited_for() {
        let mut group = group(1);
        let mut now = 0;
        for round in 1..8u64 {
            now = now.max(group.spore.retry_at);
            balance(&mut group, now).unwrap();
            assert_eq!(group.instances.len(), 1, "{round}");
            let mut sight = launch(&mut group, now);
            sight.values_mut().for_each(|seen| seen.state = Some(State::Stopped));
            advance(&mut group, &sight, now + 1).unwrap();
            assert_eq!(going(&group), [0]);
            group.instances.clear();
            balance(&mut group, now + 1).unwrap();
            assert!(group.instances.is_empty(), "it is not launched at once");
            assert_eq!(group.spore.retry_at - now - 1, 500 << round);
        }
        // What lives is no failure.
        let now = group.spore.retry_at;
        balance(&mut group, now).unwrap();
        let at = now + 2 * FORGOTTEN;
        let sight = launch(&mut group, at);
        advance(&mut group, &sight, at).unwrap();
        advance(&mut group, &sight, at + 2 * FORGOTTEN).unwrap();
        assert_eq!(group.spore.failures, 0);
    }

    #[test]
    fn the_policy_says_who_goes_and_protection_who_stays() {
        use TerminationPolicy::{Default, NewestInstance, OldestInstance};
        for (policy, protected, expected) in [
            (OldestInstance, None, 0),
            (OldestInstance, Some(0), 1),
            (NewestInstance, None, 2),
            // The one of a former configuration.
            (Default, None, 1),
        ] {
            let mut group = group(3);
            group.termination_policies = vec![policy];
            balance(&mut group, 0).unwrap();
            launch(&mut group, 0);
            for (at, member) in group.instances.iter_mut().enumerate() {
                member.launched = at as u64 * 1000;
                member.protected_from_scale_in = protected == Some(at);
            }
            group.instances[1].launch = Some(LaunchSource::LaunchConfiguration("old".into()));
            group.desired_capacity = 2;
            balance(&mut group, 5000).unwrap();
            assert_eq!(going(&group), [expected], "{policy:?}");
        }
    }

    #[test]
    fn what_is_suspended_is_not_done() {
        let mut group = group(2);
        group.suspended_processes = vec!["Launch".into()];
        balance(&mut group, 0).unwrap();
        assert!(group.instances.is_empty());
        group.suspended_processes = vec!["Terminate".into()];
        balance(&mut group, 0).unwrap();
        let mut sight = launch(&mut group, 0);
        sight.values_mut().for_each(|seen| seen.state = None);
        group.desired_capacity = 0;
        advance(&mut group, &sight, 1).unwrap();
        balance(&mut group, 1).unwrap();
        assert_eq!(going(&group), <[usize; 0]>::default());
        assert!(group.instances.iter().all(|one| one.unhealthy));
    }

    #[test]
    fn a_status_check_counts_after_the_grace_period() {
        let mut group = group(1);
        group.health_check_grace_period = 10;
        balance(&mut group, 0).unwrap();
        let mut sight = launch(&mut group, 0);
        sight.values_mut().for_each(|seen| seen.impaired = true);
        advance(&mut group, &sight, 9_999).unwrap();
        assert!(going(&group).is_empty());
        advance(&mut group, &sight, 10_000).unwrap();
        assert_eq!(going(&group), [0]);
    }
}
