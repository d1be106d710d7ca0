//! What executes the actions of [`crate::action`] on a store.

pub mod foreground;
pub mod kernels;
pub mod usage;

use crate::action::{ModifyInstance, RunInstances, Until};
use crate::error::{Code, Error, Kind, OrFail, Result};
use crate::id::ReservationId;
use crate::image::{attribute, catalog, product};
use crate::instance::console::PromptWatch;
use crate::instance::dir::{self, InstanceDir};
use crate::instance::hibernate;
use crate::instance::host;
use crate::instance::launch::{self, Host, RandomIds};
use crate::instance::lifecycle::{self, Change};
use crate::instance::modify::{self, Changes};
use crate::instance::pool::parallel;
use crate::instance::refresh::refresh;
use crate::kernel::{self, BootFiles};
use crate::record::image::{Image, RootDeviceType};
use crate::record::instance::{InstanceRecord, State};
use crate::store::Store;
use crate::sys::kvm;
use crate::transfer::bundle;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a launch came to.
#[derive(Debug)]
pub struct Launched {
    /// What they were launched from.
    pub image: Image,
    /// Those that are up, by launch index.
    pub records: Vec<InstanceRecord>,
    /// Why others are not.
    pub failures: Vec<Error>,
}

/// Launch instances.
///
/// # Errors
/// The image is unknown, the request can't be met, fewer than the minimum came up; nothing is left then.
pub fn run(store: &Store, action: &RunInstances) -> Result<Launched> {
    let image = catalog::resolve(store, &action.image)?;
    bundle::intact::check(store, &image)?;
    let mut registered = BootFiles::default();
    let launched = launch(store, action, image, &mut registered);
    if launched.is_err() {
        registered.undo(store);
    }
    launched
}

/// As [`run`]. What had to be registered for it is in `registered`.
fn launch(
    store: &Store,
    action: &RunInstances,
    image: Image,
    registered: &mut BootFiles,
) -> Result<Launched> {
    let mut request = action.request.clone();
    if let Some(kernel) = &action.kernel {
        registered.kernel = Some(kernels::find_kernel(store, kernel)?);
        request.kernel = registered.kernel_id();
    }
    if let Some(ramdisk) = &action.ramdisk {
        registered.ramdisk = Some(kernels::find_ramdisk(store, ramdisk)?);
        request.ramdisk = registered.ramdisk_id();
    }
    product::check(store, &image)?;
    kvm::check()?;
    // Beside what takes as long: the store's files.
    let _ = std::thread::Builder::new().spawn(host::cpuid);
    request.firmware = request.firmware.as_deref().map(firmware).transpose()?;
    let drivers = |kernel: Option<&_>, ramdisk: Option<&_>| kernel::drivers(store, kernel, ramdisk);
    let host = host(store)?;
    let plans = launch::resolve(&request, &image, host, &drivers, &mut RandomIds)?;
    if plans.iter().any(|plan| plan.kernel.is_none()) {
        // Before anything is made.
        crate::instance::firmware::find(request.firmware.as_deref())?;
    }
    if let Some(warning) = launch::overcommitted(&plans, host) {
        store.context().warn(warning);
    }
    crate::sys::process::raise_open_files();
    let user_data = action.user_data.as_deref();
    let (records, failures) = lifecycle::launch(
        store,
        &plans,
        request.min_count,
        user_data,
        action.wait_running,
        action.lifeline.as_deref(),
    )?;
    attribute::launched(store, &image);
    Ok(Launched { image, records, failures })
}

/// Change a stopped instance.
///
/// # Errors
/// As [`modify::modify`]'s; a kernel or ramdisk is unknown.
pub fn modify(store: &Store, dir: &InstanceDir, action: &ModifyInstance) -> Result<InstanceRecord> {
    let ramdisk = match action.ramdisk.as_deref() {
        Some("none") => Some(None),
        Some(text) => Some(Some(kernels::find_ramdisk(store, text)?.record.ramdisk_id)),
        None => None,
    };
    let kernel = match action.kernel.as_deref() {
        Some("none") => Some(None),
        Some(text) => Some(Some(kernels::find_kernel(store, text)?.record.kernel_id)),
        None => None,
    };
    let changes = Changes {
        instance_type: action.instance_type.clone(),
        kernel,
        firmware: action.firmware.as_deref().map(firmware).transpose()?,
        ramdisk,
        user_data: action.user_data.clone(),
        delete_on_termination: action.delete_on_termination.clone(),
    };
    modify::modify(store, dir, &changes, memory()?)
}

/// The firmware of that name, where it will be found again.
fn firmware(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).or_fail(|| format!("find {}", path.display()))?;
    crate::instance::firmware::find(Some(&path))
}

/// This host's limits, and what of them is taken.
fn host(store: &Store) -> Result<Host> {
    Ok(Host { memory: memory()?, taken: dir::memory_in_use(store)? })
}

/// Bytes of RAM of this host.
fn memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").or_fail(|| "read /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    let kib = kib.ok_or_else(|| Error::failure("/proc/meminfo has no line MemTotal"))?;
    Ok(kib.saturating_mul(1024))
}

/// Every instance as it truly is, by reservation and launch index. What can't be read is a warning.
///
/// # Errors
/// The store can't be read.
pub fn describe(store: &Store) -> Result<Vec<InstanceRecord>> {
    let listing = dir::instances(store).list_by(|id| refresh(&InstanceDir::new(store, id)))?;
    let mut records = listing.or_warn();
    in_order(&mut records);
    Ok(records)
}

/// By reservation, the oldest first, and by launch index in it: clones come up in any order, and are started again at
/// any time.
fn in_order(records: &mut [InstanceRecord]) {
    let mut begun: HashMap<ReservationId, String> = HashMap::new();
    for record in records.iter() {
        let time = &record.instance.launch_time;
        let first = begun.entry(record.reservation_id.clone()).or_insert_with(|| time.clone());
        if time < first {
            first.clone_from(time);
        }
    }
    records.sort_by_cached_key(|r| {
        let begun = begun.get(&r.reservation_id).cloned();
        (begun, r.reservation_id.clone(), r.instance.ami_launch_index)
    });
}

/// The instances that `targets` (ids, unique prefixes, names) address, each once, in that order.
///
/// # Errors
/// One is unknown or ambiguous; nothing has been done to the others then.
pub fn resolve(store: &Store, targets: &[String]) -> Result<Vec<InstanceDir>> {
    let mut found: Vec<InstanceDir> = Vec::new();
    for target in targets {
        let record = dir::instances(store).resolve(target)?;
        if found.iter().all(|dir| *dir.id() != record.instance.instance_id) {
            found.push(InstanceDir::new(store, &record.instance.instance_id));
        }
    }
    Ok(found)
}

/// The record as it truly is.
///
/// # Errors
/// `InvalidInstanceID.NotFound`, or it can't be read.
pub fn record(dir: &InstanceDir) -> Result<InstanceRecord> {
    refresh(dir)?.ok_or_else(|| lifecycle::not_found(dir.id().as_str()))
}

/// Stop instances: press the power button, wait, and after `timeout` force. With `force` at once, without
/// `wait` only press. The results are in the order of `dirs`.
pub fn stop(
    dirs: &[InstanceDir],
    timeout: Duration,
    force: bool,
    wait: bool,
) -> Vec<Result<Change>> {
    let deadline = Instant::now() + timeout;
    let act = if force { lifecycle::force_stop } else { lifecycle::ask_to_stop };
    let mut changes = parallel(dirs, act);
    if force || !wait {
        return changes;
    }
    let asked: Vec<&InstanceDir> =
        dirs.iter().zip(&changes).filter(|(_, c)| c.is_ok()).map(|(dir, _)| dir).collect();
    poll_until(Some(deadline), || !asked.iter().any(|dir| is_stopping(dir)));
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

/// Hibernate instances: their machines go on from where they are when they are started.
pub fn hibernate(dirs: &[InstanceDir]) -> Vec<Result<Change>> {
    parallel(dirs, hibernate::hibernate)
}

/// Looks whether the host has the memory of the stopped ones of these instances, which are about to be started. If it has
/// not, that is a warning, or with `strict` the error `InsufficientInstanceCapacity`.
///
/// # Errors
/// As said; the host can't be looked at.
pub fn check_memory(store: &Store, dirs: &[InstanceDir], strict: bool) -> Result<()> {
    let stopped = |r: &InstanceRecord| r.instance.state == State::Stopped;
    // What can't be read is told when it is started.
    let records = dirs.iter().filter_map(|dir| record(dir).ok()).filter(stopped);
    let new = records.map(|r| r.instance.spore.memory).fold(0u64, u64::saturating_add);
    match launch::too_large(new, host(store)?) {
        Some(why) if strict => Err(Error::refused(Code::InsufficientInstanceCapacity, why)
            .remedy("stop others first, or start without --no-overcommit")),
        Some(why) => {
            store.context().warn(format_args!("{why} (--no-overcommit refuses this)"));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Start stopped instances; `entry` is that of their boot menus. Hibernated ones go on, unless `cold`.
pub fn start(
    dirs: &[InstanceDir],
    wait: bool,
    entry: Option<&str>,
    cold: bool,
) -> Vec<Result<Change>> {
    parallel(dirs, |dir| lifecycle::start(dir, wait, entry, cold))
}

/// Terminate instances.
pub fn terminate(dirs: &[InstanceDir]) -> Vec<Result<Change>> {
    parallel(dirs, lifecycle::terminate)
}

/// Reboot instances. With `force` as the reset button does; else the guest is asked to shut down through its
/// power button and the machine starts anew, or is reset if that takes longer than `timeout`.
pub fn reboot(dirs: &[InstanceDir], timeout: Duration, force: bool) -> Vec<Result<Change>> {
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

/// True while the guest has been asked to stop and its VMM runs. One that can't be looked at is left to
/// [`lifecycle::complete_stop`], which says so.
fn is_stopping(dir: &InstanceDir) -> bool {
    let stopping = |r: InstanceRecord| r.instance.state == State::Stopping;
    dir.record().is_ok_and(|r| r.is_some_and(stopping)) && dir.vmm_alive().unwrap_or(false)
}

/// How one instance's wait ended.
#[derive(Debug)]
pub enum Waited {
    /// What was waited for is true.
    Reached(InstanceRecord),
    /// It can't become true any more.
    Impossible(InstanceRecord),
    /// Not in time.
    TimedOut(InstanceRecord),
    /// The instance is gone or unreadable.
    Lost(Error),
}

/// Wait for every instance, or until the context's work is cancelled. `progress` is told how many are done each time that changes.
pub fn wait(
    dirs: &[InstanceDir],
    until: Until,
    timeout: Option<Duration>,
    progress: &mut dyn FnMut(usize),
) -> Vec<Waited> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut watches: Vec<Option<PromptWatch>> = dirs.iter().map(|_| None).collect();
    let mut results: Vec<Option<Waited>> = dirs.iter().map(|_| None).collect();
    let mut done = usize::MAX;
    let cancelled = || dirs.iter().any(|dir| dir.store().context().cancelled());
    poll_until(deadline, || {
        for ((dir, watch), result) in dirs.iter().zip(&mut watches).zip(&mut results) {
            if result.is_none() {
                *result = look(dir, until, watch);
            }
        }
        let now = results.iter().filter(|r| r.is_some()).count();
        if now != done {
            done = now;
            progress(done);
        }
        done == dirs.len() || cancelled()
    });
    let last = |dir: &InstanceDir| record(dir).map_or_else(Waited::Lost, Waited::TimedOut);
    dirs.iter().zip(results).map(|(dir, result)| result.unwrap_or_else(|| last(dir))).collect()
}

/// `None` as long as the wait goes on.
fn look(dir: &InstanceDir, until: Until, watch: &mut Option<PromptWatch>) -> Option<Waited> {
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
        Until::Login | Until::LoginOrEnd => {
            let start = record.instance.spore.console_start;
            let watch = watch.get_or_insert_with(|| PromptWatch::new(start));
            match watch.seen(dir) {
                Ok(seen) => {
                    (seen && state == State::Running) || (over && until == Until::LoginOrEnd)
                }
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

/// Look again and again, soon at first and then more rarely, until it is true or the deadline has passed.
fn poll_until(deadline: Option<Instant>, mut is_true: impl FnMut() -> bool) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::reap::tests::record;
    use crate::record::instance::ShutdownBehavior::Stop;

    #[test]
    fn instances_are_told_by_reservation_and_launch_index() {
        let first = ReservationId::generate().unwrap();
        let clone = |index: u32, second: &str| {
            let mut clone = record(State::Running, RootDeviceType::Ebs, Stop, 1);
            clone.reservation_id = first.clone();
            clone.instance.ami_launch_index = index;
            clone.instance.launch_time = format!("2025-01-01T00:00:{second}.000Z");
            clone
        };
        let mut later = record(State::Running, RootDeviceType::Ebs, Stop, 1);
        later.instance.launch_time = "2025-01-01T00:00:05.000Z".into();
        // The second clone has been started again since, and the third was up before the first.
        let mut all = [later.clone(), clone(2, "01"), clone(0, "02"), clone(1, "09")];
        in_order(&mut all);
        let told = all.each_ref().map(|r| (r.reservation_id.clone(), r.instance.ami_launch_index));
        let of = |n| (first.clone(), n);
        assert_eq!(told, [of(0), of(1), of(2), (later.reservation_id, 0)]);
    }
}
