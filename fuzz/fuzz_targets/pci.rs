//! A virtio-pci function under a hostile guest.
#![no_main]

#[path = "../drive/pci.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::drive(data));
