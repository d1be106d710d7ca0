//! Snapshots that are deleted while volumes of other accounts begin as them.
//!
//! As on EC2 nobody else's volume keeps a snapshot: it exists for nobody any more. Its content
//! stays where those volumes look for it, open to their accounts only, and goes with the last of
//! them or when its owner says so. The account's `deleted` has the ids, for whoever comes next to
//! look.

use crate::error::{OrFail, Result};
use crate::id::SnapshotId;
use crate::record::snapshot::SnapshotState;
use crate::store::Store;
use crate::store::acl::{self, Readers};
use crate::store::beneath::Owned;
use crate::store::reserve::{self, is_full};
use crate::sys::fault;
use crate::volume::users;

/// The directory in that of the account.
const DIRECTORY: &str = "deleted";

/// Delete a snapshot whose content stays for these accounts.
///
/// # Errors
/// It can't be recorded.
pub(super) fn retain(store: &Store, id: &SnapshotId, accounts: Vec<u32>) -> Result<()> {
    let doing = || format!("delete {id}");
    loop {
        let made =
            store.account()?.make_dir(DIRECTORY).and_then(|dir| dir.open_or_create(id.as_str()));
        match made {
            Err(e) if is_full(&e) && reserve::give_up(&store.account_dir()) => {}
            made => break made.map(drop).or_fail(doing)?,
        }
    }
    fault::point("deletion of a snapshot that others use");
    let mut locked = store.snapshots().lock(id)?;
    locked.record.state = SnapshotState::Deleted;
    locked.withdraw()?;
    users::close(store, id)?;
    acl::grant(&store.snapshots().dir(id), &Readers { users: accounts, ..Readers::default() })
}

/// Take away what is left of a deleted snapshot. False if none of that id is left.
///
/// # Errors
/// It can't be removed.
pub(super) fn discard(store: &Store, id: &SnapshotId) -> Result<bool> {
    let Ok(dir) = directory(store) else { return Ok(false) };
    if !dir.has(id.as_str()) || store.snapshots().get(id).is_ok() {
        return Ok(false);
    }
    store.snapshots().discard(id)?;
    let _ = dir.remove(id.as_str());
    Ok(true)
}

/// Take away what is left of deleted snapshots that nobody uses any more.
pub fn sweep(store: &Store) {
    let names = directory(store).and_then(|dir| dir.names()).unwrap_or_default();
    for id in names.iter().filter_map(|name| name.parse::<SnapshotId>().ok()) {
        let _held = users::forget_gone(store, &id);
        if store.snapshots().get(&id).is_ok() {
            // Whoever was deleting it was killed before it was.
            let _ = directory(store).and_then(|dir| dir.remove(id.as_str()));
        } else if users::accounts(store, &id).is_empty() {
            let _ = discard(store, &id);
        }
    }
}

fn directory(store: &Store) -> std::io::Result<Owned> {
    Owned::open(&store.account_dir())?.dir(DIRECTORY)
}
