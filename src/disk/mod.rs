//! Disks as commands read them: the tables of a volume or of somebody's image are believed by
//! nobody but a process that can do nothing else.
//!
//! A raw file has none and is read where it is wanted. Anything else is opened by a helper
//! ([`inside`]), which has the layers, answers with the disk's bytes, and is not trusted: what it
//! says is bounded in bytes and time, and checked. [`overlay`] has what is done to a volume's
//! overlay by tables.

pub mod answers;
mod inside;
pub mod overlay;
mod served;

pub(crate) use inside::{HELPER, given, parse_format};
pub(crate) use overlay::HELPER as OVERLAY;

use crate::block::{Bytes, DiskFormat, Extent, ImportSource, Reader};
use served::Served;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

/// A disk opened for reading only, from its layers, top first, in their declared formats.
pub struct Disk(Kind);

enum Kind {
    Raw(Reader),
    Served { size: u64, helper: Mutex<Served> },
}

impl Disk {
    /// Opens the layers. What is not given is not read.
    ///
    /// # Errors
    /// `InvalidData` naming what is wrong with a layer's metadata; I/O errors; no more processes.
    pub fn open(layers: Vec<(File, DiskFormat)>) -> io::Result<Self> {
        if layers.iter().all(|(_, format)| *format == DiskFormat::Raw) {
            return Ok(Self(Kind::Raw(Reader::open(layers)?)));
        }
        let (helper, size) = Served::start(&layers)?;
        Ok(Self(Kind::Served { size, helper: Mutex::new(helper) }))
    }

    /// Bytes of the disk; a multiple of 512.
    pub fn size(&self) -> u64 {
        match &self.0 {
            Kind::Raw(disk) => disk.size(),
            Kind::Served { size, .. } => *size,
        }
    }

    /// Fill `bytes` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the range is not inside the disk; I/O errors; bad metadata; the helper
    /// took too much.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Kind::Raw(disk) => disk.read_exact_at(bytes, offset),
            Kind::Served { size, helper } => {
                if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > *size) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                helper.lock().unwrap_or_else(PoisonError::into_inner).read(bytes, offset)
            }
        }
    }

    /// The extent that begins at `offset`; `None` at the end of the disk. Neighbours may be of one
    /// kind.
    ///
    /// # Errors
    /// I/O errors; bad metadata; the helper took too much.
    pub fn extent_at(&self, offset: u64) -> io::Result<Option<Extent>> {
        match &self.0 {
            Kind::Raw(disk) => disk.extent_at(offset),
            Kind::Served { size, helper } => {
                let Some(rest) = size.checked_sub(offset).filter(|rest| *rest > 0) else {
                    return Ok(None);
                };
                let mut helper = helper.lock().unwrap_or_else(PoisonError::into_inner);
                let (content, len) = helper.extent(offset, rest)?;
                Ok(Some(Extent { offset, len, content }))
            }
        }
    }
}

impl Bytes for Disk {
    fn size(&self) -> u64 {
        Self::size(self)
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_exact_at(self, bytes, offset)
    }
}

impl ImportSource for Disk {
    fn size(&self) -> u64 {
        Self::size(self)
    }
    fn extent_at(&self, offset: u64) -> io::Result<Option<Extent>> {
        Self::extent_at(self, offset)
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_exact_at(self, bytes, offset)
    }
}
