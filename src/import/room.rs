//! Whether a disk fits, before its import begins: after an hour it would be known anyway. The reader counts.

use crate::error::{Code, Error};
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
    Error::refused(
        Code::InsufficientVolumeCapacity,
        format!(
            "its content takes more than the {} MiB that are free at {}; free some, or set SPORE_HOME to a larger file \
             system",
            free >> 20,
            store.display()
        ),
    )
}
