//! What is true of every device behind every transport: those in [`DEVICES`].

pub(super) use super::conformance_devices::{DEVICES, Made, Row};
use super::testing::*;
use crate::chipset::bus::BusDevice;
use crate::chipset::pci::Function;
use crate::mem::GuestRam;
use crate::virtio::device::{Device, DeviceState, Services, ThreadStart};
use crate::virtio::queue::QueueState;
use crate::virtio::transport::mmio::MmioTransport;
use crate::virtio::transport::pci::{MsiRouting, MsixVector, PciTransport, vectors};
use crate::virtio::transport::status::*;
use crate::virtio::transport::{Transport, TransportState, VirtioState};
use crate::virtio::{Notices, feature};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Over {
    Mmio,
    Pci,
}

pub(super) enum Registers {
    Mmio(Arc<MmioTransport>),
    Pci(Arc<PciTransport>),
}

/// A device behind a transport, as its driver finds it.
pub(super) struct Guest {
    pub ram: GuestRam,
    pub registers: Registers,
    pub transport: Arc<dyn Transport>,
    pub device: Arc<dyn Device>,
    pub feed: Box<dyn Fn()>,
    pub row: &'static Row,
    pub reported: Arc<Mutex<Vec<String>>>,
}

/// Offsets in virtio-pci's BAR: common configuration, ISR, device configuration, notification.
/// (4.1.4)
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;

impl Guest {
    pub fn new(row: &'static Row, over: Over) -> Self {
        Self::with(row, (row.make)(), over)
    }

    pub fn with(row: &'static Row, (device, services, feed): Made, over: Over) -> Self {
        let (ram, (notices, reported)) = (ram(), notices());
        let (registers, transport) = Self::attach(over, &ram, device.clone(), services, notices);
        Self { ram, registers, transport, device, feed, row, reported }
    }

    fn attach(
        over: Over,
        ram: &GuestRam,
        device: Arc<dyn Device>,
        services: Services,
        notices: Notices,
    ) -> (Registers, Arc<dyn Transport>) {
        let hook: ThreadStart = Arc::new(|_| Ok(()));
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        if over == Over::Mmio {
            let mmio =
                MmioTransport::new(device, services, ram.clone(), event(), notices, &hook).unwrap();
            return (Registers::Mmio(mmio.clone()), mmio);
        }
        let irqs =
            (0..vectors(&*device)).map(|n| MsixVector { irq: event(), gsi: n as u32 }).collect();
        let ends = (irqs, Arc::new(Host) as Arc<dyn MsiRouting>);
        let pci =
            PciTransport::new(device, services, ram.clone(), 0xe000_0000, ends, notices, &hook);
        let pci = pci.unwrap();
        (Registers::Pci(pci.clone()), pci)
    }

    /// Reads a register: where each transport has it, and its bytes there.
    pub fn get(&self, mmio: u32, (pci, size): (u64, usize)) -> u64 {
        let mut data = [0; 8];
        match &self.registers {
            Registers::Mmio(device) => device.read(mmio.into(), &mut data[..4]),
            Registers::Pci(device) => device.read_memory(pci, &mut data[..size]),
        }
        u64::from_le_bytes(data)
    }

    pub fn set(&self, mmio: u32, (pci, size): (u64, usize), value: u64) {
        match &self.registers {
            Registers::Mmio(device) => device.write(mmio.into(), &value.to_le_bytes()[..4]),
            Registers::Pci(device) => device.write_memory(pci, &value.to_le_bytes()[..size]),
        }
    }

    pub fn status(&self) -> u8 {
        self.get(VIRTIO_MMIO_STATUS, (0x14, 1)) as u8
    }

    pub fn set_status(&self, status: u8) {
        self.set(VIRTIO_MMIO_STATUS, (0x14, 1), status.into());
    }

    pub fn generation(&self) -> u64 {
        self.get(VIRTIO_MMIO_CONFIG_GENERATION, (0x15, 1))
    }

    pub fn features(&self) -> u64 {
        [0u64, 1].iter().fold(0, |features, half| {
            self.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, (0, 4), *half);
            features | self.get(VIRTIO_MMIO_DEVICE_FEATURES, (4, 4)) << (32 * half)
        })
    }

    pub fn read_config(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match &self.registers {
            Registers::Mmio(device) => device.read(0x100 + offset, &mut bytes),
            Registers::Pci(device) => device.read_memory(DEVICE + offset, &mut bytes),
        }
        bytes
    }

    pub fn write_config(&self, offset: u64, bytes: &[u8]) {
        match &self.registers {
            Registers::Mmio(device) => device.write(0x100 + offset, bytes),
            Registers::Pci(device) => device.write_memory(DEVICE + offset, bytes),
        }
    }

    /// Looks which interrupts came, and acknowledges them.
    pub fn interrupts(&self) -> u64 {
        let cause = self.get(VIRTIO_MMIO_INTERRUPT_STATUS, (ISR, 1));
        if let Registers::Mmio(_) = self.registers {
            self.set(VIRTIO_MMIO_INTERRUPT_ACK, (0, 0), cause);
        }
        cause
    }

    /// Whether a configuration interrupt comes. (Bit 1 in both transports: 4.1.4.5, 4.2.2)
    pub fn configured(&self) -> bool {
        within(|| self.interrupts() & 2 != 0)
    }

    pub fn queues(&self) -> u16 {
        self.device.queue_sizes().len() as u16
    }

    pub fn notify(&self, queue: u16) {
        self.set(VIRTIO_MMIO_QUEUE_NOTIFY, (NOTIFY + 4 * u64::from(queue), 2), queue.into());
    }

    pub fn set_queue(&self, queue: u16, state: QueueState) {
        self.set(VIRTIO_MMIO_QUEUE_SEL, (0x16, 2), queue.into());
        self.set(VIRTIO_MMIO_QUEUE_NUM, (0x18, 2), state.size.into());
        for (mmio, pci, address) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, 0x20, state.desc),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x28, state.avail),
            (VIRTIO_MMIO_QUEUE_USED_LOW, 0x30, state.used),
        ] {
            self.set(mmio, (pci, 4), address);
            self.set(mmio + 4, (pci + 4, 4), address >> 32);
        }
        self.set(VIRTIO_MMIO_QUEUE_READY, (0x1c, 2), 1);
    }

    /// The driver comes, accepts all features and sets all queues up.
    pub fn start(&self) -> Vec<Driver> {
        self.start_with(u64::MAX)
    }

    /// As [`Self::start`], accepting these features alone.
    pub fn start_with(&self, features: u64) -> Vec<Driver> {
        self.set_status(0);
        for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
            self.set_status(status);
        }
        let features = self.features() & features;
        for half in [0, 1] {
            self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, (8, 4), half);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES, (0xc, 4), features >> (32 * half) & 0xffff_ffff);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(self.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.ram.write_slice(&[0; BUFFERS as usize], GuestAddress(0)).unwrap();
        let driver = |queue| Driver::new(&self.ram, 0x1000 * u64::from(queue), 16);
        let drivers: Vec<Driver> = (0..self.queues()).map(driver).collect();
        (0..).zip(&drivers).for_each(|(queue, driver)| self.set_queue(queue, driver.state));
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(self.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        drivers
    }

    /// Offers `count` good chains in each queue, and notifies.
    pub fn offer(&self, drivers: &mut [Driver], count: u16) {
        for (queue, driver) in (0..).zip(drivers) {
            for n in 0..count {
                let buffer = BUFFERS + 0x8000 * u64::from(queue) + 0x800 * u64::from(n);
                let place = |(at, &(len, writable)): (u64, _)| (buffer + 0x100 * at, len, writable);
                let pieces: Vec<_> = (0..).zip((self.row.chain)(queue)).map(place).collect();
                driver.chain(4 * n, &pieces);
                driver.offer(4 * n);
            }
            self.notify(queue);
        }
    }

    /// Waits until `counts` more chains of each queue came back, with what they wait for from
    /// outside.
    pub fn finish(&self, drivers: &mut [Driver], counts: &[usize]) {
        let mut back = vec![0; drivers.len()];
        assert!(within(|| {
            (self.feed)();
            for (back, driver) in back.iter_mut().zip(drivers.iter_mut()) {
                *back += driver.used().len();
            }
            back == counts
        }));
    }

    /// What comes back of as many chains in each queue.
    pub fn of_each(&self, count: usize) -> Vec<usize> {
        let back = |queue| if self.row.silent.contains(&queue) { 0 } else { count };
        (0..self.queues()).map(back).collect()
    }

    /// As [`Self::finish`], of `count` chains of each queue.
    pub fn finish_all(&self, drivers: &mut [Driver], count: usize) {
        self.finish(drivers, &self.of_each(count));
    }

    pub fn save(&self) -> TransportState {
        self.transport.save().unwrap()
    }
}

/// Whether it becomes so, at the latest in half a minute.
pub(super) fn within(mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

/// Does it with each device behind each transport.
fn each(test: fn(Guest)) {
    for row in DEVICES {
        for over in [Over::Mmio, Over::Pci] {
            test(Guest::new(row, over));
        }
    }
}

pub(super) fn core(state: &mut TransportState) -> &mut VirtioState {
    match state {
        TransportState::Mmio(state) => &mut state.core,
        TransportState::Pci(state) => &mut state.core,
        TransportState::Nvme(_) => panic!("it is no virtio device"),
    }
}

#[test]
fn every_device_is_in_the_table() {
    let mut open = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/virtio")];
    let mut rows = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                rows += text.lines().filter(|line| line.starts_with("pub static TYPE")).count();
            }
        }
    }
    assert_eq!(rows, DEVICES.len());
    let mut ids: Vec<u16> = DEVICES.iter().map(|row| (row.make)().0.kind().id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), DEVICES.len(), "each is of its own type");
}

#[test]
fn a_driver_finds_every_device() {
    each(|guest| {
        let (kind, sizes) = (guest.device.kind(), guest.device.queue_sizes());
        assert!(kind.id < 0x40 && kind.pci_class < 1 << 24 && kind.thread.len() <= 15, "{kind:?}");
        assert_eq!(guest.features() & feature::RING, feature::RING);
        for (queue, size) in (0u16..).zip(sizes.iter().chain([&0])) {
            guest.set(VIRTIO_MMIO_QUEUE_SEL, (0x16, 2), queue.into());
            assert_eq!(guest.get(VIRTIO_MMIO_QUEUE_NUM_MAX, (0x18, 2)), u64::from(*size));
            assert!(*size == 0 || size.is_power_of_two());
        }
        let mut id = [0; 4];
        match &guest.registers {
            Registers::Mmio(device) => device.read(VIRTIO_MMIO_DEVICE_ID.into(), &mut id),
            Registers::Pci(device) => {
                device.read_config(2, &mut id[..2]);
                id[0] -= 0x40;
                id[1] -= 0x10;
            }
        }
        assert_eq!(u32::from_le_bytes(id), u32::from(kind.id));
    });
}

#[test]
fn a_configuration_bears_any_access_and_a_reset_takes_back_what_the_driver_wrote() {
    each(|guest| {
        let all = |guest: &Guest| -> Vec<u8> {
            (0..64).flat_map(|offset| guest.read_config(offset, 1)).collect()
        };
        let before = (all(&guest), guest.generation());
        for size in [1, 2, 4, 8] {
            for offset in (0..0x100).chain([0xdff, 0xe00]) {
                guest.write_config(offset, &[0xa5, 0x5a, 1, 2, 3, 4, 5, 6][..size]);
                guest.read_config(offset, size);
            }
            assert_eq!(guest.read_config(0xe00, size), vec![0xff; size], "nothing is there");
        }
        guest.set_status(0);
        assert_eq!((all(&guest), guest.generation()), before);
    });
}

#[test]
fn a_reset_with_buffers_posted_returns_at_once() {
    each(|guest| {
        let mut drivers = guest.start();
        guest.offer(&mut drivers, 3);
        let begin = Instant::now();
        guest.set_status(0);
        assert_eq!(guest.status(), 0);
        assert!(guest.transport.reset(), "nothing is in flight");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        let used: Vec<_> = drivers.iter_mut().map(Driver::used).collect();
        (guest.feed)();
        (0..guest.queues()).for_each(|queue| guest.notify(queue));
        std::thread::sleep(Duration::from_millis(2));
        assert!(drivers.iter_mut().all(|driver| driver.used().is_empty()), "{used:?}");
        let mut drivers = guest.start();
        guest.offer(&mut drivers, 2);
        guest.finish_all(&mut drivers, 2);
    });
}

#[test]
fn a_saved_device_has_answered_each_chain_or_left_it_in_its_ring() {
    each(|guest| {
        let mut drivers = guest.start();
        guest.offer(&mut drivers, 3);
        let mut state = guest.save();
        let mut left = Vec::new();
        let queues = core(&mut state).queues.iter().zip(guest.of_each(3));
        for (driver, (queue, all)) in drivers.iter_mut().zip(queues) {
            assert_eq!(queue.next_avail, queue.next_used, "none is in flight");
            assert_eq!(driver.used().len(), usize::from(queue.next_used));
            left.push(all - usize::from(queue.next_avail));
        }
        // The same in the formats that a snapshot may have.
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<TransportState>(&text).unwrap(), state);
        let bytes = postcard::to_stdvec(&state).unwrap();
        assert_eq!(postcard::from_bytes::<TransportState>(&bytes).unwrap(), state);
        let over = match &guest.registers {
            Registers::Mmio(_) => Over::Mmio,
            Registers::Pci(_) => Over::Pci,
        };
        let next = Guest::new(guest.row, over);
        let mut memory = vec![0; RAM as usize];
        guest.ram.read_slice(&mut memory, GuestAddress(0)).unwrap();
        next.ram.write_slice(&memory, GuestAddress(0)).unwrap();
        next.transport.restore(&state).unwrap();
        assert_eq!(next.save(), state, "nothing runs before it is told to");
        // The saved machine goes on, and so does the restored one, with what each has in its rings.
        let mut restored: Vec<_> = drivers.iter().map(|driver| driver.moved(&next.ram)).collect();
        guest.transport.resume();
        guest.finish(&mut drivers, &left);
        next.transport.resume();
        next.finish(&mut restored, &left);
        next.offer(&mut restored, 2);
        next.finish_all(&mut restored, 2);
    });
}

#[test]
fn a_malformed_chain_stops_a_device_until_reset() {
    each(|guest| {
        for queue in 0..guest.queues() {
            guest.reported.lock().unwrap().clear();
            let mut drivers = guest.start();
            let driver = &mut drivers[usize::from(queue)];
            driver.desc(0, BUFFERS, 8, NEXT, 0);
            driver.offer(0);
            guest.notify(queue);
            assert!(guest.configured());
            assert_eq!(guest.status() & NEEDS_RESET, NEEDS_RESET);
            let reported = guest.reported.lock().unwrap().clone();
            assert!(reported[0].starts_with(guest.device.name()), "{reported:?}");
            assert!(reported[0].contains(&format!("queue {queue}: a descriptor chain is a loop")));
            assert_eq!(reported.len(), 1);
            let mut drivers = guest.start();
            guest.offer(&mut drivers, 1);
            guest.finish_all(&mut drivers, 1);
        }
    });
}

#[test]
fn a_state_of_another_kind_version_or_transport_is_refused() {
    each(|guest| {
        guest.start();
        let good = guest.save();
        let why = |change: &dyn Fn(&mut DeviceState)| {
            let mut bad = good.clone();
            change(&mut core(&mut bad).device);
            guest.transport.restore(&bad).unwrap_err().to_string()
        };
        let name = guest.device.name();
        let kind = why(&|state| state.kind += 1);
        assert!(kind.contains("virtio device type") && kind.contains(name), "{kind}");
        let version = why(&|state| state.version += 1);
        assert!(version.contains("version 2") && version.contains(name), "{version}");
        assert!(why(&|state| state.payload.push(0)).contains("damaged"));
        let other = match &guest.registers {
            Registers::Mmio(_) => Guest::new(guest.row, Over::Pci),
            Registers::Pci(_) => Guest::new(guest.row, Over::Mmio),
        };
        assert!(other.transport.restore(&good).unwrap_err().to_string().contains("transport"));
        guest.transport.restore(&good).unwrap();
        assert_eq!(guest.save(), good);
    });
}

#[test]
fn a_driver_that_asks_for_what_is_not_offered_can_be_saved_and_told_no() {
    each(|guest| {
        guest.set_status(0);
        for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
            guest.set_status(status);
        }
        guest.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, (8, 4), 1);
        guest.set(VIRTIO_MMIO_DRIVER_FEATURES, (0xc, 4), 0xffff_ffff);
        let state = guest.save();
        guest.transport.restore(&state).unwrap();
        assert_eq!(guest.save(), state);
        guest.transport.resume();
        guest.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(guest.status(), ACKNOWLEDGE | DRIVER, "they can't be had after it either");
    });
}

#[test]
fn a_device_ends_with_its_threads() {
    each(|guest| {
        let mut drivers = guest.start();
        guest.offer(&mut drivers, 3);
        assert!(guest.transport.shutdown(Instant::now() + Duration::from_secs(30)));
        drop(drivers);
        let ram = guest.ram.clone();
        drop(guest);
        assert_eq!(Arc::strong_count(&ram), 1, "no thread holds guest memory");
    });
}

#[test]
fn a_queue_that_is_taken_back_leaves_the_others_served() {
    each(|guest| {
        let Registers::Mmio(_) = guest.registers else { return };
        let mut drivers = guest.start();
        guest.offer(&mut drivers, 1);
        guest.finish_all(&mut drivers, 1);
        // PCI's driver can't take one back: it resets the device. (4.1.4.3.2)
        guest.set(VIRTIO_MMIO_QUEUE_SEL, (0, 0), u64::from(guest.queues() - 1));
        guest.set(VIRTIO_MMIO_QUEUE_READY, (0, 0), 0);
        assert_eq!(guest.get(VIRTIO_MMIO_QUEUE_READY, (0, 0)), 0);
        guest.offer(&mut drivers, 2);
        let (last, others) = drivers.split_last_mut().unwrap();
        guest.finish(others, &guest.of_each(2)[..others.len()]);
        assert!(last.used().is_empty());
        assert_eq!(guest.status() & NEEDS_RESET, 0);
    });
}
