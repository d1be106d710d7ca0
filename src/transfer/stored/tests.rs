//! What comes of a copy between stores: whatever was there of it, and whatever became of its
//! source.

use super::pending::PendingSnapshot;
use super::*;
use crate::id::SnapshotId;
use crate::plan::DiskFormat;
use crate::record::snapshot::DATA;
use crate::snapshot::digest;
use crate::store::{Durability, now};
use crate::transfer::copy::run;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const SIZE: u64 = 64 << 20;

/// A snapshot of three pieces of data, and its file.
fn source(store: &Store) -> (Snapshot, PathBuf) {
    let made = store.snapshots().create(Durability::Volatile, |dir| {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join(DATA));
        let file = file.unwrap();
        file.set_len(SIZE).unwrap();
        for n in [0, 5, 40] {
            file.write_all_at(&[n as u8 + 1; 9000], (n << 20) + 512).unwrap();
        }
        let digest = digest::file(&file, DiskFormat::Raw).unwrap();
        let made = (store.owner_id(), now());
        Ok(Snapshot::flat(SnapshotId::generate()?, made, SIZE, (DiskFormat::Raw, digest)))
    });
    let snapshot = made.unwrap();
    let path = store.snapshots().dir(&snapshot.snapshot_id).join(DATA);
    (snapshot, path)
}

/// Copy a snapshot to where `prepare` has written what an earlier attempt could have left. Gives
/// the copy's file.
fn copied(from: &Store, id: &SnapshotId, to: &Store, prepare: impl Fn(&Path)) -> Result<PathBuf> {
    let (package, source) = Region::snapshot(from, id.as_str())?;
    let (snapshot_id, description) = (SnapshotId::generate()?, String::new());
    let path = to.snapshots().dir(&snapshot_id).join(DATA);
    let wanted = Wanted { snapshot_id, description, tags: Vec::new() };
    let pending = PendingSnapshot::begin(to, &package, wanted)?;
    prepare(&path);
    run(&package.parts(), &*source, Box::new(pending), to.context())?;
    Ok(path)
}

#[test]
fn only_data_is_copied_and_what_is_there_is_left() {
    let ((_a, from), (_b, to)) = (Store::scratch(), Store::scratch());
    let (snapshot, data) = source(&from);
    let check = |prepare: &dyn Fn(&Path)| {
        let path = copied(&from, &snapshot.snapshot_id, &to, prepare).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(digest::file(&file, DiskFormat::Raw).unwrap(), snapshot.digest);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o400);
    };
    check(&|_| {});
    // An interrupted copy, with some of it, nothing after it, and the wrong length.
    check(&|path| {
        let some = fs::read(&data).unwrap();
        fs::write(path, &some[..9512]).unwrap();
    });
    // One that a power failure left with other bytes, where there should be none.
    check(&|path| {
        let wrong = File::create(path).unwrap();
        wrong.write_all_at(&[7; 4096], 10 << 20).unwrap();
    });
}

#[test]
fn a_source_that_has_changed_is_not_copied() {
    let ((_a, from), (_b, to)) = (Store::scratch(), Store::scratch());
    let (snapshot, data) = source(&from);
    File::options().write(true).open(&data).unwrap().write_all_at(b"x", 6 << 20).unwrap();
    for left in [&b""[..], b"left"] {
        let prepare = |path: &Path| fs::write(path, left).unwrap();
        let error = copied(&from, &snapshot.snapshot_id, &to, prepare).unwrap_err();
        assert!(error.to_string().contains("has changed"), "{error}");
        assert!(to.snapshots().list().unwrap().records.is_empty());
    }
}
