//! `demo`: a guest without an operating system that does what one does first.
//!
//! It finds its devices in the ACPI tables, drives them with virtqueues and interrupts, reads its
//! root volume, keeps its identity in the volume's last sector and switches itself off. With a
//! network interface it asks for its address and its metadata as well. The command line can ask for
//! other things: `demo.mode=` names one of [`modes`].

#![no_std]
#![no_main]

extern crate alloc;

mod endure;
mod identity;
mod modes;
mod net;
mod rt;
mod stress;
mod worst;

use alloc::vec;
use alloc::vec::Vec;
use identity::Identity;
use rt::blk::{Blk, SECTOR};
use rt::boot::Smbios;
use rt::machine::Machine;
use rt::rng::Rng;
use rt::{cpu, memory, sha256};

/// Called by the entry stub with the address of boot_params.
#[unsafe(no_mangle)]
extern "C" fn guest_start(boot_params: u64) -> ! {
    let machine = Machine::start(boot_params);
    match machine.boot.option("demo.mode") {
        None => demo(&machine),
        Some(mode) => modes::run(mode, &machine),
    }
}

/// Who this is: from SMBIOS, and from the command line, which must agree.
pub fn who(machine: &Machine) -> Identity {
    let smbios = Smbios::read();
    let ask = |key| {
        let (table, line) = (smbios.as_ref().and_then(|s| s.option(key)), machine.boot.option(key));
        assert!(table.is_none() || line.is_none() || table == line, "{table:?} is not {line:?}");
        table.or(line).unwrap_or("unknown")
    };
    let identity = Identity::new(ask("spore.instance"), ask("spore.index"));
    say!("spore demo: {} launch index {}", identity.instance, identity.index);
    if let Some(system) = smbios {
        assert_eq!(system.serial, system.uuid, "the SMBIOS serial is not the UUID");
    }
    identity
}

/// What the image is for.
fn demo(machine: &Machine) -> ! {
    let mut identity = who(machine);
    let cpus = machine.start_cpus();
    let (disks, rngs) = (machine.disks.len(), machine.rngs.len());
    say!("machine: {cpus} cpus, {} MiB, {disks} disk, {rngs} rng", machine.boot.memory() >> 20);
    let mut root = machine.root();
    let content = read_root(&mut root);
    let (mine, rest) = content.split_at(content.len() - SECTOR);
    let (volume, gsi) = (root.volume(), root.device.gsi);
    say!("root: {volume}, {} sectors at {:#x}, GSI {gsi}", root.sectors, root.device.base);
    say!("root: sha256 {}", sha256::hex(mine));
    let last = Identity::parse(rest);
    identity.boots = last.as_ref().map_or(0, |last| last.boots) + 1;
    match last {
        None => say!("identity: first boot"),
        Some(last) => say!("identity: boot {} of {}", identity.boots, last.instance),
    }
    keep(&mut root, &identity);
    let mut noise = [0; 8];
    let mut rng = Rng::start(*machine.rngs.first().expect("a virtio entropy device"));
    rng.fill(&mut noise);
    say!("rng: {:016x}", u64::from_be_bytes(noise));
    net::join(machine, &identity, &mut rng);
    let irqs = cpu::irq_count(gsi) + cpu::irq_count(machine.rngs[0].gsi);
    say!("done: {irqs} interrupts, power off");
    machine.acpi.power_off()
}

/// The whole volume.
fn read_root(root: &mut Blk) -> Vec<u8> {
    let size = usize::try_from(root.sectors).expect("a small volume") * SECTOR;
    assert!(size > SECTOR && size < memory::left(), "a root volume of {size} bytes");
    let mut content = vec![0; size];
    root.read(0, &mut content);
    content
}

/// Write the identity to the volume's last sector, flush, and read it back.
pub fn keep(root: &mut Blk, identity: &Identity) {
    let sector = root.sectors - 1;
    root.write_through(sector, &identity.to_sector());
    let mut back = [0; SECTOR];
    root.read(sector, &mut back);
    assert_eq!(back, identity.to_sector(), "the identity reads back different");
    say!("identity: written, flushed, read back");
}
