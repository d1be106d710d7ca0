//! Physical Region Pages: where a command's data is. (NVM Express 1.4, 4.3)

use super::command::Status;
use crate::mem::GuestRam;
use crate::virtio::chain::Segments;
use vm_memory::{Bytes, GuestAddress};

/// Bytes of a page: CAP.MPSMIN and CAP.MPSMAX are 0.
pub const PAGE: u64 = 4096;
/// Bytes of an entry of a list.
const ENTRY: u64 = 8;
/// Pages of lists that are followed: [`MAX_DATA`]'s pages fit in two, wherever the first begins.
const MAX_LISTS: u32 = 3;
/// Most bytes of a command's data, 1 MiB: MDTS is 8.
pub const MAX_DATA: u32 = 1 << 20;

/// The pieces of `len` bytes, at most [`MAX_DATA`], that two PRPs tell of, those that touch as one.
/// Whether they are guest memory is not looked at.
///
/// # Errors
/// A PRP is not aligned as it has to be, a list is not guest memory or has no end.
pub fn segments(ram: &GuestRam, (first, second): (u64, u64), len: u32) -> Result<Segments, Status> {
    let mut segments = Segments::new();
    // 4.3: bits 1:0 are zero.
    if first % 4 != 0 {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let mut left = len;
    let mut add = |address: u64, room: u64| {
        let take = u64::from(left).min(room) as u32;
        left -= take;
        match segments.last_mut() {
            Some((last, bytes)) if last.0.checked_add(u64::from(*bytes)) == Some(address) => {
                *bytes += take;
            }
            _ => segments.push((GuestAddress(address), take)),
        }
        left
    };
    let left = add(first, PAGE - first % PAGE);
    if left == 0 {
        return Ok(segments);
    }
    if u64::from(left) <= PAGE {
        if second % PAGE != 0 {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        add(second, PAGE);
        return Ok(segments);
    }
    each_entry(ram, second, left, |page| add(page, PAGE))?;
    Ok(segments)
}

/// Hand the pages of a list over, one after the other, until `add` says that no byte is left of
/// `left`.
fn each_entry(
    ram: &GuestRam,
    list: u64,
    mut left: u32,
    mut add: impl FnMut(u64) -> u32,
) -> Result<(), Status> {
    let (mut list, mut buffer) = (list, [0; PAGE as usize]);
    for _ in 0..MAX_LISTS {
        if list % ENTRY != 0 {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        // The last entry of a page that does not suffice says where the list goes on.
        let there = (PAGE - list % PAGE) / ENTRY;
        let pages = u64::from(left).div_ceil(PAGE);
        let goes_on = pages > there;
        let entries = pages.min(there);
        let bytes = &mut buffer[..(entries * ENTRY) as usize];
        // Once: what the guest writes afterwards does not count.
        ram.read_slice(bytes, GuestAddress(list)).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let mut entries = bytes.chunks_exact(ENTRY as usize).map(|entry| {
            entry.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        });
        let next = if goes_on { entries.next_back() } else { None };
        for page in entries {
            if page % PAGE != 0 {
                return Err(Status::PRP_OFFSET_INVALID);
            }
            left = add(page);
        }
        match next {
            Some(next) => list = next,
            None => return Ok(()),
        }
    }
    Err(Status::INVALID_FIELD)
}

/// Write the beginning of a command's data. What does not fit is left out.
///
/// # Errors
/// As [`segments`]'s; it is not guest memory.
pub fn write(ram: &GuestRam, prps: (u64, u64), mut bytes: &[u8]) -> Result<(), Status> {
    for (address, len) in segments(ram, prps, bytes.len() as u32)? {
        let (piece, rest) = bytes.split_at(bytes.len().min(len as usize));
        ram.write_slice(piece, address).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        bytes = rest;
    }
    Ok(())
}

/// Read a command's data.
///
/// # Errors
/// As [`write`]'s.
pub fn read(ram: &GuestRam, prps: (u64, u64), bytes: &mut [u8]) -> Result<(), Status> {
    let mut at = 0;
    for (address, len) in segments(ram, prps, bytes.len() as u32)? {
        let end = bytes.len().min(at + len as usize);
        ram.read_slice(&mut bytes[at..end], address).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::ram;

    const LIST: u64 = 0x8_0000;

    fn list(ram: &GuestRam, at: u64, entries: impl IntoIterator<Item = u64>) {
        for (place, entry) in (at..).step_by(8).zip(entries) {
            ram.write_obj(entry, GuestAddress(place)).unwrap();
        }
    }

    fn found(ram: &GuestRam, prps: (u64, u64), len: u32) -> Vec<(u64, u32)> {
        segments(ram, prps, len).unwrap().into_iter().map(|(at, len)| (at.0, len)).collect()
    }

    #[test]
    fn one_two_and_many_pages() {
        let ram = ram();
        assert_eq!(found(&ram, (0x1e00, 1), 512), [(0x1e00, 512)]);
        assert_eq!(found(&ram, (0x1e00, 0x5000), 1024), [(0x1e00, 512), (0x5000, 512)]);
        assert_eq!(found(&ram, (0x1000, 0x2000), 8192), [(0x1000, 8192)], "they touch");
        list(&ram, LIST, [0x9000, 0x7000]);
        let all = [(0x1800, 2048), (0x9000, 4096), (0x7000, 100)];
        assert_eq!(found(&ram, (0x1800, LIST), 2048 + 4096 + 100), all);
    }

    #[test]
    fn a_list_goes_on_in_its_last_entry_unless_that_suffices() {
        let ram = ram();
        let page = |n: u64| 0x10_0000 + n * 0x2000;
        // Two entries are left in the page of the first list.
        list(&ram, LIST + PAGE - 16, [page(0), page(1)]);
        assert_eq!(found(&ram, (0, LIST + PAGE - 16), 3 * 4096).len(), 3);
        list(&ram, LIST + PAGE - 16, [page(0), LIST + PAGE]);
        list(&ram, LIST + PAGE, [page(1), page(2)]);
        let all = [(0, 4096), (page(0), 4096), (page(1), 4096), (page(2), 4096)];
        assert_eq!(found(&ram, (0, LIST + PAGE - 16), 4 * 4096), all);
        list(&ram, LIST, (0..256).map(page));
        assert_eq!(found(&ram, (0xf00, LIST), MAX_DATA).len(), 257);
    }

    #[test]
    fn what_is_no_list_is_refused_and_ends() {
        let ram = ram();
        let refused = |prps, len| segments(&ram, prps, len).unwrap_err();
        assert_eq!(refused((0x1002, 0), 512), Status::PRP_OFFSET_INVALID);
        assert_eq!(refused((0x1000, 0x2200), 8192), Status::PRP_OFFSET_INVALID);
        assert_eq!(refused((0, LIST + 4), MAX_DATA), Status::PRP_OFFSET_INVALID);
        assert_eq!(refused((0, 1 << 50), MAX_DATA), Status::DATA_TRANSFER_ERROR);
        assert_eq!(refused((0, !7), MAX_DATA), Status::DATA_TRANSFER_ERROR);
        // A list of nothing but a pointer to itself.
        list(&ram, LIST + PAGE - 8, [LIST + PAGE - 8]);
        assert_eq!(refused((0, LIST + PAGE - 8), MAX_DATA), Status::INVALID_FIELD);
        list(&ram, LIST, [0x1001; 300]);
        assert_eq!(refused((0, LIST), MAX_DATA), Status::PRP_OFFSET_INVALID);
        let mut bytes = [0; 512];
        assert_eq!(read(&ram, (1 << 40, 0), &mut bytes), Err(Status::DATA_TRANSFER_ERROR));
        assert_eq!(write(&ram, (1 << 40, 0), &bytes), Err(Status::DATA_TRANSFER_ERROR));
    }
}
