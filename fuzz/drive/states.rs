//! The states of devices as a memory file has them, and the device that took one over under a guest
//! that does what the bytes say.

use super::pci::Host;
use sporevm::block::{Disk, DiskFormat, Engine};
use sporevm::chipset::bus::{Bus, BusDevice};
use sporevm::chipset::fw_cfg::FwCfg;
use sporevm::chipset::pci::{ConfigPorts, Ecam, PciMemory, PciRoot};
use sporevm::chipset::power::{AcpiPower, PowerRequest, PowerSink, ResetControl};
use sporevm::chipset::rtc::Rtc;
use sporevm::chipset::serial::{Serial, SerialHost};
use sporevm::mem::GuestRam;
use sporevm::mem::layout::{PCI_ECAM, PCI_ECAM_LEN, PCI_WINDOW, PCI_WINDOW_END, VM_GENERATION};
use sporevm::plan::DeviceId;
use sporevm::virtio::Notices;
use sporevm::virtio::blk::Blk;
use sporevm::virtio::device::{self, Services, ThreadStart};
use sporevm::virtio::rng::Rng;
use sporevm::virtio::scsi::Scsi;
use sporevm::virtio::transport::Transport;
use sporevm::virtio::transport::mmio::MmioTransport;
use sporevm::virtio::transport::pci::{MsiRouting, MsixVector, PciTransport, vectors};
use sporevm::vmm::component::Component;
use sporevm::vmm::state::{Generation, VirtioDevice};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Kinds of devices here.
const KINDS: u8 = 12;
/// Bytes of an access: offset (two), size and direction, value (four).
const ACCESS: usize = 7;
/// Most accesses that are done.
const MOST: usize = 200;
/// Bytes of the disk.
const DISK: u64 = 64 << 10;
/// Where the seeds' rings are.
const RINGS: u64 = 0x10_0000;

/// An access of the guest: offset, bytes, and whether it writes them.
type Reach = Box<dyn Fn(u64, &mut [u8], bool)>;

/// A device: as a part of a machine, as its guest reaches it, and its transport if it has one.
struct Subject {
    part: Arc<dyn Component>,
    reach: Reach,
    transport: Option<Arc<dyn Transport>>,
}

struct Nobody;

impl PowerSink for Nobody {
    fn request(&self, _: PowerRequest) {}
}

impl SerialHost for Nobody {
    fn output(&self, _: u8) {}
    fn input_wanted(&self) {}
}

fn irq() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn subject(kind: u8, ram: &GuestRam) -> Subject {
    fn simple<T: BusDevice + Component + 'static>(device: T) -> Subject {
        let (device, len) = (Arc::new(device), 8);
        let part = device.clone();
        let reach = move |offset: u64, value: &mut [u8], write: bool| match write {
            true => device.write(offset % len, value),
            false => device.read(offset % len, value),
        };
        Subject { part, reach: Box::new(reach), transport: None }
    }
    match kind {
        0 => simple(Serial::new(irq(), Arc::new(Nobody))),
        1 => simple(AcpiPower::new(Arc::new(Nobody), irq())),
        2 => simple(Rtc::new(2)),
        3 => simple(FwCfg::new(vec![(0, b"QEMU".to_vec()), (5, vec![1; 5000])], ram.clone())),
        4 => simple(ConfigPorts::new(PciRoot::new(Vec::new()).unwrap(), ResetControl(Arc::new(Nobody)))),
        5 => {
            let power = Arc::new(AcpiPower::new(Arc::new(Nobody), irq()));
            let part = Arc::new(Generation::new(ram.clone(), VM_GENERATION, power));
            Subject { part, reach: Box::new(|_, _, _| {}), transport: None }
        }
        _ => virtio(kind, ram),
    }
}

fn disk(read_only: bool) -> Arc<dyn Disk> {
    let file = super::file(&[]);
    file.set_len(DISK).unwrap();
    sporevm::block::open(vec![(file, DiskFormat::Raw)], read_only).unwrap()
}

fn virtio(kind: u8, ram: &GuestRam) -> Subject {
    let notices = || Notices::new(Arc::new(|_: &str| {}));
    let on_start: ThreadStart = Arc::new(|_| Ok(()));
    let (device, services): (Arc<dyn device::Device>, Services) = match kind {
        6 | 8 => {
            let (device, services) = Rng::create();
            (device, services)
        }
        10.. => {
            let (device, services) =
                Scsi::create("cdrom0", &disk(true), Engine::Sync, Default::default(), notices()).unwrap();
            (device, services)
        }
        _ => {
            let disk = disk(false);
            let volume = "vol-0123456789abcdef0".parse().unwrap();
            let (device, services) =
                Blk::create(&volume, &disk, Engine::Sync, 1, Default::default(), notices()).unwrap();
            (device, services)
        }
    };
    let (transport, reach) = match kind {
        0..8 | 10 => over_mmio(device, services, ram, notices(), &on_start),
        _ => over_pci(device, services, ram, notices(), &on_start),
    };
    let id: DeviceId = "/dev/vda".parse().unwrap();
    let part = Arc::new(VirtioDevice::new(&id, transport.clone(), None));
    Subject { part, reach, transport: Some(transport) }
}

fn over_mmio(
    device: Arc<dyn device::Device>,
    services: Services,
    ram: &GuestRam,
    notices: Notices,
    on_start: &ThreadStart,
) -> (Arc<dyn Transport>, Reach) {
    let mmio = MmioTransport::new(device, services, ram.clone(), irq(), notices, on_start).unwrap();
    let transport = mmio.clone();
    let reach = move |offset: u64, value: &mut [u8], write: bool| match write {
        true => mmio.write(offset & 0xfff, value),
        false => mmio.read(offset & 0xfff, value),
    };
    (transport, Box::new(reach))
}

fn over_pci(
    device: Arc<dyn device::Device>,
    services: Services,
    ram: &GuestRam,
    notices: Notices,
    on_start: &ThreadStart,
) -> (Arc<dyn Transport>, Reach) {
    let irqs = (24..).take(vectors(&*device)).map(|gsi| MsixVector { irq: irq(), gsi }).collect();
    let ends = (irqs, Arc::new(Host::default()) as Arc<dyn MsiRouting>);
    let base = PCI_WINDOW as u32;
    let function = PciTransport::new(device, services, ram.clone(), base, ends, notices, on_start).unwrap();
    let root = PciRoot::new([(0, function.clone() as _)]).unwrap();
    let mut memory = Bus::default();
    memory.insert(PCI_ECAM, PCI_ECAM_LEN, Arc::new(Ecam(root.clone()))).unwrap();
    memory.insert(PCI_WINDOW, PCI_WINDOW_END - PCI_WINDOW, Arc::new(PciMemory(root))).unwrap();
    let reach = move |offset: u64, value: &mut [u8], write: bool| {
        // The higher half is the function's memory where it was put first, the lower its
        // configuration space.
        let address = match offset & 0x8000 {
            0 => PCI_ECAM + (1 << 15) + (offset & 0xfff),
            _ => PCI_WINDOW + (offset & 0x7fff),
        };
        match write {
            true => memory.write(address, value),
            false => memory.read(address, value),
        }
    };
    (function, Box::new(reach))
}

impl Subject {
    fn accesses(&self, bytes: &[u8]) {
        for access in bytes.chunks_exact(ACCESS).take(MOST) {
            let offset = u64::from(u16::from_le_bytes([access[0], access[1]]));
            let mut value = [0; 8];
            value[..4].copy_from_slice(&access[3..]);
            (self.reach)(offset, &mut value[..1 << (access[2] & 3)], access[2] & 0x80 != 0);
        }
    }

    fn save(&self) -> Vec<u8> {
        self.part.pause().unwrap();
        self.part.save().unwrap()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let end = |transport: &Arc<dyn Transport>| transport.shutdown(Instant::now() + Duration::from_secs(30));
        assert!(self.transport.as_ref().is_none_or(end), "a device's threads don't end");
    }
}

/// The kind, the length of the state (two bytes), the state, and accesses. A state that was taken
/// over is a device's like any other: it can be saved, and taken over again.
pub fn drive(data: &[u8]) {
    let Some((&[kind, low, high], data)) = data.split_first_chunk() else { return };
    let len = usize::from(u16::from_le_bytes([low, high])).min(data.len());
    let (state, accesses) = data.split_at(len);
    let ram = super::shared_ram();
    rings(&ram);
    let kind = kind % KINDS;
    let first = subject(kind, &ram);
    match first.part.restore(state) {
        Ok(()) => first.part.resume(),
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
    first.accesses(accesses);
    let saved = first.save();
    let second = subject(kind, &ram);
    second.part.restore(&saved).unwrap();
    assert_eq!(second.save(), saved, "{}", first.part.name());
    first.part.reset().unwrap();
    second.part.reset().unwrap();
    assert_eq!(first.save(), second.save(), "{}", first.part.name());
}

/// A queue of four descriptors with two chains: 16 bytes to read, 512 and one to write; and one to
/// write.
fn rings(ram: &GuestRam) {
    let desc = |addr: u64, len: u32, flags: u16, next: u16| {
        [&(RINGS + addr).to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let table = [desc(0x800, 16, 1, 1), desc(0x900, 512, 3, 2), desc(0xb00, 1, 2, 0), desc(0xc00, 64, 2, 0)].concat();
    let mut memory = vec![0; 0x1000];
    memory[..table.len()].copy_from_slice(&table);
    // Flags, index, the chains' heads.
    memory[0x100..0x108].copy_from_slice(&[0, 0, 2, 0, 0, 0, 3, 0]);
    ram.write_slice(&memory, GuestAddress(RINGS)).unwrap();
}

/// Each device as new and as a driver left it, and what a guest does then.
pub fn seeds() -> Vec<Vec<u8>> {
    let ram = super::shared_ram();
    let write = |offset: u16, size: u8, value: u32| {
        [&offset.to_le_bytes()[..], &[0x80 | size], &value.to_le_bytes()].concat()
    };
    let rings = [RINGS, RINGS + 0x100, RINGS + 0x200].map(|at| at as u32);
    // VIRTIO 1.2, 3.1.1 over 4.2.2 and 4.1.4.3.
    let mmio = [
        vec![(0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x30, 0), (0x38, 4)],
        vec![(0x80, rings[0]), (0x90, rings[1]), (0xa0, rings[2]), (0x44, 1), (0x70, 15), (0x50, 0)],
    ];
    let mmio: Vec<u8> = mmio.concat().into_iter().flat_map(|(at, value)| write(at, 2, value)).collect();
    let pci = [
        (4, 1, 6),
        (0x8014, 0, 3),
        (0x8008, 2, 1),
        (0x800c, 2, 1),
        (0x8014, 0, 11),
        (0x8018, 1, 4),
        (0x801a, 1, 1),
        (0x8020, 2, rings[0]),
        (0x8028, 2, rings[1]),
        (0x8030, 2, rings[2]),
        (0x801c, 1, 1),
        (0x8014, 0, 15),
    ];
    let pci: Vec<u8> = pci.into_iter().flat_map(|(at, size, value)| write(at, size, value)).collect();
    let ports: Vec<u8> = (0..8).flat_map(|at| write(at, 0, 0x8f)).collect();
    let mut seeds = Vec::new();
    for kind in 0..KINDS {
        let accesses = match kind {
            0..6 => &ports,
            6 | 7 | 10 => &mmio,
            _ => &pci,
        };
        for before in [&[][..], accesses] {
            let used = subject(kind, &ram);
            used.accesses(before);
            let state = used.save();
            let len = (state.len() as u16).to_le_bytes();
            seeds.push([&[kind][..], &len, &state, accesses].concat());
        }
    }
    seeds
}
