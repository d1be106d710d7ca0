//! A split virtqueue, from the device's side. (VIRTIO 1.2, 2.7)

use crate::mem::GuestRam;
use crate::virtio::chain::{DESC_SIZE, DescriptorChain, Malformed, Source};
use crate::virtio::feature;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// `flags` and `idx` before each ring's elements, two bytes each. (2.7.6, 2.7.8)
const RING_HEADER: u64 = 4;
/// Bytes of an element of the available ring.
const AVAIL_ELEM: u64 = 2;
/// Bytes of an element of the used ring.
const USED_ELEM: u64 = 8;
/// `used_event` or `avail_event` behind each ring's elements.
const EVENT: u64 = 2;

/// A queue's registers and its place in the rings: all that a snapshot keeps of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// Descriptors: a power of two.
    pub size: u16,
    /// The driver gave it to the device.
    pub ready: bool,
    /// Guest address of the descriptor table.
    pub desc: u64,
    /// Guest address of the available ring ("driver area").
    pub avail: u64,
    /// Guest address of the used ring ("device area").
    pub used: u64,
    /// The available index to look at next.
    pub next_avail: u16,
    /// The used index to write next.
    pub next_used: u16,
}

impl QueueState {
    /// Checks what the driver set: size, alignment (2.7, table of alignments), and that each part
    /// is guest RAM.
    ///
    /// # Errors
    /// What is wrong. The available ring may not be at address 0, where no driver has one: the
    /// crate takes that for a queue without a ring.
    pub fn check(&self, ram: &GuestRam, max_size: u16) -> Result<(), Malformed> {
        self.ring(ram, max_size, false).map(|_| ())
    }

    /// The ring that this describes.
    fn ring(&self, ram: &GuestRam, max_size: u16, event_idx: bool) -> Result<Queue, Malformed> {
        let size = u64::from(self.size);
        let parts = [
            (self.desc, size * DESC_SIZE),
            (self.avail, RING_HEADER + size * AVAIL_ELEM + EVENT),
            (self.used, RING_HEADER + size * USED_ELEM + EVENT),
        ];
        // Checked first: the range check of vm-memory counts from the address on.
        if parts.iter().any(|(addr, len)| addr.checked_add(*len).is_none()) {
            return Err(OUTSIDE);
        }
        let ring = Queue::try_from(virtio_queue::QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: event_idx,
            size: self.size,
            ready: true,
            desc_table: self.desc,
            avail_ring: self.avail,
            used_ring: self.used,
        })
        .map_err(explain)?;
        if self.avail == 0 || !ring.is_valid(ram.as_ref()) {
            return Err(OUTSIDE);
        }
        Ok(ring)
    }
}

/// A live queue: `virtio_queue`'s rings, of which all heads are taken that wait at a time, and to
/// which all chains of a batch are given back at a time.
pub struct SplitQueue {
    ram: GuestRam,
    ring: Queue,
    /// Most descriptors in an indirect table, if there may be one.
    indirect: Option<u16>,
    /// Heads taken from the available ring that nobody has asked for yet, the next one first. At
    /// most twice as many as the queue's size: those of one look, and those that were put back.
    heads: VecDeque<u16>,
    /// Chains given back with the bytes written, which the driver doesn't see yet. At most twice as
    /// many as the queue's size: what a turn takes and does at once, and what was in flight.
    done: Vec<(u16, u32)>,
    /// Chains popped and not given back.
    outstanding: u16,
}

impl SplitQueue {
    /// The queue that the driver described, under the features agreed upon. `max_size` is the
    /// largest size the device offered; it bounds indirect tables too.
    ///
    /// # Errors
    /// As [`QueueState::check`].
    pub fn new(
        ram: GuestRam,
        state: QueueState,
        max_size: u16,
        features: u64,
    ) -> Result<Self, Malformed> {
        let ring = state.ring(&ram, max_size, features & feature::EVENT_IDX != 0)?;
        Ok(Self {
            ram,
            ring,
            indirect: (features & feature::INDIRECT_DESC != 0).then_some(max_size),
            heads: VecDeque::new(),
            done: Vec::new(),
            outstanding: 0,
        })
    }

    /// Its size.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// What to save of it. Meaningful when every chain was given back and published.
    pub fn state(&self) -> QueueState {
        let ring = self.ring.state();
        QueueState {
            size: ring.size,
            ready: ring.ready,
            desc: ring.desc_table,
            avail: ring.avail_ring,
            used: ring.used_ring,
            // Heads that nobody has asked for are in the ring still.
            next_avail: ring.next_avail.wrapping_sub(self.heads.len() as u16),
            next_used: ring.next_used,
        }
    }

    /// Takes the next chain, if there is one.
    ///
    /// # Errors
    /// The available ring or the chain is malformed. The queue must not be used on.
    pub fn pop(&mut self) -> Result<Option<DescriptorChain>, Malformed> {
        if !self.available()? {
            return Ok(None);
        }
        if self.outstanding >= self.ring.size() {
            return Err(Malformed("more requests in flight than the queue has descriptors"));
        }
        let Some(head) = self.heads.pop_front() else { return Ok(None) };
        let source = Source {
            table: GuestAddress(self.ring.desc_table()),
            size: self.ring.size(),
            head,
            indirect: self.indirect,
        };
        let chain = DescriptorChain::read_from(&self.ram, source)?;
        self.outstanding += 1;
        Ok(Some(chain))
    }

    /// Puts the chain with this head back, as if it had not been popped: of those popped and not
    /// given back, the last.
    pub fn put_back(&mut self, head: u16) {
        self.heads.push_front(head);
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Is a chain waiting? Reads the ring again when those seen before are used up.
    fn available(&mut self) -> Result<bool, Malformed> {
        if self.heads.is_empty() {
            // The index is read once (Acquire: elements and descriptors were written before it),
            // and refused if it ran ahead by more than the queue's size.
            let heads = self.ring.iter(self.ram.as_ref()).map_err(explain)?;
            self.heads.extend(heads.map(|chain| chain.head_index()));
        }
        Ok(!self.heads.is_empty())
    }

    /// Gives a chain back with the bytes written. The driver sees it after [`Self::publish`].
    ///
    /// # Errors
    /// `head` is none of the queue's.
    pub fn push_used(&mut self, head: u16, len: u32) -> Result<(), Malformed> {
        if head >= self.ring.size() {
            return Err(Malformed("a chain is given back that is none of the queue's"));
        }
        self.done.push((head, len));
        self.outstanding = self.outstanding.saturating_sub(1);
        Ok(())
    }

    /// Lets the driver see what was given back since the last time. True if it wants an interrupt
    /// for it.
    ///
    /// # Errors
    /// Never for a queue that was checked; guest memory does not go away.
    pub fn publish(&mut self) -> Result<bool, Malformed> {
        if self.done.is_empty() {
            return Ok(false);
        }
        for (head, len) in self.done.drain(..) {
            self.ring.add_used(self.ram.as_ref(), head, len).map_err(explain)?;
        }
        // With a fence between index and wish, or each side could wait for the other. (2.7.7.2)
        let wanted = self.ring.needs_notification(self.ram.as_ref()).map_err(explain)?;
        if self.ring.event_idx_enabled() {
            return Ok(wanted);
        }
        // The crate does not look at the flag.
        let flags = GuestAddress(self.ring.avail_ring());
        let flags: u16 = self.ram.load(flags, Ordering::Relaxed).map_err(|_| OUTSIDE)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver not to notify: the device is looking.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn disable_notification(&mut self) -> Result<(), Malformed> {
        self.ring.disable_notification(self.ram.as_ref()).map_err(explain)
    }

    /// Asks the driver to notify of the next chain. True if one is there already, of which it may
    /// not notify.
    ///
    /// # Errors
    /// The available ring is malformed.
    pub fn enable_notification(&mut self) -> Result<bool, Malformed> {
        if !self.heads.is_empty() {
            return Ok(true);
        }
        let more = self.ring.enable_notification(self.ram.as_ref()).map_err(explain)?;
        Ok(more && self.available()?)
    }
}

/// Part of the queue is not guest memory. For one that was checked it cannot happen while RAM is
/// only mapped once.
const OUTSIDE: Malformed = Malformed("one of its addresses is outside guest memory");

/// What the crate found wrong, in the words of a device's reason to stop.
fn explain(error: Error) -> Malformed {
    match error {
        Error::InvalidSize | Error::InvalidMaxSize => {
            Malformed("its size is not a power of two or exceeds the maximum")
        }
        Error::InvalidDescTableAlign
        | Error::InvalidAvailRingAlign
        | Error::InvalidUsedRingAlign => Malformed("one of its addresses is misaligned"),
        Error::InvalidAvailRingIndex => {
            Malformed("the available index ran ahead by more than the queue's size")
        }
        _ => OUTSIDE,
    }
}

#[cfg(test)]
mod tests;
