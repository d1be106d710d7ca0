//! A split virtqueue, from the device's side. (VIRTIO 1.2, 2.7)

use crate::mem::GuestRam;
use crate::virtio::chain::{DESC_SIZE, DescriptorChain, Malformed, Source};
use crate::virtio::feature;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

/// `flags` and `idx` before each ring's elements, two bytes each. (2.7.6, 2.7.8)
const RING_HEADER: u64 = 4;
/// Where `idx` is.
const IDX: u64 = 2;
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
    /// Check what the driver set: size, alignment (2.7, table of alignments), and that each part is guest RAM.
    pub fn check(&self, ram: &GuestRam, max_size: u16) -> Result<(), Malformed> {
        if !self.size.is_power_of_two() || self.size > max_size {
            return Err(Malformed("its size is not a power of two or exceeds the maximum"));
        }
        let size = u64::from(self.size);
        let parts = [
            (self.desc, 16, size * DESC_SIZE),
            (self.avail, 2, RING_HEADER + size * AVAIL_ELEM + EVENT),
            (self.used, 4, RING_HEADER + size * USED_ELEM + EVENT),
        ];
        for (addr, align, len) in parts {
            if !addr.is_multiple_of(align) {
                return Err(Malformed("one of its addresses is misaligned"));
            }
            // Checked first: the range check of vm-memory counts from the address on.
            if addr.checked_add(len).is_none() || !ram.check_range(GuestAddress(addr), len as usize)
            {
                return Err(Malformed("one of its addresses is outside guest memory"));
            }
        }
        Ok(())
    }
}

/// A live queue.
pub struct SplitQueue {
    ram: GuestRam,
    state: QueueState,
    /// Most descriptors in an indirect table, if there may be one.
    indirect: Option<u16>,
    event_idx: bool,
    /// The available index as last read.
    avail_seen: u16,
    /// The used index as last published.
    published: u16,
    /// Chains taken and not given back.
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
        state.check(&ram, max_size)?;
        Ok(Self {
            ram,
            state,
            indirect: (features & feature::INDIRECT_DESC != 0).then_some(max_size),
            event_idx: features & feature::EVENT_IDX != 0,
            avail_seen: state.next_avail,
            published: state.next_used,
            outstanding: 0,
        })
    }

    /// Its size.
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// What to save of it. Meaningful when every chain was given back.
    pub fn state(&self) -> QueueState {
        self.state
    }

    /// Take the next chain, if there is one.
    ///
    /// # Errors
    /// The available ring or the chain is malformed. The queue must not be used on.
    pub fn pop(&mut self) -> Result<Option<DescriptorChain>, Malformed> {
        if !self.available()? {
            return Ok(None);
        }
        if self.outstanding >= self.state.size {
            return Err(Malformed("more requests in flight than the queue has descriptors"));
        }
        let slot = u64::from(self.state.next_avail % self.state.size);
        let head: u16 =
            self.load(self.state.avail, RING_HEADER + slot * AVAIL_ELEM, Ordering::Relaxed)?;
        let source = Source {
            table: GuestAddress(self.state.desc),
            size: self.state.size,
            head,
            indirect: self.indirect,
        };
        let chain = DescriptorChain::read_from(&self.ram, source)?;
        self.state.next_avail = self.state.next_avail.wrapping_add(1);
        self.outstanding += 1;
        Ok(Some(chain))
    }

    /// Puts the chain that was popped last back, as if it had not been.
    pub fn put_back(&mut self) {
        self.state.next_avail = self.state.next_avail.wrapping_sub(1);
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Is a chain waiting? Reads the index again when those seen before are used up.
    fn available(&mut self) -> Result<bool, Malformed> {
        if self.avail_seen == self.state.next_avail {
            // Acquire: the ring's elements and descriptors were written before the index.
            self.avail_seen = self.load(self.state.avail, IDX, Ordering::Acquire)?;
        }
        let waiting = self.avail_seen.wrapping_sub(self.state.next_avail);
        if waiting > self.state.size {
            return Err(Malformed("the available index ran ahead by more than the queue's size"));
        }
        Ok(waiting != 0)
    }

    /// Give a chain back with the bytes written. The driver sees it after [`Self::publish`].
    ///
    /// # Errors
    /// Never for a queue that was checked; guest memory does not go away.
    pub fn push_used(&mut self, head: u16, len: u32) -> Result<(), Malformed> {
        let slot = u64::from(self.state.next_used % self.state.size);
        let at = offset(self.state.used, RING_HEADER + slot * USED_ELEM)?;
        let element = (u64::from(len) << 32 | u64::from(head)).to_le_bytes();
        self.ram.write_slice(&element, at).map_err(|_| GONE)?;
        self.state.next_used = self.state.next_used.wrapping_add(1);
        self.outstanding = self.outstanding.saturating_sub(1);
        Ok(())
    }

    /// Let the driver see what was given back since the last time. True if it wants an interrupt for it.
    ///
    /// # Errors
    /// As [`Self::push_used`].
    pub fn publish(&mut self) -> Result<bool, Malformed> {
        let (old, new) = (self.published, self.state.next_used);
        if old == new {
            return Ok(false);
        }
        self.store(self.state.used, IDX, new, Ordering::Release)?;
        self.published = new;
        // The index must be visible before the driver's wish is read, or each side could wait for the other. (2.7.7.2)
        fence(Ordering::SeqCst);
        if !self.event_idx {
            let flags: u16 = self.load(self.state.avail, 0, Ordering::Relaxed)?;
            return Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        let behind = RING_HEADER + u64::from(self.state.size) * AVAIL_ELEM;
        let used_event: u16 = self.load(self.state.avail, behind, Ordering::Relaxed)?;
        Ok(need_event(used_event, new, old))
    }

    /// Ask the driver not to notify: we are looking.
    ///
    /// # Errors
    /// As [`Self::push_used`].
    pub fn disable_notification(&mut self) -> Result<(), Malformed> {
        if self.event_idx {
            // avail_event stays behind, where no new index meets it for a whole turn. (2.7.10)
            return Ok(());
        }
        self.store(self.state.used, 0, VRING_USED_F_NO_NOTIFY as u16, Ordering::Relaxed)
    }

    /// Ask the driver to notify of the next chain. True if one came meanwhile, of which it may not notify.
    ///
    /// # Errors
    /// The available ring is malformed.
    pub fn enable_notification(&mut self) -> Result<bool, Malformed> {
        if self.event_idx {
            let behind = RING_HEADER + u64::from(self.state.size) * USED_ELEM;
            self.store(self.state.used, behind, self.state.next_avail, Ordering::Relaxed)?;
        } else {
            self.store(self.state.used, 0, 0, Ordering::Relaxed)?;
        }
        // The wish must be visible before the index is read for the last time. (2.7.10.2)
        fence(Ordering::SeqCst);
        self.available()
    }

    fn load(&self, base: u64, at: u64, order: Ordering) -> Result<u16, Malformed> {
        self.ram.load(offset(base, at)?, order).map(u16::from_le).map_err(|_| GONE)
    }

    fn store(&self, base: u64, at: u64, value: u16, order: Ordering) -> Result<(), Malformed> {
        self.ram.store(value.to_le(), offset(base, at)?, order).map_err(|_| GONE)
    }
}

/// Part of a queue that was checked is not guest memory; it cannot happen while RAM is only mapped once.
const GONE: Malformed = Malformed("it is not in guest memory");

fn offset(base: u64, at: u64) -> Result<GuestAddress, Malformed> {
    GuestAddress(base).checked_add(at).ok_or(GONE)
}

/// Did the index pass the event on its way from `old` to `new`? (2.7.7.2: vring_need_event)
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
