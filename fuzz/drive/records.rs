//! Records and packages: JSON that another account, a registry or a newer Spore wrote.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sporevm::transfer::package::{Package, SnapshotPackage};
use sporevm::record::image::Image;
use sporevm::record::kernel::{Kernel, Ramdisk};
use sporevm::record::snapshot::Snapshot;
use sporevm::record::instance::InstanceRecord;
use sporevm::record::volume::Volume;

/// What is read is written and read again.
fn again<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&value).unwrap();
        let value: T = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::to_vec(&value).unwrap(), text);
    }
}

/// Read it as each.
pub fn drive(data: &[u8]) {
    again::<Image>(data);
    again::<Kernel>(data);
    again::<Ramdisk>(data);
    again::<Snapshot>(data);
    again::<Volume>(data);
    again::<InstanceRecord>(data);
    if let Ok(package) = Package::parse(data) {
        for id in package.image.snapshots() {
            let _ = package.disk(id);
        }
        for disk in &package.disks {
            let chunk = disk.chunk_size();
            assert!(chunk > 0);
            for n in 0..4u64 {
                assert!(disk.chunk_len(n.saturating_mul(chunk)) as u64 <= chunk);
            }
        }
        let _ = package.to_json();
        let _ = package.deregistered();
    }
    let _ = SnapshotPackage::parse(data);
}

/// One of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let home = tempfile::tempdir().unwrap();
    let store = sporevm::store::Store::open_at(&home.path().join("s")).unwrap();
    sporevm::image::builtin::ensure(&store, "demo").unwrap();
    let mut seeds = Vec::new();
    for kind in ["images", "snapshots", "kernels"] {
        for object in std::fs::read_dir(store.home().join(kind)).unwrap() {
            seeds.push(std::fs::read(object.unwrap().path().join("record.json")).unwrap());
        }
    }
    for image in store.images().list().unwrap().records {
        seeds.extend(Package::of(&store, &image).and_then(|package| package.to_json()));
    }
    assert!(seeds.len() >= 4);
    seeds
}
