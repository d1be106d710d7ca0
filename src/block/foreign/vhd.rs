//! VHD, fixed and dynamic. (Microsoft, "Virtual Hard Disk Image Format Specification", 1.0; numbers
//! are big-endian)

use super::{
    Bytes, Image, Pages, Place, SECTOR, cut_short, field, inside, invalid, refers, unsupported,
};
use std::io;
use std::rc::Rc;

/// What a footer begins with.
pub const COOKIE: &[u8; 8] = b"conectix";
/// Bytes of a footer.
pub const FOOTER: usize = 512;
/// An entry of the block allocation table of a block that is not there.
const UNUSED: u32 = u32::MAX;

/// The kinds of "Disk Type".
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// What of a footer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footer {
    kind: u32,
    /// "Current Size". The geometry beside it is smaller with most creators, and meant for old
    /// BIOSes.
    size: u64,
    header: u64,
}

impl Footer {
    /// `None` if it is none, or damaged.
    fn parse(bytes: &[u8; FOOTER]) -> Option<Self> {
        (bytes.starts_with(COOKIE) && checksum(bytes, 64) == u32::from_be_bytes(field(bytes, 64)))
            .then(|| Self {
                kind: u32::from_be_bytes(field(bytes, 60)),
                size: u64::from_be_bytes(field(bytes, 48)),
                header: u64::from_be_bytes(field(bytes, 16)),
            })
    }

    fn read(file: &dyn Bytes, at: u64) -> io::Result<Option<Self>> {
        let mut bytes = [0; FOOTER];
        let len = (file.size() - at).min(FOOTER as u64) as usize;
        file.read_exact_at(&mut bytes[..len], at)?;
        Ok(Self::parse(&bytes))
    }
}

/// The one's complement of the sum of all bytes but the checksum's own.
fn checksum(bytes: &[u8], own: usize) -> u32 {
    let others = bytes.iter().enumerate().filter(|(at, _)| !(own..own + 4).contains(at));
    !others.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// Bytes of the footer of a VHD of this size. "Versions previous to Microsoft Virtual PC 2004
/// create disk images that have a 511-byte disk footer": its last byte is one of those that are
/// zero.
pub fn footer_len(size: u64) -> u64 {
    FOOTER as u64 - u64::from(size % SECTOR == SECTOR - 1)
}

/// How many bytes the disk has whose fixed VHD ends with this sector, behind `before` bytes; `None`
/// if it ends no fixed VHD.
///
/// # Errors
/// `InvalidData`: the disk is cut short.
pub fn fixed_size(last: &[u8; FOOTER], before: u64) -> io::Result<Option<u64>> {
    match Footer::parse(last) {
        Some(footer) if footer.kind == FIXED => {
            inside(before, 0, footer.size).map(|_| Some(footer.size))
        }
        Some(_) => Ok(None),
        None if last.starts_with(COOKIE) => Err(invalid("its footer is damaged")),
        None => Ok(None),
    }
}

/// A VHD.
pub struct Vhd {
    pages: Pages,
    size: u64,
    /// Of a dynamic one.
    blocks: Option<Blocks>,
}

struct Blocks {
    /// Where the block allocation table is.
    table: u64,
    /// Bytes of a block's data.
    size: u64,
    /// Bytes before it: which of its sectors were written, a bit each. All others were made zeros
    /// when the block was, so that nobody has to ask.
    bitmap: u64,
}

impl Vhd {
    /// Opens one.
    ///
    /// # Errors
    /// `InvalidData`: it is damaged or none. `PermissionDenied`: it has a parent. `Unsupported`:
    /// another kind. I/O errors.
    pub fn open(file: Rc<dyn Bytes>) -> io::Result<Self> {
        let end = file.size().checked_sub(footer_len(file.size())).ok_or_else(cut_short)?;
        // A dynamic one has a copy of its footer in front.
        let footer = match Footer::read(&*file, end)? {
            Some(footer) => footer,
            None => Footer::read(&*file, 0)?
                .filter(|copy| copy.kind != FIXED)
                .ok_or_else(|| invalid("it has no intact footer: it is damaged or cut short"))?,
        };
        let blocks = match footer.kind {
            FIXED => {
                inside(end, 0, footer.size)?;
                None
            }
            DYNAMIC => Some(Self::blocks(&*file, &footer)?),
            DIFFERENCING => return Err(refers("it is a differencing VHD, which needs its parent")),
            kind => return Err(unsupported(format!("its disk type {kind} is unknown"))),
        };
        if !footer.size.is_multiple_of(SECTOR) {
            return Err(invalid("its disk ends within a sector"));
        }
        Ok(Self { pages: Pages::new(file), size: footer.size, blocks })
    }

    fn blocks(file: &dyn Bytes, footer: &Footer) -> io::Result<Blocks> {
        let mut header = [0; 1024];
        file.read_exact_at(&mut header, inside(file.size(), footer.header, 1024)?)?;
        if !header.starts_with(b"cxsparse")
            || checksum(&header, 36) != u32::from_be_bytes(field(&header, 36))
        {
            return Err(invalid("its header is damaged"));
        }
        let size = u64::from(u32::from_be_bytes(field(&header, 32)));
        let count = u64::from(u32::from_be_bytes(field(&header, 28)));
        if !size.is_power_of_two() || size < SECTOR || footer.size.div_ceil(size) > count {
            return Err(invalid("its blocks have an impossible size"));
        }
        let table = u64::from_be_bytes(field(&header, 16));
        inside(file.size(), table, count * 4)?;
        let bitmap = (size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        Ok(Blocks { table, size, bitmap })
    }
}

impl Image for Vhd {
    fn size(&self) -> u64 {
        self.size
    }

    fn place_at(&self, offset: u64) -> io::Result<(Place, u64)> {
        let rest = self.size - offset;
        let Some(blocks) = &self.blocks else { return Ok((Place::At(offset), rest)) };
        let (index, within) = (offset / blocks.size, offset % blocks.size);
        let len = rest.min(blocks.size - within);
        let entry = u32::from_be_bytes(self.pages.get(blocks.table + index * 4)?);
        if entry == UNUSED {
            return Ok((Place::Zero, len));
        }
        let data = u64::from(entry) * SECTOR + blocks.bitmap + within;
        Ok((Place::At(inside(self.pages.file.size(), data, len)?), len))
    }

    fn read_exact_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
