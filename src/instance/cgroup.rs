//! CgroupLimits of an instance by a control group of its own. (Linux,
//! Documentation/admin-guide/cgroup-v2.rst)
//!
//! The group is made where this user may make one: below the nearest group, from the launcher's own
//! upwards, that is the user's to write and hands the controllers on. Where none does but the
//! launcher's own could, the launcher moves into a child of it first, for a group that hands
//! controllers on has no processes ("No Internal Process Constraint"). A group is removed by
//! whoever finds its VM ended.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::record::limits::CgroupLimits;
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Microseconds in which a quota is measured, the kernel's own.
const PERIOD: u64 = 100_000;
/// How long the last thread of a process may take to leave a group.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const TICK: Duration = Duration::from_millis(1);

impl CgroupLimits {
    fn controllers(&self) -> Vec<&'static str> {
        let cpu = self.cpu_quota.map(|_| "cpu");
        cpu.into_iter().chain(self.memory_max.map(|_| "memory")).collect()
    }
}

/// Make the group of an instance. What is there of its last run is taken again.
///
/// # Errors
/// `UnsupportedOperation`: this user can make none here; the line says what is missing.
pub fn make(id: &InstanceId, limits: &CgroupLimits) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").or_fail(|| "read the mounts")?;
    let own = fs::read_to_string("/proc/self/cgroup").or_fail(|| "read the control group")?;
    let root = mount(&mounts).ok_or_else(|| missing(limits, "cgroup v2 is not mounted"))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    make_at(&root, own, id, limits)
}

/// Where cgroup v2 is mounted. (proc_pid_mountinfo(5))
fn mount(mounts: &str) -> Option<PathBuf> {
    let of = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let is = after.split(' ').next() == Some("cgroup2");
        before.split(' ').nth(4).filter(|_| is).map(PathBuf::from)
    };
    mounts.lines().find_map(of)
}

fn make_at(root: &Path, own: &str, id: &InstanceId, limits: &CgroupLimits) -> Result<PathBuf> {
    let own = root.join(own.trim_start_matches('/'));
    let needed = limits.controllers();
    let mut within = own.ancestors().take_while(|dir| dir.starts_with(root));
    let hands_on = |dir: &&Path| is_ours(dir) && lists(dir, "cgroup.subtree_control", &needed);
    let parent = match within.find(hands_on) {
        Some(parent) => parent,
        None => {
            hand_on(&own, &needed).map_err(|why| missing(limits, &why))?;
            own.as_path()
        }
    };
    let group = parent.join(format!("spore-{id}"));
    let set = || -> io::Result<()> {
        match fs::create_dir(&group) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if let Some(percent) = limits.cpu_quota {
            let quota = u64::from(percent) * PERIOD / 100;
            fs::write(group.join("cpu.max"), format!("{quota} {PERIOD}"))?;
        }
        if let Some(bytes) = limits.memory_max {
            fs::write(group.join("memory.max"), bytes.to_string())?;
        }
        Ok(())
    };
    set().map_err(|error| {
        remove(&group);
        missing(limits, &format!("{} can't be made: {error}", group.display()))
    })?;
    Ok(group)
}

/// Whether this user may put processes and groups into it.
fn is_ours(dir: &Path) -> bool {
    let writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    writable(dir) && writable(&dir.join("cgroup.procs"))
}

/// Whether one of a group's lists has all these controllers.
fn lists(dir: &Path, file: &str, needed: &[&str]) -> bool {
    let listed = fs::read_to_string(dir.join(file)).unwrap_or_default();
    needed.iter().all(|controller| listed.split_whitespace().any(|word| word == *controller))
}

/// Have the launcher's own group hand controllers on, the launcher in a child of it. Why not.
fn hand_on(own: &Path, needed: &[&str]) -> Result<(), String> {
    let shown = own.display();
    if !is_ours(own) {
        return Err(format!("{shown} is not this user's to write"));
    }
    if !lists(own, "cgroup.controllers", needed) {
        return Err(format!("{shown} does not have them"));
    }
    let leaf = own.join("spore");
    let enable: Vec<String> = needed.iter().map(|controller| format!("+{controller}")).collect();
    let attempt = || -> io::Result<()> {
        match fs::create_dir(&leaf) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        fs::write(leaf.join("cgroup.procs"), "0")?;
        fs::write(own.join("cgroup.subtree_control"), enable.join(" "))
    };
    attempt().map_err(|error| {
        let _ = fs::write(own.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&leaf);
        format!("{shown} can't hand them on, or has other processes: {error}")
    })
}

fn missing(limits: &CgroupLimits, why: &str) -> Error {
    Error::refused(
        Code::UnsupportedOperation,
        format!(
            "`CpuQuota` and `MemoryMax` need a control group (v2) with {} that is this user's: {why}; run spore within \
             'systemd-run --user --scope -p Delegate=yes'",
            limits.controllers().join(" and ")
        ),
    )
}

/// Put a process into the group.
///
/// # Errors
/// It is gone, or the group is.
pub fn join(group: &Path, pid: u32) -> Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
        .or_fail(|| format!("put a VMM into {}", group.display()))
}

/// Remove a group whose process has ended or is about to: the kernel lets go of a dead VMM's lock
/// before it takes its last thread out of the group, and a quota holds that back too. Failing is
/// harmless: an empty group costs nothing.
pub fn remove(group: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = fs::remove_dir(group) {
        let busy = error.kind() == io::ErrorKind::ResourceBusy;
        if !busy || Instant::now() > deadline {
            return;
        }
        // There is none where the CPU is not limited.
        let _ = fs::write(group.join("cpu.max"), "max");
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy of ordinary files; each group is (path, controllers, what it hands on).
    fn hierarchy(groups: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, controllers, handed) in groups {
            let dir = root.path().join(path);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cgroup.procs"), "").unwrap();
            fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
            fs::write(dir.join("cgroup.subtree_control"), handed).unwrap();
        }
        root
    }

    fn id() -> InstanceId {
        "i-00000000000000001".parse().unwrap()
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    const BOTH: CgroupLimits = CgroupLimits { cpu_quota: Some(150), memory_max: Some(1 << 30) };

    #[test]
    fn the_nearest_group_that_hands_on_gets_it() {
        let root = hierarchy(&[
            ("", "cpu memory pids", "cpu memory pids"),
            ("app", "cpu memory pids", "cpu memory"),
            ("app/shell", "cpu memory", ""),
        ]);
        let group = make_at(root.path(), "/app/shell", &id(), &BOTH).unwrap();
        assert_eq!(group, root.path().join("app/spore-i-00000000000000001"));
        assert_eq!(read(&group.join("cpu.max")), "150000 100000");
        assert_eq!(read(&group.join("memory.max")), "1073741824");
        join(&group, 4711).unwrap();
        assert_eq!(read(&group.join("cgroup.procs")), "4711");
        // It is there from an earlier run.
        assert_eq!(make_at(root.path(), "/app/shell", &id(), &BOTH).unwrap(), group);
        let memory = CgroupLimits { cpu_quota: None, memory_max: Some(64 << 20) };
        assert!(make_at(root.path(), "/app", &id(), &memory).is_ok());
    }

    #[test]
    fn a_launcher_makes_room_in_its_own_group() {
        let root = hierarchy(&[("", "cpu", "cpu"), ("own", "cpu memory", "")]);
        let group = make_at(root.path(), "/own", &id(), &BOTH).unwrap();
        assert_eq!(group.parent().unwrap(), root.path().join("own"));
        assert_eq!(read(&root.path().join("own/spore/cgroup.procs")), "0");
        assert_eq!(read(&root.path().join("own/cgroup.subtree_control")), "+cpu +memory");
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = hierarchy(&[("", "cpu", "cpu"), ("own", "cpu", "")]);
        let error = make_at(root.path(), "/own", &id(), &BOTH).unwrap_err();
        assert_eq!(error.code(), Some(Code::UnsupportedOperation));
        assert!(error.message().contains("with cpu and memory"), "{error}");
        assert!(error.message().contains("own does not have them"), "{error}");
        let nowhere = make_at(root.path(), "/gone", &id(), &BOTH).unwrap_err();
        assert!(nowhere.message().contains("gone is not this user's"), "{nowhere}");
    }

    #[test]
    fn the_second_version_is_found_beside_the_first() {
        let mounts = "31 23 0:27 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu\n\
                      42 23 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mounts).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount("31 23 0:27 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
