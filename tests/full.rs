//! A host whose file system is full: the guest gets I/O errors, and nothing is lost.

mod common;

use common::{Store, has_kvm};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// Set in the namespace where the store's file system is a small one.
const INSIDE: &str = "SPORE_TEST_SMALL_STORE";

/// Run this test again as root of a user and mount namespace, where it may mount.
fn again_where_it_may_mount(test: &str) {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes that a file on the same file system as `store` may still take.
fn free(store: &Store) -> u64 {
    let stat = rustix::fs::statvfs(store.home()).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// A store on a file system of its own that holds the image `demo` and has `free` bytes left, and what takes the rest.
fn small_store(bytes: u64) -> (Store, PathBuf) {
    let store = Store::new();
    let mount = ["-t", "tmpfs", "-o", "size=256m", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(store.home()).status().unwrap().success());
    // Once before, so that all that an image needs is there.
    assert_eq!(store.launch(&["--rm", "--wait"]).len(), 1);
    let filler = store.home().join("filler");
    std::fs::write(&filler, vec![1; (free(&store) - bytes) as usize]).unwrap();
    (store, filler)
}

#[test]
fn a_guest_outlives_a_full_host() {
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount("a_guest_outlives_a_full_host");
    }
    // The volume has 1 MiB.
    let (store, filler) = small_store(600 << 10);
    let id = store.launch_mode("fill");
    store.wait_for_text(&id, "fill: no room for block");
    let notices = store.vmm_logs(&id);
    assert_eq!(notices.matches("make room").count(), 1, "{notices}");
    std::fs::remove_file(filler).unwrap();
    store.wait(&id, "stopped");
    assert!(
        store.logs(&id).contains("fill: 16 blocks are whole, in the end"),
        "{}",
        store.logs(&id)
    );
}

#[test]
fn a_launch_that_finds_no_room_leaves_the_minimum_or_nothing() {
    const TEST: &str = "a_launch_that_finds_no_room_leaves_the_minimum_or_nothing";
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount(TEST);
    }
    let (store, filler) = small_store(700 << 10);
    let before = objects(&store);
    let run = |count: &str| {
        let mode = "demo.mode=poweroff-on-button";
        store.spore(&["run", "demo", "-q", "-m", "64M", "-n", count, "--append", mode])
    };
    let refused = run("50");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "as if it were one: {message}");
    assert!(message.contains("No space left"), "{message}");
    let errors = message.lines().filter(|line| !line.contains("warning: ")).count();
    assert!(errors == 1 && message.lines().count() <= 2, "{message}");
    assert_eq!(live(&store).len(), 0, "all or none");
    assert_eq!(objects(&store), before, "nothing is left behind");

    let some = run("2:50");
    let message = String::from_utf8_lossy(&some.stderr).into_owned();
    assert!(some.status.success(), "{message}");
    let ids = String::from_utf8_lossy(&some.stdout).into_owned();
    let up = ids.lines().count();
    assert!((2..50).contains(&up), "{up}: {message}");
    assert!(message.contains("No space left"), "why there are not 50: {message}");
    std::fs::remove_file(filler).unwrap();
    assert_eq!(live(&store).len(), up, "the rest is undone");
}

/// The ids of the instances that are not terminated.
fn live(store: &Store) -> Vec<String> {
    let states = "instance-state-name=pending,running,stopping,stopped,shutting-down";
    store.ok(&["ls", "-q", "--filter", states]).lines().map(str::to_owned).collect()
}

/// The directories of instances and volumes.
fn objects(store: &Store) -> BTreeSet<PathBuf> {
    let list = |kind| std::fs::read_dir(store.home().join(kind)).into_iter().flatten();
    ["instances", "volumes"].into_iter().flat_map(list).map(|entry| entry.unwrap().path()).collect()
}
