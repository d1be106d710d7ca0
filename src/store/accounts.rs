//! Accounts: the directories in which users have what is theirs alone.

use super::beneath::{Dir, Owned};
use crate::context::Context;
use crate::error::{OrFail, Result};
use std::path::{Path, PathBuf};

/// Where a user's account is: `accounts/UID`. In a shared store whose administrator made none,
/// anybody may have taken that name; it is left to them then, and the account is
/// `accounts/UID.SUFFIX`, the first that is the user's.
pub(super) fn account_dir(home: &Path, context: &Context) -> PathBuf {
    let uid = context.caller();
    let accounts = home.join("accounts");
    let usual = accounts.join(uid.to_string());
    let Ok(place) = Dir::place(&accounts) else { return usual };
    let planted = match place.stat(&uid.to_string()) {
        Ok(stat) => stat.st_uid != uid,
        Err(_) => false,
    };
    if !planted {
        return usual;
    }
    let ours = |name: &String| account_of(name) == Some(uid);
    let found = place.own_names().unwrap_or_default().into_iter().filter(ours).min();
    let suffix = || crate::id::random_hex(8).unwrap_or_else(|_| "own".to_owned());
    let name = found.unwrap_or_else(|| {
        let name = format!("{uid}.{}", suffix());
        context.warn(format_args!(
            "{} is not yours and is left alone, your account is in {name}; the store's administrator can remove it",
            usual.display()
        ));
        name
    });
    accounts.join(name)
}

/// The uid that the name of an account's directory says.
pub(super) fn account_of(name: &str) -> Option<u32> {
    name.split_once('.').map_or(name, |(uid, _)| uid).parse().ok()
}

/// Make the account's directory, and see that nobody else made it.
///
/// # Errors
/// No space; somebody else did.
pub(super) fn make_account_dir(dir: &Path) -> Result<Owned> {
    Owned::make_if_absent(dir).or_fail(|| format!("make {}", dir.display()))
}
