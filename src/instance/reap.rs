//! Finding out what became of an instance whose VMM is gone.
//!
//! A VMM tells nobody that it ends. Whoever looks next sees that `vmm.lock` is free, reads the last
//! line of the report and brings the record up to date: [`settle`] decides, [`super::refresh`] does
//! it under the lock.

use super::cgroup;
use super::dir::{self, InstanceDir};
use super::{ephemeral, hibernation, resources};
use crate::error::Result;
use crate::id::VolumeId;
use crate::plan::{DeviceId, EndReason, Engine, VmReport};
use crate::record::image::RootDeviceType;
use crate::record::instance::{InstanceRecord, ShutdownBehavior, State, StateReason};
use crate::store::Locked;
use crate::store::journal::Cause;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a record becomes once its VMM is known to be gone. `end` is the report's last word, if it
/// has one. The state is stopped or terminated.
pub fn settle(record: &InstanceRecord, end: Option<&VmReport>) -> (State, StateReason) {
    let instance = &record.instance;
    let keeps_root = instance.root_device_type == RootDeviceType::Ebs;
    let ends = instance.instance_initiated_shutdown_behavior == ShutdownBehavior::Terminate;
    let state = match instance.state {
        State::ShuttingDown | State::Terminated => State::Terminated,
        // A launch that never came up leaves nothing; a failed start leaves the instance as it was.
        State::Pending if instance.spore.starts == 0 || !keeps_root => State::Terminated,
        State::Pending | State::Stopping | State::Stopped => State::Stopped,
        State::Running if ends || !keeps_root => State::Terminated,
        State::Running => State::Stopped,
    };
    let asked = matches!(instance.state, State::Stopping | State::ShuttingDown);
    (state, reason(asked, end))
}

/// The reason of a stop or termination that the user asked for.
pub fn user_initiated() -> StateReason {
    StateReason::new("Client.UserInitiatedShutdown", "User initiated shutdown")
}

/// What an instance that ended with its supervisor says.
const ORPHANED: &str = "the 'spore run --foreground' that held it was killed, and it ended with it";

fn reason(asked: bool, end: Option<&VmReport>) -> StateReason {
    const GUEST: &str = "Client.InstanceInitiatedShutdown";
    const FAULT: &str = "Client.InternalError";
    match end {
        Some(VmReport::Ended { reason, message, .. }) => match reason {
            EndReason::GuestPoweroff | EndReason::Terminated if asked => user_initiated(),
            EndReason::GuestPoweroff => StateReason::new(GUEST, "Instance initiated shutdown"),
            EndReason::Terminated => user_initiated(),
            EndReason::Orphaned => StateReason::new("Server.InternalError", ORPHANED),
            EndReason::Hibernated => hibernation::reason(),
            EndReason::TripleFault => StateReason::new(FAULT, &format!("triple fault: {message}")),
            EndReason::GuestPanic => StateReason::new(FAULT, &format!("kernel panic: {message}")),
            EndReason::KvmError | EndReason::VmmError => {
                StateReason::new("Server.InternalError", message)
            }
        },
        _ if asked => user_initiated(),
        _ => StateReason::new(
            "Server.InternalError",
            "the VMM was killed, by somebody or for want of memory ('dmesg' tells), and left no word",
        ),
    }
}

/// Bring a locked record up to date.
///
/// # Errors
/// It can't be written, or what a terminated instance leaves can't be removed.
pub fn settle_locked(dir: &InstanceDir, locked: &mut Locked<InstanceRecord>) -> Result<()> {
    if !locked.record.instance.state.is_active() {
        return Ok(());
    }
    let alive = dir.vmm_alive()?;
    // Read after the VMM is known to be gone, so that its last word is in it.
    let reports = dir.reports()?;
    let started = has_started(&reports);
    if !alive {
        let pending = locked.record.instance.state == State::Pending;
        if pending && started && locked.record.instance.spore.starts == 0 {
            // Its launcher did not wait. It was up all the same, and its volumes may have what it
            // wrote.
            came_up(&mut locked.record, None, &BTreeMap::new());
        }
        let end = reports.iter().rev().find(|r| matches!(r, VmReport::Ended { .. }));
        let (state, reason) = settle(&locked.record, end);
        if end.is_none() && state == State::Stopped {
            resources::repair_volumes(dir.store(), &locked.record);
        }
        return finish(dir, locked, state, reason);
    }
    // Its launcher did not wait, or died: it is up once it says so.
    if started && locked.record.instance.state == State::Pending {
        came_up(&mut locked.record, dir.recorded_pid(), &BTreeMap::new());
        dir::save(locked)?;
        hibernation::sweep(dir, &locked.record)?;
    }
    Ok(())
}

/// Whether its VMM has said that it runs.
fn has_started(reports: &[VmReport]) -> bool {
    reports.iter().any(|report| matches!(report, VmReport::Started { .. }))
}

/// Mark a pending instance as running, with the engines of its disks if they are known.
pub fn came_up(
    record: &mut InstanceRecord,
    pid: Option<u32>,
    engines: &BTreeMap<DeviceId, Engine>,
) {
    let instance = &mut record.instance;
    let engine = |disk| engines.get(&instance.device_of(disk).ok()?).copied();
    let engines = instance.disks().map_while(engine).collect();
    instance.state = State::Running;
    instance.state_reason = None;
    // It has gone on from its memory, if it had any.
    instance.spore.hibernated = None;
    instance.spore.pid = pid;
    instance.spore.engines = engines;
    instance.spore.starts = instance.spore.starts.saturating_add(1);
}

/// When the VMM ended, in milliseconds since the epoch: as it said; if it was killed, when it last
/// wrote anything.
fn last_sign_of_life(dir: &InstanceDir, record: &InstanceRecord, reports: &[VmReport]) -> u64 {
    if let Some(VmReport::Ended { at, .. }) = reports.last() {
        return *at;
    }
    let overlay = |id: &VolumeId| {
        let top = dir.store().volumes().get(id).ok()?.layers.into_iter().next()?;
        Some(dir.store().volumes().dir(id).join(&*top.file))
    };
    let mapped = record.instance.block_device_mappings.iter();
    let volumes = mapped.filter_map(|mapping| overlay(&mapping.ebs.volume_id));
    let files = [dir.file(dir::CONSOLE), dir.file(dir::REPORT)].into_iter().chain(volumes);
    let written = files.filter_map(|path| path.metadata().ok()?.modified().ok()).max();
    written
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or_else(now_ms, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What ended the VM, if no command did. `end` is the report's last word.
fn cause(record: &InstanceRecord, end: Option<&VmReport>) -> Option<&'static str> {
    let state = record.instance.state;
    let asked = matches!(state, State::Stopping | State::ShuttingDown);
    match end {
        // It was not up: the command that was starting it says so.
        _ if state == State::Pending => None,
        Some(VmReport::Ended { reason, .. }) => match reason {
            EndReason::GuestPoweroff => Some("guest powered off"),
            EndReason::TripleFault => Some("triple fault"),
            EndReason::GuestPanic => Some("kernel panic"),
            EndReason::KvmError => Some("KVM failed"),
            EndReason::VmmError => Some("VMM failed"),
            EndReason::Terminated if asked => None,
            EndReason::Orphaned => Some("supervisor gone"),
            EndReason::Hibernated => None,
            EndReason::Terminated => Some("VMM ended by a signal"),
        },
        _ if asked => None,
        _ => Some("VMM killed"),
    }
}

/// Write the final state and remove what it has no use for. The VMM is gone.
///
/// # Errors
/// The record can't be written or a volume can't be removed.
pub fn finish(
    dir: &InstanceDir,
    locked: &mut Locked<InstanceRecord>,
    state: State,
    reason: StateReason,
) -> Result<()> {
    let reports = dir.reports().unwrap_or_default();
    let ended_at = last_sign_of_life(dir, &locked.record, &reports);
    let end = reports.iter().rev().find(|r| matches!(r, VmReport::Ended { .. }));
    let ran = locked.record.instance.spore.starts > 0 || has_started(&reports);
    let what = cause(&locked.record, end).filter(|_| ran);
    let cause = what.map(|what| Cause { at: ended_at, what });
    let before = locked.record.instance.state;
    hibernation::settle(dir, &mut locked.record, before, &reports);
    let instance = &mut locked.record.instance;
    instance.spore.ended_at = Some(ended_at);
    instance.spore.pid = None;
    instance.spore.engines.clear();
    if let Some(group) = instance.spore.control_group.take() {
        cgroup::remove(&group);
    }
    let mut saved = reports.into_iter().rev().filter_map(|report| match report {
        VmReport::Saved { environment, .. } => Some(environment),
        _ => None,
    });
    // What it was left with at its last reset, if it had one.
    if let Some(environment) = saved.next() {
        instance.spore.boot_environment = environment;
    }
    instance.state_reason = Some(reason);
    dir.remove_sockets()?;
    if state == State::Terminated {
        // First the intention: killed before the volumes are gone, the next command goes on from
        // here.
        if instance.state != State::ShuttingDown {
            instance.state = State::ShuttingDown;
            dir::save_because(locked, cause.as_ref())?;
        }
        let give_back = if ran { resources::release_volumes } else { resources::remove_volumes };
        give_back(dir.store(), &locked.record)?;
        locked.record.instance.block_device_mappings.clear();
        locked.record.instance.spore.terminated_at = Some(now_ms());
    }
    if state == State::Terminated {
        locked.record.instance.spore.hibernated = None;
    }
    if locked.record.instance.spore.hibernated.is_none() {
        ephemeral::remove(dir, &locked.record)?;
    }
    locked.record.instance.state = state;
    dir::save_because(locked, cause.as_ref())?;
    hibernation::sweep(dir, &locked.record)
}

#[cfg(test)]
#[path = "reap_tests.rs"]
pub(crate) mod tests;
