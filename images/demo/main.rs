//! `demo`: a guest without an operating system that does what one does first.
//!
//! It finds its devices in the ACPI tables, drives them with virtqueues and interrupts, reads its
//! root volume, keeps its identity in the volume's last sector and switches itself off. The command
//! line can ask for other things: `demo.mode=` names one of [`modes`].

#![no_std]
#![no_main]

extern crate alloc;

mod identity;
mod modes;
mod rt;
mod stress;

use alloc::vec;
use alloc::vec::Vec;
use identity::Identity;
use rt::acpi::Acpi;
use rt::blk::{self, Blk, SECTOR};
use rt::boot::{Boot, Smbios};
use rt::rng::{self, Rng};
use rt::virtio::Device;
use rt::{cpu, memory, sha256};

/// A machine that has been looked at and is ready for work.
pub struct Machine {
    boot: Boot,
    acpi: Acpi,
    disks: Vec<Device>,
    rngs: Vec<Device>,
}

/// Called by the entry stub with the address of boot_params.
#[unsafe(no_mangle)]
extern "C" fn guest_start(boot_params: u64) -> ! {
    let boot = Boot::read(boot_params);
    cpu::init();
    let low = boot.ram.iter().find(|(start, len)| (*start..start + len).contains(&(1 << 20)));
    memory::extend(low.map_or(0, |(start, len)| start + len));
    let machine = look_around(boot);
    match machine.boot.option("demo.mode") {
        None => demo(&machine),
        Some(mode) => modes::run(mode, &machine),
    }
}

fn look_around(boot: Boot) -> Machine {
    let acpi = Acpi::read(&boot);
    let (mut disks, mut rngs) = (Vec::new(), Vec::new());
    for (device, id) in acpi.virtio.iter().filter_map(Device::probe) {
        cpu::enable_irq(acpi.ioapic, device.gsi);
        match id {
            blk::ID => disks.push(device),
            rng::ID => rngs.push(device),
            _ => {}
        }
    }
    Machine { boot, acpi, disks, rngs }
}

impl Machine {
    /// Who this is: from SMBIOS, and from the command line, which must agree.
    fn identity(&self) -> Identity {
        let smbios = Smbios::read();
        let ask = |key| {
            let (table, line) =
                (smbios.as_ref().and_then(|s| s.option(key)), self.boot.option(key));
            assert!(
                table.is_none() || line.is_none() || table == line,
                "{table:?} is not {line:?}"
            );
            table.or(line).unwrap_or("unknown")
        };
        let identity = Identity::new(ask("spore.instance"), ask("spore.index"));
        say!("spore demo: {} launch index {}", identity.instance, identity.index);
        if let Some(system) = smbios {
            assert_eq!(system.serial, system.uuid, "the SMBIOS serial is not the UUID");
        }
        identity
    }

    /// Bring every processor up, one after the other.
    fn start_cpus(&self) -> usize {
        let me = cpu::lapic_id();
        self.acpi.cpus.iter().filter(|&&id| id != me).for_each(|&id| cpu::start_ap(id));
        self.acpi.cpus.len()
    }

    /// The root device, ready for plain requests.
    fn root(&self) -> Blk {
        Blk::plain(*self.disks.first().expect("a virtio block device"))
    }
}

/// What the image is for.
fn demo(machine: &Machine) -> ! {
    let mut identity = machine.identity();
    let cpus = machine.start_cpus();
    let (disks, rngs) = (machine.disks.len(), machine.rngs.len());
    say!("machine: {cpus} cpus, {} MiB, {disks} disk, {rngs} rng", machine.boot.memory() >> 20);
    let mut root = machine.root();
    let content = read_root(&mut root);
    let (mine, rest) = content.split_at(content.len() - SECTOR);
    let (serial, gsi) = (root.serial(), root.device.gsi);
    say!("root: {serial}, {} sectors at {:#x}, GSI {gsi}", root.sectors, root.device.base);
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
