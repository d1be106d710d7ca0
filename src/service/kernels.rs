//! The kernels and ramdisks that commands name: found, or registered.

use crate::error::{Error, Result};
use crate::kernel::{self, BootFile, Registered};
use crate::record::kernel::{Kernel, Ramdisk};
use crate::store::beneath::Dir;
use crate::store::{Record as _, Store};
use rustix::fs::FileType;
use std::path::{Path, PathBuf};

/// The name that means the project's own kernel for software KVMs.
const LAB: &str = "lab";

/// A registered kernel by id, prefix or name; `lab` also as `scripts/build-image` left it in the cache; else a file,
/// which is registered. The same file is registered once; another's kernel is copied.
pub(super) fn find_kernel(store: &Store, text: &str) -> Result<Registered<Kernel>> {
    let lab = |text: &str| text == LAB && !Path::new(text).exists();
    find(store, text, |text| lab(text).then(|| lab_kernel(store)))
}

/// As [`find_kernel`].
pub(super) fn find_ramdisk(store: &Store, text: &str) -> Result<Registered<Ramdisk>> {
    find(store, text, |_| None)
}

/// A registered object by id, prefix or name; else what `known` gives; else a file, which is registered.
fn find<R: BootFile>(
    store: &Store,
    text: &str,
    known: impl FnOnce(&str) -> Option<Result<PathBuf>>,
) -> Result<Registered<R>> {
    match store.collection::<R>().resolve(text) {
        Err(e) if e.code() == Some(R::NOT_FOUND) => {
            let path = known(text).unwrap_or_else(|| existing(text, e))?;
            kernel::register(store, &path, None)
        }
        found => kernel::copy_to_caller(store, found?.id()),
    }
}

/// The file of that name; `unknown` if there is none.
fn existing(text: &str, unknown: Error) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.exists() { Ok(path) } else { Err(unknown.remedy("there is no such file either")) }
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
