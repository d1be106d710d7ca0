//! Submission and completion queues in guest memory. (NVM Express 1.4, 4.1)

use super::command::{COMMAND_LEN, COMPLETION_LEN, Command, Completion};
use super::prp::PAGE;
use crate::mem::GuestRam;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Most entries of a queue: CAP.MQES + 1.
pub const MAX_ENTRIES: u32 = 1024;

/// Whether a queue of `entries` entries of `len` bytes each can be at `base`.
pub fn fits(ram: &GuestRam, base: u64, entries: u32, len: u64) -> bool {
    let bytes = u64::from(entries) * len;
    base.is_multiple_of(PAGE) && ram.check_range(GuestAddress(base), bytes as usize)
}

/// A submission queue, as whoever serves it knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Its number.
    pub id: u16,
    /// Guest-physical address.
    pub base: u64,
    /// Entries.
    pub size: u32,
    /// The next to be fetched.
    pub head: u32,
    /// The number of its completion queue.
    pub completes_in: u16,
    /// Completions for which there was no room yet.
    pub backlog: VecDeque<Completion>,
}

impl Submission {
    /// The next command, if the driver has put the tail behind it. `None` also if the queue is not
    /// guest memory, as it was when it was made.
    pub fn fetch(&mut self, ram: &GuestRam, tail: u32) -> Option<Command> {
        if self.head == tail {
            return None;
        }
        let mut bytes = [0; COMMAND_LEN as usize];
        let at = self.base.checked_add(u64::from(self.head) * COMMAND_LEN)?;
        ram.read_slice(&mut bytes, GuestAddress(at)).ok()?;
        self.head = (self.head + 1) % self.size.max(1);
        Some(Command::parse(&bytes))
    }
}

/// What a snapshot keeps of a completion queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// Guest-physical address.
    pub base: u64,
    /// Entries.
    pub size: u32,
    /// Where the next completion goes.
    pub tail: u32,
    /// Its Phase Tag.
    pub phase: bool,
}

/// A completion queue, or the place of one. Several submission queues may complete in it.
#[derive(Default)]
pub struct CompletionQueue {
    ring: Mutex<Option<Ring>>,
    /// The driver's doorbell.
    head: AtomicU32,
    /// Somebody waits for room.
    starved: AtomicBool,
}

impl CompletionQueue {
    /// A ring is right between any two statements, whoever panicked.
    pub fn ring(&self) -> MutexGuard<'_, Option<Ring>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Make it this, with the driver's head.
    pub fn set(&self, ring: Option<Ring>, head: u32) {
        let mut own = self.ring();
        self.head.store(head, Ordering::SeqCst);
        self.starved.store(false, Ordering::SeqCst);
        *own = ring;
    }

    /// The driver's head.
    pub fn head(&self) -> u32 {
        self.head.load(Ordering::SeqCst)
    }

    /// The driver has taken what was before `head`. False if there is no such place. Then, whether
    /// somebody waited for it.
    pub fn move_head(&self, head: u32) -> Option<bool> {
        // Held until it is done: another queue may take this one's place.
        let own = self.ring();
        if head >= own.as_ref().map_or(0, |ring| ring.size) {
            return None;
        }
        self.head.store(head, Ordering::SeqCst);
        Some(self.starved.swap(false, Ordering::SeqCst))
    }

    /// Post what waits in a submission queue's backlog, as much as there is room for. True if
    /// anything was.
    pub fn post(&self, ram: &GuestRam, from: &mut Submission) -> bool {
        let mut own = self.ring();
        let Some(ring) = own.as_mut() else {
            // Its driver has deleted it.
            from.backlog.clear();
            return false;
        };
        let mut posted = false;
        while let Some(completion) = from.backlog.front() {
            let next = (ring.tail + 1) % ring.size.max(1);
            if next == self.head() {
                self.starved.store(true, Ordering::SeqCst);
                // It may have moved before it was known that somebody waits.
                if next == self.head() {
                    break;
                }
            }
            let at = GuestAddress(ring.base + u64::from(ring.tail) * COMPLETION_LEN);
            let beginning = completion.beginning(from.id, from.head as u16);
            // They were guest memory when the queue was made, and that does not go away.
            let _ = ram.write_slice(&beginning, at);
            let end = completion.end(ring.phase);
            let _ = ram.store(end, GuestAddress(at.0 + 12), Ordering::Release);
            from.backlog.pop_front();
            ring.phase ^= next == 0;
            ring.tail = next;
            posted = true;
        }
        posted
    }
}
