//! Instances that are hibernated and go on, by the `spore` command on this machine's /dev/kvm.

#[path = "hibernate/at_once.rs"]
mod at_once;
#[path = "hibernate/bad_files.rs"]
mod bad_files;
mod common;
#[path = "hibernate/faults.rs"]
mod faults;
#[path = "hibernate/instance_store.rs"]
mod instance_store;

use common::{Store, has_kvm};
use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// Kills at most, so that a test whose commands have no fault points ends.
const MOST_POINTS: u32 = 200;

/// Launch one whose guest never rests, with these arguments beside.
fn endure_with(store: &Store, args: &[&str]) -> String {
    let run = ["run", "demo", "-q", "--root-device-type", "ebs", "--append", "demo.mode=endure"];
    let id = store.ok(&[&run[..], args].concat()).trim().to_owned();
    store.wait_for_text(&id, "endure: begins");
    id
}

fn endure(store: &Store) -> String {
    endure_with(store, &["-m", "32M"])
}

/// The last count that the guest has printed.
fn rounds(log: &str) -> u64 {
    let lines = log.lines().filter_map(|line| line.strip_prefix("endure: "));
    let mut counts = lines.filter_map(|line| line.split(" rounds").next()?.parse().ok());
    counts.next_back().unwrap_or(0)
}

/// Wait until the guest has counted beyond `count`.
fn counts_on(store: &Store, id: &str, count: u64) -> u64 {
    for _ in 0..6000 {
        let log = store.logs(id);
        assert!(!log.contains("FAILED"), "{log}");
        if rounds(&log) > count {
            return rounds(&log);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no more than {count} rounds:\n{}\n{}", store.logs(id), store.vmm_logs(id));
}

/// The generation IDs that the guest has printed.
fn generations(log: &str) -> HashSet<&str> {
    log.lines().filter_map(|line| line.strip_prefix("generation: ")).collect()
}

/// The counts of the guest's other processors in the last line that has them.
fn others(log: &str) -> Vec<u64> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("endure: "));
    let mut counts = lines.filter_map(|line| line.split_once("counts [")?.1.strip_suffix(']'));
    let last = counts.next_back().unwrap_or_default();
    last.split(", ").filter(|count| !count.is_empty()).map(|count| count.parse().unwrap()).collect()
}

/// CPUs and transport of the guests that are hibernated again and again.
const MACHINES: [(&str, &str); 6] =
    [("1", "mmio"), ("1", "pci"), ("2", "pci"), ("2", "mmio"), ("4", "mmio"), ("4", "pci")];

/// Each is hibernated four times, all together HIBERNATIONS times if that is set.
#[test]
fn a_hibernated_guest_goes_on_where_it_was() {
    if !has_kvm() {
        return;
    }
    let wanted = std::env::var("HIBERNATIONS").ok().and_then(|n| n.parse::<u64>().ok());
    let cycles = wanted.map_or(4, |all| all.div_ceil(MACHINES.len() as u64));
    for (cpus, transport) in MACHINES {
        // A store each: its console log is read whole again and again.
        let store = Store::new();
        let id = endure_with(&store, &["-m", "32M", "--cpus", cpus, "--transport", transport]);
        let mut count = counts_on(&store, &id, 0);
        for cycle in 0..cycles {
            // At any moment of the guest's.
            let moment = RandomState::new().hash_one(cycle) % 97;
            std::thread::sleep(Duration::from_millis(moment));
            store.ok(&["stop", "--hibernate", &id]);
            let (state, reason) = store.state(&id);
            assert_eq!(state, "stopped");
            assert!(reason.contains("Client.UserInitiatedHibernate"), "{reason}");
            let before = others(&store.logs(&id));
            store.ok(&["start", &id]);
            count = counts_on(&store, &id, count);
            // It looks for one after it has counted, and the others may be slower.
            let arrived = || {
                let log = store.logs(&id);
                let after = others(&log);
                let on =
                    before.len() == after.len() && before.iter().zip(&after).all(|(b, a)| a > b);
                on && generations(&log).len() as u64 == 2 + cycle
            };
            while !arrived() {
                let log = store.logs(&id);
                assert!(rounds(&log) < count + 6400 && !log.contains("FAILED"), "{moment}: {log}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        store.ok(&["stop", &id]);
        let log = store.logs(&id);
        assert!(log.contains("endure: whole after"), "{log}\n{}", store.vmm_logs(&id));
        assert_eq!(log.matches("endure: begins").count(), 1, "it booted but once");
        assert_eq!(others(&log).len() + 1, cpus.parse::<usize>().unwrap(), "{log}");
        let ids = generations(&log);
        assert_eq!(ids.len() as u64, 1 + cycles, "each time another generation ID: {ids:?}");
        println!("{cpus} CPUs, {transport}: {cycles} cycles, {} rounds", rounds(&log));
    }
}

/// Files of that name below the store.
fn find(store: &Store, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![store.home().to_owned()], Vec::new());
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if wanted(&entry.file_name().to_string_lossy()) {
                found.push(path);
            }
        }
    }
    found
}

fn memory(store: &Store) -> PathBuf {
    let found = find(store, |name| name == "memory");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The one line with which `start` refuses.
fn refusal(store: &Store, id: &str) -> String {
    let output = store.spore(&["start", id]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("'spore start --cold {id}'")), "{said}");
    assert_eq!(store.state(id).0, "stopped");
    assert!(store.state(id).1.contains("UserInitiatedHibernate"), "{:?}", store.state(id));
    said
}

#[test]
fn a_volume_that_has_moved_on_is_not_resumed_over() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    counts_on(&store, &id, 0);
    store.ok(&["stop", "--hibernate", &id]);
    let overlay = find(&store, |name| name.starts_with("overlay-"));
    let modified = overlay[0].metadata().unwrap().modified().unwrap();
    let overlay = File::options().write(true).open(&overlay[0]).unwrap();
    overlay.set_modified(modified + Duration::from_secs(1)).unwrap();
    assert!(refusal(&store, &id).contains("has changed since"));
    store.ok(&["start", "--cold", &id]);
    store.wait_for_text(&id, "endure: begins");
    assert!(find(&store, |name| name == "memory").is_empty(), "it is dropped");
    assert_eq!(store.state(&id).0, "running");
}

#[test]
fn nothing_takes_volumes_or_machine_away_under_its_memory() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    let count = counts_on(&store, &id, 0);
    let volume = store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let volume = volume.as_str().unwrap().to_owned();
    let other = store.ok(&["volume", "create", "--size", "1"]).trim().to_owned();
    store.ok(&["stop", "--hibernate", &id]);
    for args in [
        &["image", "create", &id, "--name", "image"][..],
        &["snapshot", "create", &volume],
        &["volume", "resize", &volume, "--size", "2"],
        &["volume", "attach", &other, &id, "--device", "/dev/vdb"],
        &["modify", &id, "--cpus", "3"],
        &["modify", &id, "-m", "256M"],
        &["modify", &id, "-t", "m5.large"],
        &["modify", &id, "--kernel", "none"],
        &["modify", &id, "--kernel", "aki-pv-grub-hd0"],
    ] {
        let output = store.spore(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("IncorrectInstanceState") && said.contains("--cold"), "{said}");
    }
    store.ok(&["start", &id]);
    counts_on(&store, &id, count);
}

#[test]
fn a_vmm_killed_as_it_is_hibernated_leaves_it_cold() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    for pause in [0, 3, 10, 30, 100] {
        counts_on(&store, &id, 0);
        let pid = store.pid(&id).unwrap();
        let mut command = store.command(&["stop", "--hibernate", &id]);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        child.wait().unwrap();
        let (state, reason) = store.state(&id);
        assert_eq!(state, "stopped", "{reason}");
        // It is hibernated with its memory, or cold without.
        let kept = !find(&store, |name| name == "memory").is_empty();
        let told = store.describe(&id)["Spore"]["Hibernated"].is_object();
        assert_eq!(told, kept, "{reason}");
        store.ok(&["start", &id]);
    }
}

/// The process that `command` has started last.
fn child_of(command: u32) -> Option<rustix::process::Pid> {
    let threads = fs::read_dir(format!("/proc/{command}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| {
        fs::read_to_string(thread.path().join("children"))
            .ok()?
            .split_whitespace()
            .next_back()?
            .parse()
            .ok()
    });
    children.max().and_then(rustix::process::Pid::from_raw)
}

/// Kills a process, and waits until none of its threads holds anything any more: kill(2) returns
/// before, and its first thread may end before the others.
fn kill_and_wait(process: rustix::process::Pid) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return };
    let _ = pidfd_send_signal(&process, Signal::KILL);
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
}

#[test]
fn a_vmm_killed_as_it_goes_on_leaves_it_hibernated_or_cold() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    let mut count = counts_on(&store, &id, 0);
    for pause in (0..60).step_by(3) {
        store.ok(&["stop", "--hibernate", &id]);
        let mut start = store.command(&["start", &id]);
        let mut start = start.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while start.try_wait().unwrap().is_none() {
            if let Some(vmm) = child_of(start.id()) {
                std::thread::sleep(Duration::from_millis(pause));
                kill_and_wait(vmm);
                break;
            }
        }
        let output = start.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.lines().count() <= 1, "{said}");
        let (state, reason) = store.state(&id);
        let kept = !find(&store, |name| name == "memory").is_empty();
        let told = store.describe(&id)["Spore"]["Hibernated"].is_object();
        assert_eq!(told, kept, "{reason}");
        if state == "running" {
            // The command was quicker.
            count = counts_on(&store, &id, count);
            continue;
        }
        assert_eq!(state, "stopped", "{reason}");
        let begun = store.logs(&id).matches("endure: begins").count();
        store.ok(&["start", &id]);
        count = counts_on_or_anew(&store, &id, count, begun, kept);
    }
}

/// Wait until the guest has counted beyond `count`, or again, if its memory was not `kept`: it had
/// `begun` so many times.
fn counts_on_or_anew(store: &Store, id: &str, count: u64, begun: usize, kept: bool) -> u64 {
    if kept {
        let count = counts_on(store, id, count);
        assert_eq!(self::begun(&store.logs(id)), begun, "it went on");
        return count;
    }
    while self::begun(&store.logs(id)) == begun {
        std::thread::sleep(Duration::from_millis(10));
    }
    counts_on(store, id, 0)
}

/// How many times the guest has begun.
fn begun(log: &str) -> usize {
    log.matches("endure: begins").count()
}
