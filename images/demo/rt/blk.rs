//! The driver of a virtio block device (Virtio 1.2, 5.2).

use super::virtio::{Device, Part, Queue, feature};
use alloc::string::String;
use alloc::vec::Vec;

/// The virtio device id.
pub const ID: u32 = 2;
/// Bytes a sector.
pub const SECTOR: usize = 512;

/// Feature bits (Virtio 1.2, 5.2.3).
pub const RO: u64 = 1 << 5;
/// A flush command.
pub const FLUSH: u64 = 1 << 9;
/// More than one queue.
pub const MQ: u64 = 1 << 12;
/// A discard command.
pub const DISCARD: u64 = 1 << 13;
/// A write-zeroes command.
pub const WRITE_ZEROES: u64 = 1 << 14;

/// Request types (Virtio 1.2, 5.2.6).
pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const T_FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const T_DISCARD: u32 = 11;
pub const T_WRITE_ZEROES: u32 = 13;

/// A block device at work.
pub struct Blk {
    /// Its registers.
    pub device: Device,
    /// Negotiated features.
    pub features: u64,
    /// Capacity in sectors.
    pub sectors: u64,
    /// Its queues.
    pub queues: Vec<Queue>,
    /// Header and status of each head of each queue, 32 bytes.
    slots: &'static mut [u8],
}

/// Where a head's status byte is in its slot, behind the 16 bytes of header.
const STATUS: usize = 16;
/// Bytes a slot.
const SLOT: usize = 32;

impl Blk {
    /// Reset the device and set it up with up to `queues` queues of up to `size` entries.
    pub fn start(device: Device, wanted: u64, queues: u16, size: u16) -> Self {
        let features = device.begin(wanted);
        let offered = if features & MQ != 0 { device.config16(34) } else { 1 };
        let count = queues.min(offered);
        let sectors = u64::from(device.config32(0)) | u64::from(device.config32(4)) << 32;
        let queues = (0..count.into()).map(|n| device.queue(n, size, features)).collect::<Vec<_>>();
        device.driver_ok();
        let slots = super::memory::pages((usize::from(count) * 256 * SLOT).div_ceil(4096));
        Self { device, features, sectors, queues, slots }
    }

    /// What a driver without ambition asks for.
    pub fn plain(device: Device) -> Self {
        Self::start(device, FLUSH, 1, 256)
    }

    /// Reset the device and start again with the same features and queues.
    pub fn restart(&mut self) {
        self.features = self.device.begin(self.features & !feature::VERSION_1);
        for queue in &mut self.queues {
            queue.renew(self.features);
        }
        self.device.driver_ok();
    }

    /// Start a request on `queue`; the head tells it apart from others. `data` follows the header.
    pub fn submit(&mut self, queue: usize, kind: u32, sector: u64, data: &[Part]) -> u16 {
        let head = self.queues[queue].next_head(data.len() + 2);
        let slot = &mut self.slots[(queue * 256 + usize::from(head)) * SLOT..][..SLOT];
        slot[..4].copy_from_slice(&kind.to_le_bytes());
        slot[4..8].fill(0);
        slot[8..16].copy_from_slice(&sector.to_le_bytes());
        slot[STATUS] = 0xff;
        let (header, rest) = slot.split_at_mut(STATUS);
        let mut parts = Vec::with_capacity(data.len() + 2);
        parts.push(Part::input(header));
        parts.extend_from_slice(data);
        parts.push(Part::output(&mut rest[..1]));
        let pushed = self.queues[queue].push(&parts);
        assert_eq!(pushed, head);
        head
    }

    /// The status that the device wrote for a finished request.
    pub fn status(&self, queue: usize, head: u16) -> u8 {
        let at = (queue * 256 + usize::from(head)) * SLOT + STATUS;
        // SAFETY: inside the slots; volatile because the device wrote it.
        unsafe { (&raw const self.slots[at]).read_volatile() }
    }

    /// One request on queue 0, waited for; its status.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[Part]) -> u8 {
        let head = self.submit(0, kind, sector, data);
        self.queues[0].notify();
        let (done, _) = self.queues[0].wait();
        assert_eq!(done, head, "the device finished another request");
        self.status(0, head)
    }

    /// Read from `sector` on, in requests of at most 128 KiB, as many in flight at once as the ring
    /// has room for.
    pub fn read(&mut self, sector: u64, bytes: &mut [u8]) {
        const CHUNK: usize = 128 << 10;
        let (mut at, mut flying) = (sector, 0);
        for chunk in bytes.chunks_mut(CHUNK) {
            if !self.queues[0].room(3) {
                // All of them: what is finished has given its head back, and another request with
                // that would overwrite its status before anybody looks.
                (0..flying).for_each(|_| self.reap());
                flying = 0;
            }
            self.submit(0, IN, at, &[Part::output(chunk)]);
            (at, flying) = (at + (chunk.len() / SECTOR) as u64, flying + 1);
        }
        self.queues[0].notify();
        (0..flying).for_each(|_| self.reap());
    }

    fn reap(&mut self) {
        self.queues[0].notify();
        let (head, _) = self.queues[0].wait();
        assert_eq!(self.status(0, head), 0, "a read failed");
    }

    /// Write one sector and flush.
    pub fn write_through(&mut self, sector: u64, bytes: &[u8; SECTOR]) {
        assert_eq!(self.request(OUT, sector, &[Part::input(bytes)]), 0, "write failed");
        assert!(self.features & FLUSH != 0, "the device has no flush");
        assert_eq!(self.request(T_FLUSH, 0, &[]), 0, "flush failed");
    }

    /// The volume's id: the device's serial number, which has it without the dash.
    pub fn volume(&mut self) -> String {
        let mut id = [0u8; 20];
        let part = Part::output(&mut id);
        assert_eq!(self.request(GET_ID, 0, &[part]), 0, "get-id failed");
        let text = id.split(|&b| b == 0).next().unwrap_or(&[]);
        String::from_utf8_lossy(text).replacen("vol", "vol-", 1)
    }
}
