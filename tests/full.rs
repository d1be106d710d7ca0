//! A host whose file system is full: the guest gets I/O errors, and nothing is lost.

mod common;

use common::{Store, has_kvm};
use std::collections::BTreeSet;
use std::io::Write;
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

/// A store on a file system of its own that holds the image `demo` and has `free` bytes left, and
/// what takes the rest.
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

/// Take every byte that is left of the store's file system.
fn fill_up(store: &Store) {
    let path = store.home().join("filler");
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    for piece in [64 << 10, 4 << 10, 512, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
    assert_eq!(free(store), 0);
}

#[test]
fn a_full_disk_is_cleaned_up_by_every_verb_that_frees() {
    const TEST: &str = "a_full_disk_is_cleaned_up_by_every_verb_that_frees";
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount(TEST);
    }
    let (store, filler) = small_store(64 << 20);
    std::fs::remove_file(filler).unwrap();
    let run = |more: &[&str]| {
        let mode = ["--append", "demo.mode=poweroff-on-button"];
        let id = store.launch(&[&mode[..], more].concat()).remove(0);
        store.wait_for_text(&id, "button: waiting");
        id
    };
    let [polite, forced, gone, rm, ended] = std::array::from_fn(|_| run(&[]));
    let kept = run(&["--rm"]);
    let volume =
        |args: &[&str]| store.ok(&[&["volume", "create"], args].concat()).trim().to_owned();
    let [loose, attached] = std::array::from_fn(|_| volume(&["--size", "1M"]));
    store.ok(&["stop", &ended]);
    store.ok(&["volume", "attach", &attached, &ended, "--device", "/dev/vdb"]);
    let snapshot = store.ok(&["snapshot", "create", &loose]).trim().to_owned();
    let [kernel, ramdisk] = kernel_and_ramdisk(&store);
    store.ok(&["image", "create", &ended, "--name", "golden"]);
    let free_verb = |args: &[&str]| {
        fill_up(&store);
        let out = store.spore(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "spore {args:?} on a full disk: {said}");
        let trouble = said.lines().find(|line| !line.starts_with("spore: note: of ami-"));
        assert_eq!(trouble, None, "spore {args:?} on a full disk");
    };
    free_verb(&["stop", &polite]);
    free_verb(&["stop", "--force", &forced]);
    free_verb(&["stop", &kept]);
    free_verb(&["untag", &ended, "Name"]);
    free_verb(&["volume", "detach", &attached]);
    free_verb(&["terminate", &gone]);
    free_verb(&["terminate", &ended]);
    free_verb(&["image", "deregister", "golden"]);
    free_verb(&["image", "deregister", "demo"]);
    free_verb(&["ramdisk", "deregister", &ramdisk]);
    free_verb(&["kernel", "deregister", &kernel]);
    free_verb(&["snapshot", "delete", &snapshot]);
    free_verb(&["volume", "delete", &loose]);
    free_verb(&["volume", "delete", &attached]);
    for stopped in [&polite, &forced, &kept] {
        assert_eq!(store.state(stopped).0, "stopped");
        assert!(store.ok(&["events", stopped]).contains("stopped"), "the journal knows");
    }
    for over in [&gone, &ended] {
        assert_eq!(store.state(over).0, "terminated");
    }
    assert!(!store.ok(&["volume", "ls", "-q"]).contains(&loose));
    // Without the reserve an instance is still ended, and first of all.
    std::fs::remove_dir_all(store.account_dir().join("reserve")).unwrap();
    fill_up(&store);
    let pid = store.pid(&rm).unwrap();
    let said = store.spore(&["terminate", &rm]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // Its lock is free a moment before it is gone.
    let gone = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        !is_alive(pid)
    });
    assert!(gone, "the VM is ended whatever the disk says: {said}");
    assert!(!live(&store).contains(&rm));
}

/// Registers a kernel and an initial ramdisk that no instance boots.
fn kernel_and_ramdisk(store: &Store) -> [String; 2] {
    // The built-in image's, with a byte behind it.
    let kernels = std::fs::read_dir(store.home().join("kernels")).unwrap();
    let builtin = kernels.map(|entry| entry.unwrap().path().join("kernel")).next().unwrap();
    let kernel = [std::fs::read(builtin).unwrap(), vec![0]].concat();
    let elsewhere = tempfile::tempdir().unwrap();
    [("kernel", kernel), ("ramdisk", initramfs())].map(|(kind, bytes)| {
        let path = elsewhere.path().join(kind);
        std::fs::write(&path, bytes).unwrap();
        store.ok(&[kind, "register", path.to_str().unwrap()]).trim().to_owned()
    })
}

/// The smallest initial ramdisk: an archive that has nothing but its trailer. (cpio(5), "New ASCII
/// Format")
fn initramfs() -> Vec<u8> {
    let name = b"TRAILER!!!\0";
    let mut archive =
        format!("070701{}{:08x}{:08x}", "0".repeat(8 * 11), name.len(), 0).into_bytes();
    archive.extend(name);
    archive.resize(512, 0);
    archive
}

#[test]
fn a_file_system_without_inodes_is_cleaned_up_too() {
    const TEST: &str = "a_file_system_without_inodes_is_cleaned_up_too";
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount(TEST);
    }
    let store = Store::new();
    let mount = ["-t", "tmpfs", "-o", "size=256m,nr_inodes=400", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(store.home()).status().unwrap().success());
    let run = || store.launch_mode("poweroff-on-button");
    let [polite, forced, gone] = std::array::from_fn(|_| run());
    store.wait_for_text(&polite, "button: waiting");
    let volume = store.ok(&["volume", "create", "--size", "1M"]).trim().to_owned();
    let snapshot = store.ok(&["snapshot", "create", &volume]).trim().to_owned();
    let mut taken = 0;
    for args in [
        &["stop", &polite][..],
        &["stop", "--force", &forced],
        &["terminate", &gone],
        &["terminate", &forced],
        &["image", "deregister", "demo"],
        &["snapshot", "delete", &snapshot],
        &["volume", "delete", &volume],
    ] {
        while std::fs::File::create(store.home().join(format!("taken-{taken}"))).is_ok() {
            taken += 1;
        }
        let out = store.spore(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "spore {args:?} without an inode: {said}");
    }
    assert_eq!(store.state(&polite).0, "stopped");
    assert_eq!(store.state(&gone).0, "terminated");
    assert!(!store.ok(&["volume", "ls", "-q"]).contains(&volume));
}

#[test]
fn a_disk_that_cannot_fit_is_refused_before_it_is_copied() {
    const TEST: &str = "a_disk_that_cannot_fit_is_refused_before_it_is_copied";
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount(TEST);
    }
    let store = Store::new();
    let mount = ["-t", "tmpfs", "-o", "size=16m", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(store.home()).status().unwrap().success());
    let elsewhere = tempfile::tempdir().unwrap();
    let disk = |name: &str, head: usize, zeros: u64| {
        let path = elsewhere.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&vec![7; head]).unwrap();
        file.write_all(&vec![0; zeros as usize]).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let import = |path: &str, name: &str| store.spore(&["image", "import", path, "--name", name]);
    let refused = import(&disk("large", 20 << 20, 0), "large");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let what = ["InsufficientVolumeCapacity", "MiB that are free"];
    assert!(what.iter().all(|word| said.contains(word)), "{said}");
    assert!(free(&store) > 14 << 20, "nothing was copied");
    // Zeros take nothing, whether or not the file has blocks for them.
    let fits = import(&disk("zeros", 1 << 20, 40 << 20), "zeros");
    assert!(fits.status.success(), "{}", String::from_utf8_lossy(&fits.stderr));
}

/// Whether it runs; one that nobody has waited for yet does not.
fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_guest_that_fills_the_disk_is_ended() {
    const TEST: &str = "a_guest_that_fills_the_disk_is_ended";
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount(TEST);
    }
    let (store, _) = small_store(900 << 10);
    let launch = "run demo -q -n 3 -m 128M --root-device-type ebs --append demo.mode=fill";
    let launch: Vec<&str> = launch.split(' ').collect();
    // The first may have filled the disk before the last has what it needs: then all are undone.
    let ids = (0..50).map(|_| store.spore(&launch)).find(|launched| launched.status.success());
    let ids = String::from_utf8(ids.expect("three that fill").stdout).unwrap();
    let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
    // Together they have written what there was, and take whatever anybody frees.
    let filled = |id: &&String| store.logs(id).contains("fill: no room for block");
    while ids.iter().filter(filled).count() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    store.ok(&["stop", "--force", &ids[0]]);
    assert_eq!(store.state(&ids[0]).0, "stopped");
    store.ok(&["terminate", &ids[1], &ids[2]]);
    store.ok(&["terminate", &ids[0]]);
    assert_eq!(live(&store).len(), 0);
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

#[test]
fn a_guest_that_has_no_room_to_be_hibernated_runs_on() {
    const TEST: &str = "a_guest_that_has_no_room_to_be_hibernated_runs_on";
    if !has_kvm() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return again_where_it_may_mount(TEST);
    }
    let (store, filler) = small_store(12 << 20);
    let run = ["run", "demo", "-q", "-m", "32M", "--root-device-type", "ebs"];
    let id = store.ok(&[&run[..], &["--append", "demo.mode=endure"]].concat()).trim().to_owned();
    let goes_on = || {
        let before = store.logs(&id).matches(" rounds, ").count();
        store.wait_for_text(&id, "endure: begins");
        while store.logs(&id).matches(" rounds, ").count() <= before {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    goes_on();
    // Nearly all of its memory has something in it.
    let output = store.spore(&["stop", "--hibernate", &id]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert!(said.contains("memory file") && said.contains("space"), "{said}");
    assert_eq!(store.state(&id).0, "running");
    let memory = store.account_dir().join("instances").join(&id).join("memory");
    assert!(!memory.exists(), "nothing is left");
    goes_on();
    std::fs::remove_file(filler).unwrap();
    store.ok(&["stop", "--hibernate", &id]);
    store.ok(&["start", &id]);
    goes_on();
    assert_eq!(store.logs(&id).matches("endure: begins").count(), 1);
}
