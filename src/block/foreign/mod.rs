//! Disk images that other programs make: where in their file each byte of the disk is.
//!
//! All of it is untrusted. A reader allocates nothing whose size the file says, checks every sum,
//! and never follows more than two tables to a byte: nothing can lead in a circle. It opens no
//! other file; an image that needs one is refused.

pub mod vhd;
pub mod vhdx;
pub mod vmdk;

pub use super::Bytes;
use super::layer::Source;
use super::reader::Reader;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// Bytes of a disk's sector.
const SECTOR: u64 = 512;
/// Bytes of tables that are read at a time.
const PAGE: usize = 64 << 10;

/// Where bytes of a disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: they are zeros.
    Zero,
    /// In the image's file from this byte on, as they are.
    At(u64),
    /// Compressed in the image's file: [`Image::read_exact_at`] gives them.
    Packed,
}

/// A disk image that stands alone.
pub trait Image {
    /// Bytes of the disk.
    fn size(&self) -> u64;
    /// Where the bytes from `offset` on are, and how many of them are there in a row: at least one,
    /// and none beyond the disk. `offset` is on the disk.
    ///
    /// # Errors
    /// `InvalidData`: a table is wrong. I/O errors.
    fn place_at(&self, offset: u64) -> io::Result<(Place, u64)>;
    /// Fills `bytes` from `offset`; asked for what is [`Place::Packed`] alone, and of one run at a
    /// time.
    ///
    /// # Errors
    /// `InvalidData`: they can't be decompressed. I/O errors.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Whether no byte of the file is in two places of the disk: it has been looked at.
    fn is_verified(&self) -> bool {
        false
    }
}

/// Runs of a disk from its first byte to its last: what is zeros is left out, neighbours are one
/// run. `each` is given the offset on the disk, the place, and the bytes; a packed run is a unit of
/// the image's.
///
/// # Errors
/// As [`Image::place_at`]'s and `each`'s. `InvalidData` if the runs have more bytes than the file
/// of `file_len`: some of its bytes would be in two places, and a small file would fill a host.
pub fn each_run(
    image: &dyn Image,
    file_len: u64,
    each: &mut dyn FnMut(u64, Place, u64) -> io::Result<()>,
) -> io::Result<()> {
    let (mut at, mut used) = (0u64, 0u64);
    let mut pending: Option<(u64, u64, u64)> = None;
    while at < image.size() {
        let (place, len) = image.place_at(at)?;
        let len = len.min(image.size() - at);
        if len == 0 {
            return Err(invalid("a table leads nowhere"));
        }
        used = used.saturating_add(match place {
            Place::Zero => 0,
            Place::At(_) => len,
            Place::Packed => SECTOR,
        });
        // The last sector of a file may be half a one.
        if used > file_len.next_multiple_of(SECTOR) && !image.is_verified() {
            return Err(invalid("its tables name the same bytes more than once"));
        }
        match (&mut pending, place) {
            (Some((start, from, have)), Place::At(next))
                if *start + *have == at && from.checked_add(*have) == Some(next) =>
            {
                *have += len;
            }
            (_, place) => {
                if let Some((start, from, have)) = pending.take() {
                    each(start, Place::At(from), have)?;
                }
                match place {
                    Place::Zero => {}
                    Place::At(from) => pending = Some((at, from, len)),
                    Place::Packed => each(at, place, len)?,
                }
            }
        }
        at += len;
    }
    pending.map_or(Ok(()), |(start, from, have)| each(start, Place::At(from), have))
}

impl Image for Reader {
    fn size(&self) -> u64 {
        Reader::size(self)
    }

    fn place_at(&self, offset: u64) -> io::Result<(Place, u64)> {
        let rest = Reader::size(self).saturating_sub(offset);
        let (source, len) = self.chain().map(offset, rest)?;
        let place = match source {
            Source::Zero => Place::Zero,
            Source::Host { offset, .. } => Place::At(offset),
            Source::Compressed { .. } => Place::Packed,
        };
        Ok((place, len))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Reader::read_exact_at(self, bytes, offset)
    }

    fn is_verified(&self) -> bool {
        true
    }
}

/// An image's file, of which tables are read a page at a time.
struct Pages {
    file: Rc<dyn Bytes>,
    page: RefCell<(u64, Vec<u8>)>,
}

impl Pages {
    fn new(file: Rc<dyn Bytes>) -> Self {
        Self { file, page: RefCell::new((0, Vec::new())) }
    }

    /// Lets `look` see `len` bytes, at most [`PAGE`], from `offset`.
    fn with<T>(&self, offset: u64, len: usize, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let mut page = self.page.borrow_mut();
        let within = |page: &(u64, Vec<u8>)| {
            let from = usize::try_from(offset.checked_sub(page.0)?).ok()?;
            Some(from..from.checked_add(len)?).filter(|range| range.end <= page.1.len())
        };
        if within(&page).is_none() {
            let rest = self.file.size().saturating_sub(offset).min(PAGE as u64) as usize;
            if rest < len {
                return Err(cut_short());
            }
            page.1.resize(rest, 0);
            page.0 = offset;
            if let Err(error) = self.file.read_exact_at(&mut page.1, offset) {
                page.1.clear();
                return Err(error);
            }
        }
        let range = within(&page).ok_or_else(cut_short)?;
        Ok(look(&page.1[range]))
    }

    fn get<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        self.with(offset, N, |bytes| {
            let mut array = [0; N];
            array.copy_from_slice(bytes);
            array
        })
    }
}

/// Where `len` bytes from `offset` of a file are that has to have them.
fn inside(file_len: u64, offset: u64, len: u64) -> io::Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= file_len => Ok(offset),
        _ => Err(cut_short()),
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// An image that another file belongs to.
fn refers(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.into())
}

/// A kind of image that is not read here.
fn unsupported(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why.into())
}

fn cut_short() -> io::Error {
    invalid("it is cut short: its tables name bytes beyond its end")
}

/// A field of a structure that has been read whole.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
