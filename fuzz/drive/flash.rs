//! The flash memory of UEFI's variables under a guest that writes what the bytes say.

use sporevm::chipset::bus::BusDevice;
use sporevm::chipset::flash::{BLOCK, Flash};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes of it.
const LEN: u64 = 2 * BLOCK;
/// Bytes of an access: offset (two), what is done, value.
const ACCESS: usize = 4;

/// Do the accesses. Whatever was begun, after a reset the guest reads what the file has.
pub fn drive(data: &[u8]) {
    // Its memory is never given back.
    static SHARED: OnceLock<Mutex<(File, Flash)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let file = super::file(&[0x5a; LEN as usize]);
        let flash = Flash::open(file.try_clone().unwrap()).unwrap();
        Mutex::new((file, flash))
    });
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let (file, flash) = &*shared;
    for access in data.chunks_exact(ACCESS) {
        let at = u64::from(u16::from_le_bytes([access[0], access[1]])) % LEN;
        match access[2] % 8 {
            0 => flash.restore(flash.save()),
            1 => flash.write(at & !3, &[access[3]; 4]),
            2 => flash.read(at, &mut [0; 2]),
            _ => flash.write(at, &[access[3]]),
        }
    }
    flash.reset();
    let mut kept = vec![0; LEN as usize];
    file.read_exact_at(&mut kept, 0).unwrap();
    let mut read = vec![0; LEN as usize];
    flash.read(0, &mut read);
    assert!(kept == read);
}

/// A byte is programmed, a block erased, and the status asked for.
pub fn seeds() -> Vec<Vec<u8>> {
    let write = |at: u16, value: u8| [at as u8, (at >> 8) as u8, 7, value];
    let program = [write(9, 0x50), write(9, 0x10), write(9, 0x42), write(9, 0x70), write(9, 0xff)];
    let erase = [write(4100, 0x20), write(4100, 0xd0), write(4200, 0x70), [0; 4], write(0, 0xff)];
    vec![program.concat(), erase.concat(), [program, erase].concat().concat()]
}
