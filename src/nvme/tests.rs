//! The controller as a driver finds, uses and abuses it, with real threads behind.

use super::*;
use crate::block::{Disk, Engine};
use crate::chipset::pci::Function;
use crate::mem::GuestRam;
use crate::mem::layout::PCI_WINDOW;
use crate::virtio::blk::DiskDevice;
use crate::virtio::device::ThreadStart;
use crate::virtio::testing::{BUFFERS, Host, MemDisk, notices, ram};
use crate::virtio::transport::pci::MsixVector;
use crate::virtio::transport::{Transport, TransportState};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const SIZE: usize = 1 << 20;
/// Where the driver has its queues: of each, submissions and then completions.
const RINGS: u64 = 0x1_0000;
const RING: u64 = 0x1000;
/// Entries of each queue.
const ENTRIES: u32 = 8;
/// How long a thread may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A queue as its driver knows it.
#[derive(Clone, Copy, Default)]
struct Own {
    tail: u32,
    head: u32,
    flipped: bool,
}

struct Rig {
    ram: GuestRam,
    disk: MemDisk,
    controller: Arc<Controller>,
    namespace: Arc<Namespace>,
    irqs: Vec<EventFd>,
    reported: Arc<Mutex<Vec<String>>>,
    queues: [Own; 3],
}

impl Rig {
    fn with(disk: MemDisk, ram: GuestRam) -> Self {
        let (notices, reported) = notices();
        let volume = "vol-0123456789abcdef0".parse().unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let limits = (Default::default(), notices.clone());
        let drive = Drive::create(&volume, "/dev/vda", &shared, Engine::Auto, 2, limits).unwrap();
        let namespace = drive.namespace.clone();
        let irqs: Vec<_> =
            (0..vectors(&drive)).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        let ends = (24..).zip(&irqs);
        let ends =
            ends.map(|(gsi, irq)| MsixVector { irq: irq.try_clone().unwrap(), gsi }).collect();
        let hook: ThreadStart = Arc::new(|_| Ok(()));
        let ends = (ends, Arc::new(Host) as _);
        let controller =
            Controller::new(drive, ram.clone(), PCI_WINDOW as u32, ends, notices, &hook).unwrap();
        let queues = Default::default();
        Self { ram, disk, controller, namespace, irqs, reported, queues }
    }

    /// Enabled, with MSI-X and two I/O queues.
    fn ready(disk: MemDisk) -> Self {
        let mut rig = Self::with(disk, ram());
        rig.enable();
        rig.create_queues();
        rig
    }

    fn read(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.controller.read_memory(at, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, at: u64, value: u32) {
        self.controller.write_memory(at, &value.to_le_bytes());
    }

    fn enable(&mut self) {
        self.controller.write_config(4, &6u16.to_le_bytes());
        self.controller.write_config(0x42, &0x8000u16.to_le_bytes());
        for vector in 0..3 {
            self.write(0x4000 + 16 * vector, 0xfee0_0000);
            self.write(0x4000 + 16 * vector + 12, 0);
        }
        self.write(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.controller.write_memory(0x28, &RINGS.to_le_bytes());
        self.controller.write_memory(0x30, &(RINGS + RING).to_le_bytes());
        self.ram.write_slice(&[0; 6 * RING as usize], GuestAddress(RINGS)).unwrap();
        self.queues = Default::default();
        self.write(0x14, 6 << 16 | 4 << 20 | 1);
        assert_eq!(self.read(0x1c), 1, "ready");
    }

    fn create_queues(&mut self) {
        for id in 1..3u32 {
            let base = RINGS + 2 * RING * u64::from(id);
            let size = (ENTRIES - 1) << 16 | id;
            assert_eq!(self.admin(5, 0, base + RING, &[size, id << 16 | 3]), (0, 0));
            assert_eq!(self.admin(1, 0, base, &[size, id << 16 | 1]), (0, 0));
        }
    }

    /// Put a command into a queue; its id is its place.
    fn submit(&mut self, queue: u16, dwords: [u32; 16]) {
        let own = &mut self.queues[usize::from(queue)];
        let mut dwords = dwords;
        dwords[0] |= own.tail << 16;
        let base = RINGS + 2 * RING * u64::from(queue);
        self.ram.write_obj(dwords, GuestAddress(base + u64::from(own.tail) * 64)).unwrap();
        own.tail = (own.tail + 1) % ENTRIES;
        let tail = own.tail;
        self.write(0x1000 + 8 * u64::from(queue), tail);
    }

    /// The next completion, if it is there: its id, status and result.
    fn look(&mut self, queue: u16) -> Option<(u16, u16, u32)> {
        let own = self.queues[usize::from(queue)];
        let at = RINGS + 2 * RING * u64::from(queue) + RING + 16 * u64::from(own.head);
        let [result, _, _, end]: [u32; 4] = self.ram.read_obj(GuestAddress(at)).unwrap();
        (end >> 16 & 1 != u32::from(own.flipped)).then_some((
            end as u16,
            (end >> 17) as u16 & 0x7ff,
            result,
        ))
    }

    fn take(&mut self, queue: u16) {
        let own = &mut self.queues[usize::from(queue)];
        own.head = (own.head + 1) % ENTRIES;
        own.flipped ^= own.head == 0;
        let head = own.head;
        self.write(0x1004 + 8 * u64::from(queue), head);
    }

    fn await_one(&mut self, queue: u16) -> (u16, u16, u32) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.look(queue) {
                self.take(queue);
                return found;
            }
            assert!(Instant::now() < until, "no answer; {:?}", self.reported);
            std::thread::yield_now();
        }
    }

    /// Status and result of a command with these dwords from 10 on.
    fn command(
        &mut self,
        queue: u16,
        opcode: u32,
        nsid: u32,
        prp: u64,
        more: &[u32],
    ) -> (u16, u32) {
        let mut dwords = [0; 16];
        (dwords[0], dwords[1]) = (opcode, nsid);
        (dwords[6], dwords[7]) = (prp as u32, (prp >> 32) as u32);
        dwords[10..10 + more.len()].copy_from_slice(more);
        self.submit(queue, dwords);
        let (_, status, result) = self.await_one(queue);
        (status, result)
    }

    fn admin(&mut self, opcode: u32, nsid: u32, prp: u64, more: &[u32]) -> (u16, u32) {
        self.command(0, opcode, nsid, prp, more)
    }

    /// Status of an I/O command.
    fn io(&mut self, opcode: u32, block: u32, blocks: u32) -> u16 {
        self.command(1, opcode, 1, BUFFERS, &[block, 0, blocks - 1]).0
    }

    fn page(&self) -> Vec<u8> {
        let mut page = vec![0; 4096];
        self.ram.read_slice(&mut page, GuestAddress(BUFFERS)).unwrap();
        page
    }

    fn interrupts(&self, vector: usize) -> u64 {
        self.irqs[vector].read().unwrap_or(0)
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().trim_end()
}

#[test]
fn a_driver_finds_an_ebs_volume() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    let mut ids = [0; 4];
    rig.controller.read_config(0, &mut ids);
    assert_eq!(u32::from_le_bytes(ids), 0x8061_1d0f);
    rig.controller.read_config(8, &mut ids);
    assert_eq!(u32::from_le_bytes(ids), 0x0108_0200);
    assert_eq!((rig.read(0) & 0xffff, rig.read(8)), (1023, 0x1_0400));
    assert_eq!(rig.admin(6, 0, BUFFERS, &[1]), (0, 0));
    let page = rig.page();
    assert_eq!(
        (text(&page[4..24]), text(&page[24..64])),
        ("vol0123456789abcdef0", "Amazon Elastic Block Store")
    );
    assert_eq!((page[0], page[1], text(&page[3072..3104])), (0x0f, 0x1d, "/dev/vda"));
    assert_eq!(rig.admin(6, 1, BUFFERS, &[0]), (0, 0));
    let page = rig.page();
    assert_eq!(page[..8], (SIZE as u64 / 512).to_le_bytes());
    assert_eq!((page[26], page[99], &page[128..132]), (0, 0, &[0, 0, 9, 0][..]));
    assert_eq!(rig.admin(6, 0, BUFFERS, &[2]), (0, 0));
    assert_eq!(rig.page()[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.admin(6, 1, BUFFERS, &[3]), (0, 0));
    assert_eq!(rig.page()[..4], [3, 16, 0, 0]);
    for page in 1..5 {
        assert_eq!(rig.admin(2, !0, BUFFERS, &[0x3ff_0000 | page]), (0, 0), "log page {page}");
    }
    assert_eq!(rig.admin(10, 0, 0, &[7]), (0, 1 << 16 | 1), "two queues of each kind");
    assert_eq!(rig.admin(9, 0, 0, &[7, 0x1f_001f]), (0xc, 0), "they are there already");
    assert_eq!(rig.admin(8, 0, 0, &[1]), (0, 1), "nothing to abort");
    assert!(rig.interrupts(0) > 0);
}

#[test]
fn data_goes_to_the_disk_and_comes_back() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    let data: Vec<u8> = (0..4096u32).map(|n| (n * 7) as u8).collect();
    rig.ram.write_slice(&data, GuestAddress(BUFFERS)).unwrap();
    assert_eq!(rig.io(1, 3, 8), 0);
    assert_eq!(rig.disk.bytes.lock().unwrap()[3 * 512..][..4096], data);
    assert_eq!(rig.interrupts(1), 1);
    rig.ram.write_slice(&[0; 4096], GuestAddress(BUFFERS)).unwrap();
    assert_eq!(rig.command(2, 2, 1, BUFFERS, &[3, 0, 7]).0, 0);
    assert_eq!(rig.page(), data);
    assert_eq!(rig.command(1, 0, !0, 0, &[]).0, 0, "a flush of all namespaces");
    assert_eq!(rig.command(1, 8, 1, 0, &[4, 0, 1 << 25]).0, 0);
    assert_eq!(rig.disk.bytes.lock().unwrap()[4 * 512..5 * 512], [0; 512]);
    let range = [0u32, 2, 9, 0];
    rig.ram.write_obj(range, GuestAddress(BUFFERS)).unwrap();
    assert_eq!(rig.command(1, 9, 1, BUFFERS, &[0, 4]).0, 0);
    assert_eq!(rig.disk.bytes.lock().unwrap()[9 * 512..11 * 512], [0; 1024]);
    assert_eq!(
        *rig.disk.log.lock().unwrap(),
        ["write", "read", "flush", "write-zeroes unmap", "discard"]
    );
    // Without the cache, and with Force Unit Access, a write is durable when it completes.
    assert_eq!(rig.admin(9, 0, 0, &[6, 0]), (0, 0));
    assert_eq!(rig.io(1, 3, 1), 0);
    assert_eq!(rig.admin(9, 0, 0, &[6, 1]), (0, 0));
    assert_eq!(rig.command(1, 1, 1, BUFFERS, &[3, 0, 1 << 30]).0, 0);
    assert_eq!(rig.disk.log.lock().unwrap()[5..], ["write", "flush", "write", "flush"]);
    let status = rig.namespace.status();
    assert_eq!((status.read_bytes, status.write_bytes, status.errors), (4096, 4096 + 1024, 0));
}

#[test]
fn what_can_not_be_is_refused_and_the_queue_goes_on() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    let last = SIZE as u32 / 512;
    assert_eq!(rig.io(2, last, 1), 0x80);
    assert_eq!(rig.io(2, last - 1, 2), 0x80);
    assert_eq!(rig.command(1, 2, 1, BUFFERS, &[!0, !0, 0]).0, 0x80);
    assert_eq!(rig.command(1, 2, 1, BUFFERS, &[0, 0, 0xffff]).0, 2, "more than MDTS");
    assert_eq!(rig.command(1, 2, 2, BUFFERS, &[0, 0, 0]).0, 0xb);
    assert_eq!(rig.command(1, 2, !0, BUFFERS, &[0, 0, 0]).0, 0xb);
    assert_eq!(rig.command(1, 2 | 0x4000, 1, BUFFERS, &[0, 0, 0]).0, 2, "a scatter gather list");
    assert_eq!(rig.command(1, 0x7f, 1, BUFFERS, &[]).0, 1);
    assert_eq!(rig.command(1, 2, 1, 1 << 40, &[0, 0, 0]).0, 4);
    assert_eq!(rig.command(1, 2, 1, BUFFERS + 1, &[0, 0, 0]).0, 0x13);
    rig.ram.write_obj([0u32, 1, last, 0], GuestAddress(BUFFERS)).unwrap();
    assert_eq!(rig.command(1, 9, 1, BUFFERS, &[0, 4]).0, 0x80);
    *rig.disk.error.lock().unwrap() = Some(libc::ENOSPC);
    assert_eq!((rig.io(2, 0, 1), rig.io(1, 0, 1)), (0x281, 0x81));
    *rig.disk.error.lock().unwrap() = Some(libc::EIO);
    assert_eq!(rig.io(1, 0, 1), 0x280);
    *rig.disk.error.lock().unwrap() = None;
    assert_eq!(rig.io(1, 0, 1), 0);
    assert_eq!(rig.namespace.status().errors, 14);
    let mut disk = MemDisk::new(SIZE);
    disk.read_only = true;
    let mut rig = Rig::ready(disk);
    assert_eq!((rig.io(2, 0, 1), rig.io(1, 0, 1), rig.io(8, 0, 1)), (0, 0x20, 0x20));
}

#[test]
fn admin_commands_that_can_not_be_are_refused() {
    let mut rig = Rig::with(MemDisk::new(SIZE), ram());
    rig.enable();
    assert_eq!(rig.admin(9, 0, 0, &[7, 0x1f_001f]), (0, 1 << 16 | 1), "two queues of each kind");
    let size = (ENTRIES - 1) << 16;
    assert_eq!(rig.admin(1, 0, RINGS, &[size | 1, 1 << 16 | 1]).0, 0x100, "no completion queue");
    for (what, id_and_size, flags, base, status) in [
        ("queue 0", size, 1, RINGS, 0x101),
        ("beyond the last", size | 3, 1, RINGS, 0x101),
        ("one entry", 1, 1, RINGS, 0x102),
        ("too many", 0xffff_0001, 1, RINGS, 0x102),
        ("not contiguous", size | 1, 0, RINGS, 2),
        ("not a page", size | 1, 1, RINGS + 64, 2),
        ("no memory", size | 1, 1, 1 << 40, 2),
        ("no such vector", size | 1, 3 << 16 | 3, RINGS, 0x108),
    ] {
        assert_eq!(rig.admin(5, 0, base, &[id_and_size, flags]).0, status, "{what}");
    }
    rig.create_queues();
    assert_eq!(rig.admin(5, 0, RINGS, &[size | 1, 1]).0, 0x101, "there already");
    assert_eq!(rig.admin(1, 0, RINGS, &[size | 1, 1 << 16 | 1]).0, 0x101, "there already");
    assert_eq!(rig.admin(4, 0, 0, &[1]).0, 0x10c, "in use");
    assert_eq!(rig.admin(4, 0, 0, &[0]).0, 0x101);
    assert_eq!(rig.admin(0, 0, 0, &[7]).0, 0x101);
    assert_eq!(rig.admin(0, 0, 0, &[1]).0, 0);
    assert_eq!(rig.admin(0, 0, 0, &[1]).0, 0x101, "gone already");
    assert_eq!(rig.admin(4, 0, 0, &[1]).0, 0);
    assert_eq!(rig.admin(6, 2, BUFFERS, &[0]).0, 0xb);
    assert_eq!(rig.admin(6, 1, BUFFERS, &[0x55]).0, 2);
    assert_eq!(rig.admin(6, 1, 1 << 40, &[0]).0, 4);
    assert_eq!(rig.admin(2, 0, BUFFERS, &[0xc0]).0, 0x109);
    assert_eq!(rig.admin(10, 0, 0, &[3]).0, 2);
    assert_eq!(rig.admin(9, 0, 0, &[1 << 31 | 1, 0]).0, 0x10d);
    assert_eq!(rig.admin(0x80, 0, 0, &[]).0, 1);
    for _ in 0..4 {
        rig.submit(0, [0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(rig.look(0), None, "they wait");
    assert_eq!(rig.admin(0xc, 0, 0, &[]).0, 0x105);
}

#[test]
fn a_driver_hears_of_a_disk_that_grows() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    rig.submit(0, [0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    rig.namespace.grow(2 * SIZE as u64);
    assert_eq!(rig.look(0), None, "it wants no notices");
    assert_eq!(rig.admin(9, 0, 0, &[0xb, 1 << 8]), (0, 0));
    rig.namespace.grow(4 * SIZE as u64);
    let (_, status, result) = rig.await_one(0);
    assert_eq!((status, result), (0, 0x4_0002));
    assert_eq!(rig.admin(2, !0, BUFFERS, &[0x3ff_0004]), (0, 0));
    assert_eq!(rig.page()[..4], [1, 0, 0, 0]);
    assert_eq!(rig.admin(2, !0, BUFFERS, &[0x3ff_0004]), (0, 0));
    assert_eq!(rig.page()[..4], [0; 4], "it was read");
    assert_eq!(rig.admin(6, 1, BUFFERS, &[0]), (0, 0));
    assert_eq!(rig.page()[..8], (4 * SIZE as u64 / 512).to_le_bytes());
}

#[test]
fn completions_wait_for_room_and_doorbells_for_sense() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    let read = |rig: &mut Rig| {
        rig.submit(1, [2, 1, 0, 0, 0, 0, BUFFERS as u32, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    };
    // One more than the completion queue has room for.
    (0..ENTRIES - 1).for_each(|_| read(&mut rig));
    let until = Instant::now() + PATIENCE;
    while rig.namespace.status().read_bytes < u64::from(ENTRIES - 1) * 512 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    read(&mut rig);
    for place in 0..ENTRIES as u16 {
        assert_eq!(rig.await_one(1), (place, 0, 0));
    }
    for (at, value) in [(0x1008, ENTRIES), (0x100c, 0xffff), (0x1018, 0), (0x1ffc, 1), (0x1000, 77)]
    {
        rig.write(at, value);
    }
    assert_eq!(rig.reported.lock().unwrap().len(), 5);
    assert_eq!(rig.io(2, 0, 1), 0, "they counted for nothing");
}

#[test]
fn a_controller_that_is_reset_begins_anew() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    rig.write(0x14, 0);
    assert_eq!((rig.read(0x1c), rig.read(0x28)), (0, RINGS as u32));
    rig.write(0x1008, 1);
    assert_eq!(rig.reported.lock().unwrap().len(), 1, "its queues are gone");
    rig.enable();
    rig.create_queues();
    assert_eq!(rig.io(2, 0, 1), 0);
    rig.write(0x14, rig.read(0x14) | 1 << 14);
    assert_eq!(rig.read(0x1c), 1 | 2 << 2, "shut down");
    assert!(rig.controller.reset());
    assert_eq!((rig.read(0x14), rig.read(0x1c), rig.read(0x28)), (0, 0, 0));
    assert_eq!(rig.controller.window().base(), None, "its memory is nowhere");
}

#[test]
fn queues_that_can_not_be_are_fatal_until_a_reset() {
    let mut rig = Rig::with(MemDisk::new(SIZE), ram());
    rig.write(0x24, 7 << 16 | 7);
    rig.controller.write_memory(0x28, &(1u64 << 40).to_le_bytes());
    rig.write(0x14, 1);
    assert_eq!(rig.read(0x1c), 2);
    rig.write(0x14, 0);
    assert_eq!(rig.read(0x1c), 0);
    rig.enable();
}

#[test]
fn a_controller_is_what_another_was() {
    let mut rig = Rig::ready(MemDisk::new(SIZE));
    assert_eq!(rig.io(1, 1, 1), 0);
    assert_eq!(rig.admin(9, 0, 0, &[0xb, 1 << 8]), (0, 0));
    rig.submit(0, [0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let saved = rig.controller.save().unwrap();
    let mut other = Rig::with(rig.disk.clone(), rig.ram.clone());
    other.controller.restore(&saved).unwrap();
    other.queues = rig.queues;
    assert_eq!(other.controller.save().unwrap(), saved);
    other.controller.resume();
    assert_eq!(other.io(2, 1, 1), 0);
    assert_eq!(other.admin(10, 0, 0, &[0xb]), (0, 1 << 8));
    other.namespace.grow(2 * SIZE as u64);
    assert_eq!(other.await_one(0).2, 0x4_0002);
    // The old one goes on, too, where it is not given up.
    rig.queues = other.queues;
    let smaller = Rig::with(MemDisk::new(SIZE / 2), ram());
    let said = smaller.controller.restore(&saved).unwrap_err().to_string();
    assert!(said.contains("another disk"), "{said}");
    let TransportState::Nvme(mut bad) = saved else { panic!() };
    bad.payload.truncate(40);
    let said = smaller.controller.restore(&TransportState::Nvme(bad)).unwrap_err().to_string();
    assert!(said.contains("damaged"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a driver writes to memory and registers, it gets answers and no more.
    #[test]
    fn nothing_that_a_driver_does_ends_the_machine(
        commands in prop::collection::vec((0u16..3, any::<[u32; 16]>(), 0u32..16), 1..40),
        writes in prop::collection::vec((0u64..0x6000, any::<u32>()), 0..40),
    ) {
        let mut rig = Rig::ready(MemDisk::new(SIZE));
        for (queue, mut dwords, opcode) in commands {
            dwords[0] = opcode;
            dwords[1] %= 3;
            dwords[6] %= 0x20_0000;
            dwords[7] &= 1;
            (dwords[8], dwords[9]) = (dwords[8] % 0x20_0000, 0);
            if queue != 0 {
                (dwords[10], dwords[11]) = (dwords[10] % 4096, 0);
            }
            rig.submit(queue, dwords);
            if rig.look(queue).is_some() {
                rig.take(queue);
            }
        }
        for (at, value) in writes {
            rig.write(at & !3, value);
            rig.read(at);
        }
        prop_assert!(rig.controller.save().is_ok());
        rig.controller.resume();
        rig.write(0x14, 0);
        rig.enable();
        rig.create_queues();
        prop_assert_eq!(rig.io(2, 0, 1), 0);
    }
}
