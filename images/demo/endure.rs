//! Work that never ends, each step of which would notice if a byte of the machine were not as it
//! was: a count, a checksum over all memory that is left, disk I/O in flight, a periodic timer; the
//! other processors count. `demo.mode=endure`, until the power button is pressed.

use crate::rt::blk::{Blk, FLUSH, IN, MQ, OUT, SECTOR};
use crate::rt::cpu;
use crate::rt::machine::Machine;
use crate::rt::memory;
use crate::rt::random::Random;
use crate::rt::virtio::{Part, feature};
use crate::say;
use alloc::{vec, vec::Vec};

/// Bytes of memory that the checksum is not over: lines and buffers.
const SPARE: usize = 2 << 20;
/// Words that change between two looks at the disk.
const CHANGES: usize = 2000;
/// Requests in flight.
const DEPTH: usize = 8;
/// Sectors a request.
const COUNT: usize = 8;
/// Sectors that are written to.
const MOST: usize = 32 << 10;
/// Rounds between two lines, and between two sums over all of memory.
const ROUNDS: u64 = 32;
/// The timer's interrupt arrives as that of this GSI, which nothing else has.
const TIMER: u32 = 1;

/// Work until the power button is pressed.
pub fn run(machine: &Machine) -> ! {
    cpu::let_aps_count();
    let cpus = machine.start_cpus();
    cpu::periodic_timer(TIMER, 100);
    let mut random = Random(0x5eed);
    let wanted = FLUSH | MQ | feature::INDIRECT_DESC | feature::EVENT_IDX;
    // The last of its disks, which may be much larger than memory.
    let disk = *machine.disks.last().expect("a disk");
    let mut blk = Blk::start(disk, wanted, 1, 64);
    let mut copy = vec![0; (blk.sectors as usize).min(MOST) * SECTOR];
    blk.read(0, &mut copy);
    let mut buffers: Vec<Vec<u8>> = (0..DEPTH).map(|_| vec![0; COUNT * SECTOR]).collect();
    // Last: it takes all that is left.
    let mut memory = vec![0u64; (memory::left() - SPARE) / 8];
    let mut sum = 0u64;
    for word in &mut memory {
        *word = random.next();
        sum = sum.wrapping_add(*word);
    }
    say!("endure: begins with {cpus} cpus");
    say!("generation: {:016x}", machine.acpi.generation());
    for round in 0u64.. {
        let flying = submit(&mut blk, &mut random, &mut copy, &mut buffers);
        for _ in 0..CHANGES {
            let at = random.below(memory.len());
            let new = random.next();
            sum = sum.wrapping_sub(memory[at]).wrapping_add(new);
            memory[at] = new;
        }
        finish(&mut blk, &flying, &copy, &buffers);
        if round % ROUNDS == 0 {
            let whole = memory.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
            assert_eq!(whole, sum, "memory is not what was written");
            let others: Vec<u64> =
                (1..cpus).map(|n| cpu::ap_count(n - 1).expect("a processor lost count")).collect();
            say!("endure: {round} rounds, {} ticks, counts {others:?}", cpu::irq_count(TIMER));
        }
        let events = machine.acpi.events();
        if events & 2 != 0 {
            say!("generation: {:016x}", machine.acpi.generation());
        }
        if events & 1 != 0 {
            let before = cpu::irq_count(TIMER);
            cpu::wait_irq(TIMER, before);
            say!("endure: whole after {round} rounds");
            machine.acpi.power_off()
        }
    }
    cpu::stop()
}

/// A request in flight: its head, its type, its first sector.
type Flying = (u16, u32, usize);

/// Begin reads and writes of places that do not overlap.
fn submit(
    blk: &mut Blk,
    random: &mut Random,
    copy: &mut [u8],
    buffers: &mut [Vec<u8>],
) -> Vec<Flying> {
    let places = (copy.len() / SECTOR - 1) / COUNT / DEPTH;
    let mut flying = Vec::with_capacity(DEPTH);
    for (n, buffer) in buffers.iter_mut().enumerate() {
        let sector = (n * places + random.below(places)) * COUNT;
        let kind = if random.below(2) == 0 { IN } else { OUT };
        let part = if kind == OUT {
            let word = random.next().to_le_bytes();
            buffer.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&word));
            copy[sector * SECTOR..][..COUNT * SECTOR].copy_from_slice(buffer);
            Part::input(buffer)
        } else {
            Part::output(buffer)
        };
        flying.push((blk.submit(0, kind, sector as u64, &[part]), kind, sector));
    }
    blk.queues[0].notify();
    flying
}

/// Wait for all of them, and compare what was read.
fn finish(blk: &mut Blk, flying: &[Flying], copy: &[u8], buffers: &[Vec<u8>]) {
    for _ in flying {
        let (head, _) = blk.queues[0].wait();
        let n = flying.iter().position(|f| f.0 == head).expect("a request of ours");
        let (_, kind, sector) = flying[n];
        assert_eq!(blk.status(0, head), 0, "request {kind} at {sector}");
        let expected = &copy[sector * SECTOR..][..COUNT * SECTOR];
        assert!(kind == OUT || buffers[n] == expected, "sector {sector} is not what was written");
    }
}
