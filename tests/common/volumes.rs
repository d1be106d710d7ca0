//! Volumes and snapshots of a store: their content, read and written as Spore does, and as qemu-img
//! sees it.

use super::Store;
use rustix::fs::{FlockOperation, flock};
use sporevm::block::{self, Disk, Engine, Op, Queue, Reader};
use sporevm::record::snapshot::Snapshot;
use sporevm::store::Store as Inner;
use sporevm::sys::iobuf::IoBuf;
use sporevm::{snapshot, volume};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A MiB.
pub const MIB: usize = 1 << 20;

/// The library's view of the store that the command uses.
pub fn inner(store: &Store) -> Inner {
    Inner::open_at(store.home()).unwrap()
}

/// A disk image of `mib` MiB with recognizable content.
pub fn disk(store: &Store, mib: usize) -> (PathBuf, Vec<u8>) {
    let mut bytes = vec![0; mib * MIB];
    for (n, block) in bytes.chunks_mut(4096).enumerate().filter(|(n, _)| n % 3 != 0) {
        block.fill((n % 251) as u8 + 1);
    }
    let path = store.home().join("disk.raw");
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

pub fn finish(queue: &mut dyn Queue, op: Op) {
    queue.submit(1, op);
    queue.submit_batch().unwrap();
    let mut result = None;
    queue.completions(&mut |_, done| result = Some(done));
    result.expect("the sync engine completes at once").unwrap();
}

/// Write to a volume as a VMM does.
pub fn write(store: &Store, id: &str, offset: u64, bytes: &[u8]) {
    let inner = inner(store);
    let record = inner.volumes().resolve(id).unwrap();
    let opened = volume::open_layers(&inner, &record, false).unwrap();
    let disk = block::open(opened.layers, false).unwrap();
    let mut queue = disk.queue(Engine::Sync).unwrap();
    let buf = IoBuf::from_bytes(bytes.to_vec().into_boxed_slice());
    finish(&mut *queue, Op::Write { offset, buf });
    drop(queue);
    disk.close().unwrap();
    give_back(&opened.hold);
}

/// Gives a volume back. To close its lock is not enough: what another test starts has all
/// descriptors of this process until it becomes its program, and a lock lasts as long as one of
/// them. (flock(2))
fn give_back(hold: &File) {
    flock(hold, FlockOperation::Unlock).unwrap();
}

pub fn read(layers: Vec<(File, sporevm::plan::DiskFormat)>) -> Vec<u8> {
    let reader = Reader::open(layers).unwrap();
    let mut bytes = vec![0; reader.size() as usize];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub fn volume_content(store: &Store, id: &str) -> Vec<u8> {
    let inner = inner(store);
    let record = inner.volumes().resolve(id).unwrap();
    let opened = volume::open_layers(&inner, &record, true).unwrap();
    let content = read(opened.layers);
    give_back(&opened.hold);
    content
}

pub fn snapshot(store: &Store, id: &str) -> Snapshot {
    inner(store).snapshots().resolve(id).unwrap()
}

pub fn snapshot_content(store: &Store, id: &str) -> Vec<u8> {
    let inner = inner(store);
    read(snapshot::open_layers(&inner, &snapshot(store, id)).unwrap())
}

/// qemu-img reads the file in its directory as `content`, and finds nothing wrong with it.
pub fn referee(path: &Path, format: &str, content: &[u8]) {
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

pub fn referee_snapshot(store: &Store, id: &str, content: &[u8]) {
    let record = snapshot(store, id);
    let format = if record.format == sporevm::plan::DiskFormat::Raw { "raw" } else { "qcow2" };
    let data = inner(store).snapshots().dir(&record.snapshot_id).join("data");
    referee(&data, format, content);
}

pub fn one(text: &str) -> String {
    text.trim().to_owned()
}
