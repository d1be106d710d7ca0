//! StopInstances, StartInstances, RebootInstances, TerminateInstances: one failure does not keep
//! the others from their turn.

use super::instances::{record, resolve};
use super::wait::poll_until;
use super::{Service, launch};
use crate::error::{Code, Error, Result};
use crate::instance::dir::InstanceDir;
use crate::instance::hibernate;
use crate::instance::launch::too_large;
use crate::instance::lifecycle;
pub use crate::instance::lifecycle::Change;
use crate::instance::pool::parallel;
use crate::record::image::RootDeviceType;
use crate::record::instance::{InstanceRecord, State};
use crate::store::Store;
use std::time::{Duration, Instant};

/// EC2 StopInstances.
#[derive(Clone, Debug, Default)]
pub struct StopInstances {
    /// Which.
    pub instance_ids: Vec<String>,
    /// End them at once, as pulling the plug does.
    pub force: bool,
    /// Keep memory and devices: they go on from where they are when they are started.
    pub hibernate: bool,
    /// How long a guest may take to power off before it is cut off.
    pub timeout: Duration,
    /// Only press the power buttons.
    pub no_wait: bool,
}

/// EC2 StartInstances.
#[derive(Clone, Debug, Default)]
pub struct StartInstances {
    /// Which.
    pub instance_ids: Vec<String>,
    /// The entry of their boot menus, this time.
    pub boot_entry: Option<String>,
    /// Boot those that are hibernated, too.
    pub cold: bool,
    /// Start none unless the host has the memory of all; else that is a warning.
    pub no_overcommit: bool,
    /// Return as soon as the processes are started.
    pub no_wait: bool,
}

/// EC2 RebootInstances.
#[derive(Clone, Debug, Default)]
pub struct RebootInstances {
    /// Which.
    pub instance_ids: Vec<String>,
    /// Reset them at once, as the reset button does.
    pub force: bool,
    /// How long a guest may take to shut down before it is reset.
    pub timeout: Duration,
}

/// What became of each instance of a request, in its order.
pub type Changes = Vec<Result<Change>>;

impl Service {
    /// EC2 StopInstances.
    ///
    /// # Errors
    /// An instance is unknown or ambiguous: none has been stopped.
    pub fn stop_instances(&self, request: &StopInstances) -> Result<Changes> {
        let dirs = resolve(&self.store, &request.instance_ids)?;
        Ok(match request.hibernate {
            true => parallel(&dirs, hibernate::hibernate),
            false => stop(&dirs, request.timeout, request.force, !request.no_wait),
        })
    }

    /// EC2 StartInstances.
    ///
    /// # Errors
    /// An instance is unknown or ambiguous; `InsufficientInstanceCapacity`. None has been started.
    pub fn start_instances(&self, request: &StartInstances) -> Result<Changes> {
        let dirs = resolve(&self.store, &request.instance_ids)?;
        check_memory(&self.store, &dirs, request.no_overcommit)?;
        let (wait, entry) = (!request.no_wait, request.boot_entry.as_deref());
        Ok(parallel(&dirs, |dir| {
            let change = lifecycle::start(dir, wait, entry, request.cold)?;
            self.have_held(&change.record);
            Ok(change)
        }))
    }

    /// EC2 RebootInstances.
    ///
    /// # Errors
    /// An instance is unknown or ambiguous: none has been rebooted.
    pub fn reboot_instances(&self, request: &RebootInstances) -> Result<Changes> {
        let dirs = resolve(&self.store, &request.instance_ids)?;
        Ok(reboot(&dirs, request.timeout, request.force))
    }

    /// EC2 TerminateInstances.
    ///
    /// # Errors
    /// An instance is unknown or ambiguous: none has been terminated.
    pub fn terminate_instances(&self, instance_ids: &[String]) -> Result<Changes> {
        Ok(parallel(&resolve(&self.store, instance_ids)?, lifecycle::terminate))
    }
}

/// Stop instances: press the power button, wait, and after `timeout` force. With `force` at once,
/// without `wait` only press. The results are in the order of `dirs`.
fn stop(dirs: &[InstanceDir], timeout: Duration, force: bool, wait: bool) -> Vec<Result<Change>> {
    let deadline = Instant::now() + timeout;
    let act = if force { lifecycle::force_stop } else { lifecycle::ask_to_stop };
    let mut changes = parallel(dirs, act);
    if force || !wait {
        return changes;
    }
    let asked: Vec<&InstanceDir> =
        dirs.iter().zip(&changes).filter(|(_, c)| c.is_ok()).map(|(dir, _)| dir).collect();
    poll_until(Some(deadline), || !asked.iter().any(|dir| is_stopping(dir)));
    let cut: Vec<&str> =
        asked.iter().filter(|dir| is_stopping(dir)).map(|dir| dir.id().as_str()).collect();
    if let (Some(first), Some(dir)) = (cut.first(), dirs.first()) {
        let others = match cut.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        dir.store().context().warn(format_args!(
            "{first}{others} did not shut down within {} s and was cut off: its file systems are as after a power \
             failure; a longer --timeout gives it more time",
            timeout.as_secs_f64()
        ));
    }
    for (dir, change) in dirs.iter().zip(&mut changes) {
        if let Ok(done) = change {
            match lifecycle::complete_stop(dir) {
                Ok(record) => done.record = record,
                Err(error) => *change = Err(error),
            }
        }
    }
    changes
}

/// Looks whether the host has the memory of the stopped ones of these instances, which are about to
/// be started. If it has not, that is a warning, or with `strict` the error
/// `InsufficientInstanceCapacity`.
///
/// # Errors
/// As said; the host can't be looked at.
fn check_memory(store: &Store, dirs: &[InstanceDir], strict: bool) -> Result<()> {
    let stopped = |r: &InstanceRecord| r.instance.state == State::Stopped;
    // What can't be read is told when it is started.
    let records = dirs.iter().filter_map(|dir| record(dir).ok()).filter(stopped);
    let new = records.map(|r| r.instance.spore.memory).fold(0u64, u64::saturating_add);
    match too_large(new, launch::host(store)?) {
        Some(why) if strict => Err(Error::refused(Code::InsufficientInstanceCapacity, why)
            .remedy("stop others first, or start without `NoOvercommit`")),
        Some(why) => {
            store.context().warn(format_args!("{why} (`NoOvercommit` refuses this)"));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Reboot instances. With `force` as the reset button does; else the guest is asked to shut down
/// through its power button and the machine starts anew, or is reset if that takes longer than
/// `timeout`.
fn reboot(dirs: &[InstanceDir], timeout: Duration, force: bool) -> Vec<Result<Change>> {
    let polite = |dir: &&InstanceDir| {
        let running = |r: InstanceRecord| {
            r.instance.state == State::Running && r.instance.root_device_type == RootDeviceType::Ebs
        };
        !force && record(dir).is_ok_and(running)
    };
    let polite: Vec<InstanceDir> = dirs.iter().filter(polite).cloned().collect();
    let stopped = stop(&polite, timeout, false, true);
    let started = parallel(&polite, |dir| lifecycle::start(dir, true, None, false));
    let mut rebooted = stopped.into_iter().zip(started).map(|(stopped, started)| {
        Ok(Change { previous: stopped?.previous, record: started?.record })
    });
    let is_polite = |dir: &InstanceDir| polite.iter().any(|other| other.id() == dir.id());
    dirs.iter()
        .map(|dir| match is_polite(dir) {
            true => rebooted.next().unwrap_or_else(|| lifecycle::reset(dir)),
            // It resets what runs and refuses what does not, with the right words.
            false => lifecycle::reset(dir),
        })
        .collect()
}

/// True while the guest has been asked to stop and its VMM runs. One that can't be looked at is
/// left to [`lifecycle::complete_stop`], which says so.
fn is_stopping(dir: &InstanceDir) -> bool {
    let stopping = |r: InstanceRecord| r.instance.state == State::Stopping;
    dir.record().is_ok_and(|r| r.is_some_and(stopping)) && dir.vmm_alive().unwrap_or(false)
}
