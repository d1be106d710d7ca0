//! What killed commands may not leave behind.

use super::users::{Region, as_user};
use super::world::World;
use sporevm::record::instance::State;
use sporevm::record::snapshot::SnapshotState;
use sporevm::store::Store;
use std::path::Path;
use std::process::Command;

/// A completed snapshot that a command made for an image is named by an image.
pub fn no_lonely_snapshot(kind: &str, before: &World, now: &World) {
    if !matches!(kind, "image import" | "image register" | "image create" | "image copy") {
        return;
    }
    let new = now.snapshots.iter().filter(|(id, _)| !before.snapshots.contains_key(*id));
    for (id, _) in new.filter(|(_, s)| s.state == SnapshotState::Completed) {
        let named = now.images.values().any(|image| image.snapshots().any(|s| s == id));
        assert!(named, "{kind} was killed, and no image names {id}");
    }
}

/// No object's directory has a file that was to replace another.
pub fn nothing_half_written(store: &Store) {
    for kind in ["images", "snapshots", "volumes", "instances", "kernels", "ramdisks"] {
        for object in std::fs::read_dir(store.home().join(kind)).unwrap().flatten() {
            let names = std::fs::read_dir(object.path()).into_iter().flatten().flatten();
            let left: Vec<_> = names
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "new"))
                .collect();
            assert_eq!(left, [""; 0].map(std::path::PathBuf::from));
        }
    }
}

/// Every VMM of the region's program belongs to an instance that runs.
pub fn no_orphan(region: &Region, now: &World) {
    let beside = region.program();
    let beside = beside.parent().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = process.path();
        if !std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe.starts_with(beside)) {
            continue;
        }
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut words = line.split('\0').skip(1);
        let (Some("__vmm"), Some(id)) = (words.next(), words.next()) else { continue };
        let runs = now.instances.get(id).is_some_and(|i| i.state == State::Running);
        assert!(
            runs || !path.exists(),
            "{} is the VMM of {id}, which does not run",
            path.display()
        );
    }
}

/// What qemu-img says of every volume's own overlay that nobody writes: no cluster is wrong, and
/// none leaks. How many.
pub fn every_volume_is_sound(store: &Store) -> usize {
    let mut checked = 0;
    for volume in store.volumes().list().unwrap().records {
        let dir = store.volumes().dir(&volume.volume_id);
        let owner = volume.owner_id.parse().unwrap();
        if as_user(owner, || sporevm::volume::hold(store, &dir, &volume, false)).is_err() {
            continue;
        }
        check(&dir.join(&volume.layers[0].file));
        checked += 1;
    }
    checked
}

fn check(overlay: &Path) {
    // Its metadata alone: what is below it may be another's, by a link.
    let checked =
        Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(overlay).output();
    match checked {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {said}", overlay.display());
        }
        Err(error) => eprintln!("{} is not checked: qemu-img: {error}", overlay.display()),
    }
}
