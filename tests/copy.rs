//! Copies of images and snapshots within a region and between regions that are directories.

mod common;

use common::Store;
use common::images::{data, noise, refused, show, snapshot_of};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

const MIB: usize = 1 << 20;

/// A file of `mib` MiB, of which the odd ones have content that zstd makes nothing of.
fn disk(store: &Store, name: &str, mib: usize) -> PathBuf {
    let mut bytes = vec![0; mib * MIB];
    for (seed, block) in bytes.chunks_mut(MIB).enumerate().skip(1).step_by(2) {
        noise(block, seed as u64);
    }
    let path = store.home().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn import(store: &Store, name: &str, mib: usize, args: &[&str]) -> String {
    let path = disk(store, "disk.raw", mib);
    let import = ["image", "import", path.to_str().unwrap(), "--name", name];
    store.ok(&[&import, args].concat()).trim().to_owned()
}

/// A store, and another that is its region `west`.
fn two() -> (Store, Store) {
    let (home, west) = (Store::new(), Store::new());
    home.ok(&["region", "add", "west", west.home().to_str().unwrap()]);
    (home, west)
}

#[test]
fn regions_are_named_listed_and_forgotten() {
    let (home, west) = two();
    let all: Value = serde_json::from_str(&home.ok(&["region", "ls", "-o", "json"])).unwrap();
    assert_eq!(all["Regions"][0]["RegionName"], "west");
    assert_eq!(all["Regions"][0]["Endpoint"], west.home().to_str().unwrap());
    refused(&home, &["region", "add", "west", "/elsewhere"], "InvalidParameterValue");
    refused(&home, &["image", "copy", "demo", "--to", "east", "--name", "abc"], "InvalidRegion");
    refused(&home, &["image", "copy", "demo", "--from", "../x", "--name", "abc"], "InvalidRegion");
    let gone = TempRegion::new(&home);
    let error = refused(
        &home,
        &["image", "copy", "demo", "--to", gone.0, "--name", "abc"],
        "InvalidRegion",
    );
    assert!(error.contains("has gone"), "{error}");
    home.ok(&["region", "rm", "west", gone.0]);
    assert_eq!(home.ok(&["region", "ls", "-q"]), "");
}

/// A region whose directory has gone.
struct TempRegion(&'static str);

impl TempRegion {
    fn new(home: &Store) -> Self {
        let dir = home.home().join("usb");
        home.ok(&["region", "add", "usb", dir.to_str().unwrap()]);
        std::fs::remove_dir_all(dir).unwrap();
        Self("usb")
    }
}

#[test]
fn a_copy_is_the_copiers_own_and_has_what_the_image_has() {
    let (home, west) = two();
    let args =
        ["--tag", "Env=prod", "--description", "first", "--root-device-type", "instance-store"];
    let source = import(&home, "one", 4, &args);
    let before = show(&home, &source);
    let same = home.ok(&["image", "copy", "one", "--name", "two"]).trim().to_owned();
    let there = home.ok(&[
        "image",
        "copy",
        "one",
        "--to",
        "west",
        "--name",
        "one",
        "--copy-tags",
        "--tag",
        "By=me",
    ]);
    let there = there.trim();
    for (store, id, name) in [(&home, &*same, "two"), (&west, there, "one")] {
        let copy = show(store, id);
        assert_eq!(copy["Name"], name);
        assert_eq!(copy["State"], "available");
        assert_eq!(copy["SourceImageId"], *source);
        assert_eq!(copy["SourceImageRegion"], home.home().to_str().unwrap());
        assert_eq!(copy["Description"], "first");
        assert_eq!(copy["RootDeviceType"], "instance-store");
        assert_ne!(snapshot_of(&copy), snapshot_of(&before));
        store.ok(&["snapshot", "verify", &snapshot_of(&copy)]);
        let content = std::fs::read(data(store, id)).unwrap();
        assert!(content == std::fs::read(data(&home, &source)).unwrap());
    }
    assert_eq!(show(&home, &same)["Tags"].as_array().unwrap().len(), 0);
    assert_eq!(show(&west, there)["Tags"].as_array().unwrap().len(), 2);
    // Zeros are not stored, and within a region nothing is.
    assert!(data(&west, there).metadata().unwrap().blocks() * 512 < 3 * MIB as u64);
    let inode = |path: PathBuf| path.metadata().unwrap().ino();
    assert_eq!(inode(data(&home, &same)), inode(data(&home, &source)));
    // And back, from a region by name.
    let back = home.ok(&["image", "copy", "one", "--from", "west", "--name", "back"]);
    let back = show(&home, back.trim());
    assert_eq!(
        (&back["SourceImageId"], &back["SourceImageRegion"]),
        (&there.into(), &"west".into())
    );
    refused(&home, &["image", "copy", "one", "--name", "two"], "InvalidAMIName.Duplicate");
    refused(&home, &["image", "copy", "one", "--name", "x"], "InvalidAMIName.Malformed");
    refused(&home, &["image", "copy", "nothing", "--name", "three"], "InvalidAMIID.NotFound");
    refused(
        &home,
        &["image", "copy", "two", "--from", "west", "--name", "three"],
        "InvalidAMIID.NotFound",
    );
    home.ok(&["image", "deregister", "one"]);
    refused(&home, &["image", "copy", &source, "--name", "three"], "InvalidAMIID.Unavailable");
}

#[test]
fn the_kernel_comes_along() {
    let (home, west) = two();
    let id = home.ok(&["image", "copy", "demo", "--to", "west", "--name", "demo-copy"]);
    home.ok(&["image", "copy", "demo", "--to", "west", "--name", "demo-copy-2"]);
    let (one, two) = (show(&west, id.trim()), show(&west, "demo-copy-2"));
    assert!(one["KernelId"].is_string());
    assert_eq!(one["KernelId"], two["KernelId"]);
    let kernels = west.ok(&["kernel", "ls", "-q"]);
    // Besides those that every region has.
    let copied = kernels.lines().filter(|id| !id.starts_with("aki-pv-grub"));
    assert_eq!(copied.count(), 1, "{kernels}");
    if common::has_kvm() {
        let ran = west.ok(&["run", "demo-copy", "-m", "128M", "--wait"]);
        assert!(ran.contains("i-"), "{ran}");
    }
}

#[test]
fn a_copy_that_died_goes_on_when_it_is_run_again() {
    let (home, west) = two();
    let source = import(&home, "big", 12, &[]);
    let copy = ["image", "copy", "big", "--to", "west", "--name", "big"];
    let left = (1..100).find_map(|point| {
        let mut command = home.command(&copy);
        let killed = command.env("SPORE_FAULT", point.to_string()).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
        let all: Value = serde_json::from_str(&west.ok(&["image", "ls", "-o", "json"])).unwrap();
        let left = all["Images"].as_array().unwrap().iter().find(|i| i["Name"] == "big")?.clone();
        let partial = west.home().join("snapshots").join(snapshot_of(&left)).join("data");
        (partial.metadata().ok()?.blocks() > 0).then_some(left)
    });
    let left = left.expect("it dies between two pieces");
    let id = left["ImageId"].as_str().unwrap();
    assert_eq!(left["State"], "failed");
    let why = left["StateReason"]["Message"].as_str().unwrap();
    assert!(why.contains("run the same copy again"), "{why}");
    let snapshot = snapshot_of(&left);
    refused(&west, &["volume", "create", "--snapshot", &snapshot], "IncorrectState");
    let run = west.spore(&["run", id]);
    assert!(String::from_utf8_lossy(&run.stderr).starts_with("spore: InvalidAMIID.Unavailable: "));
    let partial = west.home().join("snapshots").join(&snapshot).join("data");
    // No file may be so large: the same, in words. dash counts blocks of 512 bytes.
    let mut limited = Command::new("dash");
    limited.args(["-c", "ulimit -f 16384; exec \"$0\" \"$@\""]).arg(home.program());
    let full = limited.args(copy).env("SPORE_HOME", home.home()).output().unwrap();
    let error = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!((full.status.code(), error.lines().count()), (Some(125), 1), "{error}");
    assert!(error.contains("run the same copy again"), "{error}");
    assert_eq!(show(&west, id)["State"], "failed");
    // Another copy is not taken for it. While it has failed its name is free.
    import(&home, "other", 2, &[]);
    let taken = home.ok(&["image", "copy", "other", "--to", "west", "--name", "big"]);
    assert_ne!(taken.trim(), id);
    assert_eq!(show(&west, "big")["ImageId"], taken.trim());
    refused(&home, &copy, "InvalidAMIName.Duplicate");
    west.ok(&["image", "deregister", "big"]);
    assert_eq!(home.ok(&copy).trim(), id);
    assert_eq!(show(&west, id)["State"], "available");
    west.ok(&["snapshot", "verify", &snapshot]);
    assert!(std::fs::read(partial).unwrap() == std::fs::read(data(&home, &source)).unwrap());
    let snapshots = west.ok(&["snapshot", "ls", "-q"]);
    assert!(snapshots.contains(&snapshot) && !snapshots.is_empty());
}

#[test]
fn a_snapshot_that_has_changed_is_not_copied() {
    let (home, west) = two();
    let source = import(&home, "bad", 2, &[]);
    let path = data(&home, &source);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[MIB + 7] ^= 1;
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, writable).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let output = home.spore(&["image", "copy", "bad", "--to", "west", "--name", "bad"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("has changed") && error.lines().count() == 1, "{error}");
    assert_eq!(show(&west, "bad")["State"], "failed");
    let snapshot = snapshot_of(&show(&home, &source));
    let output = home.spore(&["snapshot", "copy", &snapshot, "--to", "west"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("has changed"));
}

#[test]
fn snapshots_are_copied_with_all_their_layers() {
    let (home, west) = two();
    let path = disk(&home, "disk.raw", 4);
    let base = home.ok(&["snapshot", "import", path.to_str().unwrap()]);
    let volume = home.ok(&["volume", "create", "--snapshot", base.trim(), "--size", "6M"]);
    let snapshot = home.ok(&["snapshot", "create", volume.trim()]);
    let copy = ["snapshot", "copy", snapshot.trim(), "--to", "west", "--tag", "Name=there"];
    let copy = west_id(&home.ok(&copy));
    let all: Value =
        serde_json::from_str(&west.ok(&["snapshot", "show", "there", "-o", "json"])).unwrap();
    let record = &all["Snapshots"][0];
    assert_eq!(
        (&record["SnapshotId"], &record["State"]),
        (&copy.clone().into(), &"completed".into())
    );
    west.ok(&["snapshot", "verify", &copy]);
    let bytes = std::fs::read(west.home().join("snapshots").join(&copy).join("data")).unwrap();
    assert_eq!(bytes.len(), 6 * MIB);
    assert!(bytes[..4 * MIB] == std::fs::read(path).unwrap());
    home.ok(&["image", "register", "deep", "--snapshot", snapshot.trim()]);
    let within = home.ok(&["image", "copy", "deep", "--name", "deep-2"]);
    home.ok(&["snapshot", "verify", &snapshot_of(&show(&home, within.trim()))]);
    home.ok(&["image", "copy", "deep", "--to", "west", "--name", "deep"]);
    refused(&home, &["snapshot", "copy", "snap-x", "--to", "west"], "InvalidSnapshot.NotFound");
}

fn west_id(text: &str) -> String {
    text.trim().to_owned()
}
