//! A host whose file system is full: the guest gets I/O errors, and nothing is lost.

mod common;

use common::{Store, has_kvm};
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

#[test]
fn a_guest_outlives_a_full_host() {
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount("a_guest_outlives_a_full_host");
    }
    let store = Store::new();
    let mount = ["-t", "tmpfs", "-o", "size=256m", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(store.home()).status().unwrap().success());
    // The volume has 1 MiB. Once before, so that all that an image needs is there.
    let first = store.launch(&["--wait"]);
    assert_eq!(first.len(), 1);
    let filler = store.home().join("filler");
    std::fs::write(&filler, vec![1; (free(&store) - (600 << 10)) as usize]).unwrap();
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
