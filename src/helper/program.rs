//! Which program further processes of ours are started from.

use crate::error::{OrFail, Result};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where `spore` in PREFIX/bin has the programs that it starts, from there.
const LIBEXEC: &str = "../libexec/spore";
/// The way back.
const BIN: &str = "../../bin";

/// This program, for itself only.
const OWN: &str = "/proc/self/exe";
/// What the kernel adds to the name of a program that is not there any more. (proc(5))
const DELETED: &[u8] = b" (deleted)";

/// The program that has what `spore` has and more.
pub const REMOTE: &str = "spore-remote";

/// The program that every further process of ours is started from: virtual machines and helpers.
///
/// # Errors
/// This program can't be found.
pub fn launcher() -> Result<PathBuf> {
    let own = own()?;
    // Where an upgrade has replaced it the kernel says "spore-remote (deleted)".
    if own.file_name().is_some_and(|name| name.as_bytes().starts_with(REMOTE.as_bytes())) {
        let beside = own.with_file_name("spore");
        return Ok(match own.parent() {
            Some(dir) if !beside.exists() => dir.join(BIN).join("spore"),
            _ => beside,
        });
    }
    // Cargo's tests are programs of their own, in a directory below.
    if cfg!(debug_assertions)
        && let Some(dir) = own.parent().filter(|dir| dir.ends_with("deps"))
        && dir.with_file_name("spore").exists()
    {
        return Ok(dir.with_file_name("spore"));
    }
    // An upgrade may have put another in its place.
    Ok(PathBuf::from(OWN))
}

/// The same by a path that means it to whoever reads it later, as a unit's reader does.
///
/// # Errors
/// This program can't be found.
pub fn lasting() -> Result<PathBuf> {
    let program = launcher()?;
    if program != Path::new(OWN) {
        return Ok(program);
    }
    // Where an upgrade has replaced it, what is meant is what lies in its place.
    let own = own()?.into_os_string().into_vec();
    let path = own.strip_suffix(DELETED).unwrap_or(&own).to_vec();
    Ok(PathBuf::from(OsString::from_vec(path)))
}

/// A program that is installed with this one: beside it, or in PREFIX/libexec/spore.
///
/// # Errors
/// This program can't be found.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = own()?;
    let beside = own.with_file_name(name);
    let libexec = own.parent().map(|dir| dir.join(LIBEXEC).join(name));
    Ok(libexec.filter(|path| !beside.exists() && path.exists()).unwrap_or(beside))
}

fn own() -> Result<PathBuf> {
    std::env::current_exe().or_fail(|| "find the spore program itself")
}
