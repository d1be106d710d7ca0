//! Starting a VMM process and hearing whether it came up.

use super::cgroup;
use super::dir::{InstanceDir, VMM_LOG};
use super::prepare::Prepared;
use crate::error::{Error, OrFail, Result};
use crate::helper::{Child, beside, launcher};
use crate::plan::{BUILD, DeviceId, Engine, PLAN_FD, Ready, SUBCOMMAND, VmReport};
use crate::sys::{fault, fds, process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The program that is a VMM and nothing else; it is beside this one.
const PROGRAM: &str = "spore-vmm";
/// A VMM is up within milliseconds; in a nested VM on a busy host within seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest ready line that is read.
const MAX_READY: u64 = 64 << 10;

/// A VMM process that has been started.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: u32,
    ready: File,
}

/// Start the VMM. Our copies of its descriptors are closed, so that its lock is its own.
///
/// # Errors
/// No more processes or descriptors.
pub fn spawn(dir: &InstanceDir, prepared: Prepared) -> Result<Spawned> {
    let Prepared { plan, fds, servers, group, ready } = prepared;
    let plan = plan.to_bytes()?;
    let pid = start(
        &plan,
        &fds.numbered().collect::<Vec<_>>(),
        &dir.open_log(VMM_LOG)?,
        dir.id().as_str(),
    )?;
    let joined = group.map_or(Ok(()), |group| {
        let others = servers.iter().map(Child::id);
        others.chain([pid]).try_for_each(|pid| cgroup::join(&group, pid))
    });
    servers.into_iter().for_each(Child::let_go);
    let noted = dir.write_pid(pid).and(joined);
    drop(fds);
    if let Err(error) = noted {
        // No command could end it later. It is our child, so its number is nobody else's.
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        dir.await_vmm_end()?;
        return Err(error);
    }
    Ok(Spawned { pid, ready })
}

/// Start a VMM with `plan` and these descriptors; what it prints goes to `log`.
///
/// # Errors
/// As [`spawn`].
pub fn start(
    plan: &[u8],
    fds: &[(std::os::fd::BorrowedFd<'_>, i32)],
    log: &File,
    label: &str,
) -> Result<u32> {
    let mut memfd = fds::memfd("plan")?;
    memfd.write_all(plan).or_fail(|| "write a VM's plan")?;
    let null =
        File::options().read(true).write(true).open("/dev/null").or_fail(|| "open /dev/null")?;
    let mut all =
        vec![(null.as_fd(), 0), (null.as_fd(), 1), (log.as_fd(), 2), (memfd.as_fd(), PLAN_FD)];
    all.extend_from_slice(fds);
    let (vmm, own) = (beside(PROGRAM)?, launcher()?);
    let environment = fault::vmm_environment();
    if !vmm.exists() {
        return process::spawn_with(&own, &["spore", SUBCOMMAND, label], &environment, &all);
    }
    // Its own /proc/self is another.
    let own = if own.starts_with("/proc/self") {
        format!("/proc/{}/exe", std::process::id())
    } else {
        own.to_string_lossy().into_owned()
    };
    let words = ["spore", SUBCOMMAND, label, BUILD, &own];
    process::spawn_with(&vmm, &words, &environment, &all)
}

impl Spawned {
    /// Wait until the VMM says that its vCPUs run, and with which engine each disk is served.
    ///
    /// # Errors
    /// Why it could not start, in its own words if it had any.
    pub fn await_ready(self, dir: &InstanceDir) -> Result<BTreeMap<DeviceId, Engine>> {
        match read_line(&self.ready)? {
            Some(line) => match serde_json::from_slice(&line) {
                Ok(Ready::Running { engines }) => Ok(engines),
                Ok(Ready::Failed { message, kind, code }) => {
                    Err(Error::reported(kind, code.as_deref(), message))
                }
                Err(e) => {
                    Err(Error::failure(format!("the VMM of {} said nonsense: {e}", dir.id())))
                }
            },
            None => Err(Error::failure(last_words(dir, self.pid))),
        }
    }
}

/// One line of the pipe; `None` if it closes before.
fn read_line(mut pipe: &File) -> Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::time::Timespec::try_from(left).or_fail(|| "wait for a VMM")?;
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                return Err(Error::failure(format!(
                    "the VMM did not start within {} s",
                    PATIENCE.as_secs()
                )));
            }
            Err(rustix::io::Errno::INTR) => continue,
            result => result.map(|_| ()).or_fail(|| "wait for a VMM")?,
        }
        let mut bytes = [0; 4096];
        match pipe.read(&mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => {
                let count = read.or_fail(|| "hear from a VMM")?;
                line.extend_from_slice(&bytes[..count]);
                if let Some(end) = line.iter().position(|&b| b == b'\n') {
                    line.truncate(end);
                    return Ok(Some(line));
                }
                if count == 0 || line.len() as u64 > MAX_READY {
                    return Ok(None);
                }
            }
        }
    }
}

/// Most of a VMM's log in which its last words are looked for, in bytes: one that dies at once
/// prints little.
const MAX_WORDS: u64 = 1 << 20;

/// What a VMM that died without a ready line left behind: its report's last word, or the last line
/// it printed.
fn last_words(dir: &InstanceDir, pid: u32) -> String {
    let ended =
        dir.reports().unwrap_or_default().into_iter().rev().find_map(|report| match report {
            VmReport::Ended { message, .. } => Some(message),
            _ => None,
        });
    let printed = || {
        let log = dir.owned().ok()?.read(VMM_LOG, MAX_WORDS).ok()?;
        let text = String::from_utf8_lossy(&log).trim_end().to_owned();
        text.lines().next_back().filter(|line| !line.is_empty()).map(str::to_owned)
    };
    match ended.or_else(printed) {
        Some(words) => words,
        None => format!("the VMM (process {pid}) died without a word"),
    }
}
