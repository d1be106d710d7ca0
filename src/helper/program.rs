//! Which program further processes of ours are started from.

use crate::error::{OrFail, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

static ANOTHER: AtomicBool = AtomicBool::new(false);

/// This program is another than `spore`, and is installed beside it.
pub fn this_is_another() {
    ANOTHER.store(true, Ordering::Relaxed);
}

/// The program that every further process of ours is started from: virtual machines and helpers.
///
/// # Errors
/// This program can't be found.
pub fn launcher() -> Result<PathBuf> {
    if ANOTHER.load(Ordering::Relaxed) {
        return beside("spore");
    }
    // An upgrade may have put another in its place.
    Ok(PathBuf::from("/proc/self/exe"))
}

/// A program that is installed beside this one.
///
/// # Errors
/// This program can't be found.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().or_fail(|| "find the spore program itself")?;
    Ok(own.with_file_name(name))
}
