//! What a virtio device is, apart from any transport. docs/devices.md shows how one is added.

use crate::error::{Error, Result};
use crate::sys::seccomp::Allow;
use crate::virtio::chain::DescriptorChain;
use rustix::event::PollFd;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A kind of device: all that transports, threads and the sandbox know of it. Each device's file
/// has one.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceType {
    /// The VIRTIO device id, below 0x40. (VIRTIO 1.2, 5)
    pub id: u16,
    /// The PCI class code: base class, subclass and interface, 8 bits each. (PCI Code and ID
    /// Assignment, 1)
    pub pci_class: u32,
    /// The name of its threads, at most 15 bytes.
    pub thread: &'static str,
    /// System calls of its threads, in lists, beyond those of every device's.
    pub calls: &'static [&'static [Allow]],
}

/// How a device reaches its guest; the transport's.
pub trait Signal: Send + Sync {
    /// Interrupts: buffers of this queue were used.
    fn used(&self, queue: u16);
    /// Interrupts: the configuration space has changed, and its generation with it.
    fn config_changed(&self);
    /// Stops the device for this reason: DEVICE_NEEDS_RESET, a configuration interrupt and a
    /// notice.
    fn stop(&self, reason: &str);
    /// The device is stopped and no queue may be served.
    fn stopped(&self) -> bool;
}

/// Called first in every new worker thread: the place to put it into its sandbox. An error stops
/// the device.
pub type ThreadStart = Arc<dyn Fn(&'static DeviceType) -> Result<()> + Send + Sync>;

/// The part of a device that its queues share: what it is and what the guest reads of it.
///
/// It knows nothing of status, feature negotiation, queue addresses or interrupts. The vCPUs'
/// threads call it, a thread at a time, while the threads of its queues run.
pub trait Device: Send + Sync {
    /// Its type.
    fn kind(&self) -> &'static DeviceType;
    /// What notices call it: `disk vol-…`.
    fn name(&self) -> &str;
    /// Device-specific feature bits offered; the rings' own are added by the transport.
    fn features(&self) -> u64;
    /// The largest size of each queue: a power of two, at most 32768.
    fn queue_sizes(&self) -> &[u16];
    /// Takes the way to its guest, once, before anything else is asked of it. A device whose
    /// configuration changes keeps it and calls [`Signal::config_changed`].
    fn connect(&self, _guest: Arc<dyn Signal>) {}
    /// Reads the configuration space, which is little-endian, from byte `offset` on. What is beyond
    /// its end stays as it is in `out`: all ones.
    fn read_config(&self, _offset: u64, _out: &mut [u8]) {}
    /// Writes the configuration space from byte `offset` on. Bytes of read-only fields are ignored.
    /// The offset and the length, 1 to 8 bytes, are the guest's.
    fn write_config(&self, _offset: u64, _bytes: &[u8]) {}
    /// Another number after each change of the configuration space that the driver did not make
    /// itself; PCI shows its low 8 bits. (VIRTIO 1.2, 2.5)
    fn config_generation(&self) -> u32 {
        0
    }
    /// Forgets its driver: what that wrote to the configuration space is as after power-on. Its
    /// queues are at rest.
    fn reset(&self) {}
    /// Says what a snapshot keeps of it. Its queues are at rest.
    fn save(&self) -> DeviceState;
    /// Takes over a saved state. The device was reset before.
    ///
    /// # Errors
    /// The state is of another kind of device, or of one with other properties than this one,
    /// which the guest would be surprised by.
    fn restore(&self, state: &DeviceState) -> Result<()>;
}

/// Reads `out.len()` bytes of a configuration space at `offset`, for [`Device::read_config`].
/// Nothing is read if they are not all in it.
pub fn copy_config(config: &[u8], offset: u64, out: &mut [u8]) {
    let bytes = usize::try_from(offset).ok().and_then(|at| {
        let end = at.checked_add(out.len())?;
        config.get(at..end)
    });
    if let Some(bytes) = bytes {
        out.copy_from_slice(bytes);
    }
}

/// The state of a device, apart from its transport's: bytes that devices of its kind alone read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceState {
    /// The device's VIRTIO id. (VIRTIO 1.2, 5)
    pub kind: u16,
    /// What the bytes mean, counted from 1 by each kind of device.
    pub version: u16,
    /// The state, in postcard's encoding.
    pub payload: Vec<u8>,
}

impl DeviceState {
    /// Encodes a state of this kind and version.
    pub fn new(kind: &DeviceType, version: u16, state: &impl Serialize) -> Self {
        // A vector takes any length, and states are plain structures: nothing is left to fail.
        let payload = postcard::to_stdvec(state).unwrap_or_default();
        Self { kind: kind.id, version, payload }
    }

    /// Decodes the state for the device `name` of this kind, which reads `version` alone.
    ///
    /// # Errors
    /// It is another kind of device's, of another version, or its bytes are none of that version.
    pub fn decode<T: DeserializeOwned>(
        &self,
        name: &str,
        kind: &DeviceType,
        version: u16,
    ) -> Result<T> {
        if self.kind != kind.id {
            return Err(Error::failure(format!(
                "the saved state for {name} is of virtio device type {}, not {}",
                self.kind, kind.id
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

/// What serves some of a device's queues, by a thread of its own.
pub struct Service {
    /// The queues' numbers. The services of a device have each of its queues once, in order.
    pub queues: Range<u16>,
    /// What serves them.
    pub handler: Box<dyn QueueHandler>,
}

/// All services of a device.
pub type Services = Vec<Service>;

/// Descriptors that a service's thread waits for.
pub type PollFds<'a> = SmallVec<[PollFd<'a>; 4]>;

/// Set when a service shall begin nothing more, not even what is left of a request that it has
/// begun. To be looked at before each step of a request.
#[derive(Clone, Default)]
pub struct Cease(Arc<AtomicBool>);

impl Cease {
    /// It is so.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, cease: bool) {
        self.0.store(cease, Ordering::SeqCst);
    }
}

/// What became of a chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered; so many bytes from the beginning of its writable part are written.
    Done(u32),
    /// Begun: [`QueueHandler::completions`] hands its head over later, without anything from the
    /// guest or from outside.
    Deferred,
    /// Taken to be filled, as one of several receive buffers for a packet of unknown size:
    /// [`QueueHandler::completions`] hands its head over once there is something in it, in the
    /// order in which they were taken. Nothing waits for it: when the service comes to rest it is
    /// put back into its ring as if it had not been looked at, and the handler forgets it at the
    /// next [`QueueHandler::start`]. A queue with such chains has none that are `Deferred`.
    Kept,
    /// Of no use yet, as a receive buffer without a packet. It stays first in its ring, and is
    /// handed over again when one of the descriptors of [`QueueHandler::wake_on`] is ready,
    /// [`QueueHandler::due`] is over, the driver notifies, another queue of the service had a
    /// chain, or something is finished. The handler has kept nothing of it.
    NotNow,
    /// The guest breaks the device's protocol, for this reason: the device stops until it is reset.
    Stop(String),
}

/// What serves the virtqueues of a [`Service`]. A worker thread owns it.
///
/// Order of calls: [`start`](Self::start), then any number of rounds of
/// [`handle`](Self::handle) for each waiting chain of each queue that is [ready](Self::is_ready),
/// one [`submit_batch`](Self::submit_batch) and one [`completions`](Self::completions). Before the
/// next `start` (the driver came again, or the machine was paused) or the end, rounds without
/// `handle` follow until nothing is [in flight](Self::in_flight).
pub trait QueueHandler: Send {
    /// The driver is ready; these features are agreed upon. When `cease` is set, nothing more is
    /// begun, and what is not in flight is forgotten without a word.
    fn start(&mut self, features: u64, cease: Cease);
    /// Whether it takes another chain of `queue`. If not, it does once
    /// [`completions`](Self::completions) was called, when a descriptor of
    /// [`wake_on`](Self::wake_on) is ready or [`due`](Self::due) is over.
    fn is_ready(&self, _queue: u16) -> bool {
        true
    }
    /// How long until there is a round though no descriptor is ready.
    fn due(&self) -> Option<Duration> {
        None
    }
    /// Serves one chain of `queue`.
    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome;
    /// Begins what the batch deferred: it is over.
    ///
    /// # Errors
    /// The host cannot take the requests; the device stops.
    fn submit_batch(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Adds the descriptors that call for a round: those by which deferred requests finish, and, of
    /// a queue that `waits` (its first chain was [`Outcome::NotNow`]), those by which its packets
    /// come, a tap or a socket. A packet for which no buffer waits calls for nothing: the thread
    /// would not sleep until there is one.
    fn wake_on<'a>(&'a self, _waits: &dyn Fn(u16) -> bool, _fds: &mut PollFds<'a>) {}
    /// Hands over each finished request once: its queue, the head of its chain and the bytes
    /// written, as in [`Outcome::Done`]. The order is any, but of chains that were
    /// [`Outcome::Kept`], theirs.
    fn completions(&mut self, _each: &mut dyn FnMut(u16, u16, u32)) {}
    /// Deferred requests that are not handed over yet.
    fn in_flight(&self) -> usize {
        0
    }
}
