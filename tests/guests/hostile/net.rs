//! Chains, headers and packets that no driver would give a network interface (Virtio 1.2, 5.1).

use crate::rt::machine::Machine;
use crate::rt::random::Random;
use crate::rt::virtio::{Descriptor, Device, NEXT, Part, WRITE, reg, status};
use alloc::vec;
use alloc::vec::Vec;

/// How often its queues are filled with something else.
const ROUNDS: u32 = 200;
/// Descriptors of a queue.
const SIZE: u16 = 8;

/// Attacks every interface; each sends a good frame in the end. How often one stopped.
pub fn attack(machine: &Machine) -> u32 {
    let mut stops = 0;
    for &device in &machine.nics {
        let mut random = Random(0x6e65_7431);
        let mut ram = vec![0u8; 1 << 17];
        for _ in 0..ROUNDS {
            for byte in ram.iter_mut().take(64) {
                *byte = if random.below(2) == 0 { random.next() as u8 } else { 0 };
            }
            stops += u32::from(round(device, &mut random, &ram));
        }
        good_frame(device);
    }
    stops
}

/// Garbage in all three queues, under features of its choice. Whether the device stopped.
fn round(device: Device, random: &mut Random, ram: &[u8]) -> bool {
    let features = device.begin(random.next());
    let mut queues = [0, 1, 2].map(|index| device.queue(index, SIZE, features));
    device.driver_ok();
    for (index, queue) in (0..).zip(&mut queues) {
        for n in 0..SIZE {
            let addr = match random.below(16) {
                0 => random.next(),
                _ => ram.as_ptr() as u64 + random.below(64) as u64,
            };
            let len = match random.below(8) {
                0 => random.next() as u32,
                1 => 12,
                2 => ram.len() as u32 - 64,
                _ => random.below(4096) as u32,
            };
            let likely = if index == 0 { WRITE } else { 0 };
            let flags = if random.below(8) == 0 { random.next() as u16 & 7 } else { likely };
            let next = if random.below(2) == 0 { NEXT } else { 0 };
            let descriptor = Descriptor { addr, len, flags: flags | next, next: (n + 1) % SIZE };
            queue.set_descriptor(n, descriptor);
        }
        (0..random.below(6)).for_each(|_| queue.offer(random.below(10) as u16));
        device.write(reg::QUEUE_NOTIFY, index);
    }
    (0..100).any(|_| device.read(reg::STATUS) & status::NEEDS_RESET != 0)
}

/// A frame to everybody, of a protocol that is nobody's (IEEE 802, 9.2.4: local experimental).
fn good_frame(device: Device) {
    let features = device.begin(0);
    let mut queue = device.queue(1, SIZE, features);
    device.driver_ok();
    let mut packet = vec![0u8; 12 + 60];
    packet[12..18].fill(0xff);
    packet[18..26].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    queue.push(&[Part::input(&packet)]);
    queue.notify();
    queue.wait();
}
