//! What nothing needs any more, and what everything takes.

use super::common::{Store, has_kvm};
use super::{err, lines, refused};
use serde_json::Value;

fn json(store: &Store, args: &[&str]) -> Value {
    serde_json::from_str(&store.ok(&[args, &["-o", "json"]].concat())).unwrap()
}

/// An image with a snapshot and a kernel of its own.
fn import(store: &Store, name: &str) {
    let disk = store.home().join("disk");
    let mut content = vec![0; 4 << 20];
    content[..1 << 20].fill(name.as_bytes()[0]);
    std::fs::write(&disk, content).unwrap();
    let kernel = store.home().join("vmlinux");
    std::fs::write(&kernel, sporevm::demo::KERNEL).unwrap();
    let (disk, kernel) = (disk.to_str().unwrap(), kernel.to_str().unwrap());
    let import = ["image", "import", disk, "--format", "raw", "--kernel", kernel];
    store.ok(&[&import[..], &["--name", name]].concat());
}

/// The kinds of what a look found.
fn kinds(found: &Value) -> Vec<String> {
    let unused = found["Unused"].as_array().unwrap().iter();
    unused.map(|object| object["ResourceType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_stays_of_a_deregistered_image_is_told_and_pruned() {
    let store = Store::new();
    import(&store, "one");
    import(&store, "two");
    assert!(kinds(&json(&store, &["prune", "--dry-run"])).is_empty());
    let told = err(&store.spore(&["image", "deregister", "one"]));
    // The other image boots the same kernel.
    assert!(told.contains("snapshot snap-") && !told.contains("kernel aki-"), "{told}");
    assert!(told.contains("'spore snapshot delete snap-") && told.contains("MiB"), "{told}");
    let told = err(&store.spore(&["image", "deregister", "two"]));
    assert!(told.contains("'spore kernel deregister aki-"), "{told}");
    let volume = store.ok(&["volume", "create", "--size", "1"]);
    store.ok(&["snapshot", "create", volume.trim()]);

    let found = json(&store, &["prune", "--dry-run"]);
    assert_eq!(kinds(&found), ["snapshot", "snapshot", "kernel"]);
    assert!(found["ReclaimableBytes"].as_u64().unwrap() >= 2 << 20, "{found}");
    assert_eq!(json(&store, &["df"])["ReclaimableBytes"], found["ReclaimableBytes"]);
    // Who can't be asked has not said yes.
    assert_eq!(store.spore(&["prune"]).status.code(), Some(1));
    assert_eq!(json(&store, &["prune", "--dry-run"]), found);
    store.ok(&["prune", "-y"]);
    assert!(kinds(&json(&store, &["prune", "--dry-run"])).is_empty());
    assert_eq!(lines(&store, &["snapshot", "ls", "-q"]).len(), 1, "a backup stays");
    assert_eq!(lines(&store, &["volume", "ls", "-q"]), [volume.trim()]);
    let all = json(&store, &["prune", "--all", "--dry-run"]);
    assert_eq!(kinds(&all), ["snapshot", "volume"]);
    store.ok(&["prune", "--all", "--yes"]);
    assert_eq!(store.ok(&["volume", "ls", "-q"]) + &store.ok(&["snapshot", "ls", "-q"]), "");
    assert_eq!(err(&store.spore(&["prune"])), "spore: nothing is unused\n");
    refused(&store, &["prune", "-y", "--dry-run"], 2, "cannot be used with");
}

#[test]
fn what_is_used_is_never_pruned() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    import(&store, "web");
    let run = ["run", "web", "-q", "-m", "128M", "--append", "demo.mode=hang"];
    let id = store.ok(&run);
    let id = id.trim();
    store.ok(&["image", "deregister", "web"]);
    let over = store.ok(&["run", "demo", "-q", "--wait"]);
    store.ok(&["prune", "--all", "-y"]);
    assert_eq!(lines(&store, &["ls", "-a", "-q"]), [id], "{over} is gone");
    // Its volume has what its image's snapshot had, and its kernel is there.
    store.ok(&["stop", "--force", id]);
    store.ok(&["start", id]);
    assert_eq!(store.state(id).0, "running");
    assert!(std::fs::read_dir(store.home().join("kernels")).unwrap().count() > 0);
}

#[test]
fn df_counts_everything_in_the_store_once() {
    let store = Store::new();
    import(&store, "web");
    std::fs::create_dir(store.home().join("cache/built")).unwrap();
    std::fs::write(store.home().join("cache/built/kernel"), vec![1; 3 << 20]).unwrap();
    let df = json(&store, &["df"]);
    let of = |kind: &str| -> u64 {
        let usages = df["DiskUsage"].as_array().unwrap().iter();
        let of = usages.filter(|usage| usage["ResourceType"] == kind);
        of.map(|usage| usage["OwnBytes"].as_u64().unwrap()).sum()
    };
    assert!(of("cache") >= 3 << 20 && of("kernel") > 0 && of("journal") > 0, "{df}");
    let parts: u64 =
        ["kernel", "ramdisk", "cache", "logs", "memory", "journal", "other"].map(of).iter().sum();
    let shown = std::process::Command::new("du").arg("-sk").arg(store.home()).output().unwrap();
    let du: u64 =
        String::from_utf8(shown.stdout).unwrap().split('\t').next().unwrap().parse().unwrap();
    let total = df["TotalBytes"].as_u64().unwrap();
    // du counts the store's own directory too.
    assert!(total <= du * 1024 && total + (64 << 10) >= du * 1024, "{total} {du}");
    assert!(parts <= total && parts + (2 << 20) >= total, "{parts} of {total}: {df}");
    assert_eq!(kinds(&json(&store, &["prune", "--cache", "--dry-run"])), ["cache"]);
    store.ok(&["prune", "--cache", "-y"]);
    assert!(!store.home().join("cache/built").exists());
}
