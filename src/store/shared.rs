//! A store that several Unix users share: a region.
//!
//! Its directories are its administrator's, and sticky like /tmp: everybody may put objects in,
//! nobody may move or remove another's. An object is a directory of its owner's with mode 0700, so
//! it is private until an access control list says otherwise ([`super::acl`]). The file `shared` in
//! the store says that it is one.

use super::beneath::{self, Dir};
use super::paths::{MARKER, make_shared, share_place};
use super::{Store, sync_dir};
use crate::error::{Code, Error, OrFail, Result};
use std::fs::File;
use std::path::Path;

/// Share a store of one's own. What is in it stays private until it is shared by itself.
///
/// # Errors
/// It is another's, or its modes can't be changed.
pub fn share(store: &Store) -> Result<()> {
    if store.administrator().is_some_and(|uid| uid != store.context().caller()) {
        return Err(Error::refused(
            Code::AuthFailure,
            format!("{} belongs to another user", store.home().display()),
        ));
    }
    make_shared(store.home(), true)?;
    // Before the marker: one that others could have made is refused.
    share_place(store.home(), 0o755)?;
    let marked = beneath::owned(store.home())?.open_or_create(MARKER);
    marked.or_fail(|| format!("make {}", store.home().join(MARKER).display()))?;
    beneath::owned(store.home())?.set_mode(MARKER, 0o644).or_fail(|| "share the store")?;
    sync_dir(store.home())
}

/// Open a file of an object, whoever's it is: a plain file that the owner of the object's directory
/// owns. What another account made may lead anywhere, and must not make this user open a file of
/// their own.
///
/// # Errors
/// There is none, or it is none of that kind.
pub fn open_file(dir: &Path, name: &str) -> Result<File> {
    let opened = Dir::open(dir).and_then(|dir| dir.file(name));
    opened.or_fail(|| format!("open {}", dir.join(name).display()))
}
