//! What the guest asks of a disk: parsed and checked, nothing done yet. (VIRTIO 1.2, 5.2.6)

use super::shared::{Geometry, MAX_DATA, MAX_RANGE_SECTORS, MAX_RANGES, SECTOR, bit};
use crate::virtio::chain::{DescriptorChain, Segments};
use smallvec::SmallVec;
use virtio_bindings::virtio_blk::*;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// `type`, `reserved` and `sector` of struct virtio_blk_req. The layout of descriptors is the
/// driver's choice (2.7.4.3): the header is the first 16 bytes of the readable part, however they
/// are cut.
const HEADER: u32 = 16;
/// struct virtio_blk_discard_write_zeroes.
const RANGE: u32 = 16;

/// The status byte of a request that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// VIRTIO_BLK_S_IOERR
    IoErr,
    /// VIRTIO_BLK_S_UNSUPP
    Unsupp,
}

/// A range of a discard or write-zeroes request, in bytes, inside the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub offset: u64,
    pub len: u64,
    pub unmap: bool,
}

/// At least one range and at most [`MAX_RANGES`].
pub(crate) type Ranges = SmallVec<[Range; 1]>;

/// A request that may be carried out. Data lengths are multiples of 512 and inside the disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// VIRTIO_BLK_T_IN
    Read { offset: u64, len: u32, data: Segments },
    /// VIRTIO_BLK_T_OUT
    Write { offset: u64, len: u32, data: Segments },
    /// VIRTIO_BLK_T_FLUSH
    Flush,
    /// VIRTIO_BLK_T_GET_ID
    GetId,
    /// VIRTIO_BLK_T_DISCARD
    Discard(Ranges),
    /// VIRTIO_BLK_T_WRITE_ZEROES
    WriteZeroes(Ranges),
}

/// What a request does, for its counter and its notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
}

impl Doing {
    /// In a sentence that begins with "cannot".
    pub fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write zeroes",
        }
    }

    /// Does it change the disk?
    pub fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }
}

/// Where the status byte goes: the last byte of the writable part. `None`: nowhere, so that the
/// request cannot even be refused.
pub(crate) fn status_address(chain: &DescriptorChain) -> Option<GuestAddress> {
    let last = chain.writable_len().checked_sub(1)?;
    let address = chain.writable(last, 1)?.first()?.0;
    chain.ram().address_in_range(address).then_some(address)
}

/// Read the request, once, and check it against the disk and the features agreed upon.
pub(crate) fn parse(
    chain: &DescriptorChain,
    disk: Geometry,
    features: u64,
) -> Result<Request, Refusal> {
    let mut header = [0u8; HEADER as usize];
    if !chain.read(0, &mut header) {
        return Err(Refusal::IoErr);
    }
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    let writes = if disk.read_only { Err(Refusal::IoErr) } else { Ok(()) };
    let agreed = |feature: u32| {
        if features & bit(feature) != 0 { Ok(()) } else { Err(Refusal::Unsupp) }
    };
    match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => {
            let len = chain.writable_len().saturating_sub(1);
            let offset = data_range(sector, len, disk)?;
            let data = chain.writable(0, len).ok_or(Refusal::IoErr)?;
            Ok(Request::Read { offset, len, data })
        }
        VIRTIO_BLK_T_OUT => {
            writes?;
            let len = chain.readable_len().saturating_sub(HEADER);
            let offset = data_range(sector, len, disk)?;
            let data = chain.readable(HEADER, len).ok_or(Refusal::IoErr)?;
            Ok(Request::Write { offset, len, data })
        }
        VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        VIRTIO_BLK_T_GET_ID => Ok(Request::GetId),
        VIRTIO_BLK_T_DISCARD => {
            agreed(VIRTIO_BLK_F_DISCARD)?;
            writes?;
            let ranges = ranges(chain, disk)?;
            // 5.2.6.2: the unmap flag is for write-zeroes alone.
            if ranges.iter().any(|range| range.unmap) {
                return Err(Refusal::Unsupp);
            }
            Ok(Request::Discard(ranges))
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            agreed(VIRTIO_BLK_F_WRITE_ZEROES)?;
            writes?;
            ranges(chain, disk).map(Request::WriteZeroes)
        }
        _ => Err(Refusal::Unsupp),
    }
}

/// The byte offset of `len` bytes from `sector` on, if they are whole sectors inside the disk and
/// no more than the configuration allows.
fn data_range(sector: u64, len: u32, disk: Geometry) -> Result<u64, Refusal> {
    if len == 0 || len > MAX_DATA || !u64::from(len).is_multiple_of(SECTOR) {
        return Err(Refusal::IoErr);
    }
    inside(sector, len.into(), disk)
}

fn inside(sector: u64, len: u64, disk: Geometry) -> Result<u64, Refusal> {
    let offset = sector.checked_mul(SECTOR).ok_or(Refusal::IoErr)?;
    let end = offset.checked_add(len).ok_or(Refusal::IoErr)?;
    if end <= disk.size { Ok(offset) } else { Err(Refusal::IoErr) }
}

/// The segments of a discard or write-zeroes request.
fn ranges(chain: &DescriptorChain, disk: Geometry) -> Result<Ranges, Refusal> {
    let len = chain.readable_len().saturating_sub(HEADER);
    if len == 0 || !len.is_multiple_of(RANGE) || len / RANGE > MAX_RANGES {
        return Err(Refusal::IoErr);
    }
    let mut ranges = Ranges::new();
    for at in (HEADER..HEADER + len).step_by(RANGE as usize) {
        let mut raw = [0u8; RANGE as usize];
        if !chain.read(at, &mut raw) {
            return Err(Refusal::IoErr);
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = raw;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
            return Err(Refusal::Unsupp);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Refusal::IoErr);
        }
        let len = u64::from(sectors) * SECTOR;
        ranges.push(Range { offset: inside(sector, len, disk)?, len, unmap: flags != 0 });
    }
    Ok(ranges)
}
