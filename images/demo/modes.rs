//! Other things to do than the demonstration, for tests: `demo.mode=NAME`.

use crate::identity::Identity;
use crate::rt::blk::{Blk, OUT, SECTOR, T_FLUSH};
use crate::rt::cpu::{self, COM1, Serial, out8};
use crate::rt::machine::Machine;
use crate::rt::memory;
use crate::rt::random::Random;
use crate::rt::sha256::Sha256;
use crate::rt::virtio::Part;
use crate::{endure, keep, net, say, stress, who, worst};
use alloc::vec;

/// Bytes of memory that [`poll`] leaves for lines.
const SPARE: usize = 2 << 20;

/// Do what `mode` names.
pub fn run(mode: &str, machine: &Machine) -> ! {
    match mode {
        "panic" => panic!("as asked"),
        "hang" => hang(),
        "halt" => cpu::stop(),
        "triple-fault" => cpu::triple_fault(),
        "reset" | "reset-cf9" | "reset-i8042" => reset(mode, machine),
        "poweroff-on-button" => power_button(machine),
        "echo" => echo(machine),
        "memory" => memory(machine),
        "endure" => endure::run(machine),
        "stress" => stress::run(machine),
        "write-until-killed" => write_until_killed(machine),
        "fill" => fill(machine),
        "worst" => worst::run(machine),
        "poll" => poll(machine),
        "net" => net::serve(machine),
        _ => panic!("no mode {mode}"),
    }
}

/// Never exit and never halt.
fn hang() -> ! {
    say!("hang: spinning");
    loop {
        core::hint::spin_loop();
    }
}

/// Reset at the first boot, power off at the next. The volume remembers.
fn reset(mode: &str, machine: &Machine) -> ! {
    let mut identity = who(machine);
    let mut root = machine.root();
    identity.boots = last_identity(&mut root).map_or(0, |last| last.boots) + 1;
    keep(&mut root, &identity);
    say!("reset: boot {}", identity.boots);
    if identity.boots > 1 {
        machine.acpi.power_off();
    }
    match mode {
        "reset-cf9" => out8(0xcf9, 0x06), // RST_CPU | SYS_RST (Intel ICH data sheet, 13.7.5)
        "reset-i8042" => out8(0x64, 0xfe), // pulse output bit 0
        _ => machine.acpi.reset(),
    }
    cpu::stop()
}

/// What the last boot left in the volume.
fn last_identity(root: &mut Blk) -> Option<Identity> {
    let mut sector = [0; SECTOR];
    let last = root.sectors - 1;
    root.read(last, &mut sector);
    Identity::parse(&sector)
}

/// Halt until the power button is pressed.
fn power_button(machine: &Machine) -> ! {
    let gsi = machine.acpi.ged_gsi.expect("a Generic Event Device");
    cpu::enable_irq(machine.acpi.ioapic, gsi);
    say!("button: waiting for GSI {gsi}");
    loop {
        let seen = cpu::irq_count(gsi);
        if machine.acpi.power_button() {
            say!("button: pressed");
            machine.acpi.power_off();
        }
        cpu::wait_irq(gsi, seen);
    }
}

/// Send everything back that comes in over the serial line, driven by its interrupt, until EOT
/// (^D), then say what it was.
fn echo(machine: &Machine) -> ! {
    /// COM1's interrupt.
    const GSI: u32 = 4;
    const EOT: u8 = 4;
    cpu::enable_irq(machine.acpi.ioapic, GSI);
    out8(COM1 + 2, 0xc7); // FCR: FIFOs on and empty, threshold 14
    out8(COM1 + 4, 0x0b); // MCR: DTR, RTS, OUT2 (interrupts on)
    out8(COM1 + 1, 0x01); // IER: received data available
    say!("echo: ready");
    let (mut digest, mut count, mut buffer) = (Sha256::new(), 0, [0; 256]);
    loop {
        let seen = cpu::irq_count(GSI);
        let input = Serial::get(&mut buffer);
        let end = input.iter().position(|&byte| byte == EOT);
        let bytes = &input[..end.unwrap_or(input.len())];
        digest.update(bytes);
        count += bytes.len();
        Serial::put(bytes);
        if end.is_some() {
            say!("\necho: {count} bytes, sha256 {}", digest.hex());
            machine.acpi.power_off();
        }
        if input.is_empty() {
            cpu::wait_irq(GSI, seen);
        }
    }
}

/// Write a word of its own into each 32 MiB and at the end of every range of RAM, then look.
fn memory(machine: &Machine) -> ! {
    const STEP: u64 = 32 << 20;
    let above = |&&(start, len): &&(u64, u64)| start >= 1 << 20 && len >= STEP;
    let places = || {
        machine.boot.ram.iter().filter(above).flat_map(|&(start, len)| {
            let first = start.max(64 << 20).min(start + len - 8);
            (first..start + len - 7).step_by(STEP as usize).chain([start + len - 8])
        })
    };
    for gib in 4..512 {
        let gib = gib << 30;
        if machine.boot.ram.iter().any(|&(start, len)| start < gib + (1 << 30) && start + len > gib)
        {
            cpu::map_high_gib(gib);
        }
    }
    places().for_each(|at| cpu::poke(at, at ^ 0x5a5a));
    let count = places().inspect(|&at| assert_eq!(cpu::peek(at), at ^ 0x5a5a, "{at:#x}")).count();
    say!("memory: {} MiB, {count} words are where they were put", machine.boot.memory() >> 20);
    machine.acpi.power_off()
}

/// Write ever new sectors, each with its number in it, and say after every flush how many are safe.
fn write_until_killed(machine: &Machine) -> ! {
    let mut root = machine.root();
    let mut sector = [0u8; SECTOR];
    for n in 1u64.. {
        let at = n % (root.sectors - 1);
        for word in sector.chunks_exact_mut(8) {
            word.copy_from_slice(&n.to_le_bytes());
        }
        root.write_through(at, &sector);
        say!("safe: {n} at {at}");
    }
    cpu::stop()
}

/// Write the whole volume, each 64 KiB with their number in them. Where the host has no room, look
/// whether all that was written is still there, and try again until it has.
fn fill(machine: &Machine) -> ! {
    const BLOCK: usize = 64 << 10;
    let mut root = machine.root();
    let (mut block, mut tries) = (alloc::vec![0u8; BLOCK], 0);
    let sector = |n: u64| n * (BLOCK / SECTOR) as u64;
    let count = root.sectors / (BLOCK / SECTOR) as u64;
    let pattern = |block: &mut [u8], n: u64| {
        block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&(n + 1).to_le_bytes()));
    };
    let look = |root: &mut Blk, block: &mut [u8], upto: u64| {
        for n in 0..upto {
            root.read(sector(n), block);
            let whole = block.chunks_exact(8).all(|word| word == (n + 1).to_le_bytes());
            assert!(whole, "block {n} is not what was written");
        }
    };
    for n in 0..count {
        pattern(&mut block, n);
        while root.request(OUT, sector(n), &[Part::input(&block)]) != 0
            || root.request(T_FLUSH, 0, &[]) != 0
        {
            if tries == 0 {
                look(&mut root, &mut block, n);
                say!("fill: no room for block {n}, those before are whole");
                pattern(&mut block, n);
            }
            tries += 1;
        }
    }
    look(&mut root, &mut block, count);
    say!("fill: {count} blocks are whole, {}", if tries > 0 { "in the end" } else { "at once" });
    machine.acpi.power_off()
}

/// Write a word into each `demo.step` bytes of memory, or everywhere; then do nothing but look for
/// events, so that whoever lets the machine go on sees its first instruction by its first access.
fn poll(machine: &Machine) -> ! {
    let step = machine.boot.option("demo.step").map_or(8, |step| step.parse().expect("bytes"));
    let mut random = Random(0x5eed);
    let mut words = vec![0u64; (memory::left() - SPARE) / 8];
    words.iter_mut().step_by(step / 8).for_each(|word| *word = random.next());
    say!("poll: {} MiB, a word in each {step} bytes", words.len() * 8 >> 20);
    loop {
        if machine.acpi.power_button() {
            machine.acpi.power_off();
        }
    }
}
