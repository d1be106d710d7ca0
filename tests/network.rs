//! Instances with a tap of the host, by the `spore` command on this machine's /dev/kvm.

mod common;

use common::namespace::Namespace;
use common::{Store, has_kvm, hostile};
use std::process::Output;

const RUN: [&str; 8] = [
    "run",
    "demo",
    "-q",
    "-m",
    "64M",
    "--root-device-type=ebs",
    "--append=demo.mode=poweroff-on-button",
    "--network=tap:spore0",
];

/// `spore ARGS` in a network namespace.
fn spore(host: &Namespace, store: &Store, args: &[&str]) -> Output {
    let mut command = host.command(env!("CARGO_BIN_EXE_spore"), args);
    command.env("SPORE_HOME", store.home()).output().unwrap()
}

/// Its standard output; the command must succeed.
fn ok(host: &Namespace, store: &Store, args: &[&str]) -> String {
    let output = spore(host, store, args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "spore {args:?}: {err}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Refused in one line that has this, with this exit code.
fn refused(output: &Output, code: i32, why: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(why) && err.lines().count() == 1, "{err}");
}

#[test]
fn an_interface_is_its_instances_for_life() {
    let Some(host) = has_kvm().then(|| Namespace::with_taps(&["spore0", "spore1"])).flatten()
    else {
        return;
    };
    let store = Store::new();
    let id = ok(&host, &store, &[&RUN[..], &["--limit", "net.bandwidth=1M"]].concat());
    let interface = store.describe(&id)["NetworkInterfaces"][0].clone();
    let (eni, mac) = (&interface["NetworkInterfaceId"], &interface["MacAddress"]);
    let shown = store.ok(&["show", &id]);
    let line = format!("{} {} tap:spore0, link up,", eni.as_str().unwrap(), mac.as_str().unwrap());
    assert!(shown.contains(&line) && shown.contains("net.bandwidth=1048576:1048576"), "{shown}");
    // Another with the same tap, and then with one of its own.
    refused(&spore(&host, &store, &RUN), 1, "tap spore0 is in use");
    let other = ok(&host, &store, &[&RUN[..7], &["--network=tap:spore1"]].concat());
    let theirs = &store.describe(&other)["NetworkInterfaces"][0];
    assert!(theirs["MacAddress"] != *mac && theirs["NetworkInterfaceId"] != *eni);
    store.ok(&["stop", &id]);
    assert_eq!(store.describe(&id)["NetworkInterfaces"][0], interface);
    // Where its tap is not, it does not start, and is as it was.
    refused(&store.spore(&["start", &id]), 1, "there is no tap spore0");
    assert_eq!(store.state(&id).0, "stopped");
    ok(&host, &store, &["start", &id]);
    assert_eq!(store.describe(&id)["NetworkInterfaces"][0], interface);
    // Hibernation keeps it, too, and its tap is free meanwhile.
    store.ok(&["stop", "--hibernate", &id]);
    ok(&host, &store, &["start", &id]);
    assert_eq!(store.describe(&id)["NetworkInterfaces"][0], interface);
}

#[test]
fn several_interfaces_are_in_order() {
    let Some(host) = has_kvm().then(|| Namespace::with_taps(&["spore0", "spore1"])).flatten()
    else {
        return;
    };
    let store = Store::new();
    for transport in ["pci", "mmio"] {
        let more = ["--network=tap:spore1", "--transport", transport];
        let id = ok(&host, &store, &[&RUN[..], &more].concat());
        let interfaces = store.describe(&id)["NetworkInterfaces"].clone();
        for (n, tap) in [(0, "tap:spore0"), (1, "tap:spore1")] {
            assert_eq!(interfaces[n]["Attachment"]["DeviceIndex"], n);
            assert_eq!(interfaces[n]["Spore"]["Network"], tap);
        }
        store.ok(&["stop", &id]);
    }
}

#[test]
fn several_queues_take_a_tap_that_has_them() {
    let Some(host) = has_kvm().then(|| Namespace::with_taps(&["spore0"])).flatten() else {
        return;
    };
    let store = Store::new();
    let several = [&RUN[..], &["--queues=3", "--cpus=2"]].concat();
    refused(&spore(&host, &store, &several), 1, "is not a tap with several queues");
    let tap = "ip link delete spore0 && ip tuntap add dev spore0 mode tap multi_queue";
    assert!(host.run("sh", &["-c", tap]).status.success());
    refused(&spore(&host, &store, &RUN), 1, "is not a tap with one queue");
    let id = ok(&host, &store, &several);
    assert_eq!(store.describe(&id)["NetworkInterfaces"][0]["Spore"]["Queues"], 3);
    let shown = store.ok(&["show", &id]);
    assert!(shown.contains("tap:spore0, 3 pairs of queues, link up"), "{shown}");
    store.ok(&["stop", "--hibernate", &id]);
    ok(&host, &store, &["start", &id]);
    assert_eq!(store.state(&id).0, "running");
}

#[test]
fn a_stopped_instance_gets_a_network_and_loses_it() {
    let Some(host) = has_kvm().then(|| Namespace::with_taps(&["spore0", "spore1"])).flatten()
    else {
        return;
    };
    let store = Store::new();
    let id = ok(&host, &store, &RUN);
    let first = store.describe(&id)["NetworkInterfaces"][0].clone();
    refused(&store.spore(&["modify", &id, "--network", "none"]), 1, "must be stopped");
    store.ok(&["stop", &id]);
    let twice = ["modify", &id, "--network", "tap:a", "--network", "tap:a"];
    refused(&store.spore(&twice), 1, "tap:a is given twice");
    store.ok(&["modify", &id, "--network", "none"]);
    assert_eq!(store.describe(&id)["NetworkInterfaces"], serde_json::json!([]));
    // It starts where no tap is, and comes back as the same interface on another tap.
    store.ok(&["start", &id]);
    store.ok(&["stop", &id]);
    store.ok(&["modify", &id, "--network", "tap:spore1"]);
    ok(&host, &store, &["start", &id]);
    let again = store.describe(&id)["NetworkInterfaces"][0].clone();
    assert_eq!(again["Spore"]["Network"], "tap:spore1");
    for field in ["NetworkInterfaceId", "MacAddress"] {
        assert_eq!(again[field], first[field]);
    }
}

/// Its last frame is counted by the host's tap, in hundreds that were none.
#[test]
fn a_hostile_guest_sends_what_is_a_frame_and_nothing_else() {
    let Some(host) = has_kvm().then(|| Namespace::with_taps(&["spore0"])).flatten() else {
        return;
    };
    let store = Store::new();
    let elf = hostile::build(&store);
    // Its attacks know virtio-mmio's registers only.
    let run = ["run", "demo", "-q", "-m", "128M", "--root-device-type=ebs", "--transport=mmio"];
    let more = ["--kernel", elf.to_str().unwrap(), "--network=tap:spore0"];
    let id = ok(&host, &store, &[&run[..], &more].concat());
    store.wait(&id, "exit");
    let (log, told) = (store.logs(&id), store.vmm_logs(&id));
    assert!(log.contains("hostile: done, "), "{log}\n{told}");
    assert!(log.contains("hostile: interfaces, "), "{log}");
    assert!(!log.contains("hostile: interfaces, 0 stops"), "{log}");
    assert!(told.contains("interface eni-") && !told.contains("bug of Spore"), "{told}");
    // What the tap has received is what the guest has sent.
    let counters = host.run("ip", &["-s", "-j", "link", "show", "spore0"]).stdout;
    let counters: serde_json::Value = serde_json::from_slice(&counters).unwrap();
    assert!(counters[0]["stats64"]["rx"]["packets"].as_u64() > Some(0), "{log}\n{told}");
}

#[test]
fn what_is_no_network_is_refused_in_one_line() {
    let store = Store::new();
    let run = |args: &[&str]| store.spore(&[&["run", "demo"], args].concat());
    for (args, code, why) in [
        (&["--network", "Tap0"][..], 2, "'Tap0' is no network"),
        (&["--network", "tap0"], 1, "there is no network 'tap0'"),
        (&["--network", "tap:a/b"], 2, "names no tap"),
        (&["--network", "none", "--network", "tap:a"], 2, "contradict each other"),
        (&["--network", "tap:a", "--network", "tap:a"], 1, "tap:a is given twice"),
        (&["--network", "tap:a", "-n", "2"], 1, "tap:a is one instance's"),
        (&["--network", "none", "--limit", "net.pps=5"], 1, "limit nothing"),
        (&["--queues", "2"], 1, "give a --network"),
        (&["--network", "tap:a", "--queues", "9"], 2, "9"),
    ] {
        let output = run(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    }
    assert_eq!(store.ok(&["ls", "-q"]), "");
}

#[test]
fn a_tap_that_is_not_there_leaves_nothing() {
    let Some(host) = has_kvm().then(|| Namespace::with_taps(&[])).flatten() else { return };
    let store = Store::new();
    refused(&spore(&host, &store, &RUN), 1, "there is no tap spore0");
    refused(&spore(&host, &store, &[&RUN[..7], &["--network=tap:lo"]].concat()), 1, "is not a tap");
    assert_eq!((store.ok(&["ls", "-q"]), store.ok(&["volume", "ls", "-q"])), Default::default());
}
