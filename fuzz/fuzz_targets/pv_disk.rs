//! A root volume that a guest wrote.
#![no_main]

#[path = "../drive/pv_disk.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::drive(data));
