//! Disks that go with their VM, of an instance that is hibernated.

use crate::common::{Store, has_kvm};
use crate::{counts_on, endure_with, find, refusal};
use std::fs::File;
use std::time::Duration;

/// The guest's work is on the last disk.
const MAPPING: &str = r#"[{"DeviceName": "/dev/vdb", "VirtualName": "ephemeral0"}]"#;

fn working(store: &Store) -> (String, u64) {
    let id = endure_with(store, &["-m", "64M", "--block-device-mappings", MAPPING]);
    let count = counts_on(store, &id, 0);
    (id, count)
}

fn disks(store: &Store) -> usize {
    find(store, |name| name.starts_with("ephemeral")).len()
}

#[test]
fn a_disk_that_goes_with_its_vm_is_kept_with_the_memory_and_only_then() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (id, mut count) = working(&store);
    assert_eq!(store.describe(&id)["HibernationOptions"]["Configured"], true);
    for _ in 0..3 {
        store.ok(&["stop", "--hibernate", &id]);
        assert_eq!(disks(&store), 1);
        store.ok(&["start", &id]);
        // What it reads it compares with what it has written.
        count = counts_on(&store, &id, count);
    }
    assert_eq!(store.logs(&id).matches("endure: begins").count(), 1);
    store.ok(&["stop", "--force", &id]);
    assert_eq!(disks(&store), 0, "it has gone with its VM");
    store.ok(&["start", &id]);
    counts_on(&store, &id, 0);
    store.ok(&["stop", "--hibernate", &id]);
    store.ok(&["start", "--cold", &id]);
    store.wait_for_text(&id, "endure: begins");
    store.ok(&["terminate", &id]);
    assert_eq!(disks(&store), 0, "nothing is left");
}

#[test]
fn a_disk_that_has_changed_or_is_gone_is_not_resumed_over() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (id, count) = working(&store);
    store.ok(&["stop", "--hibernate", &id]);
    let disk = find(&store, |name| name == "ephemeral0").remove(0);
    let file = File::options().write(true).open(&disk).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + Duration::from_secs(1)).unwrap();
    assert!(refusal(&store, &id).contains("has changed since"));
    file.set_modified(modified).unwrap();
    let elsewhere = disk.with_file_name("elsewhere");
    std::fs::rename(&disk, &elsewhere).unwrap();
    assert!(refusal(&store, &id).contains("its disk ephemeral0 is gone"));
    std::fs::rename(&elsewhere, &disk).unwrap();
    store.ok(&["start", &id]);
    counts_on(&store, &id, count);
}

/// A VMM that is killed takes its disk along as soon as somebody looks, as one that ends does.
#[test]
fn a_killed_vmm_leaves_no_disk() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (id, _) = working(&store);
    crate::kill_and_wait(rustix::process::Pid::from_raw(store.pid(&id).unwrap() as i32).unwrap());
    assert_eq!(store.state(&id).0, "stopped");
    assert_eq!(disks(&store), 0);
    // A root that goes with its VM is none to be hibernated, as on EC2.
    let run = ["run", "demo", "-q", "--append", "demo.mode=hang"];
    let other = store.ok(&run).trim().to_owned();
    let output = store.spore(&["stop", "--hibernate", &other]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("UnsupportedHibernationConfiguration"), "{said}");
    assert!(said.contains("instance-store root") && said.lines().count() == 1, "{said}");
}
