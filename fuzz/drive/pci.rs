//! Configuration space, BAR and MSI-X table of a virtio-pci function under a guest that does what
//! the bytes say.

use sporevm::chipset::bus::{Bus, BusDevice};
use sporevm::chipset::pci::{ConfigPorts, Ecam, PciMemory, PciRoot};
use sporevm::chipset::power::{PowerRequest, PowerSink, ResetControl};
use sporevm::mem::layout::{MIN_MEMORY, PCI_ECAM, PCI_ECAM_LEN, PCI_WINDOW, PCI_WINDOW_END};
use sporevm::mem::{GuestRam, ram};
use sporevm::virtio::Notices;
use sporevm::virtio::rng::Rng;
use sporevm::virtio::transport::Transport;
use sporevm::virtio::transport::pci::{Message, MsiRouting, PciTransport, MsixVector, vectors};
use sporevm::virtio::device::ThreadStart;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes of an access: where, size and direction, offset (two), value (eight).
const ACCESS: usize = 12;

/// RAM is never given back, so all runs share it.
fn memory() -> &'static Mutex<GuestRam> {
    static RAM: OnceLock<Mutex<GuestRam>> = OnceLock::new();
    RAM.get_or_init(|| Mutex::new(ram::create(MIN_MEMORY).unwrap()))
}

/// Takes messages to local APICs only, and has one doorbell at most at an address.
#[derive(Default)]
pub struct Host(Mutex<Vec<u64>>);

impl MsiRouting for Host {
    fn route(&self, gsi: u32, message: Option<Message>) -> io::Result<()> {
        assert!((24..26).contains(&gsi));
        assert!(message.is_none_or(|message| message.address >> 20 == 0xfee), "{message:x?}");
        Ok(())
    }
    fn doorbell(&self, address: u64, _event: &EventFd, on: bool) -> io::Result<()> {
        assert!((PCI_WINDOW..PCI_WINDOW_END).contains(&address));
        let mut doorbells = self.0.lock().unwrap();
        let at = doorbells.iter().position(|doorbell| *doorbell == address);
        assert_eq!(at.is_none(), on, "{address:#x}");
        match at {
            Some(at) => drop(doorbells.remove(at)),
            None => doorbells.push(address),
        }
        Ok(())
    }
}

struct NoPower;

impl PowerSink for NoPower {
    fn request(&self, _request: PowerRequest) {}
}

/// Do the accesses; the function is as new after a reset.
pub fn drive(data: &[u8]) {
    let ram = memory().lock().unwrap();
    let (device, services) = Rng::create();
    let vector = |gsi| MsixVector { irq: EventFd::new(EFD_NONBLOCK).unwrap(), gsi };
    let irqs = (24..).take(vectors(&*device)).map(vector).collect();
    let host = Arc::new(Host::default());
    let notices = Notices::new(Arc::new(|_: &str| {}));
    let ends = (irqs, host.clone() as Arc<dyn MsiRouting>);
    let base = PCI_WINDOW as u32;
    let on_start: ThreadStart = Arc::new(|_| Ok(()));
    let function = PciTransport::new(device, services, ram.clone(), base, ends, notices, &on_start);
    let function = function.unwrap();
    let root = PciRoot::new([(0, function.clone() as _)]).unwrap();
    let ports = ConfigPorts::new(root.clone(), ResetControl(Arc::new(NoPower)));
    let mut memory = Bus::default();
    memory.insert(PCI_ECAM, PCI_ECAM_LEN, Arc::new(Ecam(root.clone()))).unwrap();
    let window = PCI_WINDOW_END - PCI_WINDOW;
    memory.insert(PCI_WINDOW, window, Arc::new(PciMemory(root))).unwrap();
    for access in data.chunks_exact(ACCESS) {
        let offset = u64::from(u16::from_le_bytes([access[2], access[3]]));
        let (len, write) = (1 << (access[1] & 3), access[1] & 0x80 != 0);
        let mut value: [u8; 8] = access[4..].try_into().unwrap();
        let address = match access[0] & 3 {
            0 => {
                match write {
                    true => ports.write(offset & 7, &value[..len]),
                    false => ports.read(offset & 7, &mut value[..len]),
                }
                continue;
            }
            1 => PCI_ECAM + (1 << 15) + (offset & 0xfff),
            2 => PCI_ECAM + offset,
            _ => PCI_WINDOW + offset,
        };
        match write {
            true => memory.write(address, &value[..len]),
            false => memory.read(address, &mut value[..len]),
        }
    }
    function.reset();
    assert!(host.0.lock().unwrap().is_empty(), "a doorbell is left");
    let mut id = [0; 4];
    memory.read(PCI_ECAM + (1 << 15), &mut id);
    assert_eq!(id, 0x1044_1af4_u32.to_le_bytes());
    let mut command = [0; 4];
    memory.read(PCI_ECAM + (1 << 15) + 4, &mut command);
    assert_eq!(command[..2], [0, 0]);
    assert!(function.shutdown(std::time::Instant::now() + std::time::Duration::from_secs(30)));
}

/// Those of its corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
