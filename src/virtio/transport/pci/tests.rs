//! The function as a driver finds, uses and abuses it, with real workers behind.

use super::*;
use crate::block::{Disk, Engine};
use crate::chipset::bus::BusDevice;
use crate::chipset::pci::{Ecam, PciMemory, PciRoot};
use crate::mem::layout::PCI_WINDOW;
use crate::virtio::blk::Blk;
use crate::virtio::feature;
use crate::virtio::rng::Rng;
use crate::virtio::testing::*;
use crate::virtio::transport::status::*;
use proptest::prelude::*;
use std::io;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a machine was asked for.
#[derive(Default)]
struct Host {
    routes: Mutex<Vec<(u32, Option<Message>)>>,
    doorbells: Mutex<Vec<(u64, bool)>>,
    refuses: bool,
}

impl MsiRouting for Host {
    fn route(&self, gsi: u32, message: Option<Message>) -> io::Result<()> {
        lock(&self.routes).push((gsi, message));
        if self.refuses { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
    fn doorbell(&self, address: u64, _event: &EventFd, on: bool) -> io::Result<()> {
        lock(&self.doorbells).push((address, on));
        Ok(())
    }
}

const BASE: u64 = PCI_WINDOW + 0x10_0000;
const APIC: u32 = 0xfee0_0000;

struct Rig {
    ram: GuestRam,
    transport: Arc<PciTransport>,
    ecam: Ecam,
    memory: PciMemory,
    host: Arc<Host>,
    irqs: Vec<EventFd>,
    reported: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn new(device: Arc<dyn Device>, services: Services, host: Host) -> Self {
        let (ram, (notices, reported), host) = (ram(), notices(), Arc::new(host));
        let irqs: Vec<_> =
            (0..vectors(&*device)).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        let ends = (24..).zip(&irqs);
        let ends =
            ends.map(|(gsi, irq)| MsixVector { irq: irq.try_clone().unwrap(), gsi }).collect();
        let (ends, hook): (_, ThreadStart) = ((ends, host.clone() as _), Arc::new(|_| Ok(())));
        let memory = ram.clone();
        let transport =
            PciTransport::new(device, services, memory, BASE as u32, ends, notices, &hook).unwrap();
        let root = PciRoot::new([(0, transport.clone() as _)]).unwrap();
        let (ecam, memory) = (Ecam(root.clone()), PciMemory(root));
        Self { ram, transport, ecam, memory, host, irqs, reported }
    }

    fn rng() -> Self {
        let (device, services) = Rng::create();
        Self::new(device, services, Host::default())
    }

    fn blk(queues: u16) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(1 << 20));
        let volume = "vol-0123456789abcdef0".parse().unwrap();
        let made =
            Blk::create(&volume, &disk, Engine::Auto, queues, Default::default(), notices().0)
                .unwrap();
        Self::new(made.0, made.1, Host::default())
    }

    fn config(&self, at: u64, size: usize) -> u32 {
        let mut data = [0; 4];
        self.ecam.read(1 << 15 | at, &mut data[..size]);
        u32::from_le_bytes(data)
    }

    fn set_config(&self, at: u64, size: usize, value: u32) {
        self.ecam.write(1 << 15 | at, &value.to_le_bytes()[..size]);
    }

    /// The capabilities with this id (and, of virtio's, cfg_type).
    fn capability(&self, id: u8, kind: Option<u8>) -> u64 {
        let mut at = self.config(0x34, 1);
        while at != 0 {
            let word = self.config(at.into(), 4).to_le_bytes();
            if word[0] == id && kind.is_none_or(|kind| word[3] == kind) {
                return at.into();
            }
            at = word[1].into();
        }
        panic!("no capability {id:#x} {kind:?}")
    }

    fn read(&self, at: u64, size: usize) -> u64 {
        let mut data = [0; 8];
        self.memory
            .read(self.transport.window.base().unwrap() - PCI_WINDOW + at, &mut data[..size]);
        u64::from_le_bytes(data)
    }

    fn write(&self, at: u64, size: usize, value: u64) {
        let address = self.transport.window.base().unwrap() - PCI_WINDOW + at;
        self.memory.write(address, &value.to_le_bytes()[..size]);
    }

    fn status(&self) -> u8 {
        self.read(0x14, 1) as u8
    }

    /// Memory on, bus master on.
    fn enable(&self) {
        self.set_config(4, 2, 6);
    }

    fn negotiate(&self, features: u64) {
        self.write(0x14, 1, 0);
        let mut status = 0;
        for step in [ACKNOWLEDGE, DRIVER, FEATURES_OK] {
            if step == FEATURES_OK {
                for select in [0, 1] {
                    self.write(0x08, 4, select);
                    self.write(0x0c, 4, features >> (32 * select) & 0xffff_ffff);
                }
            }
            status |= step;
            self.write(0x14, 1, status.into());
        }
        assert_eq!(self.status(), status);
    }

    /// Set vector `n` up: its message is to APIC 0 with vector 0x40 + n.
    fn set_vector(&self, n: u64, address: u32, masked: bool) {
        let entry = MSIX_TABLE + 16 * n;
        for (at, value) in [(0, address), (4, 0), (8, 0x40 + n as u32), (12, masked.into())] {
            self.write(entry + at, 4, value.into());
        }
    }

    fn msix(&self, control: u16) {
        self.set_config(self.capability(CAP_MSIX, None) + 2, 2, control.into());
    }

    /// A driver of queue 0 that is ready; its vector is 1, that of the device 0.
    fn start(&self) -> Driver {
        self.enable();
        self.negotiate(feature::VERSION_1);
        self.ram.write_slice(&[0; BUFFERS as usize], GuestAddress(0)).unwrap();
        let driver = Driver::new(&self.ram, 0, 64);
        self.write(0x10, 2, 0);
        self.write(0x16, 2, 0);
        self.write(0x18, 2, 64);
        self.write(0x1a, 2, 1);
        for (at, address) in
            [(0x20, driver.state.desc), (0x28, driver.state.avail), (0x30, driver.state.used)]
        {
            self.write(at, 4, address & 0xffff_ffff);
            self.write(at + 4, 4, address >> 32);
        }
        self.write(0x1c, 2, 1);
        self.write(0x14, 1, (self.status() | DRIVER_OK).into());
        driver
    }

    /// Get random bytes, and wait until they are there.
    fn draw(&self, driver: &mut Driver) {
        driver.chain(0, &[(BUFFERS, 64, true)]);
        driver.offer(0);
        self.write(NOTIFY, 2, 0);
        while driver.used().is_empty() {
            std::thread::yield_now();
        }
    }

    /// Whether vector `n` was signalled since the last look. Its worker may be a moment behind the
    /// ring.
    fn signalled(&self, n: usize) -> bool {
        (0..2000).any(|_| {
            std::thread::sleep(std::time::Duration::from_micros(500));
            self.irqs[n].read().is_ok()
        })
    }
}

#[test]
fn a_driver_finds_every_structure() {
    let rig = Rig::blk(2);
    assert_eq!(rig.config(0, 4), 0x1042_1af4);
    assert_eq!(rig.config(0x3d, 1), 0, "no interrupt pin");
    for (kind, at) in
        [(COMMON_CFG, COMMON), (NOTIFY_CFG, NOTIFY), (ISR_CFG, ISR), (DEVICE_CFG, DEVICE)]
    {
        let cap = rig.capability(CAP_VENDOR, Some(kind));
        assert_eq!((rig.config(cap + 4, 1), u64::from(rig.config(cap + 8, 4))), (0, at));
        assert_eq!(u64::from(rig.config(cap + 12, 4)), PAGE);
    }
    let notify = rig.capability(CAP_VENDOR, Some(NOTIFY_CFG));
    assert_eq!((rig.config(notify + 2, 1), rig.config(notify + 16, 4)), (20, NOTIFY_STRIDE));
    let msix = rig.capability(CAP_MSIX, None);
    assert_eq!(rig.config(msix + 2, 2), 2, "three vectors");
    assert_eq!(rig.config(msix + 4, 4), MSIX_TABLE as u32);
    assert_eq!(rig.config(msix + 8, 4), MSIX_PENDING as u32);
    rig.enable();
    assert_eq!(rig.read(0x12, 2), 2, "num_queues");
    assert_eq!(rig.read(0x18, 2), 256, "queue_size");
    assert_eq!(rig.read(DEVICE, 8), 2048, "capacity");
    rig.write(0x16, 2, 2);
    assert_eq!((rig.read(0x18, 2), rig.read(0x1e, 2)), (0, 2), "no third queue");
}

#[test]
fn interrupts_are_messages() {
    let rig = Rig::rng();
    let mut driver = rig.start();
    rig.set_vector(1, APIC, false);
    assert!(lock(&rig.host.routes).is_empty(), "MSI-X is off");
    rig.msix(1 << 15);
    let message = Message { address: APIC.into(), data: 0x41 };
    assert_eq!(*lock(&rig.host.routes), [(25, Some(message))]);
    rig.draw(&mut driver);
    assert!(rig.signalled(1));
    assert_eq!(rig.read(ISR, 1), 0, "MSI-X does without the ISR status");
    driver.chain(0, &[(BUFFERS, 8, false)]);
    driver.offer(0);
    driver.offer(64);
    rig.write(NOTIFY, 2, 0);
    rig.set_vector(0, APIC, false);
    assert!(rig.signalled(0), "a device that stops says so, on its own vector");
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn without_msix_a_driver_polls() {
    let rig = Rig::rng();
    let mut driver = rig.start();
    rig.draw(&mut driver);
    while rig.read(ISR, 1) != 1 {}
    assert_eq!(rig.read(ISR, 1), 0, "reading clears");
    assert!(lock(&rig.host.routes).is_empty());
}

#[test]
fn a_masked_interrupt_waits() {
    let rig = Rig::rng();
    let mut driver = rig.start();
    rig.msix(1 << 15);
    rig.set_vector(1, APIC, true);
    rig.draw(&mut driver);
    while rig.read(MSIX_PENDING, 8) != 2 {}
    assert!(rig.irqs[1].read().is_err() && lock(&rig.host.routes).is_empty());
    rig.write(MSIX_TABLE + 16 + 12, 4, 0);
    assert!(rig.signalled(1));
    assert_eq!(rig.read(MSIX_PENDING, 8), 0);
    rig.msix(3 << 14);
    rig.draw(&mut driver);
    while rig.read(MSIX_PENDING, 8) != 2 {}
    rig.msix(1 << 15);
    assert!(rig.signalled(1), "the same of the whole function");
    assert_eq!(lock(&rig.host.routes).len(), 1, "the message has not changed");
}

#[test]
fn a_message_to_anything_but_an_apic_is_no_interrupt_and_harms_no_other() {
    let rig = Rig::blk(1);
    rig.enable();
    rig.msix(1 << 15);
    rig.set_vector(0, 0x1000, false);
    assert!(lock(&rig.host.routes).is_empty());
    rig.set_vector(1, APIC, false);
    rig.write(MSIX_TABLE + 4, 4, 0xdead_beef);
    assert_eq!(lock(&rig.host.routes).len(), 1);
    rig.write(MSIX_TABLE + 16, 4, 0xffff_ffff);
    assert_eq!(lock(&rig.host.routes)[1], (25, None), "what was one no longer is");
    assert!(lock(&rig.reported).is_empty());
}

#[test]
fn an_interrupt_that_the_host_refuses_is_told() {
    let (device, services) = Rng::create();
    let rig = Rig::new(device, services, Host { refuses: true, ..Host::default() });
    rig.enable();
    rig.msix(1 << 15);
    rig.set_vector(1, APIC, false);
    assert!(
        lock(&rig.reported)[0].starts_with("entropy device: the host does not take interrupt 1")
    );
}

#[test]
fn vectors_that_are_not_there_are_not_given() {
    let rig = Rig::rng();
    rig.enable();
    for at in [0x10, 0x1a] {
        assert_eq!(rig.read(at, 2), u64::from(u16::MAX));
        rig.write(at, 2, 1);
        assert_eq!(rig.read(at, 2), 1);
        rig.write(at, 2, 2);
        assert_eq!(rig.read(at, 2), u64::from(u16::MAX), "there are two");
    }
    rig.write(0x10, 2, 1);
    rig.write(0x14, 1, 0);
    assert_eq!(rig.read(0x10, 2), u64::from(u16::MAX), "a reset takes them");
}

#[test]
fn doorbells_follow_the_bar_of_a_driver_that_is_ready() {
    let rig = Rig::rng();
    rig.enable();
    rig.set_config(0x10, 4, u32::MAX);
    rig.set_config(0x10, 4, BASE as u32);
    assert!(lock(&rig.host.doorbells).is_empty());
    let mut driver = rig.start();
    assert_eq!(*lock(&rig.host.doorbells), [(BASE + NOTIFY, true)]);
    let other = BASE + 0x8000;
    rig.set_config(0x10, 4, other as u32);
    assert_eq!(lock(&rig.host.doorbells)[1..], [(BASE + NOTIFY, false), (other + NOTIFY, true)]);
    rig.draw(&mut driver);
    rig.set_config(4, 2, 0);
    rig.enable();
    assert_eq!(lock(&rig.host.doorbells).len(), 3, "it came back to where they are");
    rig.transport.reset();
    assert_eq!(lock(&rig.host.doorbells)[3..], [(other + NOTIFY, false)]);
    assert_eq!((rig.config(4, 2), rig.config(0x10, 4)), (0, BASE as u32));
}

#[test]
fn configuration_space_gives_access_to_the_bar() {
    let rig = Rig::blk(1);
    let cap = rig.capability(CAP_VENDOR, Some(PCI_CFG));
    let access = |offset: u64, length: u32| {
        rig.set_config(cap + 8, 4, offset as u32);
        rig.set_config(cap + 12, 4, length);
    };
    access(DEVICE, 4);
    assert_eq!(rig.config(cap + 16, 4), 2048, "capacity, without memory being on");
    access(0x14, 1);
    rig.set_config(cap + 16, 1, 1);
    assert_eq!(rig.config(cap + 16, 1), 1, "status");
    // Not there, not aligned, of no size, of another size, of another BAR.
    for (offset, length) in
        [(0x8000, 4), (0xffff_ffff, 4), (DEVICE + 2, 4), (DEVICE, 3), (DEVICE, 0)]
    {
        access(offset, length);
        assert_eq!(rig.config(cap + 16, 4), u32::MAX, "{offset:#x} {length}");
    }
    access(DEVICE, 2);
    assert_eq!(rig.config(cap + 16, 4), u32::MAX);
    access(DEVICE, 4);
    rig.set_config(cap + 4, 1, 1);
    assert_eq!(rig.config(cap + 16, 4), u32::MAX);
}

#[test]
fn a_restored_device_goes_on_where_the_saved_one_was() {
    let rig = Rig::rng();
    let mut driver = rig.start();
    rig.set_vector(1, APIC, false);
    rig.msix(1 << 15);
    rig.set_config(0x10, 4, BASE as u32 + 0x8000);
    rig.draw(&mut driver);
    let text = serde_json::to_string(&rig.transport.save().unwrap()).unwrap();
    let state: TransportState = serde_json::from_str(&text).unwrap();
    let mut memory = vec![0; RAM as usize];
    rig.ram.read_slice(&mut memory, GuestAddress(0)).unwrap();
    let next = Rig::rng();
    next.ram.write_slice(&memory, GuestAddress(0)).unwrap();
    next.transport.restore(&state).unwrap();
    next.transport.resume();
    assert_eq!(*lock(&next.host.doorbells), [(BASE + 0x8000 + NOTIFY, true)]);
    assert!(next.signalled(1), "an interrupt that may have been lost");
    driver.ram = next.ram.clone();
    next.draw(&mut driver);
    assert!(next.signalled(1));
    assert!(Rig::blk(1).transport.restore(&state).is_err());
    assert!(Rig::blk(2).transport.restore(&state).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a guest reads and writes wherever, nothing panics, and a reset brings the device
    /// back.
    #[test]
    fn any_access_is_survived(accesses in proptest::collection::vec(
        (any::<bool>(), any::<bool>(), prop_oneof![0u64..0x140, 0x3000u64..0x3020, 0x4000u64..0x4040, 0u64..0x8010],
         0usize..4, any::<u64>()), 0..200)) {
        let rig = Rig::rng();
        rig.enable();
        for (config, read, at, size, value) in accesses {
            let size = 1 << size;
            let mut data = value.to_le_bytes();
            match (config, read) {
                (true, true) => rig.ecam.read(1 << 15 | at & 0xfff, &mut data[..size]),
                (true, false) => rig.ecam.write(1 << 15 | at & 0xfff, &data[..size]),
                (false, true) => rig.transport.read_memory(at, &mut data[..size]),
                (false, false) => rig.transport.write_memory(at, &data[..size]),
            }
        }
        let saved = rig.transport.save().unwrap();
        let mut memory = vec![0; RAM as usize];
        rig.ram.read_slice(&mut memory, GuestAddress(0)).unwrap();
        let next = Rig::rng();
        next.ram.write_slice(&memory, GuestAddress(0)).unwrap();
        next.transport.restore(&saved).unwrap();
        prop_assert_eq!(next.transport.save().unwrap(), saved);
        rig.transport.reset();
        rig.enable();
        let mut driver = rig.start();
        rig.draw(&mut driver);
    }
}
