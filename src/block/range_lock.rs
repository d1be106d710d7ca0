//! Ranges of guest clusters, each of which one thread changes at a time.

use std::ops::Range;
use std::sync::{Condvar, Mutex};

/// Exclusive ranges of guest clusters: who allocates, zeroes or discards one holds it.
#[derive(Default)]
pub(crate) struct RangeLock {
    held: Mutex<Vec<Range<u64>>>,
    released: Condvar,
}

pub(crate) struct RangeGuard<'a> {
    lock: &'a RangeLock,
    range: Range<u64>,
}

impl RangeLock {
    /// Wait until no one holds a part of `range`, and hold it.
    pub(crate) fn lock(&self, range: Range<u64>) -> RangeGuard<'_> {
        let mut held = self.held.lock().unwrap();
        while held.iter().any(|h| h.start < range.end && range.start < h.end) {
            held = self.released.wait(held).unwrap();
        }
        held.push(range.clone());
        RangeGuard { lock: self, range }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.lock.held.lock().unwrap();
        if let Some(at) = held.iter().position(|h| *h == self.range) {
            held.swap_remove(at);
        }
        drop(held);
        self.lock.released.notify_all();
    }
}
