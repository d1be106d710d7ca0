//! Garbage in queue addresses, indices and descriptors (Virtio 1.2, 2.7).

use crate::Target;
use crate::rt::blk::Blk;
use crate::rt::rng::Rng;
use crate::rt::virtio::{Descriptor, Device, INDIRECT, NEXT, Part, WRITE, reg, status};

/// Addresses where no queue can be, and one that is RAM but misaligned.
const BAD: [u64; 8] = [
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_fff0,
    1 << 40,
    0xd000_0000,
    0xfee0_0000,
    0xffff_f000,
    0x20_0001,
    0x8000_0000_0000_0000,
];

/// All of them.
pub fn attack(target: &mut Target) {
    addresses(target);
    sizes(target);
    indices(target);
    chains(target);
    indirect(target);
    giants(target);
}

/// Each of the three addresses of a queue wrong.
fn addresses(target: &mut Target) {
    for which in 0..3 {
        for bad in BAD {
            let mut blk = target.fresh();
            let mut addresses = blk.queues[0].addresses();
            addresses[which] = bad;
            let device = target.device;
            device.begin(0);
            device.set_queue(0, 128, addresses);
            device.driver_ok();
            blk.submit(0, 0, 0, &[]);
            device.write(reg::QUEUE_NOTIFY, 0);
            target.settle();
            target.prove("a queue address");
        }
    }
}

/// Sizes that are no power of two, too large, or zero.
fn sizes(target: &mut Target) {
    for size in [0, 3, 255, 257, 0x8000, 0x1_0000, u32::MAX] {
        let mut blk = target.fresh();
        let addresses = blk.queues[0].addresses();
        let device = target.device;
        device.begin(0);
        device.set_queue(0, size, addresses);
        device.driver_ok();
        blk.submit(0, 0, 0, &[]);
        device.write(reg::QUEUE_NOTIFY, 0);
        target.settle();
        target.prove("a queue size");
    }
}

/// The driver area's index jumps, and heads that are none.
fn indices(target: &mut Target) {
    for index in [257, 0x7fff, 0xffff] {
        let mut blk = target.fresh();
        blk.queues[0].set_avail_idx(index);
        notify(target, &mut blk);
        target.prove("an index");
    }
    for head in [256, 0x8000, 0xffff] {
        let mut blk = target.fresh();
        blk.queues[0].offer(head);
        notify(target, &mut blk);
        target.prove("a head");
    }
    // The same head many times, all at once.
    let mut blk = target.fresh();
    let mut sectors = [0; 1024];
    let head = blk.submit(0, 0, 0, &[Part::output(&mut sectors)]);
    (0..200).for_each(|_| blk.queues[0].offer(head));
    notify(target, &mut blk);
    target.prove("one head many times");
}

fn notify(target: &mut Target, blk: &mut Blk) {
    blk.queues[0].notify();
    target.settle();
}

/// Write these descriptors, offer the first, and see.
fn try_chain(target: &mut Target, descriptors: &[Descriptor]) {
    let mut blk = target.fresh();
    for (n, descriptor) in descriptors.iter().enumerate() {
        blk.queues[0].set_descriptor(n as u16, *descriptor);
    }
    blk.queues[0].offer(0);
    notify(target, &mut blk);
    target.prove("a chain");
}

/// A descriptor.
fn d(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { addr, len, flags, next }
}

/// RAM that a chain may name: 16 bytes that are a read of sector 0, and room behind.
fn scratch() -> u64 {
    crate::rt::memory::pages(4).as_ptr() as u64
}

/// Loops, ends outside the table, buffers outside RAM, and chains without header or status.
fn chains(target: &mut Target) {
    let ram = scratch();
    try_chain(target, &[d(ram, 16, NEXT, 0)]);
    try_chain(target, &[d(ram, 16, NEXT, 1), d(ram + 512, 512, NEXT | WRITE, 0)]);
    try_chain(target, &[d(ram, 16, NEXT, 1), d(ram + 512, 512, NEXT | WRITE, 1)]);
    try_chain(target, &[d(ram, 16, NEXT, 256)]);
    try_chain(target, &[d(ram, 16, NEXT, 0xffff)]);
    for bad in BAD {
        for len in [0, 1, 512, u32::MAX] {
            let read =
                [d(ram, 16, NEXT, 1), d(bad, len, NEXT | WRITE, 2), d(ram + 4096, 1, WRITE, 0)];
            try_chain(target, &read);
        }
        try_chain(target, &[d(bad, 16, NEXT, 1), d(ram, 1, WRITE, 0)]);
        try_chain(target, &[d(ram, 16, NEXT, 1), d(bad, 1, WRITE, 0)]);
    }
    try_chain(target, &[d(ram, 8, NEXT, 1), d(ram, 1, WRITE, 0)]);
    try_chain(target, &[d(ram, 16, WRITE, 0)]);
    try_chain(target, &[d(ram, 16, 0, 0)]);
    try_chain(target, &[d(ram, 0, 0, 0)]);
    try_chain(target, &[d(ram, 16, NEXT, 1), d(ram, 0, WRITE, 0)]);
    // The device may not read after it has begun to write (2.7.4.2).
    let order =
        [d(ram + 4096, 512, NEXT | WRITE, 1), d(ram, 16, NEXT, 2), d(ram + 8192, 1, WRITE, 0)];
    try_chain(target, &order);
    try_chain(target, &[d(ram, 16, 0xfff8 | NEXT, 1), d(ram + 4096, 1, 0xfff8 | WRITE, 0)]);
}

/// Indirect tables without the feature, looping, nested, of odd, no and endless length.
fn indirect(target: &mut Target) {
    for features in [0, crate::rt::virtio::feature::INDIRECT_DESC] {
        for (len, flags) in [
            (16, INDIRECT),
            (32, INDIRECT),
            (0, INDIRECT),
            (17, INDIRECT),
            (u32::MAX, INDIRECT),
            (0xffff_fff0, INDIRECT),
            (32, INDIRECT | NEXT),
            (32, INDIRECT | WRITE),
        ] {
            let ram = scratch();
            let mut blk = Blk::start(target.device, features, 1, 256);
            // A table of one entry that leads to itself, and of one that is itself indirect.
            for entry in [d(ram + 4096, 16, NEXT, 0), d(ram, 32, INDIRECT, 0), d(ram, 16, NEXT, 9)]
            {
                crate::rt::cpu::store(ram, entry);
                crate::rt::cpu::store(ram + 16, d(ram + 8192, 512, NEXT | WRITE, 1));
                blk.queues[0].set_descriptor(0, d(ram, len, flags, 0));
                blk.queues[0].offer(0);
            }
            notify(target, &mut blk);
            target.prove("an indirect table");
        }
    }
    let bad = BAD.map(|address| [d(address, 32, INDIRECT, 0)]);
    bad.iter().for_each(|chain| try_chain(target, chain));
}

/// Chains of 4 GiB and more, all in RAM or not.
fn giants(target: &mut Target) {
    let ram = scratch();
    for len in [0x20_0000, 0x100_0000, u32::MAX] {
        let mut blk = target.fresh();
        let queue = &mut blk.queues[0];
        queue.set_descriptor(0, d(ram, 16, NEXT, 1));
        for n in 1..255 {
            queue.set_descriptor(n, d(64 << 20, len, NEXT | WRITE, n + 1));
        }
        queue.set_descriptor(255, d(ram + 4096, 1, WRITE, 0));
        queue.offer(0);
        notify(target, &mut blk);
        target.prove("a chain of gigabytes");
    }
}

/// The same to the entropy device: nothing, gigabytes, device-readable buffers, loops.
pub fn attack_rng(device: Device) {
    let ram = scratch();
    for chain in [
        [d(ram, 0, WRITE, 0), d(0, 0, 0, 0)],
        [d(ram, 64, 0, 0), d(0, 0, 0, 0)],
        [d(0xffff_ffff_ffff_fff0, u32::MAX, WRITE, 0), d(0, 0, 0, 0)],
        [d(ram, 64, NEXT | WRITE, 1), d(ram, 64, NEXT | WRITE, 0)],
        [d(ram, 64, NEXT | WRITE, 1), d(1 << 40, 64, WRITE, 0)],
    ] {
        let features = device.begin(0);
        let mut queue = device.queue(0, 8, features);
        device.driver_ok();
        chain.iter().enumerate().for_each(|(n, entry)| queue.set_descriptor(n as u16, *entry));
        queue.offer(0);
        device.write(reg::QUEUE_NOTIFY, 0);
        let _ = (0..100).any(|_| device.read(reg::STATUS) & status::NEEDS_RESET != 0);
        let mut bytes = [0; 32];
        Rng::start(device).fill(&mut bytes);
        assert!(bytes != [0; 32], "the entropy device gives zeros");
    }
}
