//! Positioned vectored I/O on [`IoBuf`]s: preadv(2), pwritev(2), and what else a disk file needs.

use super::iobuf::{IoBuf, MAX_SEGMENTS};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A piece of a buffer.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The buffer.
    pub buf: &'a IoBuf,
    /// First byte of the piece.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl<'a> Part<'a> {
    /// The whole of a buffer.
    pub fn whole(buf: &'a IoBuf) -> Self {
        Self { buf, start: 0, len: buf.len() }
    }

    /// The rest of the piece after `done` bytes.
    fn after(&self, done: usize) -> Self {
        Self { buf: self.buf, start: self.start + done, len: self.len - done }
    }

    fn iovecs(&self) -> io::Result<impl std::ops::Deref<Target = [libc::iovec]> + use<>> {
        self.buf.range(self.start, self.len).ok_or_else(out_of_range)
    }
}

fn out_of_range() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a transfer leaves its buffer")
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("file offset {offset} is too large"))
    })
}

/// Fill the piece from `offset`; what lies beyond the end of the file reads as zeros.
///
/// # Errors
/// Those of preadv(2), EINTR excepted.
pub fn read_full(file: &File, part: Part<'_>, offset: u64) -> io::Result<()> {
    let rest = part.after(read_some(file, part, offset)?);
    rest.buf.zero(rest.start, rest.len);
    Ok(())
}

/// Fill the piece from `offset` as far as the file goes; the bytes.
///
/// # Errors
/// Those of preadv(2), EINTR excepted.
pub fn read_some(file: &File, part: Part<'_>, offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < part.len {
        let rest = part.after(done);
        let iovs = rest.iovecs()?;
        let at = file_offset(offset + done as u64)?;
        let count = iovs.len().min(MAX_SEGMENTS) as libc::c_int;
        // SAFETY: the list describes memory that `part.buf` keeps mapped for the length of the
        // call.
        let n = unsafe { libc::preadv(file.as_raw_fd(), iovs.as_ptr(), count, at) };
        match n {
            0 => break,
            n if n > 0 => done += n as usize,
            _ => retry_if_interrupted()?,
        }
    }
    Ok(done)
}

/// Fill as much of the piece as the page cache has at `offset`, from its beginning; the bytes. What
/// could not be read without waiting, for whatever reason, is left to who can wait.
pub fn read_cached(file: &File, part: Part<'_>, offset: u64) -> usize {
    let (Ok(iovs), Ok(at)) = (part.iovecs(), file_offset(offset)) else { return 0 };
    let count = iovs.len().min(MAX_SEGMENTS) as libc::c_int;
    // SAFETY: the list describes memory that `part.buf` keeps mapped for the length of the call.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), iovs.as_ptr(), count, at, libc::RWF_NOWAIT) };
    usize::try_from(n).unwrap_or(0)
}

/// Write the pieces one after the other from `offset`.
///
/// # Errors
/// Those of pwritev(2), EINTR excepted. Part of the data may have been written then.
pub fn write_full(file: &File, parts: &[Part<'_>], offset: u64) -> io::Result<()> {
    let mut offset = offset;
    let mut iovs: smallvec::SmallVec<[libc::iovec; 8]> = smallvec::SmallVec::new();
    for part in parts {
        iovs.extend_from_slice(&part.iovecs()?);
    }
    let mut first = 0;
    while first < iovs.len() {
        let count = (iovs.len() - first).min(MAX_SEGMENTS) as libc::c_int;
        let at = file_offset(offset)?;
        // SAFETY: the list describes memory that the parts' buffers keep mapped for the length of
        // the call.
        let n = unsafe {
            match &iovs[first..] {
                // The kernel need not fetch a list of one.
                [one] => libc::pwrite(file.as_raw_fd(), one.iov_base, one.iov_len, at),
                list => libc::pwritev(file.as_raw_fd(), list.as_ptr(), count, at),
            }
        };
        match n {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n if n > 0 => {
                offset += n as u64;
                first = advance(&mut iovs, first, n as usize);
            }
            _ => retry_if_interrupted()?,
        }
    }
    Ok(())
}

/// Cut `done` bytes off the list that begins at `first`; the new beginning.
fn advance(iovs: &mut [libc::iovec], mut first: usize, mut done: usize) -> usize {
    while first < iovs.len() && done >= iovs[first].iov_len {
        done -= iovs[first].iov_len;
        first += 1;
    }
    if done > 0 {
        iovs[first].iov_base = iovs[first].iov_base.cast::<u8>().wrapping_add(done).cast();
        iovs[first].iov_len -= done;
    }
    first
}

fn retry_if_interrupted() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
