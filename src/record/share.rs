//! Directories of the host's that an instance's guest sees.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A shared directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Share {
    /// The directory of the host's, an absolute path.
    pub host_path: PathBuf,
    /// Where the guest is asked to mount it, an absolute path.
    pub guest_path: String,
    /// The guest changes nothing in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl Share {
    /// Most bytes of either path.
    pub const LONGEST: usize = 1024;
    /// Most that an instance has: each is a device and a process.
    pub const MOST: usize = 8;

    /// What the guest knows it by, by its place among the instance's: a virtio-fs tag.
    pub fn tag(index: usize) -> String {
        format!("share{index}")
    }

    /// The line of the guest's fstab(5) by which it mounts it, and boots without.
    pub fn fstab(&self, index: usize) -> String {
        let mode = if self.read_only { "ro" } else { "rw" };
        let path = escape(&self.guest_path);
        format!("{} {path} virtiofs {mode},nosuid,nodev,nofail 0 0\n", Self::tag(index))
    }

    /// Checks both paths.
    ///
    /// # Errors
    /// One is not absolute, or too long; the guest's is its root or leads up.
    pub fn check(&self) -> Result<()> {
        let Self { host_path, guest_path, .. } = self;
        let refuse = |why: &str| Err(Error::usage(format!("cannot share {self}: {why}")));
        let guest = Path::new(guest_path);
        if !host_path.is_absolute() || !guest.is_absolute() {
            return refuse("both paths are absolute ones");
        }
        if host_path.as_os_str().len() > Self::LONGEST || guest_path.len() > Self::LONGEST {
            return refuse("a path has 1024 bytes at most");
        }
        if guest.components().any(|part| part == Component::ParentDir) || guest.parent().is_none() {
            return refuse("the guest mounts it on a directory below its root, without '..'");
        }
        if guest_path.contains(|c: char| c.is_control()) {
            return refuse("the guest's path has a control character");
        }
        Ok(())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{mode}", self.host_path.display(), self.guest_path)
    }
}

/// A field of fstab(5).
fn escape(path: &str) -> String {
    let mut field = String::new();
    for byte in path.bytes() {
        match byte {
            b'\\' | 0..=b' ' | 0x7f.. => field.push_str(&format!("\\{byte:03o}")),
            _ => field.push(byte.into()),
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(host: &str, guest: &str) -> Share {
        Share { host_path: host.into(), guest_path: guest.into(), read_only: true }
    }

    #[test]
    fn a_guest_mounts_it_by_a_line_of_its_own() {
        let line = share("/home/me/my src", "/mnt/my src\\é").fstab(1);
        let path = "/mnt/my\\040src\\134\\303\\251";
        assert_eq!(line, format!("share1 {path} virtiofs ro,nosuid,nodev,nofail 0 0\n"));
    }

    #[test]
    fn paths_are_absolute_and_go_down() {
        assert!(share("/", "/src").check().is_ok());
        for (host, guest) in [
            ("src", "/src"),
            ("/src", "src"),
            ("/src", "/"),
            ("/src", "/a/../b"),
            ("/src", "/a\nb"),
            ("/src", &format!("/{}", "x".repeat(1024))),
        ] {
            assert!(share(host, guest).check().is_err(), "{host} {guest}");
        }
    }
}
