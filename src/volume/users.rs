//! Volumes of other accounts that need a snapshot to stay.
//!
//! Linux lets nobody hard-link another's file (fs.protected_hardlinks, proc(5)), so a volume made
//! from a shared snapshot refers to it by path. It says so in the snapshot's directory `users`,
//! where every reader may make a name and only the owner may look: a symbolic link to the volume.
//! It counts as long as the volume is there.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::record::snapshot::DATA;
use crate::store::Store;
use crate::store::beneath::{self, Dir};
use crate::store::shared::open_file;
use rustix::fs::{FileType, FlockOperation, Mode, fchmod, flock};
use std::fs::File;
use std::time::Duration;

/// A volume is made in a few milliseconds, and its maker waited for a little longer, ...
const ATTEMPTS: u32 = 5;
/// ... with such pauses.
const PAUSE: Duration = Duration::from_millis(10);

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
    crate::sys::fault::point("place for a snapshot's users");
    let made =
        dir.make_dir(USERS).and_then(|users| Ok(fchmod(&users, Mode::from_raw_mode(0o1733))?));
    made.or_fail(|| format!("make {}", dir.path().join(USERS).display()))
}

/// Say that `volume`, which is being made, needs another's snapshot. Holding what this gives keeps
/// the snapshot until the volume is there to be seen.
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
    crate::sys::fault::point("mark of a snapshot's user");
    // Whoever shares the snapshot made that, and it leads nowhere else.
    let marked = opened.mark(USERS, volume.as_str(), &store.volumes().dir(volume));
    // Its owner may have deleted it until then.
    if !opened.has(DATA) || store.snapshots().get(snapshot).is_err() {
        return Err(gone());
    }
    marked.or_fail(|| format!("say in {} who uses it", dir.join(USERS).display()))?;
    Ok(data)
}

/// Forget those of the snapshot's users that are no more. While what this gives is held, no new one
/// can be made by whoever does it as [`enter`] does. Who holds on to the snapshot is not waited
/// for.
pub fn forget_gone(store: &Store, snapshot: &SnapshotId) -> Option<File> {
    let dir = store.snapshots().dir(snapshot);
    let users = Dir::open(&dir).and_then(|dir| dir.owned()?.place_in(USERS)).ok()?;
    let data = open_file(&dir, DATA).ok()?;
    let lock = || flock(&data, FlockOperation::NonBlockingLockExclusive).is_ok();
    let held = (0..ATTEMPTS).any(|_| {
        let held = lock();
        if !held {
            std::thread::sleep(PAUSE);
        }
        held
    });
    for name in names(&users) {
        if user(store, &users, &name).is_none() {
            // Failing is harmless: it is looked at again next time.
            let _ = users.unmark(&name);
        }
    }
    held.then_some(data)
}

/// Let nobody become a user of the snapshot any more.
///
/// # Errors
/// It is another's.
pub fn close(store: &Store, snapshot: &SnapshotId) -> Result<()> {
    let dir = beneath::owned(&store.snapshots().dir(snapshot))?;
    dir.close_place(USERS).or_fail(|| format!("close {}", dir.path().join(USERS).display()))
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
