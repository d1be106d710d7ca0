//! Guests that do their worst: each can be looked at and ended while it does, and ends cleanly.

mod common;

use common::{Store, has_kvm};
use std::time::{Duration, Instant};

/// A VMM that has not ended so long after it was asked to is killed. Here none may be.
const KILLED_AFTER: Duration = Duration::from_secs(5);

/// Launch one that does its worst in this way, on a volume of 2 GiB.
fn launch(store: &Store, way: &str) -> String {
    let volume = r#"[{"DeviceName": "/dev/vda", "Ebs": {"VolumeSize": 2}}]"#;
    let append = format!("demo.mode=worst demo.worst={way}");
    let id = store.launch(&["--block-device-mappings", volume, "--append", &append]).remove(0);
    store.wait_for_text(&id, &format!("worst: {way}"));
    id
}

/// It answers, and it ends when it is told to, cleanly.
fn can_be_ended(way: &str) {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, way);
    std::thread::sleep(Duration::from_millis(300));
    let shown = store.ok(&["show", &id]);
    assert!(shown.contains("Uptime"), "{shown}");
    let begin = Instant::now();
    store.ok(&["stop", "--force", &id]);
    let took = begin.elapsed();
    println!("{way}: ended after {took:?}");
    let told = store.vmm_logs(&id);
    assert!(told.lines().last().unwrap().contains("ended: spore ended it"), "killed: {told}");
    assert!(!told.contains("cannot close"), "{told}");
    assert!(took < KILLED_AFTER, "{took:?}");
}

#[test]
fn a_guest_with_endless_requests_can_be_ended() {
    can_be_ended("batch");
}

#[test]
fn a_guest_that_rings_all_doorbells_can_be_ended() {
    can_be_ended("doorbells");
}

#[test]
fn a_guest_that_resets_its_devices_for_ever_can_be_ended() {
    can_be_ended("registers");
}

#[test]
fn a_guest_that_floods_its_console_can_be_ended() {
    can_be_ended("console");
}

#[test]
fn a_guest_that_asks_for_endless_randomness_can_be_ended() {
    can_be_ended("entropy");
}

#[test]
fn a_guest_that_resets_for_ever_can_be_ended_and_is_slowed_down() {
    can_be_ended("resets");
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, "resets");
    let resets = || {
        let shown = store.ok(&["show", &id]);
        let line = shown.lines().find(|line| line.starts_with("Resets")).unwrap().to_owned();
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    let begin = Instant::now();
    while resets() < 20 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{}", store.vmm_logs(&id));
    }
    let (begin, before) = (Instant::now(), resets());
    std::thread::sleep(Duration::from_secs(2));
    let (after, most) = (resets(), 2 + begin.elapsed().as_secs());
    assert!(after - before <= most, "{before} and {after}");
}
