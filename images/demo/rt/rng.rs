//! The driver of a virtio entropy device (Virtio 1.2, 5.4).

use super::virtio::{Device, Part, Queue};

/// The virtio device id.
pub const ID: u32 = 4;

/// An entropy device at work.
pub struct Rng {
    queue: Queue,
}

impl Rng {
    /// Reset the device and set it up.
    pub fn start(device: Device) -> Self {
        let features = device.begin(0);
        let queue = device.queue(0, 8, features);
        device.driver_ok();
        Self { queue }
    }

    /// Fill `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            self.queue.push(&[Part::output(&mut bytes[done..])]);
            self.queue.notify();
            let (_, len) = self.queue.wait();
            assert!(len > 0, "the entropy device gave nothing");
            done += len as usize;
        }
    }
}
