//! What an interface and the threads of its queues share.

use super::throttle::Throttle;
use crate::sys::tap::{Tap, offload};
use crate::virtio::Notices;
use crate::virtio::device::Signal;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use virtio_bindings::virtio_net::*;
use vmm_sys_util::eventfd::EventFd;

/// Where packets go to the guest, of the first pair of queues. (5.1.2)
pub const RECEIVE: u16 = 0;
/// Where the guest's packets come from, of the first pair.
pub const SEND: u16 = 1;
/// Where the guest's wishes come from, of a device with one pair.
pub const CONTROL: u16 = 2;

pub(super) const fn bit(feature: u32) -> u64 {
    1 << feature
}

/// What the host may leave undone of packets to a driver that accepted these features. (5.1.3.1:
/// segments need checksums)
pub(super) fn offloads(features: u64) -> u32 {
    let has = |feature: u32| features & bit(feature) != 0;
    if !has(VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let mut offloads = offload::CSUM;
    for (feature, offload) in
        [(VIRTIO_NET_F_GUEST_TSO4, offload::TSO4), (VIRTIO_NET_F_GUEST_TSO6, offload::TSO6)]
    {
        offloads |= if has(feature) { offload } else { 0 };
    }
    if has(VIRTIO_NET_F_GUEST_USO4) && has(VIRTIO_NET_F_GUEST_USO6) {
        offloads |= offload::USO4 | offload::USO6;
    }
    offloads
}

/// A place of the host's where packets come and go: a queue of a tap.
pub trait Port: AsFd + Send + Sync {
    /// Has the host leave this undone of packets to the guest, and nothing else: a sum of
    /// [`offload`]'s.
    ///
    /// # Errors
    /// It does not know one of them, or is gone.
    fn set_offloads(&self, offloads: u32) -> io::Result<()>;
    /// Has it carry packets, or none. A port is made with the former.
    ///
    /// # Errors
    /// It is so already, or the port is the only one.
    fn set_attached(&self, attached: bool) -> io::Result<()>;
}

impl Port for Tap {
    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        Self::set_offloads(self, offloads)
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        Self::set_attached(self, attached)
    }
}

/// The port of a pair of queues.
pub(super) struct PairPort {
    pub port: Box<dyn Port>,
    /// It carries packets.
    pub attached: AtomicBool,
    /// Wakes the pair's thread when that changes.
    pub changed: EventFd,
}

/// How many pairs of queues carry packets, from the first on.
pub(super) struct InUse {
    /// As the driver wishes: 1 after a reset. (5.1.6.5.5)
    pub wanted: u16,
    /// As it is.
    pub pairs: u16,
}

/// What the guest is told of the link.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub up: bool,
    /// How often it has changed.
    pub generation: u32,
    /// The machine goes on elsewhere: the driver has to see the link go down and come up again.
    pub moved: bool,
}

/// What a device and its handlers share.
pub(super) struct Shared {
    pub name: String,
    pub link: Mutex<Link>,
    pub guest: OnceLock<Arc<dyn Signal>>,
    /// Of each pair of queues.
    pub ports: Vec<PairPort>,
    pub in_use: Mutex<InUse>,
    pub notices: Notices,
    /// What the guest may have, if that is limited.
    pub throttle: Option<Mutex<Throttle>>,
    pub counters: Counters,
}

/// Packets and bytes, headers before Ethernet's left out.
#[derive(Default)]
pub(super) struct Counters {
    pub received: AtomicU64,
    pub received_bytes: AtomicU64,
    /// For which there was no buffer.
    pub receive_dropped: AtomicU64,
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// Of the guest's: malformed, or not taken by the host.
    pub send_dropped: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

impl Shared {
    /// The number of pairs in use is valid between any two statements.
    pub fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has as many pairs carry packets as the driver wishes.
    ///
    /// # Errors
    /// The host refuses.
    pub fn apply_pairs(&self) -> io::Result<()> {
        let mut in_use = self.in_use();
        while in_use.pairs != in_use.wanted {
            let more = in_use.pairs < in_use.wanted;
            let index = if more { in_use.pairs } else { in_use.pairs - 1 };
            let Some(port) = self.ports.get(usize::from(index)) else { break };
            // Never said to be attached while it is not: its thread would take it for gone.
            if more {
                port.port.set_attached(true)?;
                port.attached.store(true, Ordering::SeqCst);
            } else {
                port.attached.store(false, Ordering::SeqCst);
                port.port.set_attached(false)?;
            }
            in_use.pairs = if more { in_use.pairs + 1 } else { in_use.pairs - 1 };
            // It fails only when the counter is full, and then the thread is woken already.
            let _ = port.changed.write(1);
        }
        Ok(())
    }

    /// The link is valid between any two statements.
    pub fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the link up or down, and tells the guest if that is news.
    pub fn set_link(&self, up: bool) {
        let mut link = self.link();
        if link.up == up {
            return;
        }
        link.up = up;
        link.generation = link.generation.wrapping_add(1);
        drop(link);
        if let Some(guest) = self.guest.get() {
            guest.config_changed();
        }
    }
}
