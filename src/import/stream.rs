//! Bytes that arrive in order: files, standard input, and what is decompressed from them.

use super::format::Compression;
pub use super::members::Warnings;
use super::members::{Lz4, Members};
use crate::context::Cancel;
use crate::error::{Code, Error};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::rc::Rc;

/// Most memory that an xz decoder may take, in bytes.
const XZ_MEMORY: u64 = 1 << 30;
/// Largest zstd window, as a power of two: 128 MiB, what `zstd --long` makes by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A source that stops when the import is cancelled, also while it waits for bytes.
pub struct Cancellable(pub File, pub Cancel);

impl Read for Cancellable {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        until_readable(&self.0, &self.1)?;
        self.0.read(bytes)
    }
}

/// Waits until there is something to read, or the end of it.
///
/// # Errors
/// It was cancelled; poll(2)'s.
pub fn until_readable(file: &File, cancel: &Cancel) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    loop {
        cancel.check_io()?;
        let mut ready = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
        match poll(&mut ready, Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Why a [`Stream`] can't be read. What no system call has failed at is what a decoder says of its
/// input.
pub fn unreadable(cause: io::Error) -> Error {
    if cause.raw_os_error().is_some() {
        return Error::io("read it", cause);
    }
    let cause = cause.to_string();
    // "memory usage limit was reached" (xz), "Frame requires too much memory for decoding" (zstd);
    // "compression method not supported: 12" (zip)
    let remedy = if cause.contains("memory") || cause.contains("not supported") {
        "decompress it first, and import the result"
    } else {
        "it is damaged or cut short: fetch it again"
    };
    Error::refused(Code::InvalidParameterValue, format!("cannot decompress it: {cause}; {remedy}"))
}

/// A decoder of .lzma, which has one stream, and as for xz(1) nothing behind it.
struct Alone<R: BufRead>(liblzma::bufread::XzDecoder<R>);

impl<R: BufRead> Read for Alone<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(bytes)?;
        if count == 0 && !bytes.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            let why = "there are bytes behind its only stream";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(count)
    }
}

/// A stream of bytes whose beginning can be looked at.
pub struct Stream<'a> {
    seen: Vec<u8>,
    at: usize,
    rest: Box<dyn Read + 'a>,
}

impl<'a> Stream<'a> {
    /// The bytes that `from` gives.
    pub fn new(from: impl Read + 'a) -> Self {
        Self { seen: Vec::new(), at: 0, rest: Box::new(from) }
    }

    /// The first `count` bytes, or all if there are fewer, without taking them.
    ///
    /// # Errors
    /// I/O errors.
    pub fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let missing = count.saturating_sub(self.seen.len());
        self.rest.by_ref().take(missing as u64).read_to_end(&mut self.seen)?;
        Ok(&self.seen)
    }

    /// The same stream, decompressed.
    ///
    /// # Errors
    /// The decoder can't be set up.
    pub fn decompressed(self, compression: Compression, warnings: &Warnings) -> io::Result<Self> {
        let xz = |input, decoder| Box::new(liblzma::bufread::XzDecoder::new_stream(input, decoder));
        let input = BufReader::with_capacity(1 << 16, self);
        let rest: Box<dyn Read + 'a> = match compression {
            Compression::Gzip => {
                Box::new(Members::<flate2::bufread::GzDecoder<_>>::new(input, Rc::clone(warnings))?)
            }
            Compression::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                xz(input, liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?)
            }
            Compression::Lzma => {
                let alone = liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY)?;
                Box::new(Alone(*xz(input, alone)))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Compression::Lz4 => Box::new(Members::<Lz4<_>>::new(input, Rc::clone(warnings))?),
            Compression::Bzip2 => {
                Box::new(Members::<bzip2::bufread::BzDecoder<_>>::new(input, Rc::clone(warnings))?)
            }
        };
        Ok(Self { seen: Vec::new(), at: 0, rest })
    }

    /// Fill as much of `bytes` as there is.
    ///
    /// # Errors
    /// I/O errors, a corrupt or truncated compressed stream.
    pub fn fill(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read(&mut bytes[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let seen = &self.seen[self.at..];
        if seen.is_empty() {
            return self.rest.read(bytes);
        }
        let count = seen.len().min(bytes.len());
        bytes[..count].copy_from_slice(&seen[..count]);
        self.at += count;
        Ok(count)
    }
}
