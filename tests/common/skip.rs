//! Tests that can't run here: they say so by name and return, which `scripts/test` tells from a
//! pass.
#![allow(dead_code)] // each test binary that shares this uses its part

use std::fmt::Display;

/// Say that the test that this thread runs is skipped, and why. With CI=true what tests need has to
/// be there.
#[track_caller]
pub fn skip(why: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    skip_anywhere(why);
}

/// As [`skip`], for what a host of CI's may lack too.
pub fn skip_anywhere(why: impl Display) {
    let thread = std::thread::current();
    eprintln!("skipped: {}: {why}", thread.name().unwrap_or("a test"));
}

/// Whether this machine can run a virtual machine at all; says so if not.
#[track_caller]
pub fn has_kvm() -> bool {
    let open = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    open.map_err(|e| skip(format!("/dev/kvm: {e}"))).is_ok()
}

/// Whether these tests run as root; says so if not.
#[track_caller]
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}
