//! Starting instances again whose machines have ended (`run --restart`).
//!
//! An instance with such a policy has a holder while it runs: a process of Spore's that waits for
//! the end of the VMM, starts the instance again if the policy says so, and ends when it doesn't.
//! Whoever starts the instance starts a holder; one that finds another at it waits a moment for
//! that to end, and goes.

use super::dir::{self, InstanceDir};
use super::{lifecycle, reap};
use crate::error::{Code, OrFail, Result};
use crate::record::instance::{InstanceRecord, ShutdownBehavior, State};
use crate::record::restart::RestartPolicy;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// Whose flock the holder has.
const LOCK: &str = "restart.lock";
/// How long the holder before may take to see that it isn't needed any more.
const HANDOVER: Duration = Duration::from_secs(5);
/// How often that is looked for, and whether what was decided still holds.
const LOOK: Duration = Duration::from_millis(100);
/// What it waits before it starts an instance again: twice as long each time, ...
const FIRST: Duration = Duration::from_millis(500);
/// ... at most this ...
const LONGEST: Duration = Duration::from_secs(60);
/// ... and from the beginning after a run of this length.
const STEADY: Duration = Duration::from_secs(60);

/// What comes next.
enum Next {
    /// It runs, or somebody else starts or stops it.
    Wait,
    /// It is to be started.
    Start,
    /// Nothing any more.
    Nothing,
}

/// Stay by an instance, starting it again when its policy says so, until that says no more.
///
/// # Errors
/// The instance's directory can't be read, or its VMM not waited for.
pub fn hold(dir: &InstanceDir) -> Result<()> {
    let Some(_lock) = take(dir)? else { return Ok(()) };
    let (mut delay, mut began) = (FIRST, Instant::now());
    loop {
        dir.await_vmm_end()?;
        match next(dir)? {
            Next::Nothing => return Ok(()),
            Next::Wait => {
                std::thread::sleep(LOOK);
                continue;
            }
            Next::Start => {}
        }
        if began.elapsed() >= STEADY {
            delay = FIRST;
        }
        if still_wanted(dir, delay)? {
            delay = (2 * delay).min(LONGEST);
            start(dir);
            began = Instant::now();
        }
    }
}

/// Change when an instance is started again.
///
/// # Errors
/// `InvalidParameterCombination`: it is gone when it ends.
pub fn change(dir: &InstanceDir, policy: RestartPolicy) -> Result<InstanceRecord> {
    let mut locked = lifecycle::current(dir)?;
    let it = &mut locked.record.instance;
    let terminates = it.instance_initiated_shutdown_behavior == ShutdownBehavior::Terminate;
    policy.check(terminates, it.root_device_type)?;
    it.spore.restart = policy;
    dir::save(&mut locked)?;
    Ok(locked.record.clone())
}

/// The holder's lock; `None` if another has it and keeps it.
fn take(dir: &InstanceDir) -> Result<Option<File>> {
    let doing = || format!("lock {}", dir.file(LOCK).display());
    let file = dir.owned()?.open_or_create(LOCK).or_fail(doing)?;
    let deadline = Instant::now() + HANDOVER;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOOK);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno).or_fail(doing),
        }
    }
}

fn next(dir: &InstanceDir) -> Result<Next> {
    match lifecycle::current(dir) {
        Ok(locked) => Ok(what_next(&locked.record)),
        Err(gone) if gone.code() == Some(Code::InvalidInstanceIDNotFound) => Ok(Next::Nothing),
        Err(error) => Err(error),
    }
}

fn what_next(record: &InstanceRecord) -> Next {
    let instance = &record.instance;
    match instance.state {
        State::Pending | State::Running | State::Stopping => Next::Wait,
        State::Stopped if instance.spore.restart.starts_after(instance.state_reason.as_ref()) => {
            Next::Start
        }
        State::Stopped | State::ShuttingDown | State::Terminated => Next::Nothing,
    }
}

/// Wait so long; false as soon as the instance is not to be started any more by this.
fn still_wanted(dir: &InstanceDir, delay: Duration) -> Result<bool> {
    let end = Instant::now() + delay;
    loop {
        if !matches!(next(dir)?, Next::Start) {
            return Ok(false);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Start it. One that can't be started is stopped for that reason, which is a failure like others.
fn start(dir: &InstanceDir) {
    let counted = lifecycle::current(dir).and_then(|mut locked| {
        locked.record.instance.spore.restarts += 1;
        dir::save(&mut locked)
    });
    let started = counted.and_then(|()| lifecycle::start(dir, true, None, false));
    if let (Err(error), Ok(mut log)) = (started, dir.open_log(dir::VMM_LOG)) {
        // Who looks finds the reason in the record, too, if that could be written.
        let _ = writeln!(log, "{}: it can't be started again yet: {error}", reap::now_ms());
    }
}
