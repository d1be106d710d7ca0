//! The bytes of a kernel: a file that can be mapped, or what came out of a decompressor.

use crate::error::{Code, Error, OrFail, Result};
use crate::sys::fds;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Where a kernel's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A regular file of this many bytes. It is read with pread(2): clones share its file position.
    File(&'a File, u64),
    /// Memory.
    Bytes(&'a [u8]),
}

impl<'a> Source<'a> {
    /// A regular file.
    ///
    /// # Errors
    /// Its size cannot be read.
    pub fn file(file: &'a File) -> Result<Self> {
        let len = fds::len(file).or_fail(|| "read the kernel's size")?;
        Ok(Self::File(file, len))
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(_, len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fill `buffer` from `offset` on.
    ///
    /// # Errors
    /// There are not so many bytes, or the file cannot be read.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::File(file, _) => file.read_exact_at(buffer, offset),
            Self::Bytes(bytes) => usize::try_from(offset)
                .ok()
                .and_then(|from| bytes.get(from..)?.get(..buffer.len()))
                .map(|found| buffer.copy_from_slice(found))
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()),
        }
        .or_fail(|| format!("read {} bytes of the kernel at {offset:#x}", buffer.len()))
    }

    /// The first bytes, at most `len`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn head(&self, len: u64) -> Result<Vec<u8>> {
        let mut head = vec![0; len.min(self.len()) as usize];
        self.read(0, &mut head)?;
        Ok(head)
    }
}

/// `N` bytes at `at`, if they are there.
pub fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A little-endian u16 at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

/// A little-endian u32 at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

/// A little-endian u64 at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

/// The error for a file that is not a kernel, or not one for this machine.
pub fn refused(why: impl std::fmt::Display) -> Error {
    Error::refused(Code::InvalidParameterValue, format!("not a kernel that can be booted: {why}"))
}
