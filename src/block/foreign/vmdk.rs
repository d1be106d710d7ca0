//! VMDK: sparse extents with their descriptor inside (monolithicSparse, streamOptimized). (VMware,
//! "Virtual Disk Format 5.0")

use super::{
    Bytes, Image, Pages, Place, SECTOR, cut_short, field, inside, invalid, refers, unsupported,
};
use std::io::{self, Read};
use std::rc::Rc;

/// What a sparse extent begins with.
pub const MAGIC: &[u8; 4] = b"KDMV";
/// flags: a grain table's entry of 1 is a grain of zeros.
const ZEROED_GRAINS: u32 = 1 << 2;
/// flags: grains are compressed, and have markers before them.
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;
/// gdOffset: the directory's place is in a copy of the header near the end.
const AT_END: u64 = u64::MAX;
/// Bytes of a descriptor that are read.
const MAX_DESCRIPTOR: u64 = 64 << 10;
/// Bytes of the largest grain, and entries of the largest grain table.
const MAX_GRAIN: u64 = 64 << 20;
const MAX_ENTRIES: u64 = 16384;
/// The bytes before a compressed grain's: its first sector and its size.
const MARKER: u64 = 12;

/// What of a SparseExtentHeader counts; sizes are in bytes.
#[derive(Clone, Copy, Debug)]
struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: (u64, u64),
    /// Entries of a grain table.
    entries: u64,
    directory: u64,
}

impl Header {
    fn parse(bytes: &[u8; 512]) -> io::Result<Self> {
        let u64_at = |at| u64::from_le_bytes(field(bytes, at));
        let sectors = |at| {
            let value = u64_at(at);
            value.checked_mul(SECTOR).ok_or_else(|| invalid("a place in its header is impossible"))
        };
        let version = u32::from_le_bytes(field(bytes, 4));
        if !bytes.starts_with(MAGIC) || !(1..=3).contains(&version) {
            return Err(unsupported(format!("its version {version} is unknown")));
        }
        if bytes[73..77] != *b"\n \r\n" {
            return Err(invalid("its line ends were changed: it was transferred as text"));
        }
        let directory = if u64_at(56) == AT_END { AT_END } else { sectors(56)? };
        let header = Self {
            flags: u32::from_le_bytes(field(bytes, 8)),
            capacity: sectors(12)?,
            grain: sectors(20)?,
            descriptor: (sectors(28)?, sectors(36)?),
            entries: u64::from(u32::from_le_bytes(field(bytes, 44))),
            directory,
        };
        let grain = header.grain;
        if !grain.is_power_of_two()
            || grain > MAX_GRAIN
            || !(1..=MAX_ENTRIES).contains(&header.entries)
        {
            return Err(invalid("its grains have an impossible size"));
        }
        if header.flags & COMPRESSED != 0 && u16::from_le_bytes(field(bytes, 77)) != 1 {
            return Err(unsupported("its compression is unknown"));
        }
        Ok(header)
    }

    fn read(file: &dyn Bytes, at: u64) -> io::Result<Self> {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, inside(file.size(), at, SECTOR)?)?;
        Self::parse(&bytes)
    }

    /// Bytes of the disk that a grain table is for.
    fn reach(&self) -> u64 {
        self.grain * self.entries
    }
}

/// A VMDK.
pub struct Vmdk {
    header: Header,
    /// Directory and tables are read in turns.
    directory: Pages,
    tables: Pages,
}

impl Vmdk {
    /// Opens one.
    ///
    /// # Errors
    /// `InvalidData`: it is damaged. `PermissionDenied`: it has a parent, or extents in other
    /// files. `Unsupported`: another kind of VMDK. I/O errors.
    pub fn open(file: Rc<dyn Bytes>) -> io::Result<Self> {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, inside(file.size(), 0, 4)?)?;
        if magic != *MAGIC {
            return Err(unsupported("it is another kind of vmdk"));
        }
        let mut header = Header::read(&*file, 0)?;
        check_descriptor(&*file, header.descriptor)?;
        if header.directory == AT_END {
            // The last sectors: a marker, the header once more, a marker.
            let at = file.size().checked_sub(2 * SECTOR).ok_or_else(cut_short)? / SECTOR * SECTOR;
            let footer = Header::read(&*file, at)
                .map_err(|_| invalid("it is cut short: it has no footer"))?;
            if footer.directory == AT_END {
                return Err(invalid("its footer names no grain directory"));
            }
            let descriptor = header.descriptor;
            header = Header { descriptor, ..footer };
        }
        if header.flags & COMPRESSED != 0 && header.flags & MARKERS == 0 {
            return Err(unsupported("its compressed grains have no markers"));
        }
        let tables = header.capacity.div_ceil(header.reach());
        let bytes = tables.checked_mul(4).ok_or_else(cut_short)?;
        inside(file.size(), header.directory, bytes)?;
        Ok(Self { header, directory: Pages::new(Rc::clone(&file)), tables: Pages::new(file) })
    }

    fn file(&self) -> &dyn Bytes {
        &*self.tables.file
    }

    /// Where the grain is that a table's entry names, which has `len` bytes of the disk.
    fn grain(&self, entry: u32, len: u64) -> io::Result<Place> {
        match entry {
            0 => return Ok(Place::Zero),
            1 if self.header.flags & ZEROED_GRAINS != 0 => return Ok(Place::Zero),
            _ => {}
        }
        let at = u64::from(entry) * SECTOR;
        if self.header.flags & COMPRESSED != 0 {
            inside(self.file().size(), at, MARKER)?;
            return Ok(Place::Packed);
        }
        inside(self.file().size(), at, len).map(Place::At)
    }

    /// The entry of the grain that has the byte at `offset`: in which table, and the entry; `None`
    /// if there is no table.
    fn entry(&self, offset: u64) -> io::Result<Option<(u64, u32)>> {
        let header = &self.header;
        let index = offset / header.reach();
        let table = u32::from_le_bytes(self.directory.get(header.directory + index * 4)?);
        if table == 0 {
            return Ok(None);
        }
        let table = u64::from(table) * SECTOR;
        let at = table + offset % header.reach() / header.grain * 4;
        Ok(Some((table, u32::from_le_bytes(self.tables.get(at)?))))
    }
}

impl Image for Vmdk {
    fn size(&self) -> u64 {
        self.header.capacity
    }

    fn place_at(&self, offset: u64) -> io::Result<(Place, u64)> {
        let (header, rest) = (&self.header, self.header.capacity - offset);
        let in_table = header.reach() - offset % header.reach();
        let Some((table, entry)) = self.entry(offset)? else {
            return Ok((Place::Zero, rest.min(in_table)));
        };
        let bytes = header.entries as usize * 4;
        if entry == 0
            && in_table == header.reach()
            && self.tables.with(table, bytes, |entries| entries == &ZEROS[..bytes])?
        {
            return Ok((Place::Zero, rest.min(in_table)));
        }
        let within = offset % header.grain;
        let len = rest.min(header.grain - within);
        let place = match self.grain(entry, within + len)? {
            Place::At(at) => Place::At(at + within),
            other => other,
        };
        Ok((place, len))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let Some((_, entry)) = self.entry(offset)? else { return Err(cut_short()) };
        let at = u64::from(entry) * SECTOR;
        let mut marker = [0; MARKER as usize];
        self.file().read_exact_at(&mut marker, inside(self.file().size(), at, MARKER)?)?;
        let packed = u64::from(u32::from_le_bytes(field(&marker, 8)));
        let grain = offset / self.header.grain * self.header.grain;
        // What nothing compresses becomes a little longer.
        if packed > self.header.grain + self.header.grain / 8 + 1024
            || u64::from_le_bytes(field(&marker, 0)) != grain / SECTOR
        {
            return Err(invalid(format!("the marker of the grain at byte {grain} is damaged")));
        }
        let mut data = vec![0; packed as usize];
        let start = inside(self.file().size(), at + MARKER, packed)?;
        self.file().read_exact_at(&mut data, start)?;
        let mut whole = flate2::bufread::ZlibDecoder::new(&data[..]);
        let damaged = |e| invalid(format!("the grain at byte {grain} can't be decompressed: {e}"));
        io::copy(&mut whole.by_ref().take(offset - grain), &mut io::sink()).map_err(damaged)?;
        whole.read_exact(bytes).map_err(damaged)
    }
}

/// As many bytes as the largest grain table has.
const ZEROS: &[u8; MAX_ENTRIES as usize * 4] = &[0; MAX_ENTRIES as usize * 4];

/// The text that says what the disk is made of.
fn check_descriptor(file: &dyn Bytes, (at, len): (u64, u64)) -> io::Result<()> {
    let part = || Err(refers("it is one extent of a split vmdk, a part of a disk"));
    if at == 0 {
        return part();
    }
    let len = len.min(MAX_DESCRIPTOR);
    let mut text = vec![0; len as usize];
    file.read_exact_at(&mut text, inside(file.size(), at, len)?)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.split('\0').next().unwrap_or_default();
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let mut values = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case(key));
        values.next().map(|(_, value)| value.trim().trim_matches('"'))
    };
    if value("parentCID").is_some_and(|parent| !parent.eq_ignore_ascii_case("ffffffff")) {
        let name: String =
            value("parentFileNameHint").unwrap_or("?").escape_debug().take(200).collect();
        return Err(refers(format!("it refers to the backing file '{name}'")));
    }
    let extents = text.lines().filter(|line| {
        let access = line.split_whitespace().next().unwrap_or_default();
        ["RW", "RDONLY", "NOACCESS"].contains(&access)
    });
    let count = extents.clone().count();
    // qemu-img leaves room for a descriptor in each part, and writes it into a file of its own.
    if count == 0 {
        return part();
    }
    if count > 1 || extents.clone().any(|line| !line.contains(" SPARSE ")) {
        let kind: String = value("createType").unwrap_or("?").escape_debug().take(40).collect();
        return Err(refers(format!("it refers to further files, its extents ({kind})")));
    }
    Ok(())
}
