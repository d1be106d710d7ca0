//! A part of a file: a source that can be read at any place, or one file of an archive in it.

use super::super::format::HEAD;
use super::super::wire::Which;
use crate::block::foreign::Bytes;
use crate::error::{OrFail, Result};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The part.
#[derive(Clone)]
pub(super) struct Window {
    file: Rc<File>,
    which: Which,
    start: u64,
    len: u64,
    whole: bool,
}

impl Window {
    /// All of a spool.
    pub(super) fn new(file: &File, which: Which) -> Result<Self> {
        let file = file.try_clone().or_fail(|| "duplicate a descriptor")?;
        let len = (&file).seek(SeekFrom::End(0)).or_fail(|| "find its size")?;
        Ok(Self { file: Rc::new(file), which, start: 0, len, whole: true })
    }

    /// A source from where it stands; `None` if it can't be read at any place: a pipe.
    pub(super) fn seekable(file: &File) -> Result<Option<Self>> {
        let ends = |mut file: &File| -> io::Result<(u64, u64)> {
            Ok((file.stream_position()?, file.seek(SeekFrom::End(0))?))
        };
        let Ok((start, end)) = ends(file) else { return Ok(None) };
        let mut window = Self::new(file, Which::Source)?;
        (window.start, window.len) = (start, end.saturating_sub(start));
        window.whole = start == 0;
        Ok(Some(window))
    }

    /// A part of it.
    pub(super) fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        Self { start: self.start + start, len, whole: false, ..self.clone() }
    }

    /// Whether it has fewer bytes than `len`.
    pub(super) fn is_short(&self, len: u64) -> bool {
        self.len < len
    }

    pub(super) fn which(&self) -> Which {
        self.which
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Whether it is all of its file.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The first bytes and, if there are so many, the last sector.
    pub(super) fn ends(&self) -> Result<(Vec<u8>, Option<[u8; 512]>)> {
        let mut head = vec![0; self.len.min(HEAD as u64) as usize];
        self.read_exact_at(&mut head, 0).or_fail(|| "read it")?;
        let mut tail = [0; 512];
        let Some(at) = self.len.checked_sub(512) else { return Ok((head, None)) };
        self.read_exact_at(&mut tail, at).or_fail(|| "read it")?;
        Ok((head, Some(tail)))
    }

    /// How many of the `len` bytes at `from` are a hole of the file, and how many of those behind
    /// are not.
    pub(super) fn data_at(&self, from: u64, len: u64) -> (u64, u64) {
        let at = self.start + from;
        let (skip, data) = match rustix::fs::seek(&*self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => {
                let hole = rustix::fs::seek(&*self.file, rustix::fs::SeekFrom::Hole(data));
                (data.saturating_sub(at), hole.map_or(len, |hole| hole.saturating_sub(data)))
            }
            Err(rustix::io::Errno::NXIO) => (len, 0),
            Err(_) => (0, len),
        };
        let skip = skip.min(len);
        (skip, data.min(len - skip))
    }

    pub(super) fn reader(&self) -> WindowReader {
        WindowReader { window: self.clone(), at: 0 }
    }
}

impl Bytes for Window {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(bytes, self.start + offset)
    }
}

/// A window read in order.
pub(super) struct WindowReader {
    window: Window,
    at: u64,
}

impl Read for WindowReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let rest = self.window.len.saturating_sub(self.at);
        let count = rest.min(bytes.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        let count = self.window.file.read_at(&mut bytes[..count], self.window.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for WindowReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.window.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
