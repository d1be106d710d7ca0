//! Where a store is, what is in it, and whose it is.

use super::beneath;
use crate::error::{Error, OrFail, Result};
use crate::record::kinds;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What marks a shared store.
pub const MARKER: &str = "shared";

/// The administrator's uid if the store at `home` is a shared one.
///
/// # Errors
/// It says it is, but others than its administrator could have said so.
pub fn administrator(home: &Path) -> Result<Option<u32>> {
    let Ok(marker) = home.join(MARKER).symlink_metadata() else { return Ok(None) };
    let meta = home.metadata().or_fail(|| format!("read {}", home.display()))?;
    if marker.is_file() && marker.uid() == meta.uid() && meta.mode() & 0o022 == 0 {
        return Ok(Some(meta.uid()));
    }
    Err(Error::failure(format!(
        "the shared store {} could be anybody's: it must be a directory that only its owner can write",
        home.display()
    )))
}

/// Directories of objects, and those beside them. The last one is made last.
pub fn directories() -> impl Iterator<Item = &'static str> {
    kinds::DIRECTORIES.into_iter().chain(["accounts", "cache", "tmp"])
}

/// Makes the directories of a shared store, those that are not there or, with `all`, all of them.
///
/// # Errors
/// One can't be made, or is another's.
pub(super) fn make_shared(home: &Path, all: bool) -> Result<()> {
    let wanted = |(path, _): &(PathBuf, u32)| all || !path.is_dir();
    // Others must not prepare what everybody would take from the cache.
    let mode = |name: &str| if name == "cache" { 0o755 } else { 0o1777 };
    let places = directories().map(|name| (home.join(name), mode(name)));
    places.filter(wanted).try_for_each(|(path, mode)| share_place(&path, mode))
}

/// Makes a directory of a shared store, or gives it its mode.
///
/// # Errors
/// It can't be made, or is another's.
pub(super) fn share_place(path: &Path, mode: u32) -> Result<()> {
    beneath::make_place(path, mode).or_fail(|| format!("share {}", path.display()))
}

/// The store's directory as the environment says.
pub fn home() -> Result<PathBuf> {
    locate(|name| std::env::var_os(name).filter(|v| !v.is_empty()))
}

/// Where this user's programs have their settings, if the environment says: `$XDG_CONFIG_HOME`,
/// else `~/.config`. (XDG Base Directory Specification)
pub fn config_home() -> Option<PathBuf> {
    let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")))
}

fn locate(var: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let absolute = |name| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
    // A relative path in an XDG variable is to be ignored (XDG Base Directory Specification,
    // "Basics").
    let default = || {
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        data.map(|dir| dir.join("spore"))
    };
    let Some(home) = var("SPORE_HOME").map(PathBuf::from).or_else(default) else {
        return Err(Error::usage(
            "there is no place for the store: neither SPORE_HOME nor XDG_DATA_HOME nor HOME is set",
        ));
    };
    std::path::absolute(&home).or_fail(|| format!("find {}", home.display()))
}

/// A directory that another user than `uid` owns could be changed under us.
pub fn check_owner(dir: &Path, uid: u32) -> Result<()> {
    let meta = dir.symlink_metadata().or_fail(|| format!("read {}", dir.display()))?;
    if meta.is_symlink() {
        // A link that the owner of the place made on purpose is fine; what it leads to must be
        // ours.
        let target = dir.metadata().or_fail(|| format!("read {}", dir.display()))?;
        if meta.uid() == uid && target.is_dir() && target.uid() == uid {
            return Ok(());
        }
    } else if meta.is_dir() && meta.uid() == uid {
        return Ok(());
    }
    if meta.is_dir() {
        let why = format!("the store {} belongs to user {}", dir.display(), meta.uid());
        return Err(Error::failure(why).remedy(
            "set SPORE_HOME to one of yours; theirs is for others once 'spore store share' says so",
        ));
    }
    Err(Error::failure(format!(
        "{} is not a directory of user {uid}: remove it or set SPORE_HOME elsewhere",
        dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(vars: &[(&str, &str)]) -> Result<PathBuf> {
        locate(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn the_environment_decides_in_order() {
        let all = [("SPORE_HOME", "/s"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(located(&all).unwrap(), Path::new("/s"));
        assert_eq!(located(&all[1..]).unwrap(), Path::new("/x/spore"));
        assert_eq!(located(&all[2..]).unwrap(), Path::new("/h/.local/share/spore"));
        assert_eq!(located(&[]).unwrap_err().exit_code(), 2);
    }
}
