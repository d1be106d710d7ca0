//! The driver's side of virtio-mmio version 2, or of what virtio-pci has in its place, and of split
//! virtqueues (Virtio 1.2, 4.2 and 2.7).

use super::cpu::{irq_count, mmio_read, mmio_write, wait_irq};
use super::pci::Structures;
use super::{acpi::Resources, memory};
use alloc::{collections::VecDeque, vec::Vec};
use core::sync::atomic::{Ordering, fence};

/// Register offsets (Virtio 1.2, 4.2.2).
pub mod reg {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    pub const CONFIG: u64 = 0x100;
}

/// Device status bits (Virtio 1.2, 2.1).
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

/// Feature bits of the ring and the transport (Virtio 1.2, 6).
pub mod feature {
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}

/// A device's registers and interrupt.
#[derive(Clone, Copy)]
pub struct Device {
    /// Address of the registers.
    pub base: u64,
    /// Its interrupt.
    pub gsi: u32,
    /// Where its registers are if it is a PCI function.
    pub pci: Option<Structures>,
}

impl Device {
    /// Check that a virtio-mmio device is there; `None` for a slot without one.
    pub fn probe(at: &Resources) -> Option<(Self, u32)> {
        let device = Self { base: at.base, gsi: at.gsi, pci: None };
        assert_eq!(device.read(reg::MAGIC), 0x7472_6976, "magic at {:#x}", at.base);
        assert_eq!(device.read(reg::VERSION), 2, "version at {:#x}", at.base);
        Some((device, device.read(reg::DEVICE_ID))).filter(|(_, id)| *id != 0)
    }

    /// Read a register.
    pub fn read(&self, register: u64) -> u32 {
        match &self.pci {
            None => mmio_read(self.base + register),
            Some(pci) => pci.read(register),
        }
    }

    /// Write a register.
    pub fn write(&self, register: u64, value: u32) {
        match &self.pci {
            None => mmio_write(self.base + register, value),
            Some(pci) => pci.write(register, value),
        }
    }

    /// Reset it and negotiate those of `wanted` that it offers; returns them (Virtio 1.2, 3.1.1).
    pub fn begin(&self, wanted: u64) -> u64 {
        self.reset();
        self.write(reg::STATUS, status::ACKNOWLEDGE);
        self.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let features = self.offered() & (wanted | feature::VERSION_1);
        assert!(features & feature::VERSION_1 != 0, "the device is not modern");
        for half in 0..2 {
            self.write(reg::DRIVER_FEATURES_SEL, half);
            self.write(reg::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        let set = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.write(reg::STATUS, set);
        assert_eq!(self.read(reg::STATUS), set, "the device refuses its own features");
        features
    }

    /// The features that it offers.
    pub fn offered(&self) -> u64 {
        (0..2).fold(0, |features, half| {
            self.write(reg::DEVICE_FEATURES_SEL, half);
            features | u64::from(self.read(reg::DEVICE_FEATURES)) << (32 * half)
        })
    }

    /// Reset it and wait until it has.
    pub fn reset(&self) {
        self.write(reg::STATUS, 0);
        while self.read(reg::STATUS) != 0 {}
    }

    /// The driver is ready.
    pub fn driver_ok(&self) {
        self.write(reg::STATUS, self.read(reg::STATUS) | status::DRIVER_OK);
    }

    /// Set queue `index` up with at most `size` entries.
    pub fn queue(&self, index: u32, size: u16, features: u64) -> Queue {
        self.write(reg::QUEUE_SEL, index);
        assert_eq!(self.read(reg::QUEUE_READY), 0, "queue {index} is in use");
        let max = self.read(reg::QUEUE_NUM_MAX);
        assert!(max > 0, "no queue {index}");
        let queue = Queue::new(*self, index, size.min(max as u16), features);
        self.set_queue(index, queue.size.into(), queue.addresses());
        queue
    }

    /// Write a queue's size and addresses and make it ready.
    pub fn set_queue(&self, index: u32, size: u32, addresses: [u64; 3]) {
        self.write(reg::QUEUE_SEL, index);
        self.write(reg::QUEUE_NUM, size);
        for (register, address) in
            [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE].into_iter().zip(addresses)
        {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(reg::QUEUE_READY, 1);
    }

    /// Bytes of the configuration space, read in the widths of its fields: 4, or 1.
    pub fn config32(&self, offset: u64) -> u32 {
        self.read(reg::CONFIG + offset)
    }

    /// A 16-bit field of the configuration space.
    pub fn config16(&self, offset: u64) -> u16 {
        if let Some(pci) = &self.pci {
            return pci.config16(offset);
        }
        // SAFETY: a register of the device.
        unsafe { ((self.base + reg::CONFIG + offset) as *const u16).read_volatile() }
    }
}

/// A descriptor (Virtio 1.2, 2.7.5).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Descriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// NEXT 1, WRITE 2, INDIRECT 4.
    pub flags: u16,
    /// The next one's index.
    pub next: u16,
}

/// The descriptor goes on in `next`.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// The descriptor names a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A part of a request: memory that the device reads, or writes.
#[derive(Clone, Copy)]
pub struct Part {
    addr: u64,
    len: u32,
    flags: u16,
}

impl Part {
    /// The device reads it.
    pub fn input(bytes: &[u8]) -> Self {
        Self { addr: bytes.as_ptr() as u64, len: bytes.len() as u32, flags: 0 }
    }

    /// The device writes it.
    pub fn output(bytes: &mut [u8]) -> Self {
        Self { addr: bytes.as_ptr() as u64, len: bytes.len() as u32, flags: WRITE }
    }

    /// Whatever one likes.
    pub fn raw(addr: u64, len: u32, flags: u16) -> Self {
        Self { addr, len, flags }
    }
}

/// A split virtqueue.
pub struct Queue {
    device: Device,
    index: u32,
    /// Entries, a power of two.
    pub size: u16,
    features: u64,
    memory: &'static mut [u8],
    tables: &'static mut [u8],
    free: Vec<u16>,
    avail_idx: u16,
    used_idx: u16,
    notified: u16,
    /// Finished requests that [`Queue::wait`] has not returned yet.
    ready: VecDeque<(u16, u32)>,
    /// Interrupts after which the used ring has been looked at.
    seen_irqs: u64,
}

/// Parts of one request in an indirect table.
const INDIRECT_MAX: usize = 16;
/// Offset of the driver area in a queue's memory (size at most 256: 4 KiB of descriptors).
const AVAIL: usize = 4096;
/// Offset of the device area.
const USED: usize = 8192;

impl Queue {
    fn new(device: Device, index: u32, size: u16, features: u64) -> Self {
        assert!(size.is_power_of_two() && size <= 256);
        let tables = match features & feature::INDIRECT_DESC {
            0 => 0,
            _ => usize::from(size).div_ceil(4096 / (16 * INDIRECT_MAX)),
        };
        Self {
            device,
            index,
            size,
            features,
            memory: memory::pages(3),
            tables: memory::pages(tables.max(1)),
            free: (0..size).rev().collect(),
            avail_idx: 0,
            used_idx: 0,
            notified: 0,
            ready: VecDeque::with_capacity(size.into()),
            seen_irqs: irq_count(device.gsi),
        }
    }

    /// Descriptor table, driver area, device area.
    pub fn addresses(&self) -> [u64; 3] {
        let base = self.memory.as_ptr() as u64;
        [base, base + AVAIL as u64, base + USED as u64]
    }

    /// Start again after a device reset.
    pub fn renew(&mut self, features: u64) {
        self.memory.fill(0);
        self.features = features;
        self.free = (0..self.size).rev().collect();
        self.ready.clear();
        (self.avail_idx, self.used_idx, self.notified) = (0, 0, 0);
        self.seen_irqs = irq_count(self.device.gsi);
        self.device.set_queue(self.index, self.size.into(), self.addresses());
    }

    fn read16(&self, offset: usize) -> u16 {
        // SAFETY: inside the queue's memory; volatile because the device writes there.
        unsafe { self.memory[offset..offset + 2].as_ptr().cast::<u16>().read_volatile() }
    }

    /// Write 16 bits anywhere in the queue's memory.
    pub fn write16(&mut self, offset: usize, value: u16) {
        // SAFETY: inside the queue's memory; volatile because the device reads there.
        unsafe { self.memory[offset..offset + 2].as_mut_ptr().cast::<u16>().write_volatile(value) }
    }

    /// Write descriptor `n`, whatever it says.
    pub fn set_descriptor(&mut self, n: u16, descriptor: Descriptor) {
        assert!(n < self.size);
        // SAFETY: entry n of the table.
        unsafe {
            self.memory.as_mut_ptr().cast::<Descriptor>().add(n.into()).write_volatile(descriptor);
        }
    }

    /// Make head `n` available, whatever it is.
    pub fn offer(&mut self, n: u16) {
        let slot = usize::from(self.avail_idx % self.size);
        self.write16(AVAIL + 4 + 2 * slot, n);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.set_avail_idx(self.avail_idx);
    }

    /// Set the driver area's index, whatever it is.
    pub fn set_avail_idx(&mut self, index: u16) {
        fence(Ordering::SeqCst);
        self.write16(AVAIL + 2, index);
        fence(Ordering::SeqCst);
    }

    /// Whether a request of `parts` parts fits now.
    pub fn room(&self, parts: usize) -> bool {
        let need = if self.features & feature::INDIRECT_DESC != 0 { 1 } else { parts };
        self.free.len() >= need
    }

    /// The head that the next [`Queue::push`] of `parts` parts returns.
    pub fn next_head(&self, parts: usize) -> u16 {
        let used = if self.features & feature::INDIRECT_DESC != 0 { 1 } else { parts };
        self.free[self.free.len() - used]
    }

    /// Have the device not interrupt for what it finishes here. (Virtio 1.2, 2.7.7)
    pub fn quiet(&mut self) {
        self.write16(AVAIL, 1);
    }

    /// Add a request and return its head. The device hears of it at [`Queue::notify`].
    pub fn push(&mut self, parts: &[Part]) -> u16 {
        let indirect = self.features & feature::INDIRECT_DESC != 0;
        let head = if indirect { self.push_indirect(parts) } else { self.push_direct(parts) };
        self.offer(head);
        head
    }

    fn push_direct(&mut self, parts: &[Part]) -> u16 {
        let mut next = 0;
        for (n, part) in parts.iter().enumerate().rev() {
            let index = self.free.pop().expect("a free descriptor");
            let flags = part.flags | if n + 1 < parts.len() { NEXT } else { 0 };
            self.set_descriptor(index, Descriptor { addr: part.addr, len: part.len, flags, next });
            next = index;
        }
        next
    }

    fn push_indirect(&mut self, parts: &[Part]) -> u16 {
        let head = self.free.pop().expect("a free descriptor");
        assert!(parts.len() <= INDIRECT_MAX);
        let table = &mut self.tables[usize::from(head) * 16 * INDIRECT_MAX..][..16 * INDIRECT_MAX];
        for (n, part) in parts.iter().enumerate() {
            let last = n + 1 == parts.len();
            let flags = part.flags | if last { 0 } else { NEXT };
            let entry = Descriptor { addr: part.addr, len: part.len, flags, next: n as u16 + 1 };
            // SAFETY: entry n of this head's own table.
            unsafe { table.as_mut_ptr().cast::<Descriptor>().add(n).write_volatile(entry) };
        }
        let (addr, len) = (table.as_ptr() as u64, 16 * parts.len() as u32);
        self.set_descriptor(head, Descriptor { addr, len, flags: INDIRECT, next: 0 });
        head
    }

    /// Notify the device, if it wants to be (Virtio 1.2, 2.7.10).
    pub fn notify(&mut self) {
        fence(Ordering::SeqCst);
        let wanted = if self.features & feature::EVENT_IDX != 0 {
            let event = self.read16(USED + 4 + 8 * usize::from(self.size));
            let (new, old) = (self.avail_idx, self.notified);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.read16(USED) & 1 == 0
        };
        self.notified = self.avail_idx;
        if wanted {
            self.device.write(reg::QUEUE_NOTIFY, self.index);
        }
    }

    /// The next finished request: its head and how many bytes the device wrote.
    pub fn pop(&mut self) -> Option<(u16, u32)> {
        fence(Ordering::SeqCst);
        if self.read16(USED + 2) == self.used_idx {
            return None;
        }
        let entry = USED + 4 + 8 * usize::from(self.used_idx % self.size);
        let (id, len) = (self.read16(entry), self.read16(entry + 4));
        let len = u32::from(len) | u32::from(self.read16(entry + 6)) << 16;
        self.used_idx = self.used_idx.wrapping_add(1);
        self.release(id);
        Some((id, len))
    }

    fn release(&mut self, head: u16) {
        assert!(head < self.size, "the device returned head {head}");
        let mut index = head;
        loop {
            // SAFETY: inside the table: heads and next are ours and checked.
            let entry = unsafe { *self.memory.as_ptr().cast::<Descriptor>().add(index.into()) };
            self.free.push(index);
            if entry.flags & NEXT == 0 {
                break;
            }
            index = entry.next;
            assert!(index < self.size);
        }
    }

    /// Wait, halted, for the next finished request. Nothing is looked for before an interrupt has
    /// said that there is something: a device that forgets one is not served.
    pub fn wait(&mut self) -> (u16, u32) {
        while self.ready.is_empty() {
            wait_irq(self.device.gsi, self.seen_irqs);
            self.seen_irqs = irq_count(self.device.gsi);
            let pending = self.device.read(reg::INTERRUPT_STATUS);
            self.device.write(reg::INTERRUPT_ACK, pending);
            self.drain();
        }
        self.ready.pop_front().expect("not empty")
    }

    /// Take what is finished, and ask for an interrupt at the next one (Virtio 1.2, 2.7.7.1).
    fn drain(&mut self) {
        loop {
            while let Some(done) = self.pop() {
                self.ready.push_back(done);
            }
            if self.features & feature::EVENT_IDX == 0 {
                return;
            }
            self.write16(AVAIL + 4 + 2 * usize::from(self.size), self.used_idx);
            fence(Ordering::SeqCst);
            if self.read16(USED + 2) == self.used_idx {
                return;
            }
        }
    }
}
