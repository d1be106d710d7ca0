//! Waiting for instances, as the waiters of EC2's tools do.

use super::Service;
use super::instances::{record, resolve};
use crate::error::{Error, Kind, Result};
use crate::instance::dir::InstanceDir;
use crate::instance::readiness::{self, Probe};
pub use crate::instance::readiness::{Goal, Stage};
use crate::record::instance::{InstanceRecord, State};
use std::time::{Duration, Instant};

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its vCPUs run.
    Running,
    /// Its guest is so far.
    Guest(Goal),
    /// As [`Until::Guest`], but its end will do too.
    GuestOrEnd(Goal),
    /// It is stopped.
    Stopped,
    /// It is terminated.
    Terminated,
    /// It is stopped or terminated.
    Exit,
}

/// What to wait for.
#[derive(Clone, Debug)]
pub struct WaitForInstances {
    /// Which.
    pub instance_ids: Vec<String>,
    /// What is to be true of each.
    pub until: Until,
    /// Give up after this long.
    pub timeout: Option<Duration>,
}

/// How one instance's wait ended.
#[derive(Debug)]
pub enum Waited {
    /// What was waited for is true.
    Reached(InstanceRecord),
    /// It can't become true any more.
    Impossible(InstanceRecord),
    /// Not in time. If it runs, how far its guest is.
    TimedOut(InstanceRecord, Option<Stage>),
    /// The instance is gone or unreadable.
    Lost(Error),
}

impl Service {
    /// Wait for every instance, or until the context's work is cancelled. `progress` is told how
    /// many are done each time that changes.
    ///
    /// # Errors
    /// An instance is unknown or ambiguous.
    pub fn wait_for_instances(
        &self,
        request: &WaitForInstances,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Waited>> {
        let dirs = resolve(&self.store, &request.instance_ids)?;
        Ok(wait(&dirs, request.until, request.timeout, progress))
    }
}

/// As [`Service::wait_for_instances`].
pub(super) fn wait(
    dirs: &[InstanceDir],
    until: Until,
    timeout: Option<Duration>,
    progress: &mut dyn FnMut(usize),
) -> Vec<Waited> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut probes: Vec<Option<Probe>> = dirs.iter().map(|_| None).collect();
    let mut results: Vec<Option<Waited>> = dirs.iter().map(|_| None).collect();
    let mut done = usize::MAX;
    let cancelled = || dirs.iter().any(|dir| dir.store().context().cancelled());
    poll_until(deadline, || {
        for ((dir, probe), result) in dirs.iter().zip(&mut probes).zip(&mut results) {
            if result.is_none() {
                *result = look(dir, until, probe);
            }
        }
        let now = results.iter().filter(|r| r.is_some()).count();
        if now != done {
            done = now;
            progress(done);
        }
        done == dirs.len() || cancelled()
    });
    let last = |dir: &InstanceDir| match record(dir) {
        Ok(record) => {
            let runs = record.instance.state == State::Running;
            let stage = runs.then(|| readiness::stage(dir, &record));
            Waited::TimedOut(record, stage)
        }
        Err(error) => Waited::Lost(error),
    };
    dirs.iter().zip(results).map(|(dir, result)| result.unwrap_or_else(|| last(dir))).collect()
}

/// `None` as long as the wait goes on.
fn look(dir: &InstanceDir, until: Until, probe: &mut Option<Probe>) -> Option<Waited> {
    let record = match record(dir) {
        Ok(record) => record,
        Err(error) if error.kind() == Kind::Refused && until == Until::Terminated => return None,
        Err(error) => return Some(Waited::Lost(error)),
    };
    let state = record.instance.state;
    let over = !state.is_active();
    let reached = match until {
        Until::Running => state == State::Running,
        Until::Stopped => state == State::Stopped,
        Until::Terminated => state == State::Terminated,
        Until::Exit => over,
        Until::GuestOrEnd(_) if over => true,
        Until::Guest(_) | Until::GuestOrEnd(_) if state != State::Running => false,
        Until::Guest(goal) | Until::GuestOrEnd(goal) => {
            let probe = probe.get_or_insert_with(|| Probe::new(&record, goal));
            match probe.reached(dir, &record.instance) {
                Ok(reached) => reached,
                Err(error) => return Some(Waited::Lost(error)),
            }
        }
    };
    if reached {
        return Some(Waited::Reached(record));
    }
    // A stopped instance may still be terminated by somebody, but nothing else comes by itself.
    let hopeless = match until {
        Until::Terminated => false,
        Until::Stopped => state == State::Terminated,
        _ => over,
    };
    hopeless.then_some(Waited::Impossible(record))
}

/// Look again and again, soon at first and then more rarely, until it is true or the deadline has
/// passed.
pub(super) fn poll_until(deadline: Option<Instant>, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    loop {
        if is_true() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return;
        }
        let pause =
            (begin.elapsed() / 16).clamp(Duration::from_millis(2), Duration::from_millis(50));
        let left = deadline.map_or(pause, |d| d.saturating_duration_since(Instant::now()));
        std::thread::sleep(pause.min(left));
    }
}
