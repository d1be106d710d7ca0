//! The entropy device. (VIRTIO 1.2, 5.4)

use crate::error::Result;
use crate::sys::seccomp::Allow;
use crate::virtio::bucket::Bucket;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{
    Cease, Device, DeviceState, DeviceType, Outcome, QueueHandler, Service, Services,
};
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes one request gets; the driver is told how many it got and asks again. (5.4.6.1)
const MAX_BYTES: u32 = 64 << 10;
/// Its row.
pub static TYPE: DeviceType = DeviceType {
    id: 4,
    pci_class: 0xff_0000, // fits in no class
    thread: "virtio-rng",
    calls: &[&[
        Allow::Call(libc::SYS_getrandom), // what the guest gets
    ]],
};
/// Version of the saved state, which is nothing.
const STATE_VERSION: u16 = 1;
/// Bytes drawn from the host at a time.
const CHUNK: usize = 256;

/// Gives the guest bytes from getrandom(2).
pub struct Rng;

impl Rng {
    /// The device and what serves its one queue.
    pub fn create() -> (Arc<Self>, Services) {
        (Arc::new(Self), vec![Service { queues: 0..1, handler: Box::new(RngQueue::new()) }])
    }
}

impl Device for Rng {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        "entropy device"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(self.kind(), STATE_VERSION, &())
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        state.decode(self.name(), self.kind(), STATE_VERSION)
    }
}

/// Bytes a second, and at once after a while without: much more than a kernel asks for, and not
/// what keeps a CPU of the host busy.
const RATE: (u64, u64) = (1 << 20, 4 << 20);

struct RngQueue {
    bucket: Bucket,
}

impl RngQueue {
    fn new() -> Self {
        Self { bucket: Bucket::new(RATE.0, RATE.1) }
    }
}

impl QueueHandler for RngQueue {
    fn start(&mut self, _features: u64, _cease: Cease) {}

    fn is_ready(&self, _queue: u16) -> bool {
        self.due().is_none()
    }

    fn due(&self) -> Option<Duration> {
        self.bucket.wait()
    }

    fn handle(&mut self, _queue: u16, chain: DescriptorChain) -> Outcome {
        if chain.readable_len() != 0 {
            // 5.4.6.1: only device-writable buffers.
            return Outcome::Stop("the guest gave the entropy device a readable buffer".into());
        }
        let wanted = chain.writable_len().min(MAX_BYTES);
        let mut chunk = [0u8; CHUNK];
        let mut done = 0;
        while done < wanted {
            let piece = &mut chunk[..CHUNK.min((wanted - done) as usize)];
            // The system call and nothing else: the sandbox has no /dev/urandom to fall back on. A
            // piece of up to 256 bytes is never cut short (getrandom(2)).
            if let Err(error) = getrandom(&mut *piece, GetRandomFlags::empty()) {
                return Outcome::Stop(format!("the host has no randomness: {error}"));
            }
            if !chain.write(done, piece) {
                return Outcome::Stop("a buffer for randomness is outside guest memory".into());
            }
            done += piece.len() as u32;
        }
        self.bucket.charge(done.into());
        Outcome::Done(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::feature;
    use crate::virtio::queue::SplitQueue;
    use crate::virtio::testing::*;
    use vm_memory::{Bytes, GuestAddress};

    fn ask(pieces: &[(u64, u32, bool)]) -> (Outcome, Vec<u8>) {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0, 8);
        driver.chain(0, pieces);
        driver.offer(0);
        let mut ring = SplitQueue::new(ram.clone(), driver.state, 64, feature::RING).unwrap();
        let outcome = RngQueue::new().handle(0, ring.pop().unwrap().unwrap());
        let mut bytes = vec![0; MAX_BYTES as usize + 0x1000];
        ram.read_slice(&mut bytes, GuestAddress(BUFFERS)).unwrap();
        (outcome, bytes)
    }

    #[test]
    fn a_buffer_is_filled_up_to_a_limit() {
        let (outcome, bytes) = ask(&[(BUFFERS, 0x8001, true), (BUFFERS + 0x8001, 0x8fff, true)]);
        assert_eq!(outcome, Outcome::Done(MAX_BYTES));
        let (filled, beyond) = bytes.split_at(MAX_BYTES as usize);
        // Each 64 bytes are all zeros with a chance of 2^-512.
        assert!(filled.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
        assert!(beyond.iter().all(|byte| *byte == 0));
        assert_eq!(ask(&[(BUFFERS, 0, true)]).0, Outcome::Done(0));
    }

    #[test]
    fn a_guest_that_wants_ever_more_has_to_wait() {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0, 8);
        driver.chain(0, &[(BUFFERS, MAX_BYTES, true)]);
        let mut ring = SplitQueue::new(ram.clone(), driver.state, 64, feature::RING).unwrap();
        let mut queue = RngQueue::new();
        let mut served = 0;
        while queue.is_ready(0) {
            driver.offer(0);
            let chain = ring.pop().unwrap().unwrap();
            assert_eq!(queue.handle(0, chain), Outcome::Done(MAX_BYTES));
            ring.push_used(0, MAX_BYTES).unwrap();
            served += u64::from(MAX_BYTES);
            assert!(served <= 64 * RATE.1, "it never has to wait");
        }
        assert!(served >= RATE.1, "a burst is had at once");
        assert!(queue.due().is_some());
    }

    #[test]
    fn buffers_that_are_none_stop_the_device() {
        assert!(matches!(ask(&[(BUFFERS, 8, false)]).0, Outcome::Stop(_)));
        assert!(matches!(ask(&[(RAM - 4, 8, true)]).0, Outcome::Stop(_)));
    }
}
