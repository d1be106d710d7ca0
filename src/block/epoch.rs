//! The age of operations in flight.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Tells when every operation that could have seen an old mapping has ended.
///
/// A host cluster that is no longer mapped may still be the target of operations in flight. It is
/// reused two epochs later: an epoch ends only when no operation of the one before is left.
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
