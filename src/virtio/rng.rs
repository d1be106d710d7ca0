//! The entropy device. (VIRTIO 1.2, 5.4)

use crate::error::{Error, Result};
use crate::virtio::chain::Chain;
use crate::virtio::device::{Device, DeviceKind, DeviceState, Handlers, Outcome, QueueHandler};
use std::sync::Arc;

/// Most bytes one request gets; the driver is told how many it got and asks again. (5.4.6.1)
const MAX_BYTES: u32 = 64 << 10;
/// Bytes drawn from the host at a time.
const CHUNK: usize = 256;

/// Gives the guest bytes from getrandom(2).
pub struct Rng;

impl Rng {
    /// The device and the handler of its one queue.
    pub fn create() -> (Arc<Self>, Handlers) {
        (Arc::new(Self), vec![Box::new(RngQueue)])
    }
}

impl Device for Rng {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Entropy
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

    fn config(&self) -> &[u8] {
        &[]
    }

    fn save(&self) -> DeviceState {
        DeviceState::Entropy {}
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        match state {
            DeviceState::Entropy {} => Ok(()),
            other => Err(Error::failure(format!(
                "the saved state is not an entropy device's: {other:?}"
            ))),
        }
    }
}

struct RngQueue;

impl QueueHandler for RngQueue {
    fn start(&mut self, _features: u64) {}

    fn handle(&mut self, chain: Chain) -> Outcome {
        if chain.readable_len() != 0 {
            // 5.4.6.1: only device-writable buffers.
            return Outcome::Stop("the guest gave the entropy device a readable buffer".into());
        }
        let wanted = chain.writable_len().min(MAX_BYTES);
        let mut chunk = [0u8; CHUNK];
        let mut done = 0;
        while done < wanted {
            let piece = &mut chunk[..CHUNK.min((wanted - done) as usize)];
            if let Err(error) = getrandom::fill(piece) {
                return Outcome::Stop(format!("the host has no randomness: {error}"));
            }
            if !chain.write(done, piece) {
                return Outcome::Stop("a buffer for randomness is outside guest memory".into());
            }
            done += piece.len() as u32;
        }
        Outcome::Done(done)
    }
}
