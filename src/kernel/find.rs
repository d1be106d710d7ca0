//! Kernels and ramdisks by what a user says: the one place that knows what the word after --kernel
//! or --initrd means.

use super::{BootFile, Registered, copy_to_caller, examine, open, register};
use crate::error::{Code, Error, Result};
use crate::record::Record as _;
use crate::record::kernel::{Kernel, Ramdisk};
use crate::store::Store;
use crate::store::beneath::Dir;
use rustix::fs::FileType;
use std::path::{Path, PathBuf};

/// The name that means the project's own kernel for software KVMs.
const LAB: &str = "lab";

/// The kernel that `text` means: an id, a registered name or a unique prefix of an id, or a file,
/// which is registered; `lab` also as `scripts/build-image` left it in the cache. The same file is
/// registered once; another's kernel is copied.
///
/// # Errors
/// There is none; the file is no kernel; a registered kernel and another file have the name.
pub fn kernel(store: &Store, text: &str) -> Result<Registered<Kernel>> {
    match find(store, text) {
        Err(e) if text == LAB && e.code() == Some(Kernel::NOT_FOUND) => {
            register(store, &lab_kernel(store)?, None)
        }
        found => found,
    }
}

/// The initial ramdisk that `text` means, likewise.
///
/// # Errors
/// As [`kernel`]'s.
pub fn ramdisk(store: &Store, text: &str) -> Result<Registered<Ramdisk>> {
    find(store, text)
}

fn find<R: BootFile>(store: &Store, text: &str) -> Result<Registered<R>> {
    let (path, is_id) = (Path::new(text), text.parse::<R::Id>().is_ok());
    // What has a slash is no name.
    if text.contains('/') && !is_id {
        return register(store, path, None);
    }
    let file = !is_id && path.metadata().is_ok_and(|metadata| !metadata.is_dir());
    let object = match store.collection::<R>().resolve(text) {
        Err(e) if e.code() == Some(R::NOT_FOUND) && file => return register(store, path, None),
        Err(e) if e.code() == Some(R::NOT_FOUND) => {
            return Err(e.remedy("there is no such file either"));
        }
        object => object?,
    };
    if file && examine(open::<R>(path)?, path, R::WHAT)?.digest != object.digest() {
        let (kind, id, text) = (R::KIND, object.id(), text.escape_debug());
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("'{text}' is {kind} {id} and another file here, too: give {id}, or ./{text}"),
        ));
    }
    copy_to_caller(store, object.id())
}

/// The newest lab kernel in the store's cache.
///
/// # Errors
/// There is none.
pub fn lab_kernel(store: &Store) -> Result<PathBuf> {
    let cache = store.cache().join("lab-kernel");
    let all = |name: &str| !name.is_empty();
    let builds = Dir::place(&cache).and_then(|c| c.names_by_account(FileType::Directory, all));
    let builds = builds.unwrap_or_default();
    let others = builds.others.values().flat_map(|others| &others.names);
    let kernels = builds.ours.iter().chain(others).map(|build| cache.join(build).join("vmlinux"));
    let kernels = kernels.filter(|path| path.is_file());
    let newest = kernels.max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    newest.ok_or_else(|| {
        Error::refused(
            Kernel::NOT_FOUND,
            "there is no lab kernel in the store's cache; scripts/build-image lab-kernel builds it",
        )
    })
}
