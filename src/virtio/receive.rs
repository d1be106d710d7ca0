//! A receive device, for tests and for docs/devices.md: what comes by a pipe goes to the guest, and
//! so does what the guest sends itself.
//!
//! It has all that a network card, a console or a socket device needs of the contract and a disk
//! does not: buffers that wait for packets, two queues with one thread, a descriptor of its own
//! that wakes it, and a configuration that either side changes.

use crate::error::Result;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{
    Cease, Device, DeviceState, DeviceType, Outcome, PollFds, QueueHandler, Service, Services,
    Signal, copy_config,
};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Its row. No virtio device has this id.
pub static TYPE: DeviceType = DeviceType {
    id: 0x3f,
    pci_class: 0xff_0000, // fits in no class
    thread: "virtio-receive",
    calls: &[],
};
/// Version of [`State`].
const STATE_VERSION: u16 = 1;
/// Where packets go to the guest.
pub const RECEIVE: u16 = 0;
/// Where the guest sends packets to itself.
pub const SEND: u16 = 1;
/// Most packets of the guest's that wait for a buffer.
pub const MAX_WAITING: usize = 4;
/// Most bytes of a packet.
const MAX_PACKET: usize = 256;

/// What the guest reads and the snapshot keeps.
#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    /// Byte 0 of the configuration: 1 while the link is up. The device changes it.
    link: u8,
    /// Byte 1: what the driver wrote last.
    mark: u8,
    /// How often the link has changed.
    generation: u32,
    /// What the guest has sent, until there are buffers for it.
    packets: VecDeque<Vec<u8>>,
}

/// A device with a link and a pipe.
#[derive(Default)]
pub struct Receive {
    state: Arc<Mutex<State>>,
    guest: OnceLock<Arc<dyn Signal>>,
    rounds: Arc<AtomicU32>,
}

/// The state is valid between any two statements.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receive {
    /// A device whose link is down, and what serves its queues. Packets come by `pipe`, which does
    /// not block.
    pub fn create(pipe: OwnedFd) -> (Arc<Self>, Services) {
        let device = Arc::new(Self::default());
        let (state, rounds) = (device.state.clone(), device.rounds.clone());
        let handler = Box::new(Packets { pipe: Some(pipe), state, rounds });
        (device, vec![Service { queues: RECEIVE..SEND + 1, handler }])
    }

    /// How often its thread has looked for something to do.
    pub fn rounds(&self) -> u32 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// Takes the link up or down, and tells the guest.
    pub fn set_link(&self, up: bool) {
        let mut state = lock(&self.state);
        state.link = up.into();
        state.generation += 1;
        drop(state);
        if let Some(guest) = self.guest.get() {
            guest.config_changed();
        }
    }
}

impl Device for Receive {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        "receive device"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }

    fn connect(&self, guest: Arc<dyn Signal>) {
        // It is connected once.
        let _ = self.guest.set(guest);
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        let state = lock(&self.state);
        copy_config(&[state.link, state.mark], offset, out);
    }

    fn write_config(&self, offset: u64, bytes: &[u8]) {
        if let (1, [mark]) = (offset, bytes) {
            lock(&self.state).mark = *mark;
        }
    }

    fn config_generation(&self) -> u32 {
        lock(&self.state).generation
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        state.mark = 0;
        state.packets.clear();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(&TYPE, STATE_VERSION, &*lock(&self.state))
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        *lock(&self.state) = state.decode(self.name(), &TYPE, STATE_VERSION)?;
        Ok(())
    }
}

/// Serves both queues.
struct Packets {
    /// `None` when its other end is closed.
    pipe: Option<OwnedFd>,
    state: Arc<Mutex<State>>,
    rounds: Arc<AtomicU32>,
}

impl Packets {
    fn receive(&mut self, chain: &DescriptorChain) -> Outcome {
        if chain.readable_len() != 0 || chain.writable_len() == 0 {
            return Outcome::Stop("a receive buffer is none".into());
        }
        let room = (chain.writable_len() as usize).min(MAX_PACKET);
        let mut packet = lock(&self.state).packets.pop_front();
        if let (None, Some(pipe)) = (&packet, &self.pipe) {
            let mut bytes = vec![0; room];
            packet = match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => {
                    // A closed pipe is always ready, and nothing would come by it.
                    self.pipe = None;
                    None
                }
                Ok(len) => Some(bytes[..len].to_vec()),
                Err(Errno::AGAIN | Errno::INTR) => None,
                Err(error) => return Outcome::Stop(format!("the pipe can't be read: {error}")),
            };
        }
        let Some(mut packet) = packet else { return Outcome::NotNow };
        packet.truncate(room);
        if !chain.write(0, &packet) {
            return Outcome::Stop("a receive buffer is outside guest memory".into());
        }
        Outcome::Done(packet.len() as u32)
    }

    fn send(&mut self, chain: &DescriptorChain) -> Outcome {
        let mut state = lock(&self.state);
        if state.packets.len() == MAX_WAITING {
            return Outcome::NotNow;
        }
        let mut packet = vec![0; (chain.readable_len() as usize).min(MAX_PACKET)];
        if !chain.read(0, &mut packet) {
            return Outcome::Stop("a packet is outside guest memory".into());
        }
        state.packets.push_back(packet);
        Outcome::Done(0)
    }
}

impl QueueHandler for Packets {
    fn start(&mut self, _features: u64, _cease: Cease) {}

    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
        if queue == RECEIVE { self.receive(&chain) } else { self.send(&chain) }
    }

    fn wake_on<'a>(&'a self, waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        self.rounds.fetch_add(1, Ordering::SeqCst);
        if let (true, Some(pipe)) = (waits(RECEIVE), &self.pipe) {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
    }
}
