//! Images of instances: of stopped ones, of running ones that are rebooted, and of running ones
//! that never notice.

mod common;

use common::images::refused;
use common::volumes::*;
use common::{Store, has_kvm};
use serde_json::Value;
use std::collections::BTreeMap;

fn image(store: &Store, id: &str) -> Value {
    let all: Value = serde_json::from_str(&store.ok(&["image", "show", id, "-o", "json"])).unwrap();
    all["Images"][0].clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The snapshot of an image's device.
fn snapshot_of(image: &Value, device: &str) -> String {
    let mappings = image["BlockDeviceMappings"].as_array().unwrap();
    let mapping = mappings.iter().find(|m| m["DeviceName"] == device).unwrap();
    text(&mapping["Ebs"]["SnapshotId"])
}

fn root_of(store: &Store, id: &str) -> String {
    text(&store.describe(id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])
}

/// The highest number that the writing guest said is safe.
fn safe(store: &Store, id: &str) -> u64 {
    let logs = store.logs(id);
    let lines = logs.lines().filter_map(|line| line.strip_prefix("safe: "));
    let numbers = lines.filter_map(|line| line.split(' ').next()?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// How far the guest had come in `content`, which has to have everything up to there and nothing
/// beyond: sector `n % (sectors - 1)` has the number n in each of its words.
fn progress(content: &[u8], before: &[u8]) -> u64 {
    let sectors = content.len() as u64 / 512;
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    for (at, sector) in content.chunks(512).enumerate() {
        let first = u64::from_le_bytes(sector[..8].try_into().unwrap());
        if sector == &before[at * 512..][..512] {
            continue;
        }
        assert!(sector.chunks(8).all(|w| w == &sector[..8]), "sector {at} is torn");
        assert_eq!(first % (sectors - 1), at as u64, "sector {at} has what is another's");
        numbers.insert(first, at as u64);
    }
    let last = numbers.keys().next_back().copied().unwrap_or(0);
    let first = last.saturating_sub(sectors - 2).max(1);
    for n in first..=last {
        assert!(numbers.contains_key(&n), "{n} is lost, {last} is there");
    }
    last
}

#[test]
fn an_image_of_a_stopped_instance_carries_its_changes() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    store.wait_for_text(&id, "button: waiting");
    store.ok(&["stop", &id]);
    let vol =
        store.ok(&["volume", "create", "--size", "2M", "--volume-type", "io2"]).trim().to_owned();
    store.ok(&["volume", "attach", &vol, &id, "--device", "/dev/vdb"]);
    write(&store, &root_of(&store, &id), 8192, &[0x5a; 4096]);
    write(&store, &vol, 0, &[0x77; 512]);
    let made = store.ok(&[
        "image",
        "create",
        &id,
        "--name",
        "golden",
        "--description",
        "with changes",
        "--tag",
        "Env=prod",
        "--snapshot-tag",
        "Of=golden",
    ]);
    let golden = image(&store, made.trim());
    assert_eq!(golden["State"], "available");
    assert_eq!(golden["SourceInstanceId"], id.as_str());
    assert_eq!(golden["Description"], "with changes");
    assert_eq!(golden["Tags"][0]["Value"], "prod");
    assert_eq!(golden["RootDeviceType"], "ebs");
    let mapped = golden["BlockDeviceMappings"].as_array().unwrap();
    assert_eq!(mapped.len(), 2);
    assert_eq!(mapped[0]["Ebs"]["DeleteOnTermination"], true);
    assert_eq!(mapped[1]["Ebs"]["DeleteOnTermination"], false);
    assert_eq!(mapped[1]["Ebs"]["VolumeType"], "io2");
    let root = snapshot_of(&golden, "/dev/vda");
    assert_eq!(&snapshot_content(&store, &root)[8192..12288], [0x5a; 4096]);
    assert_eq!(snapshot(&store, &root).tags[0].value, "golden");
    refused(&store, &["snapshot", "delete", &root], "InvalidSnapshot.InUse");
    assert_eq!(store.state(&id).0, "stopped");

    let clones = store.ok(&[
        "run",
        "golden",
        "-n",
        "3",
        "-q",
        "-m",
        "128M",
        "--append",
        "demo.mode=poweroff-on-button",
    ]);
    for clone in clones.lines() {
        store.wait_for_text(clone, "button: waiting");
        store.ok(&["stop", clone]);
        let content = volume_content(&store, &root_of(&store, clone));
        assert_eq!(&content[8192..12288], [0x5a; 4096]);
        let second = text(&store.describe(clone)["BlockDeviceMappings"][1]["Ebs"]["VolumeId"]);
        assert_eq!(volume_content(&store, &second)[..512], [0x77; 512]);
    }
    let args: Vec<&str> = ["terminate", &id].into_iter().chain(clones.lines()).collect();
    store.ok(&args);
    store.ok(&["image", "deregister", "golden"]);
    store.ok(&["snapshot", "verify", &root]);
    store.ok(&["snapshot", "delete", &root]);
}

#[test]
fn what_cannot_be_imaged_is_refused_and_leaves_nothing() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    let ephemeral = store.ok(&["run", "demo", "-q", "-m", "128M", "--append", "demo.mode=hang"]);
    let create = |instance: &str, args: &[&str], code: &str| {
        refused(&store, &[&["image", "create", instance, "--no-reboot"], args].concat(), code);
    };
    create(ephemeral.trim(), &["--name", "new"], "InvalidParameterValue");
    create("i-00000000000000000", &["--name", "new"], "InvalidInstanceID.NotFound");
    create(&id, &["--name", "x"], "InvalidAMIName.Malformed");
    create(&id, &["--name", "demo"], "InvalidAMIName.Duplicate");
    let device = |json: &'static str| ["--name", "new", "--block-device", json];
    for json in [
        r#"{"DeviceName":"/dev/vda","NoDevice":""}"#,
        r#"{"DeviceName":"/dev/vda","Ebs":{"VolumeSize":0}}"#,
        r#"{"DeviceName":"/dev/vda","VirtualName":"ephemeral0"}"#,
        r#"{"DeviceName":"/dev/vdc","Ebs":{}}"#,
        r#"{"DeviceName":"/dev/vdc"}"#,
    ] {
        create(&id, &device(json), "InvalidBlockDeviceMapping");
    }
    let tag = format!("K={}", "x".repeat(10_000));
    create(&id, &["--name", "new", "--tag", &tag], "InvalidParameterValue");
    let images: Value = serde_json::from_str(&store.ok(&["image", "ls", "-o", "json"])).unwrap();
    assert_eq!(images["Images"].as_array().unwrap().len(), 1, "only the demo");
    store.ok(&["terminate", &id]);
    create(&id, &["--name", "new"], "IncorrectInstanceState");
}

#[test]
fn a_running_instance_is_shut_down_for_its_image_and_started_again() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    store.wait_for_text(&id, "button: waiting");
    let before = store.pid(&id);
    store.ok(&["image", "create", &id, "--name", "rebooted"]);
    assert!(store.logs(&id).contains("button: pressed"), "{}", store.logs(&id));
    assert_eq!(store.state(&id).0, "running");
    assert_ne!(store.pid(&id), before);
    assert_eq!(image(&store, "rebooted")["State"], "available");
}

#[test]
fn an_image_is_finished_by_a_process_of_its_own() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    let create = ["image", "create", &id, "--name", "later", "--no-wait"];
    let made = store.ok(&create).trim().to_owned();
    let state = || text(&image(&store, &made)["State"]);
    let in_time = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        state() != "pending"
    });
    assert!(in_time);
    assert_eq!(state(), "available");
    assert_eq!(store.state(&id).0, "running");
    refused(&store, &create, "InvalidAMIName.Duplicate");
    kill(&store, &id);
}

#[test]
fn a_guest_that_writes_on_is_frozen_at_one_moment() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("write-until-killed");
    store.wait_for_text(&id, "safe: 20 ");
    let base = volume_content_of_demo(&store);
    let pid = store.pid(&id);
    let mut images = Vec::new();
    for n in 0..4 {
        let least = safe(&store, &id);
        let name = format!("live-{n}");
        let output = store.spore(&["image", "create", &id, "--name", &name, "--no-reboot"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert!(error.contains("crash-consistent"), "{error}");
        let most = safe(&store, &id) + 1;
        let snapshot = snapshot_of(&image(&store, &name), "/dev/vda");
        let content = snapshot_content(&store, &snapshot);
        let reached = progress(&content, &base);
        assert!((least..=most).contains(&reached), "{least} {reached} {most}");
        referee_snapshot(&store, &snapshot, &content);
        images.push((name, snapshot, content));
        store.wait_for_text(&id, &format!("safe: {} ", most + 10));
    }
    assert_eq!(store.pid(&id), pid, "the guest never stopped");
    // Killed: what was safe is there, over all layers.
    let root = root_of(&store, &id);
    kill(&store, &id);
    let least = safe(&store, &id);
    let content = volume_content(&store, &root);
    assert!(progress(&content, &base) >= least);
    for (name, snapshot, content) in &images {
        assert!(snapshot_content(&store, snapshot) == *content, "{name} has changed");
        store.ok(&["snapshot", "verify", snapshot]);
        let clone = store.ok(&[
            "run",
            name,
            "-q",
            "-m",
            "128M",
            "--append",
            "demo.mode=poweroff-on-button",
        ]);
        store.wait_for_text(clone.trim(), "button: waiting");
        store.ok(&["terminate", clone.trim()]);
    }
    store.ok(&["start", &id]);
    store.wait_for_text(&id, "safe: 5 ");
}

/// The demo's root as every instance begins.
fn volume_content_of_demo(store: &Store) -> Vec<u8> {
    let demo = image(store, "demo");
    snapshot_content(store, &snapshot_of(&demo, "/dev/vda"))
}

/// End a VMM as the kernel's OOM killer does.
fn kill(store: &Store, id: &str) {
    let pid = store.pid(id).expect("a running VMM").to_string();
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    store.wait(id, "stopped");
}

#[test]
fn a_volume_whose_chain_grows_too_long_is_flattened_while_its_guest_writes() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("write-until-killed");
    store.wait_for_text(&id, "safe: 5 ");
    let base = volume_content_of_demo(&store);
    let root = root_of(&store, &id);
    let mut flat = 0;
    for n in 0..20 {
        let snap = store.ok(&["snapshot", "create", &root]);
        let record = snapshot(&store, snap.trim());
        flat += usize::from(n > 0 && record.layers.is_empty());
        assert!(record.layers.len() < sporevm::volume::MAX_LAYERS);
        progress(&snapshot_content(&store, snap.trim()), &base);
        store.ok(&["snapshot", "verify", snap.trim()]);
        store.ok(&["snapshot", "delete", snap.trim()]);
        let layers = inner(&store).volumes().resolve(&root).unwrap().layers.len();
        assert!(layers <= sporevm::volume::MAX_LAYERS + 1, "{layers} layers");
    }
    assert_eq!(flat, 1);
    let least = safe(&store, &id);
    store.wait_for_text(&id, &format!("safe: {} ", least + 20));
    kill(&store, &id);
    assert!(progress(&volume_content(&store, &root), &base) >= safe(&store, &id));
    let record = inner(&store).volumes().resolve(&root).unwrap();
    let files = std::fs::read_dir(inner(&store).volumes().dir(&record.volume_id)).unwrap().count();
    assert_eq!(files, record.layers.len() + 3, "record, lock, in-use and the chain, and no more");
    let dir = inner(&store).volumes().dir(&record.volume_id);
    referee(&dir.join(&record.layers[0].file), "qcow2", &volume_content(&store, &root));
}

#[test]
fn a_killed_command_leaves_a_failed_image_and_a_volume_that_has_everything() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("write-until-killed");
    store.wait_for_text(&id, "safe: 5 ");
    let base = volume_content_of_demo(&store);
    let root = root_of(&store, &id);
    for n in 0..25u64 {
        let name = format!("killed-{n}");
        let mut child = store
            .command(&["image", "create", &id, "--name", &name, "--no-reboot"])
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(1500 * n));
        let _ = child.kill();
        child.wait().unwrap();
        let all: Value = serde_json::from_str(&store.ok(&["image", "ls", "-o", "json"])).unwrap();
        let ours = all["Images"].as_array().unwrap().iter().find(|i| i["Name"] == name.as_str());
        if let Some(image) = ours {
            let shown = self::image(&store, &text(&image["ImageId"]));
            assert!(["failed", "available"].contains(&shown["State"].as_str().unwrap()), "{shown}");
            if shown["State"] == "failed" {
                refused(&store, &["run", &name], "InvalidAMIID.Unavailable");
            } else {
                progress(&snapshot_content(&store, &snapshot_of(&shown, "/dev/vda")), &base);
            }
        }
        let least = safe(&store, &id);
        store.wait_for_text(&id, &format!("safe: {} ", least + 2));
    }
    // And one that is let be, over whatever the others left.
    store.ok(&["image", "create", &id, "--name", "whole", "--no-reboot"]);
    let whole = snapshot_content(&store, &snapshot_of(&image(&store, "whole"), "/dev/vda"));
    progress(&whole, &base);
    kill(&store, &id);
    assert!(progress(&volume_content(&store, &root), &base) >= safe(&store, &id));
    for record in inner(&store).snapshots().list().unwrap().records {
        let id = record.snapshot_id.as_str();
        let shown: Value =
            serde_json::from_str(&store.ok(&["snapshot", "show", id, "-o", "json"])).unwrap();
        match shown["Snapshots"][0]["State"].as_str().unwrap() {
            "completed" => drop(store.ok(&["snapshot", "verify", id])),
            state => assert_eq!(state, "error"),
        }
    }
}

#[test]
fn a_guest_that_lets_nobody_in_is_not_generalized() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    let create = ["image", "create", &id, "--name", "general", "--generalize"];
    let told = |args: &[&str]| {
        let output = store.spore(&[&create[..], args].concat());
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        (output.status.code(), err)
    };
    let (code, err) = told(&["--no-reboot"]);
    assert_eq!(code, Some(2), "{err}");
    let (code, err) = told(&["--timeout", "1"]);
    assert_eq!(code, Some(125), "{err}");
    assert!(err.contains("was not generalized") && err.contains("try 'spore exec'"), "{err}");
    assert_eq!(store.state(&id).0, "running");
    store.ok(&["stop", &id]);
    let (code, err) = told(&[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("'spore start") && err.contains("has to run"), "{err}");
}

/// What a guest forgets.
const GONE: [&str; 13] = [
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "root/.ssh/authorized_keys",
    "root/.bash_history",
    "home/user/.ssh/authorized_keys2",
    "home/user/.python_history",
    "home/user/.local/share/fish/fish_history",
    "var/lib/seedrng/seed.credit",
    "var/lib/cloud/instances/i-1/sem",
    "var/lib/dbus/machine-id",
    "var/lib/dhcp/dhclient.leases",
    "var/lib/systemd/random-seed",
    "var/log/journal/1/system.journal",
];
/// Its users.
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
                  user:x:1:1::/home/user:/bin/sh\nother:x:2:2::/home/other:/bin/sh\n";
/// stat(1) of a guest that has a shared directory.
const STAT: &str = "#!/bin/sh\ncase $4 in /home/other/.ssh) echo 65735546;; *) echo ef53;; esac\n";

/// What a guest runs for it, in a tree that is like a guest's: what is this machine's alone goes,
/// and all else stays.
#[test]
fn a_guest_forgets_what_makes_it_this_machine() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/generalize.sh");
    let script = std::fs::read_to_string(script).unwrap();
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new("bwrap");
        command.arg("--bind").arg(root.path()).args(["/", "--ro-bind", "/usr", "/usr"]);
        for dir in ["bin", "lib", "lib64"] {
            command.args(["--ro-bind-try", &format!("/{dir}"), &format!("/{dir}")]);
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "--unshare-all"]).args(more);
        command.env("PATH", "/fake:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["sh", "-c", &script]).output()
    };
    let kept = [
        ("etc/passwd", PASSWD),
        ("etc/hostname", "web"),
        ("home/user/.ssh/config", "Host *"),
        ("home/user/file", "work"),
        ("srv/authorized_keys", "none of a user's"),
        ("home/other/.ssh/authorized_keys", "the host's"),
        ("fake/stat", STAT),
    ];
    let files = GONE.map(|name| (name, "x")).into_iter().chain(kept);
    for (name, content) in files.chain([("etc/machine-id", "1"), ("var/log/syslog", "x")]) {
        std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        std::fs::write(path(name), content).unwrap();
    }
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path("fake/stat"), executable).unwrap();
    std::fs::create_dir_all(path("etc/systemd/system")).unwrap();
    // One whose host keys nobody would make again keeps all that it has.
    let output = match run(&[]) {
        Ok(output) if !output.stdout.is_empty() => output,
        _ => {
            return common::skip::skip_anywhere(
                "bwrap can't make a sandbox here (package bubblewrap)",
            );
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.starts_with("spore: nothing makes SSH host keys"), "{said}");
    assert!(GONE.iter().all(|name| path(name).exists()));
    let output = run(&["--dir", "/run/systemd/system"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "spore: done\n", "{output:?}");
    assert!(output.status.success());
    for name in GONE {
        assert!(!path(name).exists(), "{name}");
    }
    for (name, content) in kept.into_iter().chain([("etc/machine-id", ""), ("var/log/syslog", "")])
    {
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), content, "{name}");
    }
    let wanted = path("etc/systemd/system/sysinit.target.wants/ssh-host-keys.service");
    assert!(std::fs::read_to_string(wanted).unwrap().contains("ssh-keygen -A"));
}
