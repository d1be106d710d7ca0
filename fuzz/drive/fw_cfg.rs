//! The firmware configuration device under a guest that does what the bytes say.

use sporevm::chipset::bus::BusDevice;
use sporevm::chipset::fw_cfg::FwCfg;
use sporevm::mem::layout::MIN_MEMORY;
use sporevm::mem::{GuestRam, ram};
use std::sync::{Mutex, OnceLock};
use vm_memory::{Bytes, GuestAddress};

/// Bytes of guest memory that the input begins with: DMA requests.
const MEMORY: usize = 64;
/// Bytes of an access: kind and offset, size, value.
const ACCESS: usize = 6;

/// RAM is never given back, so all runs share it.
fn memory() -> &'static Mutex<GuestRam> {
    static RAM: OnceLock<Mutex<GuestRam>> = OnceLock::new();
    RAM.get_or_init(|| Mutex::new(ram::create(MIN_MEMORY).unwrap()))
}

/// Put the first bytes at address 0 and do the accesses that follow. A read never takes more than
/// it was given.
pub fn drive(data: &[u8]) {
    let ram = memory().lock().unwrap();
    let (requests, accesses) = data.split_at(data.len().min(MEMORY));
    ram.write_slice(requests, GuestAddress(0)).unwrap();
    let items = vec![(0, b"QEMU".to_vec()), (0x19, vec![1; 5000]), (0x20, Vec::new())];
    let device = FwCfg::new(items, ram.clone());
    for access in accesses.chunks_exact(ACCESS) {
        let (offset, len) = (u64::from(access[0] & 0xf), 1 << (access[1] & 3));
        let mut value = [0; 8];
        value[..4].copy_from_slice(&access[2..]);
        if access[0] & 0x80 == 0 {
            device.read(offset, &mut value[..len]);
            assert!(value[len..].iter().zip(len..).all(|(byte, n)| n < 4 || *byte == 0));
        } else {
            device.write(offset, &value[..len]);
        }
    }
    // Whatever it was told, it answers firmware after a reset.
    device.reset();
    let mut first = [0];
    device.read(1, &mut first);
    assert_eq!(first, *b"Q");
}

/// Those of its corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
