//! Well-formed chains that ask a block device for what can't be (Virtio 1.2, 5.2.6). It answers
//! with an error status and goes on.

use crate::Target;
use crate::rt::blk::*;
use crate::rt::memory;
use crate::rt::virtio::Part;

/// Status of a request that succeeded.
const OK: u8 = 0;
/// Of one that failed, and of one that the device does not know.
const ERRORS: [u8; 2] = [1, 2];

/// All of them.
pub fn attack(target: &mut Target) {
    let mut blk = Blk::start(target.device, FLUSH | DISCARD | WRITE_ZEROES, 1, 256);
    sectors(&mut blk);
    lengths(&mut blk);
    kinds(&mut blk);
    ranges(&mut blk);
    target.prove("bad requests");
    in_flight(target);
}

fn refused(blk: &mut Blk, kind: u32, sector: u64, data: &[Part]) {
    let status = blk.request(kind, sector, data);
    assert!(ERRORS.contains(&status), "type {kind} at {sector:#x}: status {status}");
}

/// Beyond the end, by one and by everything.
fn sectors(blk: &mut Blk) {
    let end = blk.sectors;
    let mut two = [0; 2 * SECTOR];
    for sector in [end, end - 1, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1, 1 << 55, 1 << 63] {
        refused(blk, IN, sector, &[Part::output(&mut two)]);
        refused(blk, OUT, sector, &[Part::input(&two)]);
    }
}

/// Lengths that are no whole sectors, buffers of the wrong direction.
fn lengths(blk: &mut Blk) {
    let mut page = [0; 4096];
    for len in [1, 511, 513, 4095] {
        refused(blk, IN, 0, &[Part::output(&mut page[..len])]);
        refused(blk, OUT, 0, &[Part::input(&page[..len])]);
    }
    refused(blk, IN, 0, &[Part::input(&page)]);
    // Nothing to do may be done or refused, but not half of either.
    for kind in [IN, OUT] {
        let status = blk.request(kind, 0, &[]);
        assert!(status == OK || ERRORS.contains(&status), "an empty request: {status}");
    }
    let mut short = [0; 4];
    for part in [Part::output(&mut short), Part::input(&page)] {
        let status = blk.request(GET_ID, 0, &[part]);
        assert!(status == OK || ERRORS.contains(&status), "a get-id without room: {status}");
    }
}

/// Types that nobody knows.
fn kinds(blk: &mut Blk) {
    let mut page = [0; 512];
    for kind in [2, 3, 5, 7, 9, 10, 12, 14, 0x100, 0x8000_0000, u32::MAX] {
        refused(blk, kind, 0, &[Part::output(&mut page)]);
    }
}

/// Discards and write-zeroes of nothing, of half a range, beyond the end, with unknown flags, of
/// too many ranges.
fn ranges(blk: &mut Blk) {
    let end = blk.sectors;
    let range = |sector: u64, count: u32, flags: u32| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&count.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    };
    let offered = [(DISCARD, T_DISCARD), (WRITE_ZEROES, T_WRITE_ZEROES)];
    let features = blk.features;
    for (_, kind) in offered.into_iter().filter(|(feature, _)| features & feature != 0) {
        for bad in [
            range(end, 1, 0),
            range(end - 1, 2, 0),
            range(u64::MAX, 1, 0),
            range(u64::MAX - 1, u32::MAX, 0),
            range(0, u32::MAX, 0),
            range(0, 1, 2),
            range(0, 1, u32::MAX),
        ] {
            refused(blk, kind, 0, &[Part::input(&bad)]);
        }
        refused(blk, kind, 0, &[Part::input(&range(0, 1, 0)[..15])]);
        refused(blk, kind, 0, &[Part::input(&[0; 17])]);
        refused(blk, kind, 0, &[Part::input(&memory::pages(64)[..])]);
    }
    refused(blk, T_DISCARD, 0, &[Part::input(&range(0, 1, 1))]);
}

/// Reset the device with reads in flight. After the reset it owns no memory any more.
fn in_flight(target: &mut Target) {
    let buffers = memory::pages(64 * 8);
    for round in 0..8u8 {
        let mut blk = target.fresh();
        for chunk in buffers.chunks_mut(4096 * 8) {
            blk.submit(0, IN, 0, &[Part::output(chunk)]);
        }
        blk.queues[0].notify();
        target.device.reset();
        buffers.fill(round);
        (0..50).for_each(|_| assert_eq!(target.device.read(0x70), 0, "status after reset"));
        let touched = buffers.chunks(512).any(|chunk| {
            // SAFETY: inside the chunk; volatile because the device might have written it.
            unsafe { chunk.as_ptr().read_volatile() != round }
        });
        assert!(!touched, "the device wrote to memory after its reset");
        target.prove("a reset with requests in flight");
    }
}
