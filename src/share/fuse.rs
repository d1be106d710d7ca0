//! FUSE's protocol as a Linux guest speaks it over virtio, from version 7.31 on: numbers, and the
//! fields of requests. (linux/fuse.h)

use rustix::io::Errno;
use std::ffi::CStr;

/// Bytes of struct fuse_in_header.
pub const IN_HEADER: u32 = 40;
/// Bytes of struct fuse_out_header.
pub const OUT_HEADER: u32 = 16;
/// Bytes of struct fuse_read_in, and of struct fuse_write_in.
pub const TRANSFER_IN: u32 = 40;
/// The version that is spoken.
pub const MAJOR: u32 = 7;
/// The first and the spoken minor version; virtio-fs came with it (Linux 5.4).
pub const MINOR: u32 = 31;
/// FUSE_ROOT_ID.
pub const ROOT: u64 = 1;

/// What requests ask for. (enum fuse_opcode)
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
}

/// What both ends agree upon. (INIT's flags)
pub mod init {
    pub const ASYNC_READ: u32 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub const BIG_WRITES: u32 = 1 << 5;
    pub const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const MAX_PAGES: u32 = 1 << 22;
}

/// Which attributes SETATTR changes. (FATTR_*)
pub mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const HANDLE: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
}

/// The fields of a request, one after the other.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    /// A number of 32 bits.
    ///
    /// # Errors
    /// EINVAL: the request is too short; so of the other fields.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    /// A number of 64 bits.
    ///
    /// # Errors
    /// As [`Fields::u32`].
    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// Text of any kind that ends with a NUL.
    ///
    /// # Errors
    /// As [`Fields::u32`].
    pub fn text(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[text.count_bytes() + 1..];
        Ok(text)
    }

    /// The name of an entry: no path, and not the directory itself or that above it.
    ///
    /// # Errors
    /// As [`Fields::u32`]; it is none.
    pub fn name(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.text()?;
        let bytes = name.to_bytes();
        match bytes {
            b"" | b"." | b".." => Err(Errno::INVAL),
            _ if bytes.len() > 255 => Err(Errno::NAMETOOLONG),
            _ if bytes.contains(&b'/') => Err(Errno::INVAL),
            _ => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_entry_of_its_directory() {
        let name = |bytes: &'static [u8]| Fields(bytes).name().map(CStr::to_bytes);
        assert_eq!(name(b"a\0b"), Ok(&b"a"[..]));
        assert_eq!(name(b"...\0"), Ok(&b"..."[..]));
        for none in [&b""[..], b"a", b"\0", b".\0", b"..\0", b"a/b\0", b"/\0", b"../x\0"] {
            assert_eq!(name(none), Err(Errno::INVAL), "{none:?}");
        }
        let long: &'static [u8] = Box::leak([vec![b'x'; 256], vec![0]].concat().into());
        assert_eq!(name(long), Err(Errno::NAMETOOLONG));
    }
}
