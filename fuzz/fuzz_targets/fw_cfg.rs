//! The firmware configuration device under a hostile guest.
#![no_main]

#[path = "../drive/fw_cfg.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::drive(data));
