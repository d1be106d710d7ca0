//! What a controller's threads share: its disk, its queues' doorbells, its interrupts.

use super::queue::{CompletionQueue, Submission};
use crate::mem::GuestRam;
use crate::virtio::blk::shared;
use crate::virtio::device::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The one namespace.
pub const NAMESPACE: u32 = 1;

/// The doorbell of a submission queue: in the low half where the driver puts the next command, in
/// the high half the queue's entries, 0 if there is none. One word, for a doorbell may ring while
/// another queue takes the place.
#[derive(Default)]
struct Tail(AtomicU64);

impl Tail {
    fn get(&self) -> (u32, u32) {
        let word = self.0.load(Ordering::SeqCst);
        ((word >> 32) as u32, word as u32)
    }
}

/// What the vCPUs' threads and those of the queues share. Queue 0 is the admin queue.
pub struct Shared {
    /// The disk, as its limits, counters and notices have it.
    pub disk: Arc<shared::Shared>,
    /// Guest memory.
    pub ram: GuestRam,
    tails: Vec<Tail>,
    completion: Vec<CompletionQueue>,
    /// The driver has the volatile write cache on.
    cached: AtomicBool,
    interrupt: Arc<dyn Signal>,
}

impl Shared {
    /// That of a controller with `queues` I/O queues.
    pub fn new(
        disk: Arc<shared::Shared>,
        ram: GuestRam,
        queues: u16,
        interrupt: Arc<dyn Signal>,
    ) -> Self {
        let (mut tails, mut completion) = (Vec::new(), Vec::new());
        tails.resize_with(usize::from(queues) + 1, Tail::default);
        completion.resize_with(usize::from(queues) + 1, CompletionQueue::default);
        Self { disk, ram, tails, completion, cached: AtomicBool::new(true), interrupt }
    }

    /// I/O queues that there may be.
    pub fn queues(&self) -> u16 {
        self.tails.len() as u16 - 1
    }

    /// Let submission queue `id` have `size` entries, or none, and its tail at `at`.
    pub fn set_submission(&self, id: u16, size: u32, at: u32) {
        if let Some(tail) = self.tails.get(usize::from(id)) {
            tail.0.store(u64::from(size) << 32 | u64::from(at), Ordering::SeqCst);
        }
    }

    /// Entries of submission queue `id`; 0 if there is none.
    pub fn submission_size(&self, id: u16) -> u32 {
        self.tails.get(usize::from(id)).map_or(0, |tail| tail.get().0)
    }

    /// The tail of submission queue `id`.
    pub fn tail(&self, id: u16) -> u32 {
        self.tails.get(usize::from(id)).map_or(0, |tail| tail.get().1)
    }

    /// The driver has put commands before `at`. False if the queue has no such place.
    pub fn move_tail(&self, id: u16, at: u32) -> bool {
        let Some(tail) = self.tails.get(usize::from(id)) else { return false };
        let moved = |word: u64| {
            let size = word >> 32;
            (u64::from(at) < size).then_some(size << 32 | u64::from(at))
        };
        tail.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved).is_ok()
    }

    /// Completion queue `id`, or its place.
    pub fn completion(&self, id: u16) -> Option<&CompletionQueue> {
        self.completion.get(usize::from(id))
    }

    /// Post a submission queue's backlog, and interrupt. True if anything was posted.
    pub fn post(&self, from: &mut Submission) -> bool {
        let id = from.completes_in;
        let posted = self.completion(id).is_some_and(|queue| queue.post(&self.ram, from));
        if posted {
            self.interrupt.used(id);
        }
        posted
    }

    /// Writes are durable when they complete.
    pub fn write_through(&self) -> bool {
        !self.cached.load(Ordering::SeqCst)
    }

    /// Have the volatile write cache on, or off.
    pub fn set_cached(&self, on: bool) {
        self.cached.store(on, Ordering::SeqCst);
    }

    /// Stop the controller for this reason: CSTS.CFS.
    pub fn stop(&self, reason: &str) {
        self.interrupt.stop(reason);
    }

    /// It is stopped.
    pub fn stopped(&self) -> bool {
        self.interrupt.stopped()
    }
}
