//! The driver of a virtio network device that does without offloads (Virtio 1.2, 5.1).

use super::cpu::{self, irq_count};
use super::virtio::{Device, Part, Queue, reg};
use alloc::vec;
use alloc::vec::Vec;

/// The virtio device id.
pub const ID: u32 = 1;
/// The longest frame: an Ethernet header and 1500 bytes.
pub const FRAME: usize = 1514;
/// The device has an address. (Virtio 1.2, 5.1.3)
const MAC: u64 = 1 << 5;
/// Bytes before each frame: struct virtio_net_hdr. (Virtio 1.2, 5.1.6)
const HEADER: usize = 12;
/// Frames in flight, each way.
const DEPTH: u16 = 32;

/// A network interface at work.
pub struct Nic {
    /// Its address.
    pub mac: [u8; 6],
    device: Device,
    receiver: Queue,
    sender: Queue,
    /// Frames with their headers, by the heads of their requests.
    received: Vec<[u8; HEADER + FRAME]>,
    sent: Vec<[u8; HEADER + FRAME]>,
    /// Interrupts after which was looked for frames.
    seen: u64,
}

impl Nic {
    /// Reset the device and set it up.
    pub fn start(device: Device) -> Self {
        let features = device.begin(MAC);
        assert!(features & MAC != 0, "an interface without an address");
        let (low, high) = (device.config32(0), device.config16(4));
        let [a, b, c, d] = low.to_le_bytes();
        let [e, f] = high.to_le_bytes();
        let (receiver, mut sender) =
            (device.queue(0, DEPTH, features), device.queue(1, DEPTH, features));
        sender.quiet();
        device.driver_ok();
        let buffers = || vec![[0; HEADER + FRAME]; DEPTH.into()];
        let (received, sent, seen) = (buffers(), buffers(), irq_count(device.gsi));
        let mac = [a, b, c, d, e, f];
        let mut nic = Self { mac, device, receiver, sender, received, sent, seen };
        (0..DEPTH).for_each(|_| nic.offer());
        nic.receiver.notify();
        nic
    }

    /// Give the device a buffer.
    fn offer(&mut self) {
        let head = self.receiver.next_head(1);
        self.receiver.push(&[Part::output(&mut self.received[usize::from(head)])]);
    }

    /// The next frame that has come in, with its length.
    pub fn receive(&mut self, frame: &mut [u8; FRAME]) -> Option<usize> {
        let (head, len) = self.receiver.pop()?;
        let len = (len as usize).checked_sub(HEADER).expect("a header");
        let buffer = &self.received[usize::from(head)];
        frame[..len].copy_from_slice(&buffer[HEADER..HEADER + len]);
        self.offer();
        self.receiver.notify();
        Some(len)
    }

    /// Send a frame.
    pub fn send(&mut self, frame: &[u8]) {
        while self.sender.pop().is_some() || !self.sender.room(1) {}
        let head = self.sender.next_head(1);
        let buffer = &mut self.sent[usize::from(head)][..HEADER + frame.len()];
        buffer[HEADER..].copy_from_slice(frame);
        self.sender.push(&[Part::input(buffer)]);
        self.sender.notify();
    }

    /// Halt until there is any interrupt after the last call's.
    pub fn wait(&mut self) {
        cpu::halt(self.device.gsi, self.seen);
        self.seen = irq_count(self.device.gsi);
        let pending = self.device.read(reg::INTERRUPT_STATUS);
        if pending != 0 {
            self.device.write(reg::INTERRUPT_ACK, pending);
        }
    }
}
