//! The built-in image and a hostile guest, whole: through the `spore` command on this machine's
//! /dev/kvm.

mod common;

use common::{Store, field, has_kvm, hostile};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest that a demo guest prints of a root nobody has changed.
fn root_digest() -> String {
    let root = sporevm::demo::root();
    hex(&root[..root.len() - 512])
}

#[test]
fn four_clones_have_one_digest_and_four_identities() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let ids = store.launch(&["-n", "4", "--wait"]);
    assert_eq!(ids.len(), 4);
    let mut noise = HashSet::new();
    for (index, id) in ids.iter().enumerate() {
        let log = store.logs(id);
        assert_eq!(field(&log, "spore demo: "), format!("{id} launch index {index}"));
        assert_eq!(field(&log, "root: sha256 "), root_digest());
        assert_eq!(field(&log, "identity: first"), "boot");
        assert!(log.contains("identity: written, flushed, read back"), "{log}");
        let volume = store.describe(id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
        let serial = field(&log, "root: vol").split(',').next().unwrap();
        assert_eq!(volume.as_str().unwrap(), format!("vol{serial}"));
        noise.insert(field(&log, "rng: ").to_owned());
        assert_eq!(store.state(id).0, "stopped");
        assert_eq!(store.pid(id), None);
    }
    assert_eq!(noise.len(), 4, "the entropy devices gave the same bytes");
}

#[test]
fn a_followed_log_ends_with_the_instance() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    let follow = |id: &str| {
        let mut command = store.command(&["logs", "-f", id]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut early = follow(&id);
    // It has begun to follow once it has said something.
    let mut said = vec![0];
    let mut from = early.stdout.take().unwrap();
    from.read_exact(&mut said).unwrap();
    store.ok(&["stop", &id]);
    from.read_to_end(&mut said).unwrap();
    assert!(early.wait().unwrap().success());
    let late = follow(&id).wait_with_output().unwrap();
    assert!(late.status.success());
    assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(&late.stdout));
    assert!(store.logs(&id).contains("button: pressed"), "{}", store.logs(&id));
}

/// With a /tmp of its own to look into, which takes a user namespace.
#[test]
fn nothing_is_left_outside_the_store() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    // A checkout may lie in /tmp itself.
    let inside = "mount --rbind /tmp /mnt && mount -t tmpfs none /tmp || exit 77
        case $SPORE in /tmp/*) SPORE=/mnt${SPORE#/tmp} ;; esac
        case $SPORE_HOME in /tmp/*) SPORE_HOME=/mnt${SPORE_HOME#/tmp} ;; esac
        mkdir -m 700 /tmp/home /tmp/run || exit 1
        export HOME=/tmp/home TMPDIR=/tmp
        for runtime in '' /tmp/run; do
            export XDG_RUNTIME_DIR=$runtime
            ids=$(\"$SPORE\" run demo -n 2 -q --append demo.mode=hang) || exit 1
            \"$SPORE\" terminate $ids || exit 1
            \"$SPORE\" run demo --rm --wait || exit 1
            \"$SPORE\" run demo -m 4M && exit 1
            \"$SPORE\" doctor || exit 1
        done > /dev/null 2>&1
        find /tmp -mindepth 1 | sort";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", inside]).env("SPORE", env!("CARGO_BIN_EXE_spore"));
    let output = command.env("SPORE_HOME", store.home()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || said.contains("unshare failed") {
        return common::skip::skip_anywhere("user namespaces are not allowed here");
    }
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/tmp/home\n/tmp/run\n");
}

#[test]
fn a_started_instance_finds_what_it_wrote() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch(&["--wait"]).remove(0);
    for boot in 2..4 {
        store.ok(&["start", &id]);
        store.wait(&id, "stopped");
        let log = store.logs(&id);
        assert!(log.contains(&format!("identity: boot {boot} of {id}")), "{log}");
    }
    assert_eq!(store.logs(&id).matches(&root_digest()).count(), 3);
}

#[test]
fn rm_terminates_when_the_guest_powers_off() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch(&["--rm"]).remove(0);
    store.wait(&id, "terminated");
    assert_eq!(store.state(&id).0, "terminated");
}

#[test]
fn every_kind_of_reset_restarts_the_machine_in_the_same_process() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for (mode, by) in
        [("reset", "acpi"), ("reset-cf9", "0xcf9"), ("reset-i8042", "keyboard controller")]
    {
        let id = store.launch_mode(mode);
        store.wait(&id, "stopped");
        let log = store.logs(&id);
        assert!(log.contains("reset: boot 1\n") && log.contains("reset: boot 2\n"), "{log}");
        assert!(!log.contains("boot 3"), "{log}");
        let told = store.vmm_logs(&id).to_lowercase();
        assert!(told.contains("reset") && told.contains(by), "{mode}: {told}");
    }
}

#[test]
fn guest_failures_are_told_as_what_they_are() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for (mode, reason) in [("panic", "panic"), ("triple-fault", "triple fault")] {
        let id = store.launch_mode(mode);
        store.wait(&id, "stopped");
        let (state, why) = store.state(&id);
        assert_eq!(state, "stopped", "{why}");
        assert!(why.contains(reason), "{mode}: {why}");
    }
}

#[test]
fn a_hung_guest_is_terminated_and_reset() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for mode in ["hang", "halt"] {
        let id = store.launch_mode(mode);
        let pid = store.pid(&id).expect("a VMM");
        assert_eq!(store.state(&id).0, "running");
        store.ok(&["reboot", "--force", &id]);
        assert_eq!(store.pid(&id), Some(pid), "a reset is not a new process");
        store.ok(&["terminate", &id]);
        assert_eq!(store.state(&id).0, "terminated");
        // Its parent may not have collected it yet; a process that has ended has no command line.
        let left = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(left.is_empty(), "VMM {pid} still runs");
    }
}

#[test]
fn stop_presses_the_power_button() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    store.wait_for_text(&id, "button: waiting");
    store.ok(&["stop", &id]);
    assert_eq!(store.state(&id).0, "stopped");
    assert!(store.logs(&id).contains("button: pressed"));
}

#[test]
fn stop_forces_a_guest_that_does_not_listen() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("hang");
    store.ok(&["stop", "--timeout", "100ms", &id]);
    assert_eq!(store.state(&id).0, "stopped");
}

#[test]
fn a_killed_vmm_is_noticed_by_the_next_command() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("halt");
    let pid = store.pid(&id).expect("a VMM").to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    store.wait(&id, "stopped");
    let (state, why) = store.state(&id);
    assert_eq!(state, "stopped", "{why}");
    assert!(!why.is_empty());
    assert_eq!(store.pid(&id), None);
}

/// What a guest says is safe is there after kill -9: each sector holds the number that it was last
/// said to hold, or a later one that was on its way.
#[test]
fn flushed_sectors_survive_kill_9() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("write-until-killed");
    store.wait_for_text(&id, "safe: 100 at");
    let pid = store.pid(&id).expect("a VMM").to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    store.wait(&id, "stopped");
    let log = store.logs(&id);
    let complete = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let safe: Vec<(u64, u64)> = complete
        .filter_map(|line| line.trim_end().strip_prefix("safe: ")?.split_once(" at "))
        .map(|(n, at)| (n.parse().unwrap(), at.parse().unwrap()))
        .collect();
    assert!(safe.len() >= 100);
    let disk = overlay_content(&store, &id);
    for (n, at) in safe {
        let sector = &disk[at as usize * 512..][..512];
        let words: HashSet<u64> =
            sector.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
        assert!(
            words.len() == 1 && words.iter().all(|&w| w >= n),
            "sector {at}: {words:?} not {n}"
        );
    }
}

/// The root volume of a stopped instance, checked and read by qemu-img.
fn overlay_content(store: &Store, id: &str) -> Vec<u8> {
    let volume = store.describe(id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let dir = find(store.home(), volume.as_str().unwrap());
    let record = std::fs::read(dir.join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let overlay = dir.join(record["Layers"][0]["File"].as_str().unwrap());
    let raw = store.home().join(format!("{id}.raw"));
    let qemu_img = |args: &[&str], files: &[&Path]| {
        let output = Command::new("qemu-img").args(args).args(files).output();
        let output = output.expect("qemu-img (package qemu-utils) referees this test");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    qemu_img(&["check", "-q", "-f", "qcow2"], &[&overlay]);
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &[&overlay, &raw]);
    std::fs::read(raw).unwrap()
}

/// The directory called `name` somewhere below `dir`.
fn find(dir: &Path, name: &str) -> PathBuf {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    panic!("no {name} below {}", dir.display());
}

#[test]
fn random_requests_leave_what_qemu_img_reads_too() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for (engine, cpus, seed) in [("auto", "1", 1), ("sync", "2", 2), ("auto", "4", 3)] {
        let append = format!("demo.mode=stress demo.ops=2000 demo.seed={seed}");
        let id = store.launch(&["--engine", engine, "-c", cpus, "--append", &append]).remove(0);
        store.wait(&id, "stopped");
        let log = store.logs(&id);
        let digest = log.rsplit("sha256 ").next().unwrap().trim();
        assert_eq!(hex(&overlay_content(&store, &id)), digest, "{log}");
    }
}

#[test]
fn every_pasted_byte_comes_back_in_order() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("echo");
    store.wait_for_text(&id, "echo: ready");
    let text: Vec<u8> = (0..64 << 10).map(|n| b' ' + (n % 95 + n / 95) as u8 % 95).collect();
    let mut console = store.command(&["console", &id]);
    let mut child = console.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let paste = [&text[..], &[4]].concat();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&paste).unwrap();
        stdin
    });
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    drop(writer.join().unwrap());
    child.wait().unwrap();
    store.wait(&id, "stopped");
    assert!(back.windows(text.len()).any(|window| window == text), "{} bytes back", back.len());
    let log = store.logs(&id);
    assert!(log.contains(&format!("echo: 65536 bytes, sha256 {}", hex(&text))));
}

#[test]
fn all_processors_come_up() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for cpus in [1, 2, 3, 4, 64] {
        let id = store.launch(&["-c", &cpus.to_string(), "--wait"]).remove(0);
        let log = store.logs(&id);
        assert!(log.contains(&format!("machine: {cpus} cpus, ")), "{log}");
        assert!(log.contains("done: "), "{log}");
    }
}

#[test]
fn memory_from_16_mib_to_beyond_4_gib_is_all_there() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run = |memory: &str, more: &[&str]| {
        let args = [&["run", "demo", "-q", "-m", memory][..], more].concat();
        let id = store.ok(&args).trim().to_owned();
        store.wait(&id, "exit");
        store.logs(&id)
    };
    let log = run("16M", &[]);
    assert_eq!(field(&log, "root: sha256 "), root_digest());
    for (memory, mib) in [("128M", 127), ("3G", 3071), ("5G", 5119)] {
        let log = run(memory, &["--append", "demo.mode=memory"]);
        assert!(log.contains(&format!("memory: {mib} MiB")), "{log}");
    }
}

#[test]
fn a_hostile_guest_stops_its_devices_and_nothing_else() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let elf = hostile::build(&store);
    let id = store.launch(&["--kernel", elf.to_str().unwrap()]).remove(0);
    store.wait(&id, "exit");
    let (log, told) = (store.logs(&id), store.vmm_logs(&id));
    assert!(log.contains("hostile: done, "), "{log}\n{told}");
    assert!(told.contains("stopped until the guest resets it"), "{told}");
    assert_eq!(store.state(&id).0, "stopped");
    overlay_content(&store, &id);
}
