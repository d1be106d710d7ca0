//! Attributes of files as the guest sees them.
//!
//! What belongs to the user who shares the directory belongs to the guest's root, and all else to
//! nobody. Set-user-ID bits and devices' numbers are the host's and mean nothing in the guest.

use super::fuse::set;
use super::tree::kind;
use rustix::fs::{Mode, Statx, Timespec, Timestamps};
use rustix::io::Errno;

/// Whom the guest knows as nobody. (overflowuid in proc_sys_kernel(5))
const NOBODY: u32 = 65534;
/// How long the guest may believe a name or attributes without asking: the host may change them.
const VALID_SECONDS: u64 = 1;
/// Permission bits that mean something on the other side.
const PERMISSIONS: u32 = 0o1777;

/// Whose files are the guest's root's: user and group of this process.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// This process's.
    pub fn own() -> Self {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { user: user.as_raw(), group: group.as_raw() }
    }

    /// The user and group that the guest sees.
    fn shown(self, found: &Statx) -> (u32, u32) {
        let shown = |id: u32, own: u32| if id == own { 0 } else { NOBODY };
        (shown(found.stx_uid, self.user), shown(found.stx_gid, self.group))
    }
}

/// struct fuse_attr.
fn attr(found: &Statx, owner: Owner) -> Vec<u8> {
    let mut out = Vec::with_capacity(88);
    let seconds = |time: i64| time.cast_unsigned();
    let (atime, mtime, ctime) = (found.stx_atime, found.stx_mtime, found.stx_ctime);
    for field in [
        found.stx_ino,
        found.stx_size,
        found.stx_blocks,
        seconds(atime.tv_sec),
        seconds(mtime.tv_sec),
        seconds(ctime.tv_sec),
    ] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    let (user, group) = owner.shown(found);
    let mode = u32::from(found.stx_mode) & (libc::S_IFMT | PERMISSIONS);
    let (links, device, flags) = (found.stx_nlink, 0, 0);
    for field in [
        atime.tv_nsec,
        mtime.tv_nsec,
        ctime.tv_nsec,
        mode,
        links,
        user,
        group,
        device,
        found.stx_blksize,
        flags,
    ] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out
}

/// struct fuse_attr_out.
pub fn attr_out(found: &Statx, owner: Owner) -> Vec<u8> {
    let mut out = VALID_SECONDS.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&attr(found, owner));
    out
}

/// struct fuse_entry_out.
pub fn entry_out(node: u64, found: &Statx, owner: Owner) -> Vec<u8> {
    let generation = 0;
    let mut out = Vec::with_capacity(128);
    for field in [node, generation, VALID_SECONDS, VALID_SECONDS] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&attr(found, owner));
    out
}

/// The permissions of a new file or directory, as far as a guest may give them: what it makes is
/// nobody's program to become its user by.
pub fn permissions(mode: u32, of: u32) -> Mode {
    let mask = if of == libc::S_IFDIR { PERMISSIONS } else { 0o777 };
    Mode::from_raw_mode(mode & mask)
}

/// struct fuse_setattr_in.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// Which of these there are.
    pub valid: u32,
    /// The open file.
    pub handle: u64,
    /// Bytes.
    pub size: u64,
    times: [(u64, u32); 2],
    mode: u32,
    user: u32,
    group: u32,
}

impl Changes {
    /// Of a request.
    ///
    /// # Errors
    /// It is too short.
    pub fn parse(body: &[u8]) -> Result<Self, Errno> {
        let mut fields = super::fuse::Fields(body);
        let f = &mut fields;
        let (valid, _) = (f.u32()?, f.u32()?);
        let (handle, size, _lock_owner) = (f.u64()?, f.u64()?, f.u64()?);
        let (atime, mtime, _ctime) = (f.u64()?, f.u64()?, f.u64()?);
        let (atime_ns, mtime_ns, _ctime_ns) = (f.u32()?, f.u32()?, f.u32()?);
        let (mode, _, user, group) = (f.u32()?, f.u32()?, f.u32()?, f.u32()?);
        let times = [(atime, atime_ns), (mtime, mtime_ns)];
        Ok(Self { valid, handle, size, times, mode, user, group })
    }

    /// Whether one of these is changed.
    pub fn has(&self, bits: u32) -> bool {
        self.valid & bits != 0
    }

    /// The open file, if one is named.
    pub fn handle(&self) -> Option<u64> {
        self.has(set::HANDLE).then_some(self.handle)
    }

    /// The new permissions of a file with these attributes.
    pub fn mode(&self, found: &Statx) -> Option<Mode> {
        self.has(set::MODE).then(|| permissions(self.mode, kind(found)))
    }

    /// Files stay whose they are.
    ///
    /// # Errors
    /// EPERM: another user or group than the guest sees is asked for.
    pub fn check_owner(&self, found: &Statx, owner: Owner) -> Result<(), Errno> {
        let (user, group) = owner.shown(found);
        let other =
            self.has(set::UID) && self.user != user || self.has(set::GID) && self.group != group;
        if other { Err(Errno::PERM) } else { Ok(()) }
    }

    /// The new times.
    pub fn times(&self) -> Option<Timestamps> {
        if !self.has(set::ATIME | set::MTIME | set::ATIME_NOW | set::MTIME_NOW) {
            return None;
        }
        let time = |given: u32, now: u32, (seconds, nanoseconds): (u64, u32)| {
            let tv_nsec = match (self.has(now), self.has(given)) {
                (true, _) => libc::UTIME_NOW,
                (_, true) => nanoseconds.min(999_999_999).into(),
                _ => libc::UTIME_OMIT,
            };
            Timespec { tv_sec: seconds.cast_signed(), tv_nsec }
        };
        Some(Timestamps {
            last_access: time(set::ATIME, set::ATIME_NOW, self.times[0]),
            last_modification: time(set::MTIME, set::MTIME_NOW, self.times[1]),
        })
    }
}
