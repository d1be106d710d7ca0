//! Launch, stop, start, reboot, terminate: each transition under the instance's lock, no wait under
//! it but for the VMM itself.

use super::client::ask;
use super::dir::{self, InstanceDir};
use super::launch::LaunchPlan;
use super::pool::parallel;
use super::prepare::Beginning;
use super::{hibernation, prepare, reap, spawn};
use crate::control::Request;
use crate::error::{Code, Error, Result};
use crate::record::image::RootDeviceType;
use crate::record::instance::{InstanceRecord, State, StateReason};
use crate::store::{self, Locked, Store};
use crate::sys::fault;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A VMM asked to end does so at once; after this it is killed.
const TERMINATE_PATIENCE: Duration = Duration::from_secs(5);

/// What a transition did (EC2 InstanceStateChange).
#[derive(Clone, Debug)]
pub struct Change {
    /// The state before.
    pub previous: State,
    /// The record as it is now.
    pub record: InstanceRecord,
}

/// Launch every plan, in parallel. At least `min` are up in the end, or none.
///
/// Gives the records of those that are up, and why others are not.
///
/// # Errors
/// Fewer than `min` came up: the cause, everything undone.
pub fn launch(
    store: &Store,
    plans: &[LaunchPlan],
    min: u32,
    user_data: Option<&[u8]>,
    wait: bool,
    lifeline: Option<&OwnedFd>,
) -> Result<(Vec<InstanceRecord>, Vec<Error>)> {
    let launch = |plan: &LaunchPlan| {
        let entry = plan.boot_entry.as_deref();
        let beginning = Beginning { wait, entry, lifeline, memory: None };
        launch_one(store, plan, user_data, beginning)
    };
    let outcomes = parallel(plans, launch);
    let (up, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let up: Vec<InstanceRecord> = up.into_iter().flatten().collect();
    let mut failed: Vec<Error> = failed.into_iter().filter_map(Result::err).collect();
    if up.len() >= min as usize {
        return Ok((up, failed));
    }
    for undone in parallel(&up, |record| undo(store, record)) {
        undone?;
    }
    let cause = failed.swap_remove(0);
    Err(match plans.len() {
        1 => cause,
        all => cause.context(format!(
            "{} of {all} instances came up, at least {min} were wanted and none is left",
            up.len(),
        )),
    })
}

/// Take back an instance that is up.
fn undo(store: &Store, record: &InstanceRecord) -> Result<()> {
    let dir = InstanceDir::new(store, &record.instance.instance_id);
    let Some(locked) = dir.lock()? else { return Ok(()) };
    end_vmm(&dir)?;
    prepare::undo(store, locked)
}

fn launch_one(
    store: &Store,
    plan: &LaunchPlan,
    user_data: Option<&[u8]>,
    beginning: Beginning<'_>,
) -> Result<InstanceRecord> {
    let (dir, mut locked) = prepare::make(store, plan, user_data)?;
    match bring_up(&dir, &mut locked, beginning) {
        Ok(()) => Ok(locked.record.clone()),
        Err(error) => {
            end_vmm(&dir)?;
            let _ = prepare::undo(store, locked);
            Err(error)
        }
    }
}

/// Open, spawn and, if it is to be waited for, hear that it runs; then save the record.
fn bring_up(
    dir: &InstanceDir,
    locked: &mut Locked<InstanceRecord>,
    beginning: Beginning<'_>,
) -> Result<()> {
    let wait = beginning.wait;
    let prepared = prepare::open(dir, &mut locked.record, beginning)?;
    if !wait || prepared.group.is_some() {
        // Saved before there is a VMM, or a control group, that might outlive us.
        dir::save(locked)?;
    }
    if !wait {
        return spawn::spawn(dir, prepared).map(|_| ());
    }
    let spawned = spawn::spawn(dir, prepared)?;
    let pid = spawned.pid;
    let engines = spawned.await_ready(dir)?;
    fault::point("record of a started instance");
    reap::came_up(&mut locked.record, Some(pid), &engines);
    dir::save(locked)?;
    hibernation::sweep(dir, &locked.record)
}

/// Start a stopped instance on its own volumes; one that is hibernated goes on where it was, unless
/// `cold`. A running one stays as it is, as on EC2. `entry` is that of the boot menu, this time,
/// where a menu says what boots.
///
/// # Errors
/// `IncorrectInstanceState`, or why the VMM can't start; the instance is stopped then.
pub fn start(dir: &InstanceDir, wait: bool, entry: Option<&str>, cold: bool) -> Result<Change> {
    let mut locked = current(dir)?;
    let previous = locked.record.instance.state;
    match previous {
        State::Running | State::Pending => return Ok(change(previous, &locked)),
        State::Stopped => {}
        _ => return Err(incorrect_state(&locked, "started; it must be stopped")),
    }
    let root = &locked.record.instance.root_device_name;
    if locked.record.instance.block_device_mappings.first().is_none_or(|m| m.device_name != *root) {
        return Err(Error::refused(
            Code::IncorrectInstanceState,
            format!("{} has no volume attached as its root {root}; attach one", dir.id()),
        ));
    }
    if cold {
        locked.record.instance.spore.hibernated = None;
    }
    let memory = hibernation::open(dir, &locked.record)?;
    if memory.is_some() && entry.is_some() {
        let why = "a hibernated instance boots nothing: `BootEntry` has no meaning without `Cold`";
        return Err(Error::refused(Code::InvalidParameterCombination, why));
    }
    // What the last VMM reported says nothing of the next.
    drop(dir.open_report()?);
    hibernation::begin_resuming(&mut locked.record);
    locked.record.instance.state = State::Pending;
    locked.record.instance.state_reason = None;
    locked.record.instance.launch_time = store::now();
    dir::save(&mut locked)?;
    fault::point("start of a stopped instance");
    let beginning = Beginning { wait, entry, memory, lifeline: None };
    if let Err(error) = bring_up(dir, &mut locked, beginning) {
        end_vmm(dir)?;
        let kept = locked.record.instance.spore.hibernated.is_some();
        let error = if kept { hibernation::with_remedy(dir, &error) } else { error };
        let reason = match kept {
            true => hibernation::reason(),
            false => StateReason::new("Server.InternalError", error.message()),
        };
        reap::finish(dir, &mut locked, State::Stopped, reason)?;
        return Err(error);
    }
    Ok(change(previous, &locked))
}

/// Ask a running instance to stop: press its power button. The answer comes at once, with the
/// instance stopping.
///
/// # Errors
/// `UnsupportedOperation` for an instance-store root, `IncorrectInstanceState`.
pub fn ask_to_stop(dir: &InstanceDir) -> Result<Change> {
    let mut locked = current(dir)?;
    let previous = locked.record.instance.state;
    match previous {
        State::Stopped => return Ok(change(previous, &locked)),
        State::Stopping if locked.record.instance.state_reason.is_some() => {
            return Ok(change(previous, &locked));
        }
        State::Stopping | State::Running => {}
        _ => return Err(incorrect_state(&locked, "stopped; it must be running")),
    }
    keeps_root(dir, &locked)?;
    locked.record.instance.state = State::Stopping;
    locked.record.instance.state_reason = None;
    dir::save(&mut locked)?;
    press(dir, &mut locked)?;
    Ok(change(previous, &locked))
}

/// Press the power button of an instance that is stopping, and then give the reason of that in its
/// record: one that is stopping for no reason has not been told, because whoever was about to was
/// killed.
fn press(dir: &InstanceDir, locked: &mut Locked<InstanceRecord>) -> Result<()> {
    fault::point("press of a power button");
    let Err(error) = ask(dir, &Request::PowerButton {}) else {
        locked.record.instance.state_reason = Some(reap::user_initiated());
        return dir::save(locked);
    };
    // It may have ended in this moment; otherwise it is deaf, and only force will do.
    reap::settle_locked(dir, locked)?;
    if locked.record.instance.state == State::Stopping {
        locked.record.instance.state = State::Running;
        dir::save(locked)?;
        return Err(error.context(format!("{} can only be stopped with `Force`", dir.id())));
    }
    Ok(())
}

/// Stop an instance without asking the guest; one that is stopped stays so.
///
/// # Errors
/// The VMM can't be ended; as [`ask_to_stop`].
pub fn force_stop(dir: &InstanceDir) -> Result<Change> {
    let mut locked = current(dir)?;
    let previous = locked.record.instance.state;
    match previous {
        State::Stopped => return Ok(change(previous, &locked)),
        State::Stopping | State::Running => {}
        _ => return Err(incorrect_state(&locked, "stopped; it must be running")),
    }
    keeps_root(dir, &locked)?;
    locked.record.instance.state = State::Stopping;
    // The VM is ended whether or not that can be said beforehand: what it ended as is said below,
    // or not.
    let _ = dir::save(&mut locked);
    end_vmm(dir)?;
    reap::settle_locked(dir, &mut locked)?;
    Ok(change(previous, &locked))
}

/// Press the power button of a running instance, and change nothing else: what becomes of it when
/// its guest powers off is what its guest's own power-off does. That is the only polite end of one
/// that has nothing to be started from again.
///
/// # Errors
/// `IncorrectInstanceState`, or its VMM does not answer.
pub fn press_button(dir: &InstanceDir) -> Result<()> {
    let locked = current(dir)?;
    match locked.record.instance.state {
        State::Running => ask(dir, &Request::PowerButton {}).map(|_| ()),
        _ => Err(incorrect_state(&locked, "asked to power off; it must be running")),
    }
}

/// Give the final record of an instance that was asked to stop; end its VMM if the guest took no
/// notice. If it was started again meanwhile, that stands.
///
/// # Errors
/// The VMM can't be ended.
pub fn complete_stop(dir: &InstanceDir) -> Result<InstanceRecord> {
    let mut locked = current(dir)?;
    if locked.record.instance.state == State::Stopping {
        end_vmm(dir)?;
        reap::settle_locked(dir, &mut locked)?;
    }
    Ok(locked.record.clone())
}

fn keeps_root(dir: &InstanceDir, locked: &Locked<InstanceRecord>) -> Result<()> {
    if locked.record.instance.root_device_type == RootDeviceType::Ebs {
        return Ok(());
    }
    let id = dir.id();
    Err(Error::refused(
        Code::UnsupportedOperation,
        format!("{id} has an instance-store root, which a stop would lose; terminate it"),
    ))
}

/// Reset a running instance at once, as the reset button does; its process stays.
///
/// # Errors
/// `IncorrectInstanceState`, or its VMM does not answer.
pub fn reset(dir: &InstanceDir) -> Result<Change> {
    let locked = current(dir)?;
    match locked.record.instance.state {
        State::Running => {
            ask(dir, &Request::Reset {})?;
            Ok(change(State::Running, &locked))
        }
        _ => Err(incorrect_state(&locked, "rebooted; it must be running")),
    }
}

/// End the instance at once and remove its volumes. One that is terminated stays so.
///
/// # Errors
/// The VMM can't be ended, or something of it can't be removed.
pub fn terminate(dir: &InstanceDir) -> Result<Change> {
    let Some(mut locked) = dir.lock()? else { return Err(not_found(dir.id().as_str())) };
    let previous = locked.record.instance.state;
    if previous == State::Terminated {
        return Ok(change(previous, &locked));
    }
    locked.record.instance.state = State::ShuttingDown;
    // The VM is ended and its volumes go whether or not that can be said beforehand.
    let _ = dir::save(&mut locked);
    end_vmm(dir)?;
    match reap::finish(dir, &mut locked, State::Terminated, reap::user_initiated()) {
        // Without space for its last word the instance goes at once, which takes none.
        Err(error) if error.is_full() => {
            let change = change(previous, &locked);
            locked.remove()?;
            Ok(change)
        }
        finished => finished.map(|()| change(previous, &locked)),
    }
}

/// A stopped instance, locked, to be changed.
///
/// # Errors
/// `IncorrectInstanceState`: it is not stopped, and `cannot` be …
pub fn stopped(dir: &InstanceDir, cannot: &str) -> Result<Locked<InstanceRecord>> {
    let locked = current(dir)?;
    match locked.record.instance.state {
        State::Stopped => Ok(locked),
        _ => Err(incorrect_state(&locked, &format!("{cannot}; it must be stopped"))),
    }
}

/// The instance as it truly is, locked.
///
/// # Errors
/// It does not exist, or its record can't be brought up to date.
pub(super) fn current(dir: &InstanceDir) -> Result<Locked<InstanceRecord>> {
    let Some(mut locked) = dir.lock()? else { return Err(not_found(dir.id().as_str())) };
    reap::settle_locked(dir, &mut locked)?;
    Ok(locked)
}

fn change(previous: State, locked: &Locked<InstanceRecord>) -> Change {
    Change { previous, record: locked.record.clone() }
}

/// The error for an instance that is not there.
pub fn not_found(id: &str) -> Error {
    Error::refused(
        Code::InvalidInstanceIDNotFound,
        format!("there is no instance '{}'; 'spore ls' lists them", id.escape_debug()),
    )
}

pub(super) fn incorrect_state(locked: &Locked<InstanceRecord>, cannot: &str) -> Error {
    let instance = &locked.record.instance;
    let (id, state) = (&instance.instance_id, instance.state.name());
    Error::refused(Code::IncorrectInstanceState, format!("{id} is {state} and cannot be {cannot}"))
}

/// End the VMM, if there is one, and wait until it is gone: by request, then by SIGKILL.
fn end_vmm(dir: &InstanceDir) -> Result<()> {
    if !dir.vmm_alive()? {
        return Ok(());
    }
    // One without a number may be none: a process that another thread starts has our descriptors,
    // the lock's among them, until it becomes its program.
    if ask(dir, &Request::Terminate {}).is_ok() || dir.recorded_pid().is_none() {
        let deadline = Instant::now() + TERMINATE_PATIENCE;
        while Instant::now() < deadline {
            if !dir.vmm_alive()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    kill(dir)?;
    dir.await_vmm_end()
}

fn kill(dir: &InstanceDir) -> Result<()> {
    let raw = dir.recorded_pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let Some(pid) = raw else {
        return Err(Error::failure(format!(
            "the VMM of {} does not answer and its process id is not known; end it with kill",
            dir.id()
        )));
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Asked after the descriptor was opened: while the VMM lives, its number is nobody else's.
    if dir.vmm_alive()? {
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
    Ok(())
}
