//! Each command, well-formed and not, of a drive with a disc in memory.

use super::*;
use crate::mem::GuestRam;
use crate::virtio::device::{Cease, Outcome, QueueHandler};
use crate::virtio::feature;
use crate::virtio::queue::SplitQueue;
use crate::virtio::testing::*;
use proptest::prelude::*;
use sense::Sense;
use vm_memory::{Bytes, GuestAddress};

/// Blocks of the disc.
const BLOCKS: usize = 40;
const REQUEST: u64 = BUFFERS;
const ANSWER: u64 = BUFFERS + 0x1000;
const DATA: u64 = BUFFERS + 0x2000;
/// Bytes of request and response with the sizes that are usual.
const LEN: u32 = 51;
const ANSWER_LEN: u32 = 108;
/// The drive's address.
const DRIVE: [u8; 8] = [1, 0, 0x40, 0, 0, 0, 0, 0];

/// What came back of a command.
#[derive(Debug, PartialEq)]
struct Back {
    response: u8,
    status: u8,
    residual: u32,
    sense: Option<Sense>,
    data: Vec<u8>,
}

/// A drive whose queues are driven without threads.
struct Rig {
    ram: GuestRam,
    driver: Driver,
    ring: SplitQueue,
    handler: Box<dyn QueueHandler>,
    device: Arc<Scsi>,
    disc: MemDisk,
}

impl Rig {
    /// A drive that has told of its reset.
    fn new() -> Self {
        let mut rig = Self::powered_on();
        assert_eq!(rig.command(&[0], 0).sense, Some(Sense::RESET));
        rig
    }

    fn powered_on() -> Self {
        let (ram, (notices, _)) = (ram(), notices());
        let disc = MemDisk { read_only: true, ..MemDisk::new(BLOCKS * 2048 + 512) };
        for (n, block) in disc.bytes.lock().unwrap().chunks_mut(2048).enumerate() {
            block.fill(n as u8);
        }
        let disk: Arc<dyn Disk> = Arc::new(disc.clone());
        let limits = DiskLimits::default();
        let (device, mut services) =
            Scsi::create("cdrom0", &disk, Engine::Auto, limits, notices).unwrap();
        let mut handler = services.pop().unwrap().handler;
        handler.start(feature::RING, Cease::default());
        let driver = Driver::new(&ram, 0, 64);
        let ring = SplitQueue::new(ram.clone(), driver.state, 64, feature::RING).unwrap();
        Self { ram, driver, ring, handler, device, disc }
    }

    /// Offer a chain in a queue, and serve it to its end.
    fn serve(&mut self, queue: u16, pieces: &[(u64, u32, bool)]) -> Outcome {
        self.driver.chain(0, pieces);
        self.driver.offer(0);
        let chain = self.ring.pop().unwrap().unwrap();
        let outcome = self.handler.handle(queue, chain);
        self.handler.submit_batch().unwrap();
        let mut back = None;
        self.handler.completions(&mut |_, _, used| back = Some(used));
        assert_eq!(self.handler.in_flight(), 0);
        match outcome {
            Outcome::Deferred => Outcome::Done(back.unwrap()),
            other => other,
        }
    }

    fn write(&self, lun: [u8; 8], cdb: &[u8]) {
        let mut request = vec![0u8; LEN as usize];
        request[..8].copy_from_slice(&lun);
        request[19..19 + cdb.len()].copy_from_slice(cdb);
        self.ram.write_slice(&request, GuestAddress(REQUEST)).unwrap();
    }

    fn command(&mut self, cdb: &[u8], room: u32) -> Back {
        self.command_to(DRIVE, cdb, room)
    }

    fn command_to(&mut self, lun: [u8; 8], cdb: &[u8], room: u32) -> Back {
        self.write(lun, cdb);
        let pieces = [(REQUEST, LEN, false), (ANSWER, ANSWER_LEN, true), (DATA, room, true)];
        let Outcome::Done(used) = self.serve(REQUESTS, &pieces) else { panic!("it is answered") };
        let mut answer = [0; ANSWER_LEN as usize];
        self.ram.read_slice(&mut answer, GuestAddress(ANSWER)).unwrap();
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        let (sense_len, residual) = (word(0), word(4));
        let sense = (sense_len > 0).then(|| {
            assert_eq!((sense_len, answer[12], answer[19]), (18, 0x70, 10), "fixed format");
            Sense(answer[14], answer[24], answer[25])
        });
        let mut data = vec![0; (used - ANSWER_LEN) as usize];
        self.ram.read_slice(&mut data, GuestAddress(DATA)).unwrap();
        let (status, response) = (answer[10], answer[11]);
        assert!(response != 0 || used - ANSWER_LEN + residual == room, "all is accounted for");
        Back { response, status, residual, sense, data }
    }

    /// The data of a command that is done.
    fn data(&mut self, cdb: &[u8]) -> Vec<u8> {
        let back = self.command(cdb, 0x4000);
        assert_eq!((back.response, back.status, back.sense), (0, 0, None), "{cdb:x?}");
        back.data
    }

    /// Why a command is not.
    fn refused(&mut self, cdb: &[u8]) -> Sense {
        let back = self.command(cdb, 0x4000);
        assert_eq!((back.response, back.status, back.data.len()), (0, 2, 0), "{cdb:x?}");
        back.sense.unwrap()
    }
}

#[test]
fn a_drive_says_what_it_is() {
    let mut rig = Rig::powered_on();
    let data = rig.data(&[0x12, 0, 0, 0, 255]);
    assert_eq!((data.len(), data[0], data[1] & 0x80, data[3] & 0xf), (36, 5, 0x80, 2));
    assert_eq!(&data[8..32], b"SPORE   CD-ROM          ");
    assert_eq!(rig.data(&[0x12, 0, 0, 0, 5]), data[..5]);
    assert_eq!(rig.data(&[0x12, 1, 0, 0, 255]), [5, 0, 0, 3, 0, 0x80, 0x83]);
    assert_eq!(rig.data(&[0x12, 1, 0x80, 0, 255]), b"\x05\x80\0\x06cdrom0");
    let id = rig.data(&[0x12, 1, 0x83, 0, 255]);
    assert_eq!((&id[..4], &id[4..8], id.len()), (&[5, 0x83, 0, 34][..], &[2, 1, 0, 30][..], 38));
    assert_eq!(rig.refused(&[0x12, 1, 0x81, 0, 255]), Sense::INVALID_FIELD);
    assert_eq!(rig.refused(&[0x12, 0, 1, 0, 255]), Sense::INVALID_FIELD);
    let luns = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(rig.data(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), luns);
    assert_eq!(rig.data(&[0xa0, 0, 1, 0, 0, 0, 0, 0, 1, 0]), [0; 8]);
    assert_eq!(rig.refused(&[0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0]), Sense::INVALID_FIELD);
    // All that left the unit attention condition where it was, which is told once.
    assert_eq!(rig.refused(&[0]), Sense::RESET);
    assert_eq!(rig.data(&[0]), [0u8; 0]);
    assert_eq!(rig.refused(&[0x0a]), Sense::INVALID_COMMAND);
}

#[test]
fn the_disc_is_read_by_every_command_that_reads() {
    let mut rig = Rig::new();
    let last = BLOCKS as u8 - 1;
    assert_eq!(rig.data(&[0x25]), [0, 0, 0, last, 0, 0, 8, 0]);
    let long = rig.data(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!((long.len(), long[7], &long[8..12]), (32, last, &[0, 0, 8, 0][..]));
    assert_eq!(rig.refused(&[0x9e, 0x11]), Sense::INVALID_FIELD);
    let of = |first: u8, count: u8| -> Vec<u8> {
        (first..first + count).flat_map(|block| [block; 2048]).collect()
    };
    assert_eq!(rig.data(&[0x28, 0, 0, 0, 0, 3, 0, 0, 2]), of(3, 2));
    assert_eq!(rig.data(&[0xa8, 0, 0, 0, 0, last, 0, 0, 0, 1]), of(last, 1));
    assert_eq!(rig.data(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3]), of(5, 3));
    assert_eq!(rig.data(&[0x28, 0, 0, 0, 0, 40, 0, 0, 0]), [0u8; 0], "none, at the end");
    for beyond in [
        &[0x28, 0, 0, 0, 0, last, 0, 0, 2][..],
        &[0xa8, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1],
    ] {
        assert_eq!(rig.refused(beyond), Sense::OUT_OF_RANGE);
    }
    // A buffer that is too small gets nothing, one that is too large is told what is left.
    let small = rig.command(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1], 2047);
    assert_eq!((small.response, small.data.len()), (1, 0));
    assert_eq!(rig.command(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1], 5000).residual, 5000 - 2048);
    // Short data says so, too.
    assert_eq!(rig.command(&[0x12, 0, 0, 0, 36], 8).response, 1);
    *rig.disc.error.lock().unwrap() = Some(libc::EIO);
    assert_eq!(rig.refused(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1]), Sense::READ_ERROR);
    assert_eq!(rig.device.status().errors, 1);
    assert_eq!(rig.device.status().read_bytes, 7 * 2048);
}

#[test]
fn a_command_reads_no_more_than_the_drive_says() {
    let mut unit = Unit::new("cdrom0", 1 << 40);
    unit.execute(&[0; request::CDB]);
    let mut read = |count: u32| {
        let mut cdb = [0; request::CDB];
        cdb[0] = 0xa8;
        cdb[6..10].copy_from_slice(&count.to_be_bytes());
        unit.execute(&cdb)
    };
    let most = unit::MAX_TRANSFER / 2048;
    assert_eq!(read(most), unit::Answer::Read { offset: 0, len: unit::MAX_TRANSFER });
    for more in [most + 1, 1 << 21, u32::MAX / 8] {
        assert_eq!(read(more), unit::Answer::Check(Sense::INVALID_FIELD), "{more}");
    }
}

#[test]
fn the_disc_has_one_track_of_data() {
    let mut rig = Rig::new();
    let toc = |format: u8, track: u8, msf: u8| [0x43, msf, format, 0, 0, 0, track, 1, 0];
    let entry = |track: u8, block: u8| [0, 0x14, track, 0, 0, 0, 0, block];
    let whole = [&[0, 18, 1, 1][..], &entry(1, 0), &entry(0xaa, 40)].concat();
    assert_eq!(rig.data(&toc(0, 0, 0)), whole);
    assert_eq!(rig.data(&toc(0, 0xaa, 0)), [&[0, 10, 1, 1][..], &entry(0xaa, 40)].concat());
    assert_eq!(rig.data(&toc(1, 0, 0)), [&[0, 10, 1, 1][..], &entry(1, 0)].concat());
    // 150 + 40 frames are 2 s and 40 frames.
    assert_eq!(rig.data(&toc(0, 0xaa, 2))[8..], [0, 0, 2, 40]);
    for (format, track) in [(0, 2), (2, 0), (4, 0)] {
        assert_eq!(rig.refused(&toc(format, track, 0)), Sense::INVALID_FIELD);
    }
    let disc = rig.data(&[0x51, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!((disc.len(), &disc[..4]), (34, &[0, 32, 0x0e, 1][..]));
    assert_eq!(rig.refused(&[0x51, 1, 0, 0, 0, 0, 0, 1, 0]), Sense::INVALID_FIELD);
}

/// The features' codes and whether they are current, behind the profile.
fn features(data: &[u8]) -> (u16, Vec<(u16, bool)>) {
    let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
    let (mut at, mut found) = (8, vec![]);
    while at < data.len() {
        found.push((word(at), data[at + 2] & 1 != 0));
        at += 4 + usize::from(data[at + 3]);
    }
    (word(6), found)
}

#[test]
fn its_features_follow_from_the_disc() {
    let mut rig = Rig::new();
    let ask = |which: u8, first: u8| [0x46, which, 0, first, 0, 0, 0, 1, 0];
    let cd = [(0, true), (1, true), (3, true), (0x10, true), (0x1e, true), (0x1f, false)];
    assert_eq!(features(&rig.data(&ask(0, 0))), (8, cd.to_vec()));
    assert_eq!(features(&rig.data(&ask(1, 3))), (8, cd[2..5].to_vec()));
    assert_eq!(features(&rig.data(&ask(2, 0x1f))), (8, cd[5..].to_vec()));
    assert_eq!(rig.refused(&ask(3, 0)), Sense::INVALID_FIELD);
    let of = |disc| features(&data::configuration(1, 0, disc).unwrap());
    assert_eq!(
        of(Some(360_001)),
        (0x10, vec![(0, true), (1, true), (3, true), (0x10, true), (0x1f, true)])
    );
    assert_eq!(of(None), (0, cd[..3].to_vec()));
}

#[test]
fn its_pages_can_be_read_and_not_changed() {
    let mut rig = Rig::new();
    let short = rig.data(&[0x1a, 0, 0x3f, 0, 255]);
    assert_eq!((usize::from(short[0]) + 1, &short[4..6]), (short.len(), &[1, 10][..]));
    let long = rig.data(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0]);
    assert_eq!((usize::from(long[1]) + 2, &long[8..]), (long.len(), &short[4..]));
    let page = rig.data(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 1, 0]);
    assert_eq!((page[8], page[14]), (0x2a, 0x29));
    let changeable = rig.data(&[0x5a, 0, 0x6a, 0, 0, 0, 0, 1, 0]);
    assert_eq!((&changeable[8..10], changeable[14]), (&[0x2a, 18][..], 0));
    assert_eq!(rig.refused(&[0x5a, 0, 0xea, 0, 0, 0, 0, 1, 0]), Sense::NOTHING_SAVED);
    assert_eq!(rig.refused(&[0x1a, 0, 0x08, 0, 255]), Sense::INVALID_FIELD);
    assert_eq!(rig.refused(&[0x1a, 0, 0x2a, 1, 255]), Sense::INVALID_FIELD);
}

#[test]
fn a_tray_opens_unless_it_is_locked_and_the_disc_comes_back() {
    let mut rig = Rig::new();
    let (eject, load) = ([0x1b, 0, 0, 0, 2], [0x1b, 0, 0, 0, 3]);
    let event = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8];
    assert_eq!(rig.data(&event), [0, 6, 4, 0x10, 0, 2, 0, 0]);
    rig.data(&[0x1e, 0, 0, 0, 1]);
    assert_eq!(rig.refused(&eject), Sense::REMOVAL_PREVENTED);
    assert_eq!(rig.data(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 1, 0])[14], 0x2b, "it is locked");
    rig.data(&[0x1e]);
    rig.data(&eject);
    for wants_a_disc in [&[0][..], &[0x25], &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], &[0x43]] {
        assert_eq!(rig.refused(wants_a_disc), Sense::TRAY_OPEN);
    }
    assert_eq!(rig.data(&[3, 0, 0, 0, 18])[12..14], [0x3a, 2]);
    // Who has room for no more than the header has not seen the event.
    assert_eq!(rig.data(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 4]), [0, 6, 4, 0x10]);
    assert_eq!(rig.data(&event), [0, 6, 4, 0x10, 3, 1, 0, 0]);
    assert_eq!(rig.data(&event), [0, 6, 4, 0x10, 0, 1, 0, 0]);
    assert_eq!(rig.refused(&[0x1b, 0, 0, 0, 1]), Sense::TRAY_OPEN);
    rig.data(&load);
    assert_eq!(rig.data(&event), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    assert_eq!(rig.data(&[3, 0, 0, 0, 18])[12..14], [0x28, 0], "as REQUEST SENSE's data");
    assert_eq!(rig.data(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1]), [1; 2048]);
    assert_eq!(rig.data(&[3, 0, 0, 0, 18])[2..14], [0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.refused(&[3, 1, 0, 0, 18]), Sense::INVALID_FIELD);
    // Nobody waits for an event, and there are none of other classes.
    assert_eq!(rig.refused(&[0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8]), Sense::INVALID_FIELD);
    assert_eq!(rig.data(&[0x4a, 1, 0, 0, 2, 0, 0, 0, 8]), [0, 2, 0x80, 0x10]);
    // A reset closes the tray.
    rig.data(&eject);
    rig.device.reset();
    assert_eq!(rig.refused(&[0]), Sense::RESET);
    assert_eq!(rig.data(&[0]), [0u8; 0]);
}

#[test]
fn others_than_the_drive_are_not_there() {
    let mut rig = Rig::new();
    let other = [1, 0, 0x40, 1, 0, 0, 0, 0];
    assert_eq!(rig.command_to(other, &[0x12, 0, 0, 0, 36], 36).data[0], 0x7f);
    assert_eq!(rig.command_to(other, &[3, 0, 0, 0, 18], 18).data[12], 0x25);
    assert_eq!(rig.command_to(other, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16], 16).data[3], 8);
    assert_eq!(rig.command_to(other, &[0], 0).sense, Some(Sense::NO_SUCH_UNIT));
    for nobody in [[1, 1, 0x40, 0, 0, 0, 0, 0], [0xc1, 1, 0, 0, 0, 0, 0, 0], [0; 8]] {
        assert_eq!(rig.command_to(nobody, &[0x12, 0, 0, 0, 36], 36).response, 3);
    }
    assert_eq!(rig.command_to([1, 0, 0, 0, 0, 0, 0, 0], &[0], 0).status, 0, "the other form");
}

#[test]
fn requests_that_are_none_are_answered_or_stop_the_device() {
    let mut rig = Rig::new();
    rig.write(DRIVE, &[0]);
    // Cut off, and not in memory.
    for request in [(REQUEST, LEN - 1, false), (1 << 40, LEN, false)] {
        let outcome = rig.serve(REQUESTS, &[request, (ANSWER, ANSWER_LEN, true)]);
        assert_eq!(outcome, Outcome::Done(ANSWER_LEN));
        assert_eq!(rig.ram.read_obj::<u8>(GuestAddress(ANSWER + 11)).unwrap(), 9);
    }
    rig.write(DRIVE, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1]);
    let lost = [(REQUEST, LEN, false), (ANSWER, ANSWER_LEN, true), (1 << 40, 2048, true)];
    assert_eq!(rig.serve(REQUESTS, &lost), Outcome::Done(ANSWER_LEN));
    for answer in [(ANSWER, ANSWER_LEN - 1, true), (1 << 40, ANSWER_LEN, true)] {
        let outcome = rig.serve(REQUESTS, &[(REQUEST, LEN, false), answer]);
        assert!(matches!(outcome, Outcome::Stop(_)), "{outcome:?}");
    }
    assert_eq!(rig.serve(EVENT, &[(DATA, 16, true)]), Outcome::NotNow);
}

#[test]
fn tasks_are_managed() {
    let mut rig = Rig::new();
    let mut control = |bytes: &[u8], room: u32| {
        rig.ram.write_slice(bytes, GuestAddress(REQUEST)).unwrap();
        rig.ram.write_slice(&[0xaa; 8], GuestAddress(ANSWER)).unwrap();
        let request = (REQUEST, bytes.len() as u32, false);
        let outcome = rig.serve(CONTROL, &[request, (ANSWER, room, true)]);
        let mut answer = [0; 5];
        rig.ram.read_slice(&mut answer, GuestAddress(ANSWER)).unwrap();
        (outcome, answer)
    };
    let manage =
        |function: u8, lun: [u8; 8]| [&[0, 0, 0, 0, function, 0, 0, 0][..], &lun, &[0; 8]].concat();
    for (function, code) in [(0, 0), (1, 0), (2, 11), (3, 0), (4, 0), (5, 0), (6, 11), (200, 11)] {
        let (outcome, answer) = control(&manage(function, DRIVE), 1);
        assert_eq!((outcome, answer[0]), (Outcome::Done(1), code), "{function}");
    }
    assert_eq!(control(&manage(0, [0; 8]), 1).1[0], 3);
    // A unit that is not there; the nexus is the target's.
    for (function, code) in [(0, 12), (4, 0), (5, 12), (6, 11)] {
        let answer = control(&manage(function, [1, 0, 0x40, 5, 0, 0, 0, 0]), 1).1;
        assert_eq!(answer[0], code, "{function}");
    }
    let notify = |kind: u8| [&[kind, 0, 0, 0][..], &DRIVE, &[0xff; 4]].concat();
    for kind in [1, 2] {
        assert_eq!(control(&notify(kind), 5), (Outcome::Done(5), [0; 5]));
    }
    assert_eq!(control(&[3, 0, 0, 0], 1).1[0], 9);
    assert!(matches!(control(&manage(0, DRIVE), 0).0, Outcome::Stop(_)));
    // Of the reset the drive tells.
    assert_eq!(rig.refused(&[0]), Sense::RESET);
}

#[test]
fn the_driver_chooses_sizes() {
    let mut rig = Rig::new();
    let mut bytes = [0; CONFIG];
    rig.device.read_config(0, &mut bytes);
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let words: Vec<u32> = (0..7).map(|n| word(&bytes, 4 * n)).collect();
    assert_eq!(words, [1, 126, 65536, 128, 16, 96, 32]);
    rig.device.write_config(SENSE_SIZE as u64, &18u32.to_le_bytes());
    rig.device.write_config(CDB_SIZE as u64, &16u32.to_le_bytes());
    for refused in [0, 261, u32::MAX] {
        rig.device.write_config(CDB_SIZE as u64, &refused.to_le_bytes());
    }
    rig.device.write_config(0, &[9; 4]);
    rig.write(DRIVE, &[0x0a]);
    let pieces = [(REQUEST, 35, false), (ANSWER, 30, true)];
    assert_eq!(rig.serve(REQUESTS, &pieces), Outcome::Done(30));
    let mut answer = [0; 30];
    rig.ram.read_slice(&mut answer, GuestAddress(ANSWER)).unwrap();
    assert_eq!((answer[10], answer[12 + 12]), (2, 0x20));
    // A restored drive has them, and its tray as it was.
    let saved = rig.device.save();
    let other = Rig::powered_on();
    other.device.restore(&saved).unwrap();
    assert_eq!(other.device.save(), saved);
    let smaller: Arc<dyn Disk> = Arc::new(MemDisk::new(2048));
    let (smaller, _) =
        Scsi::create("cdrom0", &smaller, Engine::Auto, Default::default(), notices().0).unwrap();
    assert!(smaller.restore(&saved).unwrap_err().to_string().contains("another size"));
}

proptest! {
    /// Whatever a guest commands: it ends, without a panic, and what comes back is accounted for.
    #[test]
    fn random_commands_end(
        opcode in prop_oneof![
            any::<u8>(),
            proptest::sample::select(&[0x03u8, 0x12, 0x1a, 0x1b, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0x88, 0x9e, 0xa0, 0xa8][..]),
        ],
        rest in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 31),
        room in prop_oneof![0u32..64, 0u32..0x8000],
    ) {
        let mut rig = Rig::new();
        let back = rig.command(&[&[opcode], &rest[..]].concat(), room);
        prop_assert!(back.data.len() <= room as usize);
        prop_assert_eq!(back.status == 2, back.sense.is_some());
    }
}
