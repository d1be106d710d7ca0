//! Volumes of other accounts that need a snapshot to stay.
//!
//! Linux lets nobody hard-link another's file (fs.protected_hardlinks, proc(5)), so a volume made from a shared
//! snapshot refers to it by path. It says so in the snapshot's directory `users`, where every reader may make a name
//! and only the owner may look: a symbolic link to the volume. It counts as long as the volume is there.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::record::snapshot::DATA;
use crate::store::Store;
use crate::store::beneath::{self, Dir};
use crate::store::shared::open_file;
use rustix::fs::{FileType, FlockOperation, Mode, fchmod, flock};
use std::fs::File;

/// The directory's name in that of a snapshot.
const USERS: &str = "users";

/// Let those who may read the snapshot say that they use it.
///
/// # Errors
/// The snapshot is another's.
pub fn allow(store: &Store, snapshot: &SnapshotId) -> Result<()> {
    let dir = beneath::owned(&store.snapshots().dir(snapshot))?;
    if dir.has(USERS) {
        return Ok(());
    }
    crate::store::fault::point("place for a snapshot's users");
    let made =
        dir.make_dir(USERS).and_then(|users| Ok(fchmod(&users, Mode::from_raw_mode(0o1733))?));
    made.or_fail(|| format!("make {}", dir.path().join(USERS).display()))
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
        Error::refused(Code::InvalidSnapshotNotFound, message)
    };
    flock(&data, FlockOperation::NonBlockingLockShared).map_err(|_| gone())?;
    let opened = Dir::open(&dir).or_fail(|| format!("open {snapshot}"))?;
    if !opened.has(DATA) {
        return Err(gone());
    }
    crate::store::fault::point("mark of a snapshot's user");
    // Whoever shares the snapshot made that, and it leads nowhere else.
    let marked = opened.mark(USERS, volume.as_str(), &store.volumes().dir(volume));
    marked.or_fail(|| format!("say in {} who uses it", dir.join(USERS).display()))?;
    Ok(data)
}

/// The volumes of others that need the snapshot; those that are no more are forgotten. While what this gives is held,
/// no new one can be made.
///
/// # Errors
/// `InvalidSnapshot.InUse`: somebody is making one now.
pub fn others(store: &Store, snapshot: &SnapshotId) -> Result<(Vec<VolumeId>, Option<File>)> {
    let dir = store.snapshots().dir(snapshot);
    let Ok(users) = Dir::open(&dir).and_then(|dir| dir.owned()?.place_in(USERS)) else {
        return Ok((Vec::new(), None));
    };
    let data = open_file(&dir, DATA)?;
    flock(&data, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        let message = format!("{snapshot} is being used for a new volume; try again");
        Error::refused(Code::InvalidSnapshotInUse, message)
    })?;
    let mut volumes = Vec::new();
    for name in names(&users) {
        match user(store, &users, &name) {
            Some((volume, _)) => volumes.push(volume),
            // Failing is harmless: it is looked at again next time.
            None => drop(users.unmark(&name)),
        }
    }
    Ok((volumes, Some(data)))
}

/// The links in `users`: a bounded number of each account.
fn names(users: &Dir) -> impl Iterator<Item = String> {
    let is_volume = |name: &str| name.parse::<VolumeId>().is_ok();
    let names = users.names_by_account(FileType::Symlink, is_volume).unwrap_or_default();
    names.ours.into_iter().chain(names.others.into_values().flat_map(|others| others.names))
}

/// The volume that a name in `users` stands for, and its account: only its owner can have said so.
fn user(store: &Store, users: &Dir, name: &str) -> Option<(VolumeId, u32)> {
    let volume: VolumeId = name.parse().ok()?;
    let uid = users.stat(name).ok()?.st_uid;
    (store.volumes().owner(&volume) == Some(uid)).then_some((volume, uid))
}

/// The accounts that have a volume which needs the snapshot, by uid.
pub fn accounts(store: &Store, snapshot: &SnapshotId) -> Vec<u32> {
    let dir = Dir::open(&store.snapshots().dir(snapshot));
    let Ok(users) = dir.and_then(|dir| dir.place_in(USERS)) else { return Vec::new() };
    let mut uids: Vec<u32> =
        names(&users).filter_map(|name| Some(user(store, &users, &name)?.1)).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}
