//! A guest that does to its devices what no driver would, and proves after each attack that a reset
//! brings the device back: a normal read still returns what it returned at first.

#![no_std]
#![no_main]

extern crate alloc;

mod net;
mod registers;
mod requests;
mod rings;
#[path = "../../../images/demo/rt/mod.rs"]
mod rt;

use alloc::vec;
use alloc::vec::Vec;
use rt::blk::{Blk, SECTOR};
use rt::machine::Machine;
use rt::virtio::{Device, reg, status};

/// Sectors that are compared.
const SAMPLE: usize = 64;

/// The device under attack and what it must still be able to do afterwards.
pub struct Target {
    device: Device,
    sample: Vec<u8>,
    attacks: u32,
    stops: u32,
}

impl Target {
    fn new(device: Device) -> Self {
        let mut sample = vec![0; SAMPLE * SECTOR];
        Blk::plain(device).read(0, &mut sample);
        Self { device, sample, attacks: 0, stops: 0 }
    }

    /// The block device's driver, freshly set up.
    pub fn fresh(&self) -> Blk {
        Blk::plain(self.device)
    }

    /// Give the device time to look at what it was given: it stops, or has nothing to say.
    pub fn settle(&mut self) {
        let stopped = |_| self.device.read(reg::STATUS) & status::NEEDS_RESET != 0;
        if (0..100).any(stopped) {
            self.stops += 1;
        }
    }

    /// After an attack: reset the device and read what was read before.
    pub fn prove(&mut self, attack: &str) {
        self.attacks += 1;
        let mut again = vec![0; SAMPLE * SECTOR];
        Blk::plain(self.device).read(0, &mut again);
        assert!(again == self.sample, "after {attack} the device reads something else");
    }
}

/// Called by the entry stub with the address of boot_params.
#[unsafe(no_mangle)]
extern "C" fn guest_start(boot_params: u64) -> ! {
    let machine = Machine::start(boot_params);
    let mut target = Target::new(*machine.disks.first().expect("a virtio block device"));
    say!("hostile: begins");
    rings::attack(&mut target);
    say!("hostile: rings, {} attacks, {} stops", target.attacks, target.stops);
    requests::attack(&mut target);
    say!("hostile: requests, {} attacks, {} stops", target.attacks, target.stops);
    registers::attack(&mut target);
    say!("hostile: registers, {} attacks, {} stops", target.attacks, target.stops);
    rings::attack_rng(machine.rngs[0]);
    registers::attack_ports();
    registers::attack_unmapped();
    target.prove("everything");
    let stops = net::attack(&machine);
    say!("hostile: interfaces, {} stops", stops);
    say!("hostile: done, {} attacks, {} stops", target.attacks, target.stops);
    machine.acpi.power_off()
}
