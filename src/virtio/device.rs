//! What a virtio device is, apart from any transport.

use crate::error::{Error, Result};
use crate::virtio::chain::Chain;
use crate::virtio::worker::Cease;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Device types with their VIRTIO ids. (VIRTIO 1.2, 5)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A disk. (5.2)
    Block = 2,
    /// A source of randomness. (5.4)
    Entropy = 4,
}

impl DeviceKind {
    /// The device id that the guest reads.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name of its worker threads (at most 15 bytes, as the kernel keeps them).
    pub fn thread_name(self) -> &'static str {
        match self {
            Self::Block => "virtio-blk",
            Self::Entropy => "virtio-rng",
        }
    }
}

/// The part of a device that its queues share: what it is and what the guest reads of it.
///
/// It knows nothing of status, feature negotiation, queue addresses or interrupts.
pub trait Device: Send + Sync {
    /// Its type.
    fn kind(&self) -> DeviceKind;
    /// What notices call it: `disk vol-…`.
    fn name(&self) -> &str;
    /// Device-specific feature bits offered; the rings' own are added by the transport.
    fn features(&self) -> u64;
    /// The largest size of each queue: a power of two, at most 32768. One handler a queue.
    fn queue_sizes(&self) -> &[u16];
    /// The device configuration space, little-endian. It never changes and is not writable.
    fn config(&self) -> &[u8];
    /// The state that a snapshot keeps of it.
    fn save(&self) -> DeviceState;
    /// Take over a saved state.
    ///
    /// # Errors
    /// The state is of another kind of device, or of one with other properties than this one,
    /// which the guest would be surprised by.
    fn restore(&self, state: &DeviceState) -> Result<()>;
}

/// The state of a device, apart from its transport's: bytes that devices of its kind alone read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceState {
    /// The device's VIRTIO id. (VIRTIO 1.2, 5)
    pub kind: u32,
    /// What the bytes mean, counted from 1 by each kind of device.
    pub version: u16,
    /// The state, in postcard's encoding.
    pub payload: Vec<u8>,
}

impl DeviceState {
    /// Encodes a state of this kind and version.
    pub fn new(kind: DeviceKind, version: u16, state: &impl Serialize) -> Self {
        // A vector takes any length, and states are plain structures: nothing is left to fail.
        let payload = postcard::to_allocvec(state).unwrap_or_default();
        Self { kind: kind.id(), version, payload }
    }

    /// Decodes the state for the device `name` of this kind, which reads `version` alone.
    ///
    /// # Errors
    /// It is another kind of device's, of another version, or its bytes are none of that version.
    pub fn decode<T: DeserializeOwned>(
        &self,
        name: &str,
        kind: DeviceKind,
        version: u16,
    ) -> Result<T> {
        if self.kind != kind.id() {
            return Err(Error::failure(format!(
                "the saved state for {name} is of virtio device type {}, not {}",
                self.kind,
                kind.id()
            )));
        }
        if self.version != version {
            return Err(Error::failure(format!(
                "the saved state of {name} has version {}; this Spore reads version {version}",
                self.version
            )));
        }
        match postcard::take_from_bytes(&self.payload) {
            Ok((state, [])) => Ok(state),
            _ => Err(Error::failure(format!("the saved state of {name} is damaged"))),
        }
    }
}

/// One handler a queue, in order.
pub type Handlers = Vec<Box<dyn QueueHandler>>;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered; so many bytes from the beginning of its writable part are written.
    Done(u32),
    /// Begun: [`QueueHandler::completions`] hands its head over later.
    Deferred,
    /// The guest breaks the device's protocol, for this reason: the device stops until it is reset.
    Stop(String),
}

/// What serves one virtqueue. A worker thread owns it.
///
/// Order of calls: [`start`](Self::start), then any number of rounds of
/// [`handle`](Self::handle) for each waiting chain while it is [ready](Self::is_ready), one [`kick`](Self::kick) and one
/// [`completions`](Self::completions). Before the next `start` (the driver came again) or the end,
/// rounds without `handle` follow until nothing is [in flight](Self::in_flight).
pub trait QueueHandler: Send {
    /// The driver is ready; these features are agreed upon. When `cease` is set, nothing more is begun, and what is not in
    /// flight is forgotten without a word.
    fn start(&mut self, features: u64, cease: Cease);
    /// It takes another request. If not, it does once [`completions`](Self::completions) was called, when its
    /// [`completion_fd`](Self::completion_fd) is readable or [`due`](Self::due) is over.
    fn is_ready(&self) -> bool {
        true
    }
    /// How long until `completions` is to be called though nothing is readable.
    fn due(&self) -> Option<Duration> {
        None
    }
    /// Serve one request.
    fn handle(&mut self, chain: Chain) -> Outcome;
    /// The batch is over: begin what it deferred.
    ///
    /// # Errors
    /// The host cannot take the requests; the device stops.
    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Readable when deferred requests have finished since `completions` was last called. `None`: they finish before
    /// `kick` returns.
    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Hand over each finished request once: the head of its chain and the bytes written, as in [`Outcome::Done`].
    fn completions(&mut self, _each: &mut dyn FnMut(u16, u32)) {}
    /// Deferred requests that are not handed over yet.
    fn in_flight(&self) -> usize {
        0
    }
}
