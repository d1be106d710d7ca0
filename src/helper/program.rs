//! Which program further processes of ours are started from.

use crate::error::{OrFail, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The program that has what `spore` has and more; it is installed beside it.
pub const REMOTE: &str = "spore-remote";

/// The program that every further process of ours is started from: virtual machines and helpers.
///
/// # Errors
/// This program can't be found.
pub fn launcher() -> Result<PathBuf> {
    let own = own()?;
    // Where an upgrade has replaced it the kernel says "spore-remote (deleted)".
    if own.file_name().is_some_and(|name| name.as_bytes().starts_with(REMOTE.as_bytes())) {
        return Ok(own.with_file_name("spore"));
    }
    // Cargo's tests are programs of their own, in a directory below.
    if cfg!(debug_assertions)
        && let Some(dir) = own.parent().filter(|dir| dir.ends_with("deps"))
        && dir.with_file_name("spore").exists()
    {
        return Ok(dir.with_file_name("spore"));
    }
    // An upgrade may have put another in its place.
    Ok(PathBuf::from("/proc/self/exe"))
}

/// A program that is installed beside this one.
///
/// # Errors
/// This program can't be found.
pub fn beside(name: &str) -> Result<PathBuf> {
    Ok(own()?.with_file_name(name))
}

fn own() -> Result<PathBuf> {
    std::env::current_exe().or_fail(|| "find the spore program itself")
}
