//! Where a store is, and where its sockets are.

use crate::error::{Error, OrFail, Result};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// sockaddr_un.sun_path has 108 bytes with the NUL (unix(7)).
const SUN_PATH: usize = 108;
/// The longest socket path under the runtime directory.
const LONGEST_SOCKET: &str = "/i-0123456789abcdef0/control.sock";

/// (home, runtime directory) as the environment says.
pub fn from_environment() -> Result<(PathBuf, PathBuf)> {
    locate(|name| std::env::var_os(name).filter(|v| !v.is_empty()))
}

fn locate(var: impl Fn(&str) -> Option<OsString>) -> Result<(PathBuf, PathBuf)> {
    let absolute = |name| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
    // A relative path in an XDG variable is to be ignored (XDG Base Directory Specification, "Basics").
    let default = || {
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        data.map(|dir| dir.join("spore"))
    };
    let named = var("SPORE_HOME").map(PathBuf::from);
    let Some(home) = named.clone().or_else(default) else {
        return Err(Error::usage(
            "there is no place for the store: neither SPORE_HOME nor XDG_DATA_HOME nor HOME is set",
        ));
    };
    let home = std::path::absolute(&home).or_fail(|| format!("find {}", home.display()))?;

    let uid = rustix::process::geteuid().as_raw();
    let user = PathBuf::from(format!("/run/user/{uid}"));
    let ours = user.metadata().is_ok_and(|m| m.uid() == uid);
    let base = absolute("XDG_RUNTIME_DIR").or_else(|| ours.then_some(user));
    // Stores that the environment names may be many (tests are); each has sockets of its own.
    let suffix = named.map(|_| {
        let digest = Sha256::digest(home.as_os_str().as_bytes());
        digest[..4].iter().map(|b| format!("{b:02x}")).collect::<String>()
    });
    let name = |stem: String| match &suffix {
        Some(suffix) => format!("{stem}-{suffix}"),
        None => stem,
    };
    let fallback = || Path::new("/tmp").join(name(format!("spore-{uid}")));
    let runtime = match base.map(|dir| dir.join(name("spore".into()))) {
        Some(dir) if fits(&dir) => dir,
        _ => fallback(),
    };
    Ok((home, runtime))
}

/// True if a control socket below `dir` has a path that a Unix socket address can hold.
fn fits(dir: &Path) -> bool {
    dir.as_os_str().len() + LONGEST_SOCKET.len() < SUN_PATH
}

/// Make the runtime directory and see that nobody else has a hand in it: under `/tmp` anybody may have made it first.
pub fn runtime(dir: &Path) -> Result<PathBuf> {
    let dir = std::path::absolute(dir).or_fail(|| format!("find {}", dir.display()))?;
    if !fits(&dir) {
        return Err(Error::failure(format!(
            "the runtime directory {} is too long for a Unix socket below it (at most {} bytes): set XDG_RUNTIME_DIR to a shorter one",
            dir.display(),
            SUN_PATH - LONGEST_SOCKET.len() - 1
        )));
    }
    match DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        Ok(()) => {}
        Err(e) => {
            return Err(Error::io(format!("make the runtime directory {}", dir.display()), e));
        }
    }
    check_owner(&dir)?;
    let mode = dir.symlink_metadata().or_fail(|| format!("read {}", dir.display()))?.mode();
    if mode & 0o077 != 0 {
        return Err(Error::failure(format!(
            "the runtime directory {} is open to others (mode {:o}): chmod 700 it",
            dir.display(),
            mode & 0o7777
        )));
    }
    Ok(dir)
}

/// A directory that another user owns could be changed under us.
pub fn check_owner(dir: &Path) -> Result<()> {
    let meta = dir.symlink_metadata().or_fail(|| format!("read {}", dir.display()))?;
    let uid = rustix::process::geteuid().as_raw();
    if meta.is_symlink() {
        // A link that the owner of the place made on purpose is fine; what it leads to must be ours.
        let target = dir.metadata().or_fail(|| format!("read {}", dir.display()))?;
        if meta.uid() == uid && target.is_dir() && target.uid() == uid {
            return Ok(());
        }
    } else if meta.is_dir() && meta.uid() == uid {
        return Ok(());
    }
    Err(Error::failure(format!(
        "{} is not a directory of user {uid}: remove it or set SPORE_HOME and XDG_RUNTIME_DIR elsewhere",
        dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(vars: &[(&str, &str)]) -> Result<(PathBuf, PathBuf)> {
        locate(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn the_environment_decides_in_order() {
        let all = [("SPORE_HOME", "/s"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(located(&all).unwrap().0, Path::new("/s"));
        assert_eq!(located(&all[1..]).unwrap().0, Path::new("/x/spore"));
        assert_eq!(located(&all[2..]).unwrap().0, Path::new("/h/.local/share/spore"));
        assert_eq!(located(&[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn named_stores_have_sockets_of_their_own() {
        let run = |home| located(&[("SPORE_HOME", home), ("XDG_RUNTIME_DIR", "/r")]).unwrap().1;
        assert_ne!(run("/a"), run("/b"));
        assert_eq!(
            located(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]).unwrap().1,
            Path::new("/r/spore")
        );
    }

    #[test]
    fn a_long_runtime_directory_gives_way() {
        let long = format!("/{}", "r".repeat(100));
        let (_, runtime) = located(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", &long)]).unwrap();
        assert!(runtime.starts_with("/tmp"), "{}", runtime.display());
        assert!(super::runtime(Path::new(&long)).unwrap_err().to_string().contains("too long"));
    }
}
