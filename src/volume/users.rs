//! Volumes of other accounts that need a snapshot to stay.
//!
//! Linux lets nobody hard-link another's file (fs.protected_hardlinks, proc(5)), so a volume made from a shared
//! snapshot refers to it by path. It says so in the snapshot's directory `users`, where every reader may make a name
//! and only the owner may look: a symbolic link to the volume. It counts as long as the volume is there.

use crate::error::{Error, OrFail, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::image::DATA;
use crate::store::Store;
use crate::store::shared::open_file;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

/// The directory's name in that of a snapshot.
const USERS: &str = "users";

/// Let those who may read the snapshot say that they use it.
///
/// # Errors
/// The snapshot is another's.
pub fn allow(store: &Store, snapshot: &SnapshotId) -> Result<()> {
    let path = store.snapshots().dir(snapshot).join(USERS);
    if path.is_dir() {
        return Ok(());
    }
    crate::store::fault::point("place for a snapshot's users");
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o1733)))
        .or_fail(|| format!("make {}", path.display()))
}

/// Say that `volume`, which is being made, needs another's snapshot. Holding what this gives keeps the snapshot until
/// the volume is there to be seen.
///
/// # Errors
/// The snapshot is being deleted, or its owner does not let others use it.
pub fn enter(store: &Store, snapshot: &SnapshotId, volume: &VolumeId) -> Result<File> {
    let dir = store.snapshots().dir(snapshot);
    let data = open_file(&dir, DATA)?;
    let gone = || {
        let message = format!("the snapshot {snapshot} is being deleted");
        Error::refused("InvalidSnapshot.NotFound", message)
    };
    flock(&data, FlockOperation::NonBlockingLockShared).map_err(|_| gone())?;
    if !dir.join(DATA).exists() {
        return Err(gone());
    }
    crate::store::fault::point("mark of a snapshot's user");
    let marker = dir.join(USERS).join(volume.as_str());
    std::os::unix::fs::symlink(store.volumes().dir(volume), &marker)
        .or_fail(|| format!("say in {} who uses it", marker.display()))?;
    Ok(data)
}

/// The volumes of others that need the snapshot; those that are no more are forgotten. While what this gives is held,
/// no new one can be made.
///
/// # Errors
/// `InvalidSnapshot.InUse`: somebody is making one now.
pub fn others(store: &Store, snapshot: &SnapshotId) -> Result<(Vec<VolumeId>, Option<File>)> {
    let dir = store.snapshots().dir(snapshot);
    let Ok(entries) = fs::read_dir(dir.join(USERS)) else { return Ok((Vec::new(), None)) };
    let data = open_file(&dir, DATA)?;
    flock(&data, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        let message = format!("{snapshot} is being used for a new volume; try again");
        Error::refused("InvalidSnapshot.InUse", message)
    })?;
    let mut volumes = Vec::new();
    for entry in entries.flatten() {
        let volume = entry.file_name().to_str().and_then(|name| name.parse::<VolumeId>().ok());
        match volume.filter(|volume| store.volumes().exists(volume)) {
            Some(volume) => volumes.push(volume),
            // Failing is harmless: it is looked at again next time.
            None => drop(fs::remove_file(entry.path())),
        }
    }
    Ok((volumes, Some(data)))
}

/// The accounts that have a volume which needs the snapshot, by uid.
pub fn accounts(store: &Store, snapshot: &SnapshotId) -> Vec<u32> {
    let entries = fs::read_dir(store.snapshots().dir(snapshot).join(USERS));
    let markers = entries.into_iter().flatten().flatten();
    let lives = |name: &str| name.parse().is_ok_and(|id: VolumeId| store.volumes().exists(&id));
    let alive = markers.filter(|marker| marker.file_name().to_str().is_some_and(lives));
    let mut uids: Vec<u32> = alive.filter_map(|m| Some(m.metadata().ok()?.uid())).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}
