use super::testing::Share;
use super::*;
use crate::share::fuse::{OUT_HEADER, ROOT, op};
use crate::virtio::conformance_tests::{DEVICES, Guest, Over, within};
use crate::virtio::testing::*;
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress};

/// Where a test's request lies, and where its answer goes.
const ASKED: u64 = BUFFERS;
const ANSWERED: u64 = BUFFERS + 0x4_0000;

/// A guest that has mounted a share.
struct Mounted {
    guest: Guest,
    drivers: Vec<Driver>,
    share: Share,
}

impl Mounted {
    fn new(share: Share, over: Over) -> Self {
        let (notices, _) = notices();
        let (device, services) = share.device(notices);
        let row = DEVICES.iter().find(|row| (row.make)().0.kind() == &TYPE).unwrap();
        let guest = Guest::with(row, (device, services, Box::new(|| ())), over);
        let drivers = guest.start();
        let mut mounted = Self { guest, drivers, share };
        mounted.init().unwrap();
        mounted
    }

    fn init(&mut self) -> Result<Vec<u8>, Errno> {
        let body: Vec<u8> =
            [7u32, 31, 1 << 20, u32::MAX].iter().flat_map(|field| field.to_le_bytes()).collect();
        self.ask(op::INIT, 0, &body, 64)
    }

    /// Asks by the queue of requests and waits.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8], room: u32) -> Result<Vec<u8>, Errno> {
        let unique = 0x1234_5678_9abc_def0u64;
        let mut request = (40 + body.len() as u32).to_le_bytes().to_vec();
        request.extend_from_slice(&opcode.to_le_bytes());
        request.extend_from_slice(&unique.to_le_bytes());
        request.extend_from_slice(&node.to_le_bytes());
        request.resize(40, 0);
        request.extend_from_slice(body);
        self.guest.ram.write_slice(&request, GuestAddress(ASKED)).unwrap();
        let driver = &mut self.drivers[usize::from(REQUESTS)];
        // In pieces, as no driver has them.
        let (first, rest) = (7, request.len() as u32 - 7);
        driver.chain(
            0,
            &[
                (ASKED, first, false),
                (ASKED + u64::from(first), rest, false),
                (ANSWERED, 9, true),
                (ANSWERED + 9, OUT_HEADER + room - 9, true),
            ],
        );
        driver.offer(0);
        self.guest.notify(REQUESTS);
        let mut used = Vec::new();
        assert!(within(|| {
            used.extend(self.drivers[usize::from(REQUESTS)].used());
            !used.is_empty()
        }));
        let mut answer = vec![0; used[0].1 as usize];
        self.guest.ram.read_slice(&mut answer, GuestAddress(ANSWERED)).unwrap();
        let number = |at: usize| i32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        assert_eq!((number(0) as usize, &answer[8..16]), (answer.len(), &unique.to_le_bytes()[..]));
        match number(4) {
            0 => Ok(answer.split_off(16)),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    /// Makes a file in the shared directory; node and handle.
    fn create(&mut self, name: &str) -> Result<(u64, u64), Errno> {
        let mut body = Vec::new();
        for field in [libc::O_RDWR as u32, 0o644, 0, 0] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        let made = self.ask(op::CREATE, ROOT, &body, 144)?;
        let number = |at: usize| u64::from_le_bytes(made[at..at + 8].try_into().unwrap());
        Ok((number(0), number(128)))
    }

    fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut body = transfer(handle, offset, data.len() as u32);
        body.extend_from_slice(data);
        self.ask(op::WRITE, 2, &body, 8)
    }

    fn read(&mut self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.ask(op::READ, 2, &transfer(handle, offset, size), size)
    }
}

/// struct fuse_read_in and fuse_write_in.
fn transfer(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    let mut body = handle.to_le_bytes().to_vec();
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&size.to_le_bytes());
    body.resize(40, 0);
    body
}

fn each(test: fn(Mounted)) {
    for over in [Over::Mmio, Over::Pci] {
        test(Mounted::new(Share::new(), over));
    }
}

#[test]
fn a_driver_reads_the_tag_and_the_number_of_queues() {
    each(|mounted| {
        let config = mounted.guest.read_config(0, 40);
        assert_eq!(&config[..8], b"share0\0\0");
        assert_eq!(config[36..], 1u32.to_le_bytes());
    });
}

#[test]
fn data_goes_between_a_file_and_guest_memory() {
    each(|mut mounted| {
        let (_, handle) = mounted.create("file").unwrap();
        let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(mounted.write(handle, 5, &data).unwrap(), 100_000u64.to_le_bytes());
        let file = mounted.share.path().join("file");
        assert_eq!(std::fs::read(&file).unwrap()[5..], data);
        assert_eq!(mounted.read(handle, 5, 100_000).unwrap(), data);
        assert_eq!(mounted.read(handle, 100_000, 4096).unwrap(), data[99_995..], "up to its end");
        assert_eq!(mounted.read(handle, 1 << 40, 4096).unwrap(), b"");
        for (offset, size) in [(u64::MAX, 1), (i64::MAX as u64, 2)] {
            assert_eq!(mounted.read(handle, offset, size), Err(Errno::INVAL));
        }
        assert_eq!(mounted.read(handle + 1, 0, 1), Err(Errno::BADF));
        let mut short = transfer(handle, 0, 4096);
        assert_eq!(mounted.ask(op::READ, 2, &short, 16), Err(Errno::INVAL), "no room for it");
        assert_eq!(mounted.ask(op::WRITE, 2, &short, 8), Err(Errno::INVAL), "fewer than it says");
        short.truncate(20);
        assert_eq!(mounted.ask(op::READ, 2, &short, 16), Err(Errno::INVAL));
        let closed = transfer(handle, 0, 0);
        mounted.ask(op::RELEASE, 2, &closed, 0).unwrap();
        assert_eq!(mounted.read(handle, 0, 1), Err(Errno::BADF));
    });
}

#[test]
fn what_is_read_only_is_not_written() {
    let mut mounted = Mounted::new(Share::with(true), Over::Pci);
    std::fs::write(mounted.share.path().join("file"), b"content").unwrap();
    assert_eq!(mounted.create("new"), Err(Errno::ROFS));
    let entry = mounted.ask(op::LOOKUP, ROOT, b"file\0", 128).unwrap();
    let node = u64::from_le_bytes(entry[..8].try_into().unwrap());
    let flags = |flags: i32| [flags.to_le_bytes(), [0; 4]].concat();
    assert_eq!(mounted.ask(op::OPEN, node, &flags(libc::O_RDWR), 16), Err(Errno::ROFS));
    let opened = mounted.ask(op::OPEN, node, &flags(libc::O_RDONLY), 16).unwrap();
    let handle = u64::from_le_bytes(opened[..8].try_into().unwrap());
    assert_eq!(mounted.read(handle, 0, 100).unwrap(), b"content");
    assert_eq!(mounted.write(handle, 0, b"other"), Err(Errno::BADF), "the descriptor says no");
    assert_eq!(mounted.ask(op::UNLINK, ROOT, b"file\0", 0), Err(Errno::ROFS));
    assert_eq!(std::fs::read(mounted.share.path().join("file")).unwrap(), b"content");
}

#[test]
fn a_server_that_is_gone_is_told_of_once_and_costs_the_guest_its_share_alone() {
    each(|mut mounted| {
        let (_, handle) = mounted.create("file").unwrap();
        mounted.write(handle, 0, b"data").unwrap();
        mounted.share.end();
        for _ in 0..3 {
            assert_eq!(mounted.ask(op::LOOKUP, ROOT, b"file\0", 128), Err(Errno::IO));
            assert_eq!(mounted.read(handle, 0, 4), Err(Errno::IO));
        }
        assert_eq!(mounted.guest.status() & crate::virtio::transport::status::NEEDS_RESET, 0);
    });
}

#[test]
fn a_driver_that_comes_again_has_nothing_open() {
    each(|mut mounted| {
        let (_, handle) = mounted.create("file").unwrap();
        mounted.drivers = mounted.guest.start();
        assert_eq!(mounted.read(handle, 0, 1), Err(Errno::BADF));
        mounted.init().unwrap();
        let (_, next) = mounted.create("file").unwrap();
        mounted.write(next, 0, b"data").unwrap();
        mounted.init().unwrap();
        assert_eq!(mounted.read(next, 0, 1), Err(Errno::BADF), "nor one that mounts again");
    });
}

#[test]
fn a_request_without_room_stops_the_device_and_one_that_is_too_long_fails() {
    let mut mounted = Mounted::new(Share::new(), Over::Mmio);
    assert_eq!(mounted.ask(op::LOOKUP, ROOT, &[b'x'; 9000], 128), Err(Errno::TOOBIG));
    assert_eq!(mounted.ask(99, ROOT, b"", 16), Err(Errno::NOSYS));
    assert_eq!(mounted.ask(op::STATFS, ROOT, b"", 16), Err(Errno::RANGE));
    let driver = &mut mounted.drivers[usize::from(REQUESTS)];
    driver.chain(0, &[(ASKED, 39, false), (ANSWERED, 16, true)]);
    driver.offer(0);
    mounted.guest.notify(REQUESTS);
    assert!(mounted.guest.configured());
    let reported = mounted.guest.reported.lock().unwrap().clone();
    assert!(reported[0].contains("queue 1: a request has no header"), "{reported:?}");
}

#[test]
fn forgetting_more_than_a_socket_holds_ends() {
    let mut mounted = Mounted::new(Share::new(), Over::Pci);
    let mut request = 48u32.to_le_bytes().to_vec();
    request.extend_from_slice(&op::FORGET.to_le_bytes());
    request.resize(48, 1);
    mounted.guest.ram.write_slice(&request, GuestAddress(ASKED)).unwrap();
    let mut back = 0;
    for round in 1..=200 {
        let driver = &mut mounted.drivers[usize::from(HIGH_PRIORITY)];
        driver.chain(0, &[(ASKED, 48, false)]);
        (0..16).for_each(|_| driver.offer(0));
        mounted.guest.notify(HIGH_PRIORITY);
        assert!(within(|| {
            back += mounted.drivers[usize::from(HIGH_PRIORITY)].used().len();
            back == 16 * round
        }));
    }
    mounted.create("still").unwrap();
}
