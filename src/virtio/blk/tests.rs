//! Every kind of request, well-formed and not, on a disk in memory.

use super::*;
use crate::mem::GuestRam;
use crate::virtio::device::{Cease, Outcome, QueueHandler};
use crate::virtio::feature;
use crate::virtio::queue::SplitQueue;
use crate::virtio::testing::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{Bytes, GuestAddress};

const DISK: usize = 64 << 10;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x8000;
/// A status byte that nobody wrote.
const UNTOUCHED: u8 = 0xaa;

/// A device with one queue, driven without threads.
struct Rig {
    ram: GuestRam,
    driver: Driver,
    ring: SplitQueue,
    handler: Box<dyn QueueHandler>,
    device: Arc<Blk>,
    reported: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn new(disk: MemDisk) -> Self {
        Self::with_features(disk, |offered| offered)
    }

    fn with_features(disk: MemDisk, accept: fn(u64) -> u64) -> Self {
        Self::create(disk, accept, DiskLimits::default())
    }

    fn create(disk: MemDisk, accept: fn(u64) -> u64, limits: DiskLimits) -> Self {
        let (ram, (notices, reported)) = (ram(), notices());
        let volume = "vol-0123456789abcdef0".parse().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let (device, mut services) =
            Blk::create(&volume, &disk, Engine::Auto, 1, limits, notices).unwrap();
        let mut handler = services.pop().unwrap().handler;
        let features = accept(device.features()) | feature::RING;
        handler.start(features, Cease::default());
        let driver = Driver::new(&ram, 0, 64);
        let ring = SplitQueue::new(ram.clone(), driver.state, 64, features).unwrap();
        Self { ram, driver, ring, handler, device, reported }
    }

    fn header(&self, kind: u32, sector: u64) {
        let words = [u64::from(kind), sector];
        self.ram.write_obj(words, GuestAddress(HEADER)).unwrap();
    }

    /// Offer the chain, serve it to its end; the bytes used.
    fn serve(&mut self, pieces: &[(u64, u32, bool)]) -> Result<u32, String> {
        self.ram.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        self.driver.chain(0, pieces);
        self.driver.offer(0);
        self.serve_offered()
    }

    fn serve_offered(&mut self) -> Result<u32, String> {
        let chain = self.ring.pop().map_err(|e| e.to_string())?.unwrap();
        let head = chain.head();
        let mut used = None;
        match self.handler.handle(0, chain) {
            Outcome::Done(len) => used = Some(len),
            Outcome::Deferred => {
                self.handler.submit_batch().unwrap();
                self.handler.completions(&mut |_, done, len| {
                    assert_eq!(done, head);
                    assert!(used.replace(len).is_none(), "handed over once");
                });
            }
            Outcome::NotNow | Outcome::Kept => panic!("a disk always answers"),
            Outcome::Stop(reason) => return Err(reason),
        }
        assert_eq!(self.handler.in_flight(), 0);
        self.ring.push_used(head, used.unwrap()).unwrap();
        Ok(used.unwrap())
    }

    /// As drivers lay a request out: header, data, status.
    fn ask(&mut self, kind: u32, sector: u64, len: u32, writable: bool) -> (u8, u32) {
        self.header(kind, sector);
        let (header, status) = ((HEADER, 16, false), (STATUS, 1, true));
        let pieces = [header, (DATA, len, writable), status];
        let used = if len == 0 { self.serve(&[header, status]) } else { self.serve(&pieces) };
        (self.status(), used.unwrap())
    }

    fn status(&self) -> u8 {
        self.ram.read_obj(GuestAddress(STATUS)).unwrap()
    }

    /// Ranges of a discard or write-zeroes request: (sector, sectors, flags).
    fn ask_ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        for (at, &(sector, sectors, flags)) in (DATA..).step_by(16).zip(ranges) {
            let words = [sector, u64::from(flags) << 32 | u64::from(sectors)];
            self.ram.write_obj(words, GuestAddress(at)).unwrap();
        }
        self.ask(kind, 0, 16 * ranges.len() as u32, false).0
    }
}

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPP: u8 = VIRTIO_BLK_S_UNSUPP as u8;

#[test]
fn what_was_written_is_read_back() {
    let disk = MemDisk::new(DISK);
    let bytes = disk.bytes.clone();
    let mut rig = Rig::new(disk);
    let pattern: Vec<u8> = (0..1024).map(|n| n as u8).collect();
    rig.ram.write_slice(&pattern, GuestAddress(DATA)).unwrap();
    assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, 3, 1024, false), (OK, 1));
    assert_eq!(&bytes.lock().unwrap()[3 * 512..5 * 512], pattern);
    rig.ram.write_slice(&[0; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, 3, 1024, true), (OK, 1025));
    let mut read = [0; 1024];
    rig.ram.read_slice(&mut read, GuestAddress(DATA)).unwrap();
    assert_eq!(read, pattern[..]);
    assert_eq!(rig.ask(VIRTIO_BLK_T_FLUSH, 0, 0, false), (OK, 1));
    let status = rig.device.status();
    assert_eq!(status.engine, Engine::Sync);
    assert_eq!((status.read_bytes, status.write_bytes), (1024, 1024));
    assert_eq!((status.flushes, status.errors), (1, 0));
}

/// Counts configuration interrupts.
#[derive(Default)]
struct Interrupts(AtomicU64);

impl Signal for Interrupts {
    fn used(&self, _queue: u16) {}
    fn config_changed(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn stop(&self, _reason: &str) {}
    fn stopped(&self) -> bool {
        false
    }
}

#[test]
fn a_disk_that_grows_tells_its_driver_and_takes_requests_beyond_its_old_end() {
    let disk = MemDisk::new(DISK);
    let bytes = disk.bytes.clone();
    let mut rig = Rig::new(disk);
    let guest = Arc::new(Interrupts::default());
    rig.device.connect(guest.clone());
    let sectors = DISK as u64 / SECTOR;
    let capacity = |rig: &Rig| {
        let mut bytes = [0; 8];
        rig.device.read_config(0, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, sectors, 512, true).0, IOERR, "beyond its end");
    bytes.lock().unwrap().resize(2 * DISK, 7);
    let before = rig.device.config_generation();
    rig.device.grow(2 * DISK as u64 + 100);
    assert_eq!(capacity(&rig), 2 * sectors, "whole sectors");
    assert_ne!(rig.device.config_generation(), before);
    assert_eq!(guest.0.load(Ordering::SeqCst), 1);
    rig.device.grow(DISK as u64);
    assert_eq!((capacity(&rig), guest.0.load(Ordering::SeqCst)), (2 * sectors, 1), "no shrinking");
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, 2 * sectors - 1, 512, true), (OK, 513));
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, 2 * sectors, 512, true).0, IOERR, "beyond its new end");
}

#[test]
fn the_layout_of_descriptors_is_the_drivers_choice() {
    let disk = MemDisk::new(DISK);
    disk.bytes.lock().unwrap()[512..1024].fill(7);
    let mut rig = Rig::new(disk);
    // A header in three pieces, and data and status in one.
    rig.header(VIRTIO_BLK_T_IN, 1);
    let pieces =
        [(HEADER, 1, false), (HEADER + 1, 8, false), (HEADER + 9, 7, false), (DATA, 513, true)];
    assert_eq!(rig.serve(&pieces), Ok(513));
    let mut read = [0xff; 513];
    rig.ram.read_slice(&mut read, GuestAddress(DATA)).unwrap();
    assert_eq!((&read[..512], read[512]), (&[7; 512][..], OK));
    // Header and data in one.
    rig.header(VIRTIO_BLK_T_OUT, 2);
    assert_eq!(rig.serve(&[(HEADER, 16 + 512, false), (STATUS, 1, true)]), Ok(1));
    assert_eq!(rig.status(), OK);
}

#[test]
fn the_serial_is_the_volume() {
    let mut rig = Rig::new(MemDisk::new(DISK));
    assert_eq!(rig.ask(VIRTIO_BLK_T_GET_ID, 0, 20, true), (OK, 21));
    let mut id = [0; 20];
    rig.ram.read_slice(&mut id, GuestAddress(DATA)).unwrap();
    assert_eq!(&id, b"vol0123456789abcdef0");
    assert_eq!(rig.ask(VIRTIO_BLK_T_GET_ID, 0, 4, true), (OK, 5));
    assert_eq!(rig.ask(VIRTIO_BLK_T_GET_ID, 0, 0, true), (OK, 1));
}

#[test]
fn discards_and_zeroes_take_lists_of_ranges() {
    let disk = MemDisk::new(DISK);
    let (bytes, log) = (disk.bytes.clone(), disk.log.clone());
    bytes.lock().unwrap().fill(1);
    let mut rig = Rig::new(disk);
    let two = [(0, 8, 0), (16, 8, 0)];
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_DISCARD, &two), OK);
    assert_eq!(bytes.lock().unwrap().iter().filter(|b| **b == 0).count(), 16 * 512);
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(120, 8, 1), (1, 1, 0)]), OK);
    assert_eq!(*log.lock().unwrap(), ["discard", "discard", "write-zeroes unmap", "write-zeroes"]);
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_DISCARD, &[(5, 0, 0)]), OK, "nothing to do is done");
}

#[test]
fn bad_ranges_are_refused_as_a_whole() {
    let disk = MemDisk::new(DISK);
    let log = disk.log.clone();
    let mut rig = Rig::new(disk);
    let (discard, zeroes) = (VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES);
    for (kind, ranges, status) in [
        (discard, &[(0, 8, 1)][..], UNSUPP),
        (discard, &[(0, 8, 2)], UNSUPP),
        (zeroes, &[(0, 8, 2)], UNSUPP),
        (zeroes, &[(0, 8, 0), (128, 1, 0)], IOERR),
        (discard, &[(u64::MAX, 8, 0)], IOERR),
        (discard, &[(u64::MAX / 512, 8, 0)], IOERR),
        (zeroes, &[(0, u32::MAX, 0)], IOERR),
        (zeroes, &[], IOERR),
        (discard, &[(0, 1, 0); 33], IOERR),
    ] {
        assert_eq!(rig.ask_ranges(kind, ranges), status, "{kind} {ranges:?}");
    }
    assert_eq!(rig.ask(discard, 0, 15, false).0, IOERR, "half a range");
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn requests_outside_the_disk_are_io_errors() {
    let mut rig = Rig::new(MemDisk::new(DISK));
    let end = (DISK / 512) as u64;
    for (sector, len) in
        [(end, 512), (end - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100), (0, 0)]
    {
        assert_eq!(rig.ask(VIRTIO_BLK_T_IN, sector, len, true).0, IOERR, "{sector} {len}");
        assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, sector, len, false).0, IOERR, "{sector} {len}");
    }
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, end - 1, 512, true).0, OK);
    assert_eq!(rig.device.status().errors, 12);
}

#[test]
fn unknown_kinds_are_unsupported() {
    let mut rig = Rig::new(MemDisk::new(DISK));
    for kind in [VIRTIO_BLK_T_SCSI_CMD, VIRTIO_BLK_T_SECURE_ERASE, 77, u32::MAX] {
        assert_eq!(rig.ask(kind, 0, 512, true), (UNSUPP, 0));
    }
}

#[test]
fn features_not_agreed_upon_are_not_served() {
    let disk = MemDisk::new(DISK);
    let log = disk.log.clone();
    let mut rig = Rig::with_features(disk, |_| 0);
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_DISCARD, &[(0, 8, 0)]), UNSUPP);
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(0, 8, 0)]), UNSUPP);
    // Without FLUSH the driver believes in a write-through disk.
    assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, 0, 512, false), (OK, 1));
    assert_eq!(*log.lock().unwrap(), ["write", "flush"]);
}

#[test]
fn a_read_only_disk_takes_no_change() {
    let mut disk = MemDisk::new(DISK);
    disk.read_only = true;
    let log = disk.log.clone();
    let mut rig = Rig::with_features(disk, |_| u64::MAX);
    assert_eq!(rig.device.features() & bit(VIRTIO_BLK_F_RO), bit(VIRTIO_BLK_F_RO));
    assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, 0, 512, false).0, IOERR);
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_DISCARD, &[(0, 8, 0)]), IOERR);
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(0, 8, 0)]), IOERR);
    assert!(log.lock().unwrap().is_empty());
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, 0, 512, true).0, OK);
}

#[test]
fn host_errors_reach_the_guest_and_are_told_once_a_kind() {
    let disk = MemDisk::new(DISK);
    let error = disk.error.clone();
    let mut rig = Rig::new(disk);
    *error.lock().unwrap() = Some(libc::ENOSPC);
    assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, 0, 512, false), (IOERR, 1));
    assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, 1, 512, false), (IOERR, 1));
    assert_eq!(rig.ask_ranges(VIRTIO_BLK_T_DISCARD, &[(0, 8, 0), (8, 8, 0)]), IOERR);
    *error.lock().unwrap() = Some(libc::EIO);
    assert_eq!(rig.ask(VIRTIO_BLK_T_IN, 0, 512, true), (IOERR, 0));
    let reported = rig.reported.lock().unwrap();
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported[0].starts_with("disk vol-0123456789abcdef0: cannot write: No space left"));
    assert!(reported[1].contains("cannot read: Input/output error"));
    assert_eq!(rig.device.status().errors, 4);
}

#[test]
fn malformed_requests_are_refused_or_stop_the_device() {
    let mut rig = Rig::new(MemDisk::new(DISK));
    rig.header(VIRTIO_BLK_T_IN, 0);
    // Half a header, none at all, and one in writable descriptors: the last writable byte is the
    // status.
    assert_eq!(rig.serve(&[(HEADER, 8, false), (STATUS, 1, true)]), Ok(1));
    assert_eq!(rig.status(), IOERR);
    assert_eq!(rig.serve(&[(HEADER, 16, true), (DATA, 512, true), (STATUS, 1, true)]), Ok(0));
    assert_eq!(rig.status(), IOERR);
    // Buffers that are not memory.
    let lost = [(HEADER, 16, false), (RAM, 512, true), (STATUS, 1, true)];
    assert_eq!(rig.serve(&lost), Ok(0));
    assert_eq!(rig.status(), IOERR);
    assert_eq!(rig.serve(&[(RAM, 16, false), (STATUS, 1, true)]), Ok(1));
    assert_eq!(rig.status(), IOERR);
    let huge = [(HEADER, 16, false), (DATA, !511, true), (STATUS, 1, true)];
    assert_eq!(rig.serve(&huge), Ok(0));
    assert_eq!(rig.status(), IOERR);
    // No room for a status, none in memory, nothing at all.
    let reason = Err("a request has no room for its status in guest memory".to_owned());
    assert_eq!(rig.serve(&[(HEADER, 16, false)]), reason);
    assert_eq!(rig.serve(&[(HEADER, 16, false), (DATA, 0, true)]), reason);
    assert_eq!(rig.serve(&[(HEADER, 16, false), (RAM, 1, true)]), reason);
    assert_eq!(rig.serve(&[(HEADER, 0, false)]), reason);
}

#[test]
fn the_configuration_tells_the_limits() {
    let rig = Rig::new(MemDisk::new(DISK));
    let config = rig.device.config().bytes.clone();
    assert_eq!(config.len(), 60);
    let field = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!(field(0), (DISK / 512) as u32);
    assert_eq!([field(8), field(12)], [1 << 20, 254], "size_max and seg_max");
    assert_eq!(field(20), 512, "blk_size");
    assert_eq!(u16::from_le_bytes(config[34..36].try_into().unwrap()), 1, "num_queues");
    assert_eq!([field(36), field(40), field(44)], [MAX_RANGE_SECTORS, 32, 128], "discard");
    assert_eq!([field(48), field(52)], [MAX_RANGE_SECTORS, 32], "write zeroes");
    assert_eq!(config[56], 1, "write_zeroes_may_unmap");
}

#[test]
fn state_is_kept_and_belongs_to_one_disk() {
    let rig = Rig::new(MemDisk::new(DISK));
    let saved = serde_json::to_string(&rig.device.save()).unwrap();
    let state: DeviceState = serde_json::from_str(&saved).unwrap();
    assert_eq!(state, rig.device.save());
    rig.device.restore(&state).unwrap();
    assert!(Rig::new(MemDisk::new(2 * DISK)).device.restore(&state).is_err());
    assert!(rig.device.restore(&DeviceState::new(&crate::virtio::rng::TYPE, 1, &())).is_err());
}

#[test]
fn a_disk_has_one_to_64_queues_of_the_engine_asked_for() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(DISK));
    let volume = "vol-0123456789abcdef0".parse().unwrap();
    let create = |engine, queues| {
        Blk::create(&volume, &disk, engine, queues, DiskLimits::default(), notices().0)
    };
    assert_eq!(create(Engine::Sync, 4).unwrap().1.len(), 4);
    assert!(create(Engine::Sync, 0).is_err());
    assert!(create(Engine::Sync, 65).is_err());
    assert!(create(Engine::Uring, 1).is_err());
}

#[test]
fn limits_hold_back_and_lose_nothing() {
    let slow = Some(crate::plan::Rate { per_second: 1, burst: 2 });
    let limits = DiskLimits { iops: slow, bandwidth: None };
    let mut rig = Rig::create(MemDisk::new(DISK), |offered| offered, limits);
    for n in 0..2 {
        assert_eq!(rig.ask(VIRTIO_BLK_T_OUT, n, 512, false), (OK, 1));
    }
    rig.header(VIRTIO_BLK_T_OUT, 2);
    rig.driver.chain(0, &[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
    rig.driver.offer(0);
    let chain = rig.ring.pop().unwrap().unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(rig.handler.handle(0, chain), Outcome::Deferred);
    let (mut done, mut waited) = (0, false);
    while done == 0 {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60));
        waited |= rig.handler.due().is_some();
        assert_ne!(rig.handler.due().is_some(), rig.handler.is_ready(0));
        rig.handler.completions(&mut |_, _, _| done += 1);
        // What this disk is told to do it has done: nothing would wake the queue for it.
        assert_eq!(done == 1, rig.handler.is_ready(0));
    }
    assert!(waited, "two are had at once, and no third");
    assert_eq!((rig.status(), rig.handler.in_flight()), (OK, 0));
}

proptest! {
    /// Whatever a guest asks: it ends, without a panic, and only the request's writable buffers
    /// change.
    #[test]
    fn random_requests_write_only_their_buffers(
        kind in prop_oneof![0u32..16, any::<u32>()],
        sector in prop_oneof![0u64..256, any::<u64>()],
        pieces in proptest::collection::vec(
            (0u64..0x1000, prop_oneof![0u32..2048, Just(512), any::<u32>()], any::<bool>()), 0..6),
        header_first in any::<bool>(),
        garbage in proptest::collection::vec(any::<u8>(), 256),
    ) {
        let mut rig = Rig::new(MemDisk::new(DISK));
        rig.ram.write_slice(&garbage, GuestAddress(DATA)).unwrap();
        rig.header(kind, sector);
        let mut chain = vec![];
        if header_first {
            chain.push((HEADER, 16, false));
        }
        chain.extend(pieces.iter().map(|&(at, len, writable)| (DATA + at, len, writable)));
        chain.push((STATUS, 1, true));
        rig.driver.chain(0, &chain);
        rig.driver.offer(0);
        let mut before = vec![0; RAM as usize];
        rig.ram.read_slice(&mut before, GuestAddress(0)).unwrap();
        let used_ring = rig.driver.state.used;
        let _ = rig.serve_offered();
        let mut after = vec![0; RAM as usize];
        rig.ram.read_slice(&mut after, GuestAddress(0)).unwrap();
        for (at, (old, new)) in (0..).step_by(64).zip(before.chunks(64).zip(after.chunks(64))) {
            let changed = (at..).zip(old.iter().zip(new)).filter(|(_, (old, new))| old != new);
            for (at, _) in if old == new { None } else { Some(changed) }.into_iter().flatten() {
                let allowed = chain.iter().any(|&(start, len, writable)| {
                    writable && (start..start + u64::from(len)).contains(&at)
                }) || (used_ring..used_ring + 6 + 64 * 8).contains(&at);
                prop_assert!(allowed, "{at:#x} changed");
            }
        }
    }
}
