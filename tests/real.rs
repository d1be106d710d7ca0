//! Debian's stock kernel and userland on a KVM that can run them: hardware, or the box.
//!
//! Ignored by a plain `cargo test`; `scripts/test` prepares the images and runs them, one at a time.

mod linux;
#[path = "linux/scenarios.rs"]
mod scenarios;

use linux::Lab;

fn stock() -> Lab {
    Lab::new("vmlinuz", Some("initrd.img"), &[])
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn three_clones() {
    scenarios::clones_differ_only_where_they_should(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn kill_9() {
    scenarios::fsynced_bytes_survive_kill_9(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn fio() {
    scenarios::fio_verifies(&stock(), 24);
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn reboot() {
    scenarios::reboots_inside(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn life() {
    scenarios::life_of_one_instance(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn memory_above_4_gib() {
    scenarios::five_gib(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn panic() {
    scenarios::guest_failures_are_told(&stock());
}
