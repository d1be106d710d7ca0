//! The registers of a virtio-mmio device under a guest that does what the bytes say.

use sporevm::chipset::bus::BusDevice;
use sporevm::virtio::Notices;
use sporevm::virtio::rng::Rng;
use sporevm::virtio::transport::Transport;
use sporevm::virtio::transport::mmio::MmioTransport;
use sporevm::virtio::device::ThreadStart;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes of an access: offset (two), size and direction, value (four).
const ACCESS: usize = 7;

/// Do the accesses; the device is as new after a reset.
pub fn drive(data: &[u8]) {
    let ram = super::shared_ram();
    let (device, services) = Rng::create();
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let on_start: ThreadStart = Arc::new(|_| Ok(()));
    let notices = Notices::new(Arc::new(|_: &str| {}));
    let mmio = MmioTransport::new(device, services, ram.clone(), irq, notices, &on_start).unwrap();
    for access in data.chunks_exact(ACCESS) {
        let offset = u64::from(u16::from_le_bytes([access[0], access[1]]) & 0xfff);
        let len = 1 << (access[2] & 3);
        let mut value = [0; 8];
        value[..4].copy_from_slice(&access[3..]);
        match access[2] & 0x80 != 0 {
            true => mmio.write(offset, &value[..len]),
            false => mmio.read(offset, &mut value[..len]),
        }
    }
    mmio.reset();
    let mut word = [0; 4];
    mmio.read(0, &mut word);
    assert_eq!(word, *b"virt");
    mmio.read(0x70, &mut word);
    assert_eq!(word, [0; 4], "status after a reset");
    let patience = std::time::Duration::from_secs(30);
    assert!(mmio.shutdown(std::time::Instant::now() + patience));
}

/// What a driver does: status, features, a queue, a notification. (VIRTIO 1.2, 3.1.1 and 4.2.2)
pub fn seeds() -> Vec<Vec<u8>> {
    let write = |offset: u16, value: u32| {
        [&offset.to_le_bytes()[..], &[0x82], &value.to_le_bytes()].concat()
    };
    let read = |offset: u16| [&offset.to_le_bytes()[..], &[2, 0, 0, 0, 0]].concat();
    let begin = [read(0), read(4), read(8), write(0x70, 0), write(0x70, 1), write(0x70, 3)].concat();
    let features = [write(0x24, 1), write(0x20, 1), write(0x14, 0), read(0x10), write(0x70, 11), read(0x70)].concat();
    let queue = [write(0x30, 0), read(0x34), write(0x38, 8), write(0x80, 0x10_0000), write(0x90, 0x10_0100), write(0xa0, 0x10_0200)];
    let ready = [write(0x44, 1), read(0x44), write(0x70, 15), write(0x50, 0), read(0x60), write(0x64, 3)].concat();
    let whole = [begin.clone(), features, queue.concat(), ready].concat();
    vec![whole.clone(), begin, [whole.clone(), whole].concat()]
}
