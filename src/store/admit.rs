//! Accounts that the administrator makes ahead of time.

use super::accounts::account_of;
use super::beneath::{self, Dir};
use super::{Staging, Store};
use crate::error::{Code, Error, OrFail, Result};
use rustix::fs::FileType;

/// Make the account of user `uid` in a shared store, so that nobody else can take its name first.
/// What somebody else has made under that name is put aside, and an account that the user has under
/// another name gets this one.
///
/// # Errors
/// The store isn't shared; the caller is not its administrator, or needs to be root to give a
/// directory to another.
pub fn admit(store: &Store, uid: u32) -> Result<()> {
    let caller = store.context().caller();
    check(store, uid, caller)?;
    let path = store.home().join("accounts");
    let doing = || format!("make the account of user {uid} in {}", path.display());
    let place = Dir::place(&path).or_fail(doing)?;
    let name = uid.to_string();
    if place.owner_of(&name) == Some(uid) {
        return Ok(());
    }
    if let Ok(found) = place.stat(&name) {
        let aside = format!("{name}.{}", crate::id::random_hex(8)?);
        place.move_within(&name, &aside).or_fail(doing)?;
        store.context().warn(format_args!(
            "{} was user {}'s and is {aside} now; remove it if you know what it is",
            path.join(&name).display(),
            found.st_uid
        ));
    }
    match elsewhere(&place, uid) {
        Some(found) => place.move_within(&found, &name).or_fail(doing),
        None => {
            let staging = Staging::new(store)?;
            beneath::give(staging.dir()?, uid, &path.join(&name)).or_fail(doing)
        }
    }
}

/// The account that a user has under another name than its own.
fn elsewhere(place: &Dir, uid: u32) -> Option<String> {
    let is_account = |name: &str| account_of(name) == Some(uid);
    let names = place.names_by_account(FileType::Directory, is_account).ok()?;
    let others = names.others.into_values().flat_map(|others| others.names);
    names.ours.into_iter().chain(others).find(|name| place.owner_of(name) == Some(uid))
}

fn check(store: &Store, uid: u32, caller: u32) -> Result<()> {
    let home = store.home().display();
    let refuse = |code, why: String| Err(Error::refused(code, why));
    match store.administrator() {
        None => refuse(
            Code::IncorrectState,
            format!("{home} is one user's alone; 'spore store share' shares it first"),
        ),
        Some(administrator) if caller != 0 && caller != administrator => refuse(
            Code::AuthFailure,
            format!(
                "{home} belongs to user {administrator}; only that one, or root, admits users to it"
            ),
        ),
        Some(_) if caller != 0 && caller != uid => refuse(
            Code::OperationNotPermitted,
            format!(
                "only root may give a directory to user {uid}: sudo SPORE_HOME={home} spore store admit {uid}"
            ),
        ),
        Some(_) => Ok(()),
    }
}
