//! Who may read an object's files, as the kernel enforces it: POSIX access control lists.
//!
//! The list is an extended attribute in the kernel's own format (linux/posix_acl_xattr.h): a
//! version, then entries of a tag, permissions and an id, little-endian, sorted by tag and id. An
//! object is its owner's to change, always.

use super::beneath::{self, Owned};
use crate::error::{Error, OrFail, Result};
use rustix::fs::{FileType, Mode, XattrFlags, fchmod, fsetxattr};
use rustix::io::Errno;
use std::path::Path;

const ATTRIBUTE: &str = "system.posix_acl_access";
/// POSIX_ACL_XATTR_VERSION.
const VERSION: u32 = 2;
/// ACL_UNDEFINED_ID.
const NOBODY: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

const READ: u16 = 4;
const WRITE: u16 = 2;
const SEARCH: u16 = 1;

/// Who may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Everybody.
    pub public: bool,
    /// These users, by uid.
    pub users: Vec<u32>,
    /// The members of these groups, by gid.
    pub groups: Vec<u32>,
}

impl Readers {
    /// Add all that `other` has.
    pub fn join(&mut self, other: Self) {
        self.public |= other.public;
        self.users.extend(other.users);
        self.groups.extend(other.groups);
    }

    /// True if nobody but the owner may.
    pub fn is_empty(&self) -> bool {
        !self.public && self.users.is_empty() && self.groups.is_empty()
    }

    /// The attribute's value for a file whose owner has `owner`, and readers `readers`.
    fn encode(&self, owner: u16, readers: u16) -> Vec<u8> {
        let everybody = if self.public { readers } else { 0 };
        let mut entries = vec![
            (USER_OBJ, owner, NOBODY),
            (GROUP_OBJ, everybody, NOBODY),
            (OTHER, everybody, NOBODY),
        ];
        // Only a list that names somebody has a mask; without names it is no more than the file's
        // mode.
        if !self.users.is_empty() || !self.groups.is_empty() {
            entries.push((MASK, readers, NOBODY));
        }
        entries.extend(self.users.iter().map(|id| (USER, readers, *id)));
        entries.extend(self.groups.iter().map(|id| (GROUP, readers, *id)));
        entries.sort_by_key(|(tag, _, id)| (*tag, *id));
        entries.dedup();
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }
}

/// Let `readers`, and nobody else but the owner, read the object in `dir`. The directory is the
/// gate: the files in it may be hard links of another object's, and are plainly readable for
/// whoever gets as far.
///
/// # Errors
/// The file system has no access control lists and needs them for this, or the object is another's.
pub fn grant(dir: &Path, readers: &Readers) -> Result<()> {
    let doing = || format!("set who may read {}", dir.display());
    let dir = &beneath::owned(dir)?;
    if !readers.is_empty() {
        open_up(dir).or_fail(doing)?;
    }
    crate::sys::fault::point("change of an access control list");
    let list = readers.encode(READ | WRITE | SEARCH, READ | SEARCH);
    match fsetxattr(dir, ATTRIBUTE, &list, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        // Without lists there are still the owner and everybody.
        Err(Errno::OPNOTSUPP) if readers.users.is_empty() && readers.groups.is_empty() => {
            let mode = if readers.public { 0o755 } else { 0o700 };
            fchmod(dir, Mode::from_raw_mode(mode)).or_fail(doing)
        }
        Err(Errno::OPNOTSUPP) => Err(Error::failure(format!(
            "cannot {}: its file system has no POSIX access control lists; put the store on one that has",
            doing()
        ))),
        Err(errno) => Err(Error::io(doing(), errno)),
    }
}

/// Whoever gets into the directory may read its files.
fn open_up(dir: &Owned) -> std::io::Result<()> {
    for name in dir.names()? {
        let stat = dir.stat(&name)?;
        let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // The lock is for those who change the object.
        if plain && name != "lock" && stat.st_uid == dir.owner() {
            dir.set_mode(&name, stat.st_mode & 0o777 | 0o044)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_list_is_what_the_kernel_expects() {
        let readers = Readers { public: false, users: vec![1002, 1001, 1001], groups: vec![50] };
        let value = readers.encode(6, READ);
        let entries: Vec<(u16, u16, u32)> = value[4..]
            .chunks(8)
            .map(|e| {
                let half = |at: usize| u16::from_le_bytes([e[at], e[at + 1]]);
                (half(0), half(2), u32::from_le_bytes([e[4], e[5], e[6], e[7]]))
            })
            .collect();
        assert_eq!(value[..4], [2, 0, 0, 0]);
        assert_eq!(
            entries,
            [
                (USER_OBJ, 6, NOBODY),
                (USER, 4, 1001),
                (USER, 4, 1002),
                (GROUP_OBJ, 0, NOBODY),
                (GROUP, 4, 50),
                (MASK, 4, NOBODY),
                (OTHER, 0, NOBODY),
            ]
        );
    }

    #[test]
    fn what_is_granted_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["record.json", "lock"] {
            fs::write(dir.path().join(name), "x").unwrap();
            let private = Permissions::from_mode(0o600);
            fs::set_permissions(dir.path().join(name), private).unwrap();
        }
        let mode = |name: &str| dir.path().join(name).metadata().unwrap().mode() & 0o777;
        let public = Readers { public: true, ..Readers::default() };
        grant(dir.path(), &public).unwrap();
        assert_eq!((mode(""), mode("record.json"), mode("lock")), (0o755, 0o644, 0o600));
        grant(dir.path(), &Readers::default()).unwrap();
        assert_eq!(mode(""), 0o700);
    }
}
