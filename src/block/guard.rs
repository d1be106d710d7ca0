//! Two small locks: ranges of clusters, and the age of operations in flight.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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

/// Tells when every operation that could have seen an old mapping has ended.
///
/// A host cluster that is no longer mapped may still be the target of operations in flight. It is reused
/// two epochs later: an epoch ends only when no operation of the one before is left.
#[derive(Default)]
pub(crate) struct Epochs {
    current: AtomicU64,
    active: [AtomicUsize; 2],
}

impl Epochs {
    /// An operation begins; give the result to [`Epochs::exit`] when it has ended.
    pub(crate) fn enter(&self) -> u64 {
        loop {
            let epoch = self.current.load(Ordering::SeqCst);
            self.active[epoch as usize & 1].fetch_add(1, Ordering::SeqCst);
            if self.current.load(Ordering::SeqCst) == epoch {
                return epoch;
            }
            self.exit(epoch);
        }
    }

    pub(crate) fn exit(&self, epoch: u64) {
        self.active[epoch as usize & 1].fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::SeqCst)
    }

    /// Begin the next epoch if nothing of the one before this is in flight. One caller at a time.
    pub(crate) fn advance(&self) {
        let epoch = self.current();
        if self.active[(epoch as usize + 1) & 1].load(Ordering::SeqCst) == 0 {
            self.current.store(epoch + 1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_epochs_outlast_every_operation_of_the_first() {
        let epochs = Epochs::default();
        let old = epochs.enter();
        epochs.advance();
        epochs.advance();
        epochs.advance();
        assert!(epochs.current() < old + 2);
        epochs.exit(old);
        epochs.advance();
        assert_eq!(epochs.current(), old + 2);
    }
}
