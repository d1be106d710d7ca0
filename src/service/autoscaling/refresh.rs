//! Instance refreshes: a group's instances are replaced a few at a time.

use super::find::{change_named, group, now_ms, uuid, validation};
use super::plan;
use crate::error::{Code, Error, Result};
use crate::record::autoscaling::{AutoScalingGroup, LifecycleState, Member};
pub use crate::record::scaling::{InstanceRefresh, RefreshPreferences};
use crate::record::scaling::{LaunchSource, RefreshStatus};
use crate::service::Service;

/// Most refreshes that a group keeps.
const MAX_REFRESHES: usize = 20;
/// After so many launches that came to nothing a refresh has failed.
const MAX_FAILURES: u32 = 3;
/// Percent of the desired capacity that stays in service, where nothing is said.
pub const MIN_HEALTHY: u32 = 90;

impl Service {
    /// StartInstanceRefresh, to `desired` or what the group launches from: its id.
    ///
    /// # Errors
    /// `InstanceRefreshInProgress`; `ValidationError`.
    pub fn start_instance_refresh(
        &self,
        name: &str,
        desired: Option<LaunchSource>,
        preferences: RefreshPreferences,
    ) -> Result<String> {
        if preferences.min_healthy_percentage > 100 {
            return Err(validation("a percentage is 0 to 100"));
        }
        let numbered = desired.as_ref().map(|to| self.numbered(to)).transpose()?;
        change_named(&self.store, name, |group| {
            if group.deleting {
                return Err(validation("the group is pending delete"));
            }
            if group.instance_refreshes.first().is_some_and(|one| one.status.is_active()) {
                let why = "an instance refresh of the group goes on; cancel that first";
                return Err(Error::refused(Code::InstanceRefreshInProgress, why));
            }
            let former = group.source().clone();
            let same = desired.is_none();
            let to = desired.unwrap_or_else(|| group.launch.clone());
            let now = numbered.filter(|now| *now != to);
            let now = now.or_else(|| group.spore.numbered.clone().filter(|_| same));
            let mut sources = group.instances.iter().filter_map(|member| member.launch.clone());
            let from = sources.rfind(|from| *from != *now.as_ref().unwrap_or(&to));
            let from = from.unwrap_or(former);
            group.launch_from(to.clone());
            group.spore.numbered = now;
            let instance_refresh_id = uuid()?;
            let mut refresh = InstanceRefresh {
                instance_refresh_id: instance_refresh_id.clone(),
                status: RefreshStatus::InProgress,
                status_reason: None,
                start_time: now_ms(),
                end_time: None,
                instances: 0,
                instances_to_update: 0,
                to,
                from,
                failures: 0,
                preferences,
            };
            let source = group.source();
            let old = group.instances.iter().filter(|one| is_old(&refresh, source, one)).count();
            refresh.instances = u32::try_from(old).unwrap_or(u32::MAX);
            refresh.instances_to_update = refresh.instances;
            group.instance_refreshes.insert(0, refresh);
            group.instance_refreshes.truncate(MAX_REFRESHES);
            Ok(instance_refresh_id)
        })
    }

    /// CancelInstanceRefresh: what is replaced stays so; its id.
    ///
    /// # Errors
    /// `ActiveInstanceRefreshNotFound`.
    pub fn cancel_instance_refresh(&self, name: &str) -> Result<String> {
        change_named(&self.store, name, |group| {
            let refresh = active(group)?;
            end(refresh, RefreshStatus::Cancelled, "cancelled by its user");
            Ok(refresh.instance_refresh_id.clone())
        })
    }

    /// RollbackInstanceRefresh: the former instances are brought back; its id.
    ///
    /// # Errors
    /// `ActiveInstanceRefreshNotFound`; `IrreversibleInstanceRefresh`: there is nothing to go back
    /// to.
    pub fn rollback_instance_refresh(&self, name: &str) -> Result<String> {
        change_named(&self.store, name, |group| {
            let refresh = active(group)?;
            if refresh.from == refresh.to || refresh.status != RefreshStatus::InProgress {
                let why = "the instance refresh has nothing to go back to";
                return Err(Error::refused(Code::IrreversibleInstanceRefresh, why));
            }
            let id = refresh.instance_refresh_id.clone();
            roll_back(group, "rolled back by its user");
            Ok(id)
        })
    }

    /// DescribeInstanceRefreshes: those named or all, the latest first.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group.
    pub fn describe_instance_refreshes(
        &self,
        name: &str,
        ids: &[String],
    ) -> Result<(AutoScalingGroup, Vec<InstanceRefresh>)> {
        let group = group(&self.store, name)?;
        let mut found = group.instance_refreshes.clone();
        found.retain(|one| ids.is_empty() || ids.contains(&one.instance_refresh_id));
        Ok((group, found))
    }
}

fn active(group: &mut AutoScalingGroup) -> Result<&mut InstanceRefresh> {
    let found = group.instance_refreshes.first_mut().filter(|one| one.status.is_active());
    found.ok_or_else(|| {
        let why = "no instance refresh of the group goes on";
        Error::refused(Code::ActiveInstanceRefreshNotFound, why)
    })
}

fn end(refresh: &mut InstanceRefresh, status: RefreshStatus, why: &str) {
    (refresh.status, refresh.end_time) = (status, Some(now_ms()));
    refresh.status_reason = (!why.is_empty()).then(|| why.to_owned());
}

/// Has a refresh bring back what there was before.
fn roll_back(group: &mut AutoScalingGroup, why: &str) {
    let Some(refresh) = group.instance_refreshes.first_mut() else { return };
    refresh.status = RefreshStatus::RollbackInProgress;
    refresh.status_reason = Some(why.to_owned());
    refresh.failures = 0;
    // Those of before the refresh stay.
    refresh.preferences.skip_matching = true;
    std::mem::swap(&mut refresh.from, &mut refresh.to);
    let to = refresh.to.clone();
    group.launch_from(to);
}

/// Whether a member of a group that launches from `source` is to be replaced.
fn is_old(refresh: &InstanceRefresh, source: &LaunchSource, member: &Member) -> bool {
    let live = plan::counts(member) && member.instance_id.is_some();
    let same = member.launch.as_ref() == Some(source);
    live && (!same || !refresh.preferences.skip_matching && member.launched < refresh.start_time)
}

/// Replaces the next ones, as far as enough others are in service.
///
/// # Errors
/// There is no randomness.
pub fn advance(group: &mut AutoScalingGroup, now: u64) -> Result<()> {
    let goes_on = plan::does(group, "InstanceRefresh") && plan::does(group, "Terminate");
    let Some(refresh) = group.instance_refreshes.first().filter(|one| one.status.is_active())
    else {
        return Ok(());
    };
    if refresh.failures >= MAX_FAILURES {
        fail(group);
        return Ok(());
    }
    let refresh = refresh.clone();
    let warmup = u64::from(refresh.preferences.instance_warmup) * 1000;
    let source = group.source().clone();
    let ready = |member: &&Member| {
        let warm = is_old(&refresh, &source, member) || now.saturating_sub(member.since) >= warmup;
        member.lifecycle_state == LifecycleState::InService && !member.unhealthy && warm
    };
    let old: Vec<_> = group.instances.iter().filter(|one| is_old(&refresh, &source, one)).collect();
    let healthy = group.instances.iter().filter(ready).count();
    let desired = usize::try_from(group.desired_capacity).unwrap_or(usize::MAX);
    if let Some(first) = group.instance_refreshes.first_mut() {
        first.instances_to_update = u32::try_from(old.len()).unwrap_or(u32::MAX);
        if old.is_empty() && healthy >= desired {
            let status = match first.status {
                RefreshStatus::InProgress => RefreshStatus::Successful,
                _ => RefreshStatus::RollbackSuccessful,
            };
            let why = first.status_reason.take().unwrap_or_default();
            end(first, status, &why);
            return Ok(());
        }
    }
    let percent = refresh.preferences.min_healthy_percentage as usize;
    let floor = (desired * percent).div_ceil(100);
    // One at least, once all others are in service.
    let least = usize::from(healthy >= desired && floor > 0);
    let may = healthy.saturating_sub(floor).max(least).min(old.len());
    // What does not serve anyway goes first.
    let mut next: Vec<_> =
        old.iter().map(|one| (ready(one), one.launched, one.instance_id.clone())).collect();
    next.sort();
    let useless = next.iter().filter(|(ready, ..)| !ready).count();
    for (_, _, id) in next.into_iter().take(if goes_on { may.max(useless) } else { 0 }) {
        let cause = "an instance was taken out of service in response to an instance refresh";
        if let Some(id) = id {
            plan::terminate(group, &id, cause)?;
        }
    }
    Ok(())
}

/// Ends a refresh whose new instances do not come up.
fn fail(group: &mut AutoScalingGroup) {
    let Some(refresh) = group.instance_refreshes.first_mut() else { return };
    let why = format!("{MAX_FAILURES} instances did not come up, or ended at once");
    match refresh.status {
        RefreshStatus::InProgress
            if refresh.preferences.auto_rollback && refresh.from != refresh.to =>
        {
            roll_back(group, &why);
        }
        RefreshStatus::InProgress => end(refresh, RefreshStatus::Failed, &why),
        _ => end(refresh, RefreshStatus::RollbackFailed, &why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{group, launch};
    use super::*;

    fn source(name: &str) -> LaunchSource {
        LaunchSource::LaunchConfiguration(name.into())
    }

    /// A group of so many in service, and a refresh of it to `b`.
    fn refreshed(count: u32, preferences: RefreshPreferences) -> AutoScalingGroup {
        let mut group = group(count);
        plan::balance(&mut group, 0).unwrap();
        let sight = launch(&mut group, 0);
        plan::advance(&mut group, &sight, 0).unwrap();
        group.launch = source("b");
        group.instance_refreshes.push(InstanceRefresh {
            instance_refresh_id: "r".into(),
            status: RefreshStatus::InProgress,
            status_reason: None,
            start_time: 10,
            end_time: None,
            instances: count,
            instances_to_update: count,
            to: source("b"),
            from: source("a"),
            failures: 0,
            preferences,
        });
        group
    }

    const PLAIN: RefreshPreferences = RefreshPreferences {
        min_healthy_percentage: 50,
        instance_warmup: 0,
        skip_matching: false,
        auto_rollback: true,
    };

    /// A round in which all that is marked ends and all that is intended comes up.
    fn turn(group: &mut AutoScalingGroup, now: u64) -> usize {
        advance(group, now).unwrap();
        let in_service = group.instances.iter().filter(|one| plan::counts(one)).count();
        group.instances.retain(plan::counts);
        plan::balance(group, now).unwrap();
        let sight = launch(group, now);
        plan::advance(group, &sight, now).unwrap();
        in_service
    }

    #[test]
    fn all_are_replaced_and_enough_stay_in_service() {
        for (count, percent, least) in [(4, 50, 2), (4, 90, 3), (4, 100, 3), (1, 90, 0)] {
            let preferences = RefreshPreferences { min_healthy_percentage: percent, ..PLAIN };
            let mut group = refreshed(count, preferences);
            let fewest = (1..20).map(|n| turn(&mut group, 20 + n)).min().unwrap();
            assert_eq!(fewest, least, "{count} {percent}");
            assert_eq!(group.instance_refreshes[0].status, RefreshStatus::Successful);
            assert!(group.instances.iter().all(|one| one.launch == Some(source("b"))));
        }
    }

    #[test]
    fn one_that_fails_brings_the_former_back() {
        let mut group = refreshed(2, PLAIN);
        turn(&mut group, 20);
        for now in 0..3 {
            plan::failed(&mut group, now);
        }
        turn(&mut group, 21);
        assert_eq!(group.instance_refreshes[0].status, RefreshStatus::RollbackInProgress);
        for now in 22..30 {
            turn(&mut group, now);
        }
        assert_eq!(group.instance_refreshes[0].status, RefreshStatus::RollbackSuccessful);
        assert!(group.instances.iter().all(|one| one.launch == Some(source("a"))));
        assert_eq!(group.launch, source("a"));
    }
}
