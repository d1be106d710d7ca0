//! Whether what comes in fits, before it comes: after an hour it would be known anyway.

use crate::error::{Code, Error, Result};
use rustix::fs::statvfs;
use std::path::Path;

/// Bytes that this user may still write at `dir`, if the file system tells.
pub(super) fn free(dir: &Path) -> Option<u64> {
    let stat = statvfs(dir).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The error for a disk whose content is more than the `free` bytes at `dir`.
pub(super) fn refused(free: u64, dir: &Path) -> Error {
    let store = dir.ancestors().nth(2).unwrap_or(dir);
    let what = format!("its content takes more than the {} MiB that are free", free >> 20);
    too_much(&what, store)
}

/// See that `bytes` more can be stored in the store at `home`.
///
/// # Errors
/// `InsufficientVolumeCapacity`: they are more than are free there.
pub(crate) fn check(home: &Path, bytes: u64) -> Result<()> {
    match free(home).filter(|free| *free < bytes) {
        None => Ok(()),
        // Rounded so that what is needed is never what is there.
        Some(free) => {
            let (needed, free) = (bytes.div_ceil(1 << 20), free >> 20);
            Err(too_much(&format!("it needs {needed} MiB more, and {free} MiB are free"), home))
        }
    }
}

fn too_much(what: &str, store: &Path) -> Error {
    Error::refused(
        Code::InsufficientVolumeCapacity,
        format!(
            "{what} at {}; free some, or set SPORE_HOME to a larger file system",
            store.display()
        ),
    )
}
