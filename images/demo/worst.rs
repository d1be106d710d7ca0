//! A guest that does its worst, for ever, in one way: `demo.mode=worst demo.worst=NAME`.

use crate::rt::blk::*;
use crate::rt::cpu::{self, Serial};
use crate::rt::machine::Machine;
use crate::rt::memory;
use crate::rt::virtio::{Part, feature, reg};
use crate::say;
use alloc::vec;

/// The device writes it. (Virtio 1.2, 2.7.5: VIRTQ_DESC_F_WRITE)
const WRITE: u16 = 2;
/// Data parts of a request: an indirect table of ours less header and status.
const PARTS: usize = 14;
/// Bytes of a part: all of a request's are the same memory.
const PART: usize = 18 << 20;

/// Do what `demo.worst` names.
pub fn run(machine: &Machine) -> ! {
    let way = machine.boot.option("demo.worst").unwrap_or("batch");
    match way {
        "batch" => batch(machine),
        "doorbells" => {
            let blk = Blk::plain(machine.disks[0]);
            say!("worst: {way}");
            loop {
                blk.device.write(reg::QUEUE_NOTIFY, 0);
            }
        }
        "registers" => {
            say!("worst: {way}");
            loop {
                Blk::start(machine.disks[0], FLUSH, 1, 16);
            }
        }
        "console" => {
            say!("worst: {way}");
            loop {
                Serial::put(&[b'x'; 4096]);
            }
        }
        "resets" => {
            say!("worst: {way}");
            machine.acpi.reset();
            cpu::stop()
        }
        "entropy" => entropy(machine),
        _ => panic!("no way {way}"),
    }
}

/// As many requests as there is room for, each as large as can be, all told of at once.
fn batch(machine: &Machine) -> ! {
    let wanted = FLUSH | MQ | DISCARD | WRITE_ZEROES | feature::INDIRECT_DESC;
    let mut blk = Blk::start(machine.disks[0], wanted, 4, 256);
    // There is something to be brought to an end.
    blk.write_through(0, &[1; SECTOR]);
    let data = memory::pages(PART / 4096).as_ptr() as u64;
    let mut ranges = vec![0u8; 16 * 32];
    for range in ranges.chunks_exact_mut(16) {
        // 1 GiB from the second on.
        range[..8].copy_from_slice(&(1u64 << 21).to_le_bytes());
        range[8..12].copy_from_slice(&(1u32 << 21).to_le_bytes());
    }
    let parts = |flags| -> vec::Vec<Part> {
        (0..PARTS).map(|_| Part::raw(data, PART as u32, flags)).collect()
    };
    for queue in 0..blk.queues.len() {
        for n in 0..240 {
            match n % 8 {
                3 => blk.submit(queue, T_WRITE_ZEROES, 0, &[Part::input(&ranges)]),
                5 => blk.submit(queue, OUT, 2048, &[Part::raw(data, PART as u32, 0)]),
                7 => blk.submit(queue, T_DISCARD, 0, &[Part::input(&ranges)]),
                _ => blk.submit(queue, IN, 0, &parts(WRITE)),
            };
        }
    }
    say!("worst: batch");
    blk.queues.iter_mut().for_each(|queue| queue.notify());
    loop {
        core::hint::spin_loop();
    }
}

/// Ask for ever for all the randomness that a request may have.
fn entropy(machine: &Machine) -> ! {
    const ROOM: usize = 64 << 10;
    let device = machine.rngs[0];
    let features = device.begin(0);
    let mut queue = device.queue(0, 64, features);
    device.driver_ok();
    let room = memory::pages(ROOM / 4096).as_ptr() as u64;
    say!("worst: entropy");
    loop {
        while queue.room(1) {
            queue.push(&[Part::raw(room, ROOM as u32, WRITE)]);
        }
        queue.notify();
        queue.wait();
    }
}
