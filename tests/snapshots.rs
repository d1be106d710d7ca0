//! Volumes and snapshots by the command line: what is in them, what they share, and what is
//! refused. qemu-img referees the files.

mod common;

use common::images::refused;
use common::volumes::*;
use common::{Store, has_kvm};
use serde_json::Value;

#[test]
fn a_snapshot_is_a_volume_at_one_moment_and_shares_what_did_not_change() {
    let store = Store::new();
    let (path, mut content) = disk(&store, 8);
    let base = one(&store.ok(&["snapshot", "import", path.to_str().unwrap()]));
    let vol = one(&store.ok(&["volume", "create", "--snapshot", &base, "--tag", "Name=v"]));
    assert!(volume_content(&store, &vol) == content);
    let mut taken: Vec<(String, Vec<u8>)> = vec![(base.clone(), content.clone())];
    for n in 0..5u8 {
        let at = 4096 * (100 * usize::from(n) + 7);
        content[at..at + 5000].fill(0xa0 + n);
        write(&store, &vol, at as u64 / 512 * 512, &content[at / 512 * 512..at / 512 * 512 + 5120]);
        let snap = one(&store.ok(&["snapshot", "create", "v", "--description", "step"]));
        taken.push((snap, content.clone()));
    }
    for (id, content) in &taken {
        assert!(snapshot_content(&store, id) == *content, "{id}");
        referee_snapshot(&store, id, content);
    }
    store.ok(&[
        &["snapshot", "verify"][..],
        &taken.iter().map(|(id, _)| &**id).collect::<Vec<_>>(),
    ]
    .concat());
    let deepest = snapshot(&store, &taken[5].0);
    assert_eq!(deepest.layers.len(), 5);
    assert_eq!(deepest.volume_id.unwrap().as_str(), vol);
    // What is below goes by name only: parents and the volume itself may go.
    for (id, _) in &taken[..5] {
        store.ok(&["snapshot", "delete", id]);
    }
    store.ok(&["volume", "delete", &vol]);
    let again = one(&store.ok(&["volume", "create", "--snapshot", &taken[5].0]));
    assert!(volume_content(&store, &again) == content);
    store.ok(&["snapshot", "verify", &taken[5].0]);
    write(&store, &again, 0, &[9; 512]);
    let copy = one(&store.ok(&["snapshot", "copy", &taken[5].0, "--tag", "Name=copy"]));
    store.ok(&["snapshot", "delete", &taken[5].0]);
    assert!(snapshot_content(&store, &copy) == content);
    let child = one(&store.ok(&["snapshot", "create", &again]));
    content[..512].fill(9);
    referee_snapshot(&store, &child, &content);
}

#[test]
fn an_unchanged_volume_adds_no_layer() {
    let store = Store::new();
    let (path, content) = disk(&store, 2);
    let base = one(&store.ok(&["snapshot", "import", path.to_str().unwrap()]));
    let vol = one(&store.ok(&["volume", "create", "--snapshot", &base]));
    let snap = one(&store.ok(&["snapshot", "create", &vol]));
    assert_eq!(snapshot(&store, &snap).layers.len(), 0);
    assert_eq!(snapshot(&store, &snap).digest, snapshot(&store, &base).digest);
    assert!(snapshot_content(&store, &snap) == content);
    assert_eq!(inner(&store).volumes().resolve(&vol).unwrap().layers.len(), 2);
}

#[test]
fn an_empty_volume_grows_and_keeps_what_it_has() {
    let store = Store::new();
    let vol = one(&store.ok(&["volume", "create", "--size", "4M"]));
    assert!(volume_content(&store, &vol) == vec![0; 4 * MIB]);
    write(&store, &vol, 4096, &[5; 4096]);
    let snap = one(&store.ok(&["snapshot", "create", &vol]));
    refused(&store, &["volume", "resize", &vol, "--size", "3M"], "InvalidParameterValue");
    refused(&store, &["volume", "resize", &vol, "--size", "17T"], "InvalidParameterValue");
    store.ok(&["volume", "resize", &vol, "--size", "4M"]);
    store.ok(&["volume", "resize", &vol, "--size", "6M"]);
    let mut content = vec![0; 6 * MIB];
    content[4096..8192].fill(5);
    assert!(volume_content(&store, &vol) == content);
    write(&store, &vol, 5 << 20, &[6; 512]);
    content[5 << 20..(5 << 20) + 512].fill(6);
    let larger = one(&store.ok(&["snapshot", "create", &vol]));
    referee_snapshot(&store, &larger, &content);
    referee_snapshot(
        &store,
        &snap,
        &content[..4 * MIB]
            .iter()
            .enumerate()
            .map(|(at, _)| if (4096..8192).contains(&at) { 5 } else { 0 })
            .collect::<Vec<u8>>(),
    );
    refused(
        &store,
        &["volume", "create", "--snapshot", &larger, "--size", "5M"],
        "InvalidParameterValue",
    );
    refused(&store, &["volume", "create", "--size", "17T"], "InvalidParameterValue");
    refused(
        &store,
        &["volume", "create", "--snapshot", "snap-00000000000000000"],
        "InvalidSnapshot.NotFound",
    );
    refused(&store, &["snapshot", "create", "vol-00000000000000000"], "InvalidVolume.NotFound");
    refused(
        &store,
        &["snapshot", "create", &vol, "--description", &"x".repeat(256)],
        "InvalidParameterValue",
    );
}

#[test]
fn volumes_come_and_go_while_their_instance_is_stopped() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let mode = ["--append", "demo.mode=poweroff-on-button", "--transport", "mmio"];
    let id = store.launch(&mode).remove(0);
    let vol = one(&store.ok(&["volume", "create", "--size", "1M"]));
    let attach =
        |device: &str| ["volume", "attach", &vol, &id, "--device", device].map(str::to_owned);
    let attach = |device: &str| attach(device).to_vec();
    let refused_attach = |device: &str, code: &str| {
        let args = attach(device);
        refused(&store, &args.iter().map(String::as_str).collect::<Vec<_>>(), code);
    };
    refused_attach("/dev/vdb", "UnsupportedOperation");
    let root = store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let root = root.as_str().unwrap();
    refused(&store, &["volume", "detach", root], "UnsupportedOperation");
    refused(&store, &["volume", "delete", root], "VolumeInUse");
    // Under its guest, which is told.
    store.ok(&["volume", "resize", root, "--size", "2M"]);
    refused(&store, &["volume", "resize", root, "--size", "1M"], "InvalidParameterValue");
    let shown: Value =
        serde_json::from_str(&store.ok(&["volume", "show", root, "-o", "json"])).unwrap();
    assert_eq!(shown["Volumes"][0]["Spore"]["SizeBytes"], 2 << 20);
    store.wait_for_text(&id, "button: waiting");
    store.ok(&["stop", &id]);
    refused_attach("/dev/vda", "InvalidParameterValue");
    refused_attach("../vdb", "InvalidParameterValue");
    store.ok(&attach("/dev/vdb").iter().map(String::as_str).collect::<Vec<_>>());
    refused_attach("/dev/vdc", "VolumeInUse");
    refused(&store, &["volume", "delete", &vol], "VolumeInUse");
    let mapped = store.describe(&id)["BlockDeviceMappings"].clone();
    assert_eq!(mapped[0]["Ebs"]["DeleteOnTermination"], Value::Bool(true));
    assert_eq!(mapped[1]["Ebs"]["DeleteOnTermination"], Value::Bool(false));
    assert_eq!(mapped[1]["DeviceName"], "/dev/vdb");
    store.ok(&["start", &id]);
    let both = store.ok(&["snapshot", "create", &id, "-o", "json"]);
    let both: Value = serde_json::from_str(&both).unwrap();
    assert_eq!(both["Snapshots"].as_array().unwrap().len(), 2, "all its volumes at one instant");
    assert_eq!(both["Snapshots"][1]["VolumeId"], vol.as_str());
    store.ok(&["terminate", &id]);
    // Attached later: it stays.
    let left: Value = serde_json::from_str(&store.ok(&["volume", "ls", "-o", "json"])).unwrap();
    assert_eq!(left["Volumes"].as_array().unwrap().len(), 1);
    assert_eq!(left["Volumes"][0]["VolumeId"], vol.as_str());
    refused(&store, &["volume", "detach", &vol], "IncorrectState");
    store.ok(&["volume", "delete", &vol]);
}

/// An instance that waits for its power button, on a PCI bus.
fn on_pci(store: &Store) -> String {
    let mode = ["--append", "demo.mode=poweroff-on-button", "--transport", "pci"];
    store.launch(&mode).remove(0)
}

/// The demo guest knows nothing of hot-plug: it takes nothing, and lets go of nothing.
#[test]
fn volumes_come_to_a_running_instance_and_go_by_force_where_its_guest_does_not_help() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = on_pci(&store);
    store.wait_for_text(&id, "button: waiting");
    let volume = || one(&store.ok(&["volume", "create", "--size", "1M"]));
    let (first, second) = (volume(), volume());
    let waits = |args: &[&str], told: &str| {
        let output = store.spore(&[&["volume"], args, &["--timeout", "0"]].concat());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(124), "{args:?}: {err}");
        assert!(err.contains(told) && err.trim().lines().count() == 1, "{args:?}: {err}");
    };
    let state = |volume: &str| {
        let shown = store.ok(&["volume", "show", volume, "-o", "json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let attachment = &shown["Volumes"][0]["Attachments"][0]["State"];
        attachment.as_str().unwrap_or("detached").to_owned()
    };
    let root = store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    refused(&store, &["volume", "detach", root.as_str().unwrap()], "UnsupportedOperation");
    waits(&["attach", &first, &id, "--device", "/dev/vdb"], "attaching");
    waits(&["attach", &second, &id, "--device", "/dev/vdc"], "ACPI hot-plug");
    assert_eq!([state(&first), state(&second)], ["attaching", "attaching"]);
    refused(&store, &["volume", "attach", &first, &id, "--device", "/dev/vdd"], "VolumeInUse");
    refused(&store, &["volume", "delete", &first], "VolumeInUse");
    let both = store.ok(&["snapshot", "create", &id, "-o", "json"]);
    let both: Value = serde_json::from_str(&both).unwrap();
    assert_eq!(both["Snapshots"].as_array().unwrap().len(), 3, "at one instant with the root");
    waits(&["detach", &first], "--force");
    assert_eq!(state(&first), "detaching");
    store.ok(&["volume", "detach", "--force", &first]);
    assert_eq!(state(&first), "detached");
    assert_eq!(store.describe(&id)["BlockDeviceMappings"].as_array().unwrap().len(), 2);
    store.ok(&["volume", "delete", &first]);
    // The machine that goes on has the second where it was, though the first's slot is empty.
    store.ok(&["stop", "--hibernate", &id]);
    store.ok(&["start", &id]);
    assert_eq!(state(&second), "attached");
    // One that the guest holds on to is gone with the machine.
    waits(&["detach", &second], "detaching");
    store.ok(&["stop", "--force", &id]);
    assert_eq!(state(&second), "detached");
    store.ok(&["start", &id]);
    assert_eq!(store.describe(&id)["BlockDeviceMappings"].as_array().unwrap().len(), 1);
    store.ok(&["terminate", &id]);
    store.ok(&["volume", "delete", &second]);
}

/// As many as there are slots for, and over again.
#[test]
fn a_slot_that_is_given_back_is_used_again() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = on_pci(&store);
    let volumes: Vec<String> =
        (0..9).map(|_| one(&store.ok(&["volume", "create", "--size", "1M"]))).collect();
    let attach = |volume: &str, n: usize| {
        let device = format!("/dev/vd{}", char::from(b'b' + n as u8));
        let args = ["volume", "attach", volume, &id, "--device", &device, "--timeout", "0"];
        let output = store.spore(&args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (n, volume) in volumes[..8].iter().enumerate() {
        assert_eq!(attach(volume, n).0, Some(124));
    }
    let (code, err) = attach(&volumes[8], 8);
    assert!(code == Some(125) && err.contains("slots"), "{code:?} {err}");
    refused(&store, &["volume", "detach", &volumes[8]], "IncorrectState");
    for _ in 0..20 {
        store.ok(&["volume", "detach", "--force", &volumes[3]]);
        assert_eq!(attach(&volumes[3], 3).0, Some(124));
    }
    // A reset lets go of what the guest was asked for.
    let output = store.spore(&["volume", "detach", &volumes[5], "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(124));
    store.ok(&["reboot", "--force", &id]);
    store.ok(&["volume", "detach", &volumes[6], "--force"]);
    assert_eq!(store.describe(&id)["BlockDeviceMappings"].as_array().unwrap().len(), 7);
    store.ok(&["terminate", &id]);
}

#[test]
fn an_instance_without_its_root_volume_does_not_start_until_it_has_one() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    store.wait_for_text(&id, "button: waiting");
    store.ok(&["stop", &id]);
    let root = store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let root = root.as_str().unwrap();
    let snap = one(&store.ok(&["snapshot", "create", root]));
    store.ok(&["volume", "detach", root]);
    refused(&store, &["start", &id], "IncorrectInstanceState");
    let other = one(&store.ok(&["volume", "create", "--snapshot", &snap]));
    store.ok(&["volume", "attach", &other, &id, "--device", "/dev/vda"]);
    store.ok(&["start", &id]);
    store.ok(&["terminate", &id]);
}
