//! How busy a group's instances are, by the processor time that their machines have used.

use super::policies::{self, Load};
use crate::id::InstanceId;
use crate::instance::dir::InstanceDir;
use crate::record::autoscaling::AutoScalingGroup;
use crate::service::statistics::Statistics;
use crate::service::{Service, instances};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// What is lately, and what is for a while.
const LATELY: Duration = Duration::from_secs(5);
const STEADILY: Duration = Duration::from_secs(60);

/// What was seen of a group's instances.
#[derive(Default)]
pub struct Samples {
    last: HashMap<InstanceId, Statistics>,
    /// The averages, the oldest first.
    averages: VecDeque<(Instant, f64)>,
}

impl Samples {
    /// Begins anew: the capacity has changed.
    pub fn clear(&mut self) {
        self.averages.clear();
    }

    /// Looks, if a policy wants to know and it is time; what it is like.
    pub fn look(&mut self, service: &Service, group: &AutoScalingGroup, now: u64) -> Load {
        let warmup = policies::tracking(group).iter().map(|(.., warmup)| *warmup).min();
        let Some(warmup) = warmup else {
            *self = Self::default();
            return Load::default();
        };
        let due = self.last.values().map(|last| last.at.elapsed()).min();
        if due.is_some_and(|since| since < PERIOD) {
            return self.load();
        }
        let warm = group.instances.iter().filter(|one| policies::is_warm(one, warmup, now));
        let dirs = warm.filter_map(|one| one.instance_id.as_ref());
        let records =
            dirs.filter_map(|id| instances::record(&InstanceDir::new(&service.store, id)).ok());
        let records: Vec<_> = records.collect();
        let seen = service.instance_statistics(&records).unwrap_or_default();
        let mut used = Vec::new();
        for one in &seen {
            // Without a look before it is not known when it was used.
            if let Some(before) = self.last.get(&one.instance_id) {
                let cpus = f64::from(one.cpus.max(1));
                used.push((one.processor_percent(Some(before)) / cpus).clamp(0.0, 100.0));
            }
        }
        self.last = seen.into_iter().map(|one| (one.instance_id.clone(), one)).collect();
        if !used.is_empty() {
            let average = used.iter().sum::<f64>() / used.len() as f64;
            self.averages.push_back((Instant::now(), average));
        }
        let old = |at: &Instant| at.elapsed() > STEADILY + 2 * PERIOD;
        while self.averages.front().is_some_and(|(at, _)| old(at)) {
            self.averages.pop_front();
        }
        self.load()
    }

    fn load(&self) -> Load {
        let over = |time: Duration| {
            let begun = self.averages.front().is_some_and(|(at, _)| at.elapsed() >= time);
            let within = self.averages.iter().filter(|(at, _)| at.elapsed() <= time + PERIOD);
            let within: Vec<f64> = within.map(|(_, average)| *average).collect();
            let known = begun && !within.is_empty();
            known.then(|| within.iter().sum::<f64>() / within.len() as f64)
        };
        Load { lately: over(LATELY), steadily: over(STEADILY) }
    }
}
