//! Kernels and ramdisks, which EC2 lists by DescribeImages (ImageType kernel and ramdisk): found or registered, and
//! given up.

use super::Service;
use super::filter::{Filter, Filters, select};
use crate::error::{Code, Error, Result};
use crate::kernel::{self, BootFile, Registered};
use crate::plan::PvGrub;
use crate::record::kernel::{Kernel, Ramdisk};
use crate::store::beneath::Dir;
use crate::store::{Record as _, Store};
use rustix::fs::FileType;
use std::path::{Path, PathBuf};

/// The name that means the project's own kernel for software KVMs.
const LAB: &str = "lab";

const KERNEL_FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("architecture", "Architecture"),
        ("kernel-id", "KernelId"),
        ("name", "Name"),
        ("version", "Version"),
    ],
};
const RAMDISK_FILTERS: Filters =
    Filters { tags: "Tags", names: &[("name", "Name"), ("ramdisk-id", "RamdiskId")] };

impl Service {
    /// Registers the kernel in a file, under a name or one made of the file's. A file that is registered already gives
    /// the same kernel.
    ///
    /// # Errors
    /// As [`kernel::register`]'s.
    pub fn register_kernel(&self, file: &Path, name: Option<&str>) -> Result<Kernel> {
        Ok(kernel::register(&self.store, file, name)?.record)
    }

    /// Registers the initial ramdisk in a file, as [`Service::register_kernel`].
    ///
    /// # Errors
    /// As [`kernel::register`]'s.
    pub fn register_ramdisk(&self, file: &Path, name: Option<&str>) -> Result<Ramdisk> {
        Ok(kernel::register(&self.store, file, name)?.record)
    }

    /// The kernels named, or all, of which all filters hold.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_kernels(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Kernel>> {
        let kernels = self.store.kernels();
        let found = match ids {
            [] => {
                let mut all = kernels.list()?.or_warn();
                all.extend(Kernel::pv_grub());
                all
            }
            ids => ids.iter().map(|id| kernels.resolve(id)).collect::<Result<_>>()?,
        };
        select(found, filters, KERNEL_FILTERS)
    }

    /// The initial ramdisks named, or all, of which all filters hold.
    ///
    /// # Errors
    /// As [`Service::describe_kernels`]'s.
    pub fn describe_ramdisks(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Ramdisk>> {
        let ramdisks = self.store.ramdisks();
        let found = match ids {
            [] => ramdisks.list()?.or_warn(),
            ids => ids.iter().map(|id| ramdisks.resolve(id)).collect::<Result<_>>()?,
        };
        select(found, filters, RAMDISK_FILTERS)
    }

    /// Deregisters a kernel.
    ///
    /// # Errors
    /// `InvalidAKIID.InUse`: an image refers to it or an instance boots it. It is another's, or built in.
    pub fn deregister_kernel(&self, text: &str) -> Result<()> {
        let kernel = self.store.kernels().resolve(text)?;
        if PvGrub::of(&kernel.kernel_id).is_some() {
            let why = format!("{} is built in, and stays", kernel.kernel_id);
            return Err(Error::refused(Code::OperationNotPermitted, why));
        }
        kernel::deregister::<Kernel>(&self.store, &kernel.kernel_id)
    }

    /// Deregisters an initial ramdisk.
    ///
    /// # Errors
    /// As [`Service::deregister_kernel`]'s.
    pub fn deregister_ramdisk(&self, text: &str) -> Result<()> {
        let ramdisk = self.store.ramdisks().resolve(text)?;
        kernel::deregister::<Ramdisk>(&self.store, &ramdisk.ramdisk_id)
    }
}

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
pub(super) fn lab_kernel(store: &Store) -> Result<PathBuf> {
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
