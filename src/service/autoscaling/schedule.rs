//! Scheduled actions: a group's sizes at a time, once or again and again.

use super::find::{change_named, check_name, group, groups, now_ms, own, validation};
use super::plan;
use crate::error::{Code, Error, Result};
use crate::record::autoscaling::AutoScalingGroup;
pub use crate::record::scaling::ScheduledAction;
use crate::service::Service;
use crate::store::rfc3339;
use std::time::Duration;

/// Most actions of a group. (EC2 Auto Scaling, "Quotas")
const MAX_ACTIONS: usize = 125;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// Most days until the next time: 29 February comes within as many.
const DAYS: u64 = 9 * 366;

impl Service {
    /// PutScheduledUpdateGroupAction; without a start it begins by its recurrence.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group, or it can't be so. `LimitExceeded`.
    pub fn put_scheduled_action(
        &self,
        name: &str,
        action: &ScheduledAction,
        start: Option<u64>,
    ) -> Result<()> {
        check_name("a scheduled action", &action.scheduled_action_name)?;
        let now = now_ms();
        let next = action.recurrence.as_deref().map(|text| next(text, now)).transpose()?;
        let begins =
            start.or(next).ok_or_else(|| validation("give a start time or a recurrence"))?;
        if start.is_some_and(|start| start.saturating_add(MINUTE) < now) {
            return Err(validation("the start time is in the past"));
        }
        if action.end_time.is_some_and(|end| end <= begins) {
            return Err(validation("it ends before it begins"));
        }
        if action.min_size.or(action.max_size).or(action.desired_capacity).is_none() {
            return Err(validation("give at least one of the sizes"));
        }
        change_named(&self.store, name, |group| {
            let name = &action.scheduled_action_name;
            group.scheduled_actions.retain(|one| one.scheduled_action_name != *name);
            if group.scheduled_actions.len() >= MAX_ACTIONS {
                let why = format!("a group has {MAX_ACTIONS} scheduled actions at most");
                return Err(Error::refused(Code::LimitExceeded, why));
            }
            group.scheduled_actions.push(ScheduledAction { start_time: begins, ..action.clone() });
            Ok(())
        })
    }

    /// DeleteScheduledAction.
    ///
    /// # Errors
    /// `ValidationError`: there is none.
    pub fn delete_scheduled_action(&self, name: &str, action: &str) -> Result<()> {
        change_named(&self.store, name, |group| {
            let before = group.scheduled_actions.len();
            group.scheduled_actions.retain(|one| one.scheduled_action_name != action);
            match group.scheduled_actions.len() == before {
                true => Err(validation("there is no such scheduled action")),
                false => Ok(()),
            }
        })
    }

    /// DescribeScheduledActions: of a group or all, those named or all.
    ///
    /// # Errors
    /// `ValidationError`: there is no such group.
    pub fn describe_scheduled_actions(
        &self,
        name: Option<&str>,
        actions: &[String],
    ) -> Result<Vec<(AutoScalingGroup, ScheduledAction)>> {
        let groups = match name {
            Some(name) => vec![group(&self.store, name)?],
            None => own(&self.store, &groups(&self.store))?,
        };
        let mut found = Vec::new();
        for group in groups {
            let is = |one: &&ScheduledAction| {
                actions.is_empty() || actions.contains(&one.scheduled_action_name)
            };
            let chosen: Vec<_> = group.scheduled_actions.iter().filter(is).cloned().collect();
            found.extend(chosen.into_iter().map(|one| (group.clone(), one)));
        }
        Ok(found)
    }
}

/// Does what is due.
pub fn advance(group: &mut AutoScalingGroup, now: u64) {
    if !plan::does(group, "ScheduledActions") || group.deleting {
        return;
    }
    let mut actions = std::mem::take(&mut group.scheduled_actions);
    actions.retain(|one| one.end_time.is_none_or(|end| now < end));
    actions.sort_by_key(|one| one.start_time);
    actions.retain_mut(|one| {
        if one.start_time > now {
            return true;
        }
        let (min, max) =
            (one.min_size.unwrap_or(group.min_size), one.max_size.unwrap_or(group.max_size));
        if min <= max {
            let desired = one.desired_capacity.unwrap_or(group.desired_capacity).clamp(min, max);
            (group.min_size, group.max_size, group.desired_capacity) = (min, max, desired);
        }
        let again = one.recurrence.as_deref().and_then(|text| next(text, now).ok());
        again.inspect(|again| one.start_time = *again).is_some()
    });
    group.scheduled_actions = actions;
}

/// The next time after `now` that cron's five fields name, UTC: minute, hour, day of the month,
/// month, day of the week. (crontab(5))
fn next(text: &str, now: u64) -> Result<u64> {
    let malformed = || {
        let shown: String = text.escape_debug().take(60).collect();
        validation(format!("'{shown}' is no recurrence: give five fields as cron has them, UTC"))
    };
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else { return Err(malformed()) };
    let set = |field: &str, from: u32, to: u32| set(field, from, to).ok_or_else(malformed);
    let (minutes, hours) = (set(minute, 0, 59)?, set(hour, 0, 23)?);
    let (days, months) = (set(day, 1, 31)?, set(month, 1, 12)?);
    // Sunday is 0, and 7, too.
    let weekdays = set(weekday, 0, 7)?;
    let weekdays = weekdays | weekdays >> 7 & 1;
    let first = (now / MINUTE + 1) * MINUTE;
    for number in 0..DAYS {
        let begin = (first / DAY + number) * DAY;
        let date = rfc3339(Duration::from_millis(begin));
        let part = |range| date.get(range).and_then(|text: &str| text.parse::<u32>().ok());
        let (Some(m), Some(d)) = (part(5..7), part(8..10)) else { return Err(malformed()) };
        // 1 January 1970 was a Thursday.
        let w = (begin / DAY + 4) % 7;
        let has = |set: u64, at: u32| set >> at & 1 == 1;
        let (by_day, by_week) = (has(days, d), weekdays >> w & 1 == 1);
        let fits = match (day == "*", weekday == "*") {
            (false, false) => by_day || by_week,
            _ => by_day && by_week,
        };
        if !fits || !has(months, m) {
            continue;
        }
        let times = (0..24u32).filter(|h| has(hours, *h)).flat_map(|h| {
            let within = (0..60u32).filter(|m| has(minutes, *m));
            within.map(move |m| begin + u64::from(h * 60 + m) * MINUTE)
        });
        if let Some(time) = times.into_iter().find(|time| *time >= first) {
            return Ok(time);
        }
    }
    Err(malformed())
}

/// The numbers that a field of cron's names, as bits.
fn set(field: &str, from: u32, to: u32) -> Option<u64> {
    let mut bits = 0u64;
    for part in field.split(',').take(64) {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|step| *step > 0)?),
            None => (part, 1),
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| (from..=to).contains(n));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (from, to),
            Some((first, last)) => (number(first)?, number(last)?),
            None if part.contains('/') => (number(range)?, to),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return None;
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        (first..=last).step_by(step).for_each(|n| bits |= 1 << n);
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::group;
    use super::*;
    use crate::store::time::parse;

    fn ms(text: &str) -> u64 {
        parse(text).unwrap().as_millis() as u64
    }

    #[test]
    fn the_next_time_is_crons() {
        // A Saturday.
        let now = ms("2026-02-28T10:30:20Z");
        for (text, expected) in [
            ("* * * * *", "2026-02-28T10:31Z"),
            ("0 9 * * *", "2026-03-01T09:00Z"),
            ("*/20 10-11 * * *", "2026-02-28T10:40Z"),
            ("5 4 * * 1-5", "2026-03-02T04:05Z"),
            ("0 0 * * 7", "2026-03-01T00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00Z"),
            ("0 0 15 * 1", "2026-03-02T00:00Z"),
        ] {
            assert_eq!(next(text, now).unwrap(), ms(expected), "{text}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "0 0 31 2 *",
            "a * * * *",
        ] {
            assert!(next(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_due_is_done_once_or_again_and_again() {
        let action = |recurrence: Option<&str>, desired| ScheduledAction {
            scheduled_action_name: "a".into(),
            start_time: 1_000,
            end_time: None,
            recurrence: recurrence.map(str::to_owned),
            min_size: None,
            max_size: Some(5),
            desired_capacity: Some(desired),
        };
        let mut group = group(1);
        group.scheduled_actions = vec![action(None, 3)];
        advance(&mut group, 999);
        assert_eq!(group.desired_capacity, 1);
        advance(&mut group, 1_000);
        assert_eq!((group.desired_capacity, group.max_size), (3, 5));
        assert!(group.scheduled_actions.is_empty());
        group.scheduled_actions = vec![action(Some("* * * * *"), 9)];
        advance(&mut group, 2_000);
        assert_eq!((group.desired_capacity, group.scheduled_actions[0].start_time), (5, MINUTE));
    }
}
