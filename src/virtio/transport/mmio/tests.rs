//! The registers as a driver uses and abuses them, with real workers behind.

use super::*;
use crate::block::{Disk, Engine};
use crate::error::Error;
use crate::virtio::blk::Blk;
use crate::virtio::feature;
use crate::virtio::rng::Rng;
use crate::virtio::testing::*;
use crate::virtio::transport::status::*;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

/// A machine with one device, and the driver's habits.
pub(super) struct Rig {
    pub transport: Arc<MmioTransport>,
    pub ram: GuestRam,
    irq: EventFd,
    reported: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    pub fn new(
        ram: &GuestRam,
        device: Arc<dyn Device>,
        services: Services,
        hook: ThreadStart,
    ) -> Self {
        let (notices, reported) = notices();
        let irq = EventFd::new(0).unwrap();
        let line = irq.try_clone().unwrap();
        let transport =
            MmioTransport::new(device, services, ram.clone(), line, notices, &hook).unwrap();
        Self { transport, ram: ram.clone(), irq, reported }
    }

    fn rng(ram: &GuestRam) -> Self {
        let (device, services) = Rng::create();
        Self::new(ram, device, services, Arc::new(|_| Ok(())))
    }

    fn blk(ram: &GuestRam, disk: MemDisk, queues: u16) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let volume = "vol-0123456789abcdef0".parse().unwrap();
        let (device, services) =
            Blk::create(&volume, &disk, Engine::Auto, queues, Default::default(), notices().0)
                .unwrap();
        Self::new(ram, device, services, Arc::new(|_| Ok(())))
    }

    fn read(&self, register: u32) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes());
    }

    fn status(&self) -> u8 {
        self.read(VIRTIO_MMIO_STATUS) as u8
    }

    fn set_status(&self, bits: u8) {
        self.write(VIRTIO_MMIO_STATUS, (self.status() | bits).into());
    }

    fn accept(&self, features: u64) {
        for select in [0, 1] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
    }

    /// Up to FEATURES_OK. (3.1.1, steps 1 to 6)
    fn negotiate(&self, features: u64) -> bool {
        self.write(VIRTIO_MMIO_STATUS, 0);
        self.set_status(ACKNOWLEDGE);
        self.set_status(DRIVER);
        self.accept(features);
        self.set_status(FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    fn set_queue(&self, queue: u32, driver: &Driver) {
        let (low, state) = (|address: u64| address as u32, driver.state);
        self.write(VIRTIO_MMIO_QUEUE_SEL, queue);
        self.write(VIRTIO_MMIO_QUEUE_NUM, state.size.into());
        self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, low(state.desc));
        self.write(VIRTIO_MMIO_QUEUE_DESC_HIGH, low(state.desc >> 32));
        self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, low(state.avail));
        self.write(VIRTIO_MMIO_QUEUE_AVAIL_HIGH, low(state.avail >> 32));
        self.write(VIRTIO_MMIO_QUEUE_USED_LOW, low(state.used));
        self.write(VIRTIO_MMIO_QUEUE_USED_HIGH, low(state.used >> 32));
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// All that the device offers.
    fn offered(&self) -> u64 {
        [0, 1].iter().fold(0, |features, select| {
            self.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, *select);
            features | u64::from(self.read(VIRTIO_MMIO_DEVICE_FEATURES)) << (32 * select)
        })
    }

    /// A driver of queue 0, ready, that takes all features.
    pub fn start(&self) -> Driver {
        assert!(self.negotiate(self.offered()));
        self.ram.write_slice(&[0; BUFFERS as usize], GuestAddress(0)).unwrap();
        let driver = Driver::new(&self.ram, 0, 64);
        self.set_queue(0, &driver);
        self.set_status(DRIVER_OK);
        assert_eq!(self.read(VIRTIO_MMIO_QUEUE_READY), 1);
        driver
    }

    /// Wait for an interrupt and acknowledge it; its cause.
    fn interrupt(&self) -> u32 {
        self.irq.read().unwrap();
        let cause = self.read(VIRTIO_MMIO_INTERRUPT_STATUS);
        self.write(VIRTIO_MMIO_INTERRUPT_ACK, cause);
        cause
    }

    /// Wait until `count` chains came back.
    pub fn wait_used(&self, driver: &mut Driver, count: usize) -> Vec<(u32, u32)> {
        let mut used = driver.used();
        while used.len() < count {
            driver.want_interrupt();
            // One may have come before the wish was seen.
            let more = driver.used();
            if more.is_empty() {
                self.interrupt();
            }
            used.extend(more);
        }
        used
    }

    /// Get random bytes.
    fn draw(&self, driver: &mut Driver) {
        driver.chain(0, &[(BUFFERS, 64, true)]);
        driver.offer(0);
        self.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!(self.wait_used(driver, 1), [(0, 64)]);
    }

    fn save(&self) -> MmioState {
        match self.transport.save().unwrap() {
            TransportState::Mmio(state) => state,
            state => panic!("{state:?}"),
        }
    }

    fn restore(&self, state: &MmioState) -> Result<()> {
        self.transport.restore(&TransportState::Mmio(state.clone()))
    }

    fn reported(&self) -> Vec<String> {
        self.reported.lock().unwrap().clone()
    }
}

#[test]
fn a_driver_finds_the_device_and_gets_randomness() {
    let rig = Rig::rng(&ram());
    assert_eq!(rig.read(VIRTIO_MMIO_MAGIC_VALUE), u32::from_le_bytes(*b"virt"));
    assert_eq!(rig.read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(rig.read(VIRTIO_MMIO_DEVICE_ID), 4);
    assert_eq!(rig.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 64);
    rig.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(rig.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0, "there is no second queue");
    let mut driver = rig.start();
    driver.chain(0, &[(BUFFERS, 300, true), (BUFFERS + 0x1000, 212, true)]);
    driver.offer(0);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(rig.interrupt(), VIRTIO_MMIO_INT_VRING);
    assert_eq!(rig.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!(driver.used(), [(0, 512)]);
    let mut bytes = [0; 212];
    rig.ram.read_slice(&mut bytes, GuestAddress(BUFFERS + 0x1000)).unwrap();
    assert_ne!(bytes, [0; 212]);
    assert!(rig.reported().is_empty());
}

#[test]
fn an_ioeventfd_notifies_without_an_exit() {
    let rig = Rig::rng(&ram());
    let mut driver = rig.start();
    let events = rig.transport.ioeventfds(0xd000_0000).unwrap();
    assert_eq!((events.len(), events[0].address, events[0].datamatch), (1, 0xd000_0050, 0));
    driver.chain(0, &[(BUFFERS, 8, true)]);
    driver.offer(0);
    events[0].fd.write(1).unwrap();
    assert_eq!(rig.wait_used(&mut driver, 1), [(0, 8)]);
}

#[test]
fn features_are_a_subset_and_not_legacy() {
    let rig = Rig::rng(&ram());
    assert!(!rig.negotiate(feature::EVENT_IDX), "VERSION_1 is required");
    assert!(!rig.negotiate(feature::VERSION_1 | 1 << 34), "not offered");
    assert!(rig.negotiate(feature::VERSION_1));
    rig.accept(feature::RING);
    let kept = rig.transport.registers().core.driver_features();
    assert_eq!(kept, feature::VERSION_1, "too late to change");
}

#[test]
fn status_goes_forward_only() {
    let rig = Rig::rng(&ram());
    rig.write(VIRTIO_MMIO_STATUS, DRIVER_OK.into());
    assert_eq!(rig.status(), 0, "DRIVER_OK comes last");
    rig.write(VIRTIO_MMIO_STATUS, DRIVER.into());
    assert_eq!(rig.status(), 0, "ACKNOWLEDGE comes first");
    assert!(rig.negotiate(feature::VERSION_1));
    rig.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE.into());
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK, "no bit is taken back");
    rig.write(VIRTIO_MMIO_STATUS, 0x100);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK, "not a status");
    rig.set_status(FAILED);
    rig.set_status(DRIVER_OK);
    assert_eq!(rig.status() & DRIVER_OK, 0, "a failed driver is not ready");
    rig.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(rig.status(), 0);
}

#[test]
fn bad_queues_stop_the_device_until_reset() {
    let rig = Rig::rng(&ram());
    let good = Driver::new(&rig.ram, 0, 64);
    let changes: [fn(&mut Driver); 5] = [
        |d| d.state.size = 0,
        |d| d.state.size = 128,
        |d| d.state.desc = 8,
        |d| d.state.avail = u64::MAX - 1,
        |d| d.state.used = RAM - 4,
    ];
    for change in changes {
        let mut bad = Driver::new(&rig.ram, 0, 64);
        change(&mut bad);
        assert!(rig.negotiate(feature::RING));
        rig.set_queue(0, &bad);
        assert_eq!(rig.read(VIRTIO_MMIO_QUEUE_READY), 0);
        assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
        assert_eq!(rig.interrupt(), VIRTIO_MMIO_INT_CONFIG);
        rig.set_status(DRIVER_OK);
    }
    assert_eq!(rig.reported().len(), changes.len());
    assert!(
        rig.reported()[0].starts_with("entropy device stopped until the guest resets it: queue 0")
    );
    assert!(rig.negotiate(feature::RING));
    rig.set_queue(0, &good);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
    let mut driver = rig.start();
    rig.draw(&mut driver);
}

#[test]
fn a_malformed_ring_stops_the_device_until_reset() {
    let rig = Rig::rng(&ram());
    let mut driver = rig.start();
    driver.desc(0, BUFFERS, 8, WRITE | NEXT, 0);
    driver.offer(0);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(rig.interrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    assert!(rig.reported()[0].contains("a descriptor chain is a loop"));
    driver.offer(0);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    let mut driver = rig.start();
    assert_eq!(rig.status() & NEEDS_RESET, 0);
    rig.draw(&mut driver);
}

#[test]
fn notices_have_an_end() {
    let rig = Rig::rng(&ram());
    let mut bad = Driver::new(&rig.ram, 0, 64);
    bad.state.desc = 1;
    for _ in 0..100 {
        rig.negotiate(feature::RING);
        rig.set_queue(0, &bad);
    }
    assert_eq!(rig.reported().len(), 16);
    assert!(rig.reported()[15].ends_with("(no more is reported of this device)"));
}

#[test]
fn registers_have_32_bits_and_configuration_any() {
    let rig = Rig::blk(&ram(), MemDisk::new(1 << 20), 2);
    let mut byte = [0];
    rig.transport.read(0, &mut byte);
    assert_eq!(byte, [0xff]);
    let mut wide = [0; 8];
    rig.transport.read(0x100, &mut wide);
    assert_eq!(u64::from_le_bytes(wide), 2048, "capacity");
    let mut half = [0; 2];
    rig.transport.read(0x122, &mut half);
    assert_eq!(u16::from_le_bytes(half), 2, "num_queues");
    rig.transport.read(0x100 + 59, &mut half);
    assert_eq!(half, [0xff; 2], "beyond the end");
    rig.transport.write(0x70, &[1]);
    rig.transport.write(0x71, &[1, 0, 0, 0]);
    assert_eq!(rig.status(), 0);
    assert_eq!(rig.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX, "no shared memory");
}

/// Offer `count` reads of one sector each, as chains of three.
fn offer_reads(driver: &mut Driver, count: u16) {
    for n in 0..count {
        let at = BUFFERS + 0x1000 * u64::from(n);
        driver.ram.write_obj([0u64, u64::from(n)], GuestAddress(at)).unwrap();
        driver.chain(3 * n, &[(at, 16, false), (at + 512, 512, true), (at + 1024, 1, true)]);
        driver.offer(3 * n);
    }
}

#[test]
fn a_disk_answers_from_another_thread() {
    let (ram, mut disk) = (ram(), MemDisk::new(1 << 20));
    disk.deferred = true;
    for (n, sector) in disk.bytes.lock().unwrap().chunks_mut(512).enumerate() {
        sector.fill(n as u8);
    }
    let rig = Rig::blk(&ram, disk, 1);
    let mut driver = rig.start();
    offer_reads(&mut driver, 20);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    let used = rig.wait_used(&mut driver, 20);
    assert!(used.iter().all(|(_, len)| *len == 513));
    for n in 0..20u8 {
        let mut data = [0xff; 513];
        let at = GuestAddress(BUFFERS + 0x1000 * u64::from(n) + 512);
        ram.read_slice(&mut data, at).unwrap();
        assert_eq!((&data[..512], data[512]), (&[n; 512][..], 0));
    }
}

#[test]
fn nothing_is_in_flight_after_a_reset() {
    let (ram, mut disk) = (ram(), MemDisk::new(1 << 20));
    disk.deferred = true;
    let log = disk.log.clone();
    let rig = Rig::blk(&ram, disk, 1);
    for _ in 0..50 {
        let mut driver = rig.start();
        offer_reads(&mut driver, 20);
        rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        rig.write(VIRTIO_MMIO_STATUS, 0);
        // What the device took it has finished and given back; the rest it never touches.
        let done = std::mem::take(&mut *log.lock().unwrap()).len();
        assert_eq!(driver.used().len(), done);
        assert_eq!(rig.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    }
}

#[test]
fn queues_are_served_independently() {
    let ram = ram();
    let rig = Rig::blk(&ram, MemDisk::new(1 << 20), 2);
    assert!(rig.negotiate(feature::RING));
    let mut drivers = [Driver::new(&ram, 0, 64), Driver::new(&ram, 0x8000, 64)];
    rig.set_queue(0, &drivers[0]);
    rig.set_queue(1, &drivers[1]);
    rig.set_status(DRIVER_OK);
    for queue in [1, 0] {
        offer_reads(&mut drivers[queue], 4);
        rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue as u32);
        assert_eq!(rig.wait_used(&mut drivers[queue], 4).len(), 4);
    }
    // One queue is taken back, the other lives on.
    rig.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    rig.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(rig.read(VIRTIO_MMIO_QUEUE_READY), 0);
    offer_reads(&mut drivers[1], 4);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_eq!(rig.wait_used(&mut drivers[1], 4).len(), 4);
}

#[test]
fn a_thread_that_cannot_start_stops_the_device() {
    let failing: ThreadStart = Arc::new(|kind| {
        assert_eq!(kind.id, 4);
        Err(Error::failure("no filter"))
    });
    let panicking: ThreadStart = Arc::new(|_| panic!("for the test"));
    for (hook, reason) in [(failing, "no filter"), (panicking, "a bug of Spore")] {
        let (device, services) = Rng::create();
        let rig = Rig::new(&ram(), device, services, hook);
        rig.start();
        assert_eq!(rig.interrupt(), VIRTIO_MMIO_INT_CONFIG);
        assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
        assert!(rig.reported()[0].contains(reason), "{:?}", rig.reported());
        rig.write(VIRTIO_MMIO_STATUS, 0);
        assert_eq!(rig.status(), 0, "a reset does not wait for it");
    }
}

#[test]
fn a_device_goes_on_where_it_was_saved() {
    let ram = ram();
    let first = Rig::rng(&ram);
    let mut driver = first.start();
    first.draw(&mut driver);
    let saved = serde_json::to_string(&first.save()).unwrap();
    drop(first);
    // Offered while the machine was away; nobody notifies of it again.
    driver.chain(5, &[(BUFFERS, 32, true)]);
    driver.offer(5);
    let second = Rig::rng(&ram);
    let state: MmioState = serde_json::from_str(&saved).unwrap();
    second.restore(&state).unwrap();
    assert_eq!(second.save(), state, "nothing runs before it is told to");
    second.transport.resume();
    assert_eq!(second.wait_used(&mut driver, 1), [(5, 32)]);
    second.draw(&mut driver);
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let ram = ram();
    let rig = Rig::rng(&ram);
    rig.start();
    let good = rig.save();
    let mut bad = good.clone();
    bad.core.queues.clear();
    assert!(rig.restore(&bad).is_err());
    let mut bad = good.clone();
    bad.core.driver_features = u64::MAX;
    assert!(rig.restore(&bad).is_err());
    assert!(Rig::blk(&ram, MemDisk::new(512), 1).restore(&good).is_err());
    // Queue addresses in a state are checked as a guest's are.
    let mut bad = good.clone();
    bad.core.queues[0].desc = RAM;
    rig.restore(&bad).unwrap();
    rig.transport.resume();
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    rig.restore(&good).unwrap();
    assert_eq!(rig.save(), good);
}

#[test]
fn a_machine_ends_with_its_workers() {
    let ram = ram();
    let rig = Rig::blk(&ram, MemDisk::new(1 << 20), 4);
    let mut driver = rig.start();
    offer_reads(&mut driver, 8);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert!(rig.transport.shutdown(std::time::Instant::now() + std::time::Duration::from_secs(30)));
    let Rig { ram: second, transport, .. } = rig;
    drop((second, transport, driver));
    assert_eq!(Arc::strong_count(&ram), 1, "no thread holds guest memory");
}

proptest! {
    /// Whatever is written to the registers, with workers that run: no panic, and a reset brings it
    /// back.
    #[test]
    fn random_register_writes_do_no_harm(
        writes in proptest::collection::vec(
            (prop_oneof![Just(0x30u32), Just(0x38), Just(0x44), Just(0x50), Just(0x70), 0u32..0x140],
             prop_oneof![0u32..16, any::<u32>(), Just(0x1000), Just(64)]), 0..60),
        garbage in proptest::collection::vec(any::<u8>(), 1024),
    ) {
        let ram = ram();
        let rig = Rig::blk(&ram, MemDisk::new(1 << 16), 2);
        assert!(rig.negotiate(feature::RING));
        ram.write_slice(&garbage, GuestAddress(0x1000)).unwrap();
        for (register, value) in writes {
            rig.write(register, value);
            rig.read(register);
        }
        rig.write(VIRTIO_MMIO_STATUS, 0);
        prop_assert_eq!(rig.status(), 0);
        let mut driver = rig.start();
        offer_reads(&mut driver, 2);
        rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        prop_assert_eq!(rig.wait_used(&mut driver, 2).len(), 2);
    }
}
