//! What stays of an instance and what goes: `ebs` and `instance-store` roots, changes while
//! stopped, and the space that all of it takes.

mod common;

use common::images::refused;
use common::volumes::*;
use common::{Store, has_kvm};
use serde_json::Value;

fn stopped(store: &Store) -> String {
    let id = store.launch_mode("poweroff-on-button");
    store.wait_for_text(&id, "button: waiting");
    store.ok(&["stop", &id]);
    id
}

fn usage(store: &Store, id: &str) -> (u64, u64) {
    let all: Value = serde_json::from_str(&store.ok(&["df", "-o", "json"])).unwrap();
    let objects = all["DiskUsage"].as_array().unwrap();
    let found = objects.iter().find(|object| object["ResourceId"] == id).unwrap();
    (found["SharedBytes"].as_u64().unwrap(), found["OwnBytes"].as_u64().unwrap())
}

#[test]
fn a_stopped_instance_changes_and_a_running_one_does_not() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = stopped(&store);
    store.ok(&["modify", &id, "-t", "t2.nano", "--user-data", "hello"]);
    let changed = store.describe(&id);
    assert_eq!(changed["InstanceType"], "t2.nano");
    assert_eq!(changed["CpuOptions"]["CoreCount"], 1);
    assert_eq!(changed["Spore"]["Memory"], 512u64 << 20);
    store.ok(&["modify", &id, "--delete-on-termination", "/dev/vda=false"]);
    refused(&store, &["modify", &id, "-t", "t9.huge"], "InvalidParameterValue");
    refused(&store, &["modify", &id, "--kernel", "none-such"], "InvalidAKIID.NotFound");
    refused(
        &store,
        &["modify", &id, "-t", "t2.micro", "--delete-on-termination", "/dev/vdz=true"],
        "InvalidInstanceAttributeValue",
    );
    assert_eq!(store.describe(&id)["InstanceType"], "t2.nano", "refused as a whole");
    store.ok(&["start", &id]);
    refused(&store, &["modify", &id, "-t", "t2.micro"], "IncorrectInstanceState");
    refused(&store, &["modify", &id, "--initrd", "none"], "IncorrectInstanceState");
    let root = store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    store.ok(&["terminate", &id]);
    refused(&store, &["modify", &id, "-t", "t2.micro"], "IncorrectInstanceState");
    // It was told to stay.
    store.ok(&["volume", "delete", root.as_str().unwrap()]);
}

/// The built-in guest with another driver, by what is written in it.
fn kernel_for_pci(store: &Store) -> String {
    let mut kernel = sporevm::demo::KERNEL.to_vec();
    for (from, to) in [(&b"LNRO0005"[..], &b"LNRO____"[..]), (b"virtio block", b"\0virtio-pci\0")] {
        let at = kernel.windows(from.len()).position(|window| window == from).unwrap();
        kernel[at..at + to.len()].copy_from_slice(to);
    }
    let path = store.home().join("for-pci");
    std::fs::write(&path, kernel).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_transport_follows_the_kernel() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = stopped(&store);
    let transport = || store.describe(&id)["Spore"]["Transport"].clone();
    assert_eq!(transport(), "mmio");
    store.ok(&["modify", &id, "--kernel", &kernel_for_pci(&store)]);
    assert_eq!(transport(), "pci");
}

#[test]
fn an_instance_store_root_leaves_no_trace_even_when_its_vmm_is_killed() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run =
        ["run", "demo", "-q", "-m", "128M", "--root-device-type", "instance-store", "--append"];
    let launch = |mode: &str| {
        store.ok(&[&run[..], &[&format!("demo.mode={mode}")]].concat()).trim().to_owned()
    };
    let volumes = || std::fs::read_dir(store.home().join("volumes")).unwrap().count();
    let killed = launch("write-until-killed");
    store.wait_for_text(&killed, "safe: 3 ");
    assert_eq!(volumes(), 0, "its files have no names");
    refused(&store, &["stop", &killed], "UnsupportedOperation");
    refused(&store, &["modify", &killed, "-t", "t2.nano"], "UnsupportedOperation");
    refused(&store, &["image", "create", &killed, "--name", "no-image"], "InvalidParameterValue");
    let pid = store.pid(&killed).unwrap().to_string();
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    store.wait(&killed, "terminated");
    let ended = launch("poweroff-on-button");
    store.wait_for_text(&ended, "button: waiting");
    store.ok(&["terminate", &ended]);
    let alone = store.ok(&[&run[..7], &["--wait"]].concat());
    assert_eq!(store.state(alone.trim()).0, "terminated", "a power-off of the guest ends it");
    assert_eq!(volumes(), 0);
    assert_eq!(std::fs::read_dir(store.home().join("tmp")).unwrap().count(), 0);
    refused(&store, &["start", &killed], "IncorrectInstanceState");
}

#[test]
fn a_volume_outlives_the_instance_store_root_beside_it() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let mappings = r#"[{"DeviceName": "/dev/vdb", "Ebs": {"VolumeSize": 1}},
        {"DeviceName": "/dev/vdc", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": true}}]"#;
    let run = ["run", "demo", "-q", "-m", "128M", "--block-device-mappings", mappings, "--append"];
    let id = store.ok(&[&run[..], &["demo.mode=hang"]].concat()).trim().to_owned();
    let shown = store.describe(&id)["BlockDeviceMappings"].clone();
    let mapped: Vec<&str> =
        shown.as_array().unwrap().iter().map(|m| m["DeviceName"].as_str().unwrap()).collect();
    assert_eq!(mapped, ["/dev/vdb", "/dev/vdc"], "the root is none");
    let volumes = || store.ok(&["volume", "ls", "-q"]).lines().count();
    assert_eq!(volumes(), 2);
    let kept = shown[0]["Ebs"]["VolumeId"].as_str().unwrap();
    let user = |id: &str| {
        let shown: Value =
            serde_json::from_str(&store.ok(&["volume", "show", id, "-o", "json"])).unwrap();
        shown["Volumes"][0]["Attachments"][0]["InstanceId"].as_str().map(str::to_owned)
    };
    assert_eq!(user(kept), Some(id.clone()));
    // Of the running guest's second disk: the first has no volume.
    let snapshot = store.ok(&["snapshot", "create", kept]).trim().to_owned();
    assert!(snapshot_content(&store, &snapshot).iter().all(|&byte| byte == 0));
    store.ok(&["terminate", &id]);
    assert_eq!(store.ok(&["volume", "ls", "-q"]).trim(), kept, "the other goes with the instance");
    assert_eq!(user(kept), None);
    store.ok(&["volume", "delete", kept]);
    // A launch that is undone leaves none, whatever was to become of them.
    let large = store.home().join("ramdisk");
    std::fs::write(&large, vec![7; 40 << 20]).unwrap();
    let initrd = ["run", "demo", "-m", "32M", "--initrd", large.to_str().unwrap()];
    assert!(!store.spore(&[&initrd[..], &run[5..7]].concat()).status.success());
    assert_eq!(volumes(), 0);
}

#[test]
fn only_what_was_changed_takes_space() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (path, _) = disk(&store, 16);
    let base = store.ok(&["snapshot", "import", path.to_str().unwrap()]).trim().to_owned();
    let (shared, whole) = usage(&store, &base);
    assert!(shared == 0 && whole > 10 << 20, "{shared} {whole}");
    let make = || store.ok(&["volume", "create", "--snapshot", &base]).trim().to_owned();
    let (one, two) = (make(), make());
    write(&store, &one, 0, &vec![1; MIB]);
    assert_eq!(usage(&store, &base), (whole, 0), "others have it now");
    let (shared, own) = usage(&store, &one);
    assert_eq!(shared, whole);
    assert!((1 << 20..3 << 19).contains(&own), "{own}");
    assert!(usage(&store, &two).1 < 256 << 10);
    let snap = store.ok(&["snapshot", "create", &one]).trim().to_owned();
    let (shared, own) = usage(&store, &snap);
    assert!(shared > whole + (1 << 20) && own == 0, "{shared} {own}");
    assert!(usage(&store, &one).1 < 256 << 10, "what it had is shared with its snapshot");
    store.ok(&["volume", "delete", &one]);
    assert!(usage(&store, &snap).1 >= 1 << 20);
    let id = store.launch_mode("hang");
    let (shared, own) = usage(&store, &id);
    assert!(shared >= 1 << 20 && own < 256 << 10, "{shared} {own}");
    let table = store.ok(&["df"]);
    assert!(table.lines().next().unwrap().starts_with("KIND"), "{table}");
}
