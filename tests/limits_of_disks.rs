//! What a guest may have of its disks: given at `run`, kept by its record, shown, and held.

mod common;

use common::{Store, has_kvm};

#[test]
fn limits_are_kept_and_shown_and_nothing_is_lost_under_them() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let limit = "disk.iops=2000:100,disk.bandwidth=32M:1M";
    let stress = "demo.mode=stress demo.ops=200 demo.seed=5";
    let id = store.launch(&["--limit", limit, "--append", stress]).remove(0);
    store.wait(&id, "stopped");
    assert!(store.logs(&id).contains("stress: 2"), "{}", store.logs(&id));
    let told = "disk.iops=2000:100,disk.bandwidth=33554432:1048576";
    for _ in 0..2 {
        let shown = store.ok(&["show", &id]);
        assert!(shown.contains(told), "{shown}");
        store.ok(&["start", &id]);
        store.wait(&id, "stopped");
    }
}

#[test]
fn a_limit_of_what_there_is_not_is_refused_in_one_line() {
    let store = Store::new();
    for (limit, why) in [
        ("net.speed=1", "there is no limit"),
        ("disk.iops=0", "whole number"),
        ("disk.speed=1", "there is no limit"),
    ] {
        let output = store.spore(&["run", "demo", "--limit", limit]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(why), "{told}");
    }
}
