//! Volumes and snapshots by the command line: what is in them, what they share, and what is refused.
//! qemu-img referees the files.

mod common;

use common::{Store, has_kvm};
use serde_json::Value;
use sporevm::block::{self, Engine, Op, Queue, Reader};
use sporevm::image::record::Snapshot;
use sporevm::store::Store as Inner;
use sporevm::sys::iobuf::IoBuf;
use sporevm::{image, volume};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: usize = 1 << 20;

/// The library's view of the store that the command uses.
fn inner(store: &Store) -> Inner {
    Inner::open_at(store.home(), &store.home().join("run")).unwrap()
}

/// A disk image of `mib` MiB with recognizable content.
fn disk(store: &Store, mib: usize) -> (PathBuf, Vec<u8>) {
    let mut bytes = vec![0; mib * MIB];
    for (n, block) in bytes.chunks_mut(4096).enumerate().filter(|(n, _)| n % 3 != 0) {
        block.fill((n % 251) as u8 + 1);
    }
    let path = store.home().join("disk.raw");
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

fn finish(queue: &mut dyn Queue, op: Op) {
    queue.submit(1, op);
    queue.kick().unwrap();
    let mut result = None;
    queue.completions(&mut |_, done| result = Some(done));
    result.expect("the sync engine completes at once").unwrap();
}

/// Write to a volume as a VMM does.
fn write(store: &Store, id: &str, offset: u64, bytes: &[u8]) {
    let inner = inner(store);
    let record = inner.volumes().resolve(id).unwrap();
    let opened = volume::open_layers(&inner, &record, false).unwrap();
    let disk = block::open(opened.layers, false).unwrap();
    let mut queue = disk.queue(Engine::Sync).unwrap();
    let buf = IoBuf::from_bytes(bytes.to_vec().into_boxed_slice());
    finish(&mut *queue, Op::Write { offset, buf });
    drop(queue);
    disk.close().unwrap();
}

fn read(layers: Vec<(std::fs::File, sporevm::plan::DiskFormat)>) -> Vec<u8> {
    let reader = Reader::open(layers).unwrap();
    let mut bytes = vec![0; reader.size() as usize];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn volume_content(store: &Store, id: &str) -> Vec<u8> {
    let inner = inner(store);
    let record = inner.volumes().resolve(id).unwrap();
    read(volume::open_layers(&inner, &record, true).unwrap().layers)
}

fn snapshot(store: &Store, id: &str) -> Snapshot {
    inner(store).snapshots().resolve(id).unwrap()
}

fn snapshot_content(store: &Store, id: &str) -> Vec<u8> {
    let inner = inner(store);
    read(image::snapshot::open_layers(&inner, &snapshot(store, id)).unwrap())
}

/// qemu-img reads the file in its directory as `content`, and finds nothing wrong with it.
fn referee(path: &Path, format: &str, content: &[u8]) {
    let raw = path.with_extension("refereed");
    for args in [
        vec!["check", "-q", "-f", format, path.to_str().unwrap()],
        vec!["convert", "-f", format, "-O", "raw", path.to_str().unwrap(), raw.to_str().unwrap()],
    ] {
        if format == "raw" && args[0] == "check" {
            continue;
        }
        let output = Command::new("qemu-img").args(&args).output().expect("qemu-img referees");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
    }
    assert!(std::fs::read(&raw).unwrap() == content, "{} differs", path.display());
    std::fs::remove_file(raw).unwrap();
}

fn referee_snapshot(store: &Store, id: &str, content: &[u8]) {
    let record = snapshot(store, id);
    let format = if record.format == sporevm::plan::DiskFormat::Raw { "raw" } else { "qcow2" };
    let data = inner(store).snapshots().dir(&record.snapshot_id).join("data");
    referee(&data, format, content);
}

#[track_caller]
fn refused(store: &Store, args: &[&str], code: &str) {
    let output = store.spore(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with(&format!("spore: {code}: ")), "{args:?}: {error:?}");
    assert_eq!(error.lines().count(), 1, "{error:?}");
}

fn one(text: &str) -> String {
    text.trim().to_owned()
}

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
    let id = store.launch_mode("poweroff-on-button");
    let vol = one(&store.ok(&["volume", "create", "--size", "1M"]));
    let attach =
        |device: &str| ["volume", "attach", &vol, &id, "--device", device].map(str::to_owned);
    let attach = |device: &str| attach(device).to_vec();
    let refused_attach = |device: &str, code: &str| {
        let args = attach(device);
        refused(&store, &args.iter().map(String::as_str).collect::<Vec<_>>(), code);
    };
    refused_attach("/dev/vdb", "IncorrectInstanceState");
    let root = store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let root = root.as_str().unwrap();
    refused(&store, &["volume", "detach", root], "IncorrectInstanceState");
    refused(&store, &["volume", "delete", root], "VolumeInUse");
    refused(&store, &["volume", "resize", root, "--size", "2M"], "VolumeInUse");
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
    store.ok(&["terminate", &id]);
    // Attached later: it stays.
    let left: Value = serde_json::from_str(&store.ok(&["volume", "ls", "-o", "json"])).unwrap();
    assert_eq!(left["Volumes"].as_array().unwrap().len(), 1);
    assert_eq!(left["Volumes"][0]["VolumeId"], vol.as_str());
    refused(&store, &["volume", "detach", &vol], "IncorrectState");
    store.ok(&["volume", "delete", &vol]);
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
