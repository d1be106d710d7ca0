//! VHDX. (Microsoft, [MS-VHDX], version 8.0; numbers are little-endian, GUIDs as on the disk)

use super::{Bytes, Image, Pages, Place, cut_short, field, inside, invalid, refers, unsupported};
use std::io;
use std::rc::Rc;

/// What a VHDX begins with.
pub const MAGIC: &[u8; 8] = b"vhdxfile";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Where the two headers and the two region tables are. (2.2)
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const REGIONS: [u64; 2] = [192 * KIB, 256 * KIB];
/// Bytes of a header and of a table, which their checksums are over.
const HEADER: usize = 4 << 10;
const TABLE: usize = 64 << 10;
/// Bytes of the log that are looked at.
const MAX_LOG: u64 = 256 * MIB;

type Guid = [u8; 16];
const BAT: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, *b"\x9d\x64\x11\x5e\x9b\xfd\x4a\x08");
const METADATA: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, *b"\xb8\xfe\x57\x5f\x05\x0f\x88\x6e");
const FILE_PARAMETERS: Guid =
    guid(0xcaa1_6737, 0xfa36, 0x4d43, *b"\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b");
const DISK_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, *b"\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8");
const SECTOR_SIZE: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, *b"\xba\x47\xf2\x33\xa8\xfa\xab\x5f");
/// Required items that say nothing about where bytes are: page 83 data, physical sector size,
/// parent locator.
const OTHER_ITEMS: [Guid; 3] = [
    guid(0xbeca_12ab, 0xb2e6, 0x4523, *b"\x93\xef\xc3\x09\xe0\x00\xc7\x46"),
    guid(0xcda3_48c7, 0x445d, 0x4471, *b"\x9c\xc9\xe9\x88\x52\x51\xc5\x56"),
    guid(0xa8d3_5f2d, 0xb30b, 0x454d, *b"\xab\xf7\xd3\xd8\x48\x34\xab\x0c"),
];

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// CRC-32C, whose polynomial reversed is 0x82f63b78, of a structure whose own checksum is at byte
/// 4.
pub fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    };
    let own = |at: usize| (4..8).contains(&at);
    let bytes = bytes.iter().enumerate();
    !bytes.fold(!0, |crc, (at, byte)| step(crc, if own(at) { 0 } else { *byte }))
}

/// Reads a structure with a signature and a checksum; `None` if it is not intact.
fn intact(file: &dyn Bytes, at: u64, len: usize, signature: &[u8; 4]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).ok()?;
    let sum = u32::from_le_bytes(field(&bytes, 4));
    (bytes.starts_with(signature) && checksum(&bytes) == sum).then_some(bytes)
}

/// A VHDX.
pub struct Vhdx {
    pages: Pages,
    size: u64,
    block: u64,
    /// The block allocation table.
    table: u64,
    /// Payload entries of it between two of bitmaps, which only differencing disks have.
    ratio: u64,
}

impl Vhdx {
    /// Opens one.
    ///
    /// # Errors
    /// `InvalidData`: it is damaged. `PermissionDenied`: it has a parent, or sectors of other than
    /// 512 bytes, or was not closed: what to do is behind a semicolon. `Unsupported`: another
    /// version. I/O errors.
    pub fn open(file: Rc<dyn Bytes>) -> io::Result<Self> {
        check_log(&*file)?;
        let regions = REGIONS.iter().find_map(|at| intact(&*file, *at, TABLE, b"regi"));
        let regions = regions.ok_or_else(|| invalid("its region tables are damaged"))?;
        let (mut table, mut metadata) = (None, None);
        let count = u32::from_le_bytes(field(&regions, 8)).min(2047) as usize;
        for entry in regions[16..].chunks_exact(32).take(count) {
            let at = u64::from_le_bytes(field(entry, 16));
            let len = u64::from(u32::from_le_bytes(field(entry, 24)));
            let place = (inside(file.size(), at, len)?, len);
            match field::<16>(entry, 0) {
                BAT => table = Some(place),
                METADATA => metadata = Some(place),
                _ if field::<4>(entry, 28) == [0; 4] => {}
                _ => return Err(unsupported("it has a region of an unknown kind")),
            }
        }
        let (Some((table, table_len)), Some(metadata)) = (table, metadata) else {
            return Err(invalid("it has no block allocation table or no metadata"));
        };
        let items = Items::read(&*file, metadata)?;
        let ratio = (1 << 23) * items.sector / items.block;
        let blocks = items.size.div_ceil(items.block);
        let entries = blocks + blocks.saturating_sub(1) / ratio;
        if entries.checked_mul(8).is_none_or(|bytes| bytes > table_len) {
            return Err(invalid("its block allocation table is too short for its size"));
        }
        let pages = Pages::new(file);
        Ok(Self { pages, size: items.size, block: items.block, table, ratio })
    }
}

/// # Errors
/// What was written last is in the log alone.
fn check_log(file: &dyn Bytes) -> io::Result<()> {
    let headers = HEADERS.iter().filter_map(|at| intact(file, *at, HEADER, b"head"));
    let current = headers.max_by_key(|header| u64::from_le_bytes(field(header, 8)));
    let header = current.ok_or_else(|| invalid("its headers are damaged"))?;
    if u16::from_le_bytes(field(&header, 66)) != 1 {
        return Err(unsupported("its version is unknown"));
    }
    let log: Guid = field(&header, 48);
    if log == [0; 16] {
        return Ok(());
    }
    let (len, at) =
        (u32::from_le_bytes(field(&header, 68)), u64::from_le_bytes(field(&header, 72)));
    let len = u64::from(len);
    inside(file.size(), at, len)?;
    for sector in (0..len.min(MAX_LOG)).step_by(4 << 10) {
        let mut entry = [0; 64];
        file.read_exact_at(&mut entry, inside(file.size(), at + sector, 64)?)?;
        if entry.starts_with(b"loge") && field::<16>(&entry, 32) == log {
            return Err(refers(
                "it was not closed, and its log has to be replayed; run 'qemu-img check -r all' on it",
            ));
        }
    }
    Ok(())
}

/// What of the metadata counts.
struct Items {
    size: u64,
    block: u64,
    sector: u64,
}

impl Items {
    fn read(file: &dyn Bytes, (region, len): (u64, u64)) -> io::Result<Self> {
        let mut table = vec![0; TABLE];
        if len < TABLE as u64 {
            return Err(cut_short());
        }
        file.read_exact_at(&mut table, region)?;
        if !table.starts_with(b"metadata") {
            return Err(invalid("its metadata is damaged"));
        }
        let (mut parameters, mut size, mut sector) = (None, None, None);
        let count = u16::from_le_bytes(field(&table, 10)).min(2047) as usize;
        for entry in table[32..].chunks_exact(32).take(count) {
            let (offset, flags) = (field::<4>(entry, 16), u32::from_le_bytes(field(entry, 24)));
            let item = || -> io::Result<[u8; 8]> {
                let offset = u64::from(u32::from_le_bytes(offset));
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, region + inside(len, offset, 8)?)?;
                Ok(bytes)
            };
            match field::<16>(entry, 0) {
                FILE_PARAMETERS => parameters = Some(item()?),
                DISK_SIZE => size = Some(u64::from_le_bytes(item()?)),
                SECTOR_SIZE => sector = Some(u64::from(u32::from_le_bytes(field(&item()?, 0)))),
                id if flags & 4 == 0 || OTHER_ITEMS.contains(&id) => {}
                _ => return Err(unsupported("it has metadata of an unknown kind")),
            }
        }
        let (Some(parameters), Some(size), Some(sector)) = (parameters, size, sector) else {
            return Err(invalid("its metadata is incomplete"));
        };
        if u32::from_le_bytes(field(&parameters, 4)) & 2 != 0 {
            return Err(refers("it is a differencing VHDX, which needs its parent"));
        }
        if sector != 512 {
            return Err(refers(format!(
                "its disk has sectors of {sector} bytes, and an instance's disk some of 512; make it anew with these"
            )));
        }
        let block = u64::from(u32::from_le_bytes(field(&parameters, 0)));
        if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) || size % sector != 0 {
            return Err(invalid("its blocks or its disk have an impossible size"));
        }
        Ok(Self { size, block, sector })
    }
}

impl Image for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }

    fn place_at(&self, offset: u64) -> io::Result<(Place, u64)> {
        let (index, within) = (offset / self.block, offset % self.block);
        let len = (self.size - offset).min(self.block - within);
        let entry = self.table + (index + index / self.ratio) * 8;
        let entry = u64::from_le_bytes(self.pages.get(entry)?);
        // PAYLOAD_BLOCK_ states (2.5.1.1): 0 to 3 have no data of the disk's, 6 is fully present.
        match entry & 7 {
            0..=3 => Ok((Place::Zero, len)),
            6 => {
                let at = (entry >> 20).checked_mul(MIB).and_then(|at| at.checked_add(within));
                let at = inside(self.pages.file.size(), at.ok_or_else(cut_short)?, len)?;
                Ok((Place::At(at), len))
            }
            state => Err(invalid(format!("a block's state {state} is impossible"))),
        }
    }

    fn read_exact_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
