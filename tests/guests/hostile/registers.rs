//! Registers in wrong widths, orders and values; ports and memory that are nobody's.

use crate::Target;
use crate::rt::cpu::{self, load, store};
use crate::rt::random::Random;
use crate::rt::virtio::{Device, reg, status};

/// All of a virtio device's registers.
pub fn attack(target: &mut Target) {
    for seed in 1..4 {
        random_registers(target.device, seed);
        target.prove("random registers");
    }
    status_misuse(target);
    queue_misuse(target);
}

/// Load or store `1 << width` bytes.
fn access(address: u64, width: u64, value: Option<u64>) {
    match (width, value) {
        (0, Some(value)) => store(address, value as u8),
        (1, Some(value)) => store(address, value as u16),
        (2, Some(value)) => store(address, value as u32),
        (_, Some(value)) => store(address, value),
        (0, None) => _ = load::<u8>(address),
        (1, None) => _ = load::<u16>(address),
        (2, None) => _ = load::<u32>(address),
        (_, None) => _ = load::<u64>(address),
    }
}

/// Every offset of the window, reserved ones too, in all widths; then random ones.
fn random_registers(device: Device, seed: u64) {
    let mut random = Random(seed << 20);
    for offset in (0..0x130).step_by(2).chain([0xfff, 0xffd, 0xff8, 0x800]) {
        for width in 0..4 {
            if offset + (1 << width) <= 0x1000 {
                access(device.base + offset, width, None);
                let value = random.next();
                access(device.base + offset, width, Some(value));
            }
        }
    }
    for _ in 0..500 {
        let offset = random.next() % 0x120;
        let value = random.next() >> (random.next() % 64);
        access(device.base + offset, 2, Some(value));
    }
}

/// Status bits out of order, taken back, and unknown ones.
fn status_misuse(target: &mut Target) {
    let device = target.device;
    for steps in [
        &[status::DRIVER_OK][..],
        &[status::FEATURES_OK],
        &[1, 3, 7],
        &[1, 3, 11, 3, 1],
        &[1, 3, 11, 15, 11, 15],
        &[0xffff_ffff],
        &[0xf0],
        &[1, 3, 11, 15, 0x8f],
        &[status::NEEDS_RESET],
    ] {
        device.reset();
        for step in steps {
            device.write(reg::STATUS, *step);
            device.write(reg::QUEUE_NOTIFY, 0);
        }
        target.settle();
        target.prove("a status");
    }
    // Features that were not offered must not become agreed (2.2.1).
    device.reset();
    device.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
    for half in 0..4 {
        device.write(reg::DRIVER_FEATURES_SEL, half);
        device.write(reg::DRIVER_FEATURES, u32::MAX);
    }
    device.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    assert_eq!(device.read(reg::STATUS) & status::FEATURES_OK, 0, "all features were agreed");
    target.prove("features");
}

/// Queues that do not exist, or change while they work.
fn queue_misuse(target: &mut Target) {
    let device = target.device;
    let blk = target.fresh();
    let addresses = blk.queues[0].addresses();
    for index in [1, 64, 255, 0x1_0000, u32::MAX] {
        device.write(reg::QUEUE_NOTIFY, index);
        device.set_queue(index, 8, addresses);
        device.write(reg::QUEUE_NOTIFY, index);
    }
    target.settle();
    target.prove("a queue that does not exist");
    let mut blk = target.fresh();
    for ready in [0, 1, 0, 1, 2, u32::MAX] {
        blk.submit(0, 0, 0, &[]);
        device.write(reg::QUEUE_SEL, 0);
        device.write(reg::QUEUE_READY, ready);
        device.set_queue(0, 16, addresses.map(|address| address + 4096));
        device.write(reg::QUEUE_NOTIFY, 0);
    }
    target.settle();
    target.prove("a queue that changes");
}

/// What would end the machine or garble the console: sleep and reset registers, pvpanic, 0xcf9, the
/// keyboard controller's reset, and COM1's data and control.
fn is_power(port: u16) -> bool {
    matches!(port, 0x3f8..=0x3ff | 0x505 | 0x600..=0x604 | 0xcf9 | 0x64 | 0x92)
}

/// All ports of a PC's chipset, in all widths.
pub fn attack_ports() {
    let mut random = Random(0x9e37_79b9);
    let ranges: [core::ops::Range<u16>; 6] =
        [0..0x100, 0x2f8..0x300, 0x3e0..0x400, 0x500..0x620, 0xcf0..0xd00, 0xfff0..0xfffc];
    for port in ranges.into_iter().flatten() {
        let value = random.next();
        let touches = |width: u16| (0..width).any(|n| port.checked_add(n).is_none_or(is_power));
        cpu::in8(port);
        cpu::in16(port);
        cpu::in32(port);
        if !touches(1) {
            cpu::out8(port, value as u8);
        }
        if !touches(2) {
            cpu::out16(port, value as u16);
        }
        if !touches(4) {
            cpu::out32(port, value as u32);
        }
    }
    // The serial line's control registers; afterwards it must print.
    for register in [1, 2, 3, 4, 7] {
        for _ in 0..8 {
            cpu::out8(cpu::COM1 + register, random.next() as u8);
        }
    }
    for (register, value) in [(3, 0x03), (1, 0), (2, 0x07), (4, 0x03)] {
        cpu::out8(cpu::COM1 + register, value);
    }
}

/// Memory between the devices and above all RAM, in all widths.
pub fn attack_unmapped() {
    let mut random = Random(0x1234_5678);
    cpu::map_high_gib(8 << 30);
    for base in
        [0xc000_0000, 0xd000_2000, 0xd001_2000, 0xd001_3000, 0xe000_0000, 0xfed0_0000, 8 << 30]
    {
        for _ in 0..16 {
            let address = base + random.next() % 0xff8;
            access(address, random.next() % 4, None);
            let value = random.next();
            access(address, random.next() % 4, Some(value));
        }
    }
}
