//! The kernels and ramdisks that commands name: found or registered, and given up.

use crate::error::{Code, Error, Result};
use crate::id::{KernelId, RamdiskId};
use crate::instance::dir::instances;
use crate::kernel::{self, Registered};
use crate::record::instance::{Instance, State};
use crate::record::kernel::{Kernel, Ramdisk};
use crate::store::beneath::Dir;
use crate::store::{Record as _, Store, check_owner};
use std::path::{Path, PathBuf};

/// The name that means the project's own kernel for software KVMs.
const LAB: &str = "lab";

/// What a command has registered, for the case that the rest of it fails.
#[derive(Debug, Default)]
pub(super) struct New {
    kernel: Option<Kernel>,
    ramdisk: Option<Ramdisk>,
}

impl New {
    /// Its id, and remember a kernel that is new.
    pub(super) fn kernel(&mut self, found: Registered<Kernel>) -> KernelId {
        let id = found.record.kernel_id.clone();
        self.kernel = found.new.then_some(found.record);
        id
    }

    /// Its id, and remember a ramdisk that is new.
    pub(super) fn ramdisk(&mut self, found: Registered<Ramdisk>) -> RamdiskId {
        let id = found.record.ramdisk_id.clone();
        self.ramdisk = found.new.then_some(found.record);
        id
    }

    /// Remove what is new, unless somebody has come to use it. Failing at that is harmless.
    pub(super) fn undo(self, store: &Store) {
        if let Some(kernel) = self.kernel {
            let _ = deregister_kernel(store, &kernel);
        }
        if let Some(ramdisk) = self.ramdisk {
            let _ = deregister_ramdisk(store, &ramdisk);
        }
    }
}

/// Deregister a kernel.
///
/// # Errors
/// `InvalidAKIID.InUse`: an image refers to it or an instance boots it. It is another's.
pub fn deregister_kernel(store: &Store, kernel: &Kernel) -> Result<()> {
    check_owner(store, kernel)?;
    let id = &kernel.kernel_id;
    refuse_booted(store, Code::InvalidAKIIDInUse, id.as_str(), |instance| {
        instance.kernel_id.as_ref() == Some(id)
    })?;
    kernel::deregister(store, id)
}

/// Deregister an initial ramdisk.
///
/// # Errors
/// As [`deregister_kernel`]'s.
pub fn deregister_ramdisk(store: &Store, ramdisk: &Ramdisk) -> Result<()> {
    check_owner(store, ramdisk)?;
    let id = &ramdisk.ramdisk_id;
    refuse_booted(store, Code::InvalidARIIDInUse, id.as_str(), |instance| {
        instance.ramdisk_id.as_ref() == Some(id)
    })?;
    kernel::deregister_ramdisk(store, id)
}

/// # Errors
/// An instance that has not been terminated `boots` it: a stopped one needs it to start again.
fn refuse_booted(
    store: &Store,
    code: Code,
    object: &str,
    boots: impl Fn(&Instance) -> bool,
) -> Result<()> {
    let records = instances(store).list()?.records;
    let mut users = records.iter().map(|record| &record.instance);
    match users.find(|instance| instance.state != State::Terminated && boots(instance)) {
        None => Ok(()),
        Some(user) => Err(Error::refused(
            code,
            format!("{object} is what {} boots; terminate that first", user.instance_id),
        )),
    }
}

/// A registered kernel by id, prefix or name; `lab` also as `scripts/build-image` left it in the cache; else a file,
/// which is registered. The same file is registered once; another's kernel is copied.
pub(super) fn find_kernel(store: &Store, text: &str) -> Result<Registered<Kernel>> {
    match store.kernels().resolve(text) {
        Err(e) if e.code() == Some(Kernel::NOT_FOUND) => {
            let path = if text == LAB && !Path::new(text).exists() {
                lab_kernel(store)?
            } else {
                existing(text, e)?
            };
            kernel::register(store, &path, None)
        }
        found => kernel::copy_to_caller(store, &found?.kernel_id),
    }
}

/// As [`find_kernel`].
pub(super) fn find_ramdisk(store: &Store, text: &str) -> Result<Registered<Ramdisk>> {
    match store.ramdisks().resolve(text) {
        Err(e) if e.code() == Some(Ramdisk::NOT_FOUND) => {
            kernel::register_ramdisk(store, &existing(text, e)?, None)
        }
        found => kernel::copy_ramdisk_to_caller(store, &found?.ramdisk_id),
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
    let builds = Dir::place(&cache).and_then(|cache| cache.names()).unwrap_or_default();
    let kernels = builds.iter().map(|build| cache.join(build).join("vmlinux"));
    let kernels = kernels.filter(|path| path.is_file());
    let newest = kernels.max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    newest.ok_or_else(|| {
        Error::refused(
            Kernel::NOT_FOUND,
            "there is no lab kernel in the store's cache; scripts/build-image lab-kernel builds it",
        )
    })
}
