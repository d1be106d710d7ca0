//! Threads where a user may have few of them (RLIMIT_NPROC): `std::thread::spawn` panics there.

use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Do `work` by up to `count` threads, of which the caller's is one. There are fewer where the
/// system lets the user have no more; at the least the caller does all of it.
pub fn together(count: usize, work: impl Fn() + Sync) {
    scope(|scope| {
        for _ in 1..count {
            if Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Do `work` on each of `items` by up to `count` threads ([`together`]). One thread at a time asks
/// for the next, so that `items` may be what reads a file.
///
/// # Errors
/// The first failure, of an item or of the work on one. No other is asked for then.
pub fn try_each<T, E: Send>(
    count: usize,
    items: impl Iterator<Item = Result<T, E>> + Send,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (items, failed) = (Mutex::new(Some(items)), Mutex::new(None));
    let next = || {
        let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
        let next = items.as_mut()?.next();
        // What comes behind a failure may fail because of it.
        if next.as_ref().is_none_or(Result::is_err) {
            *items = None;
        }
        next
    };
    together(count, || {
        while let Some(item) = next() {
            if let Err(error) = item.and_then(&work) {
                *items.lock().unwrap_or_else(PoisonError::into_inner) = None;
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_item_is_worked_on_once() {
        let sum = AtomicU32::new(0);
        let add = |n: u32| {
            sum.fetch_add(n, Ordering::Relaxed);
            Ok::<_, ()>(())
        };
        try_each(4, (1..=1000).map(Ok), add).unwrap();
        assert_eq!(sum.into_inner(), 500_500);
    }

    #[test]
    fn a_failure_of_the_items_is_their_last_word() {
        for _ in 0..200 {
            let mut asked = 0;
            let items = std::iter::from_fn(|| {
                asked += 1;
                Some(if asked < 8 { Ok(asked) } else { Err(asked) })
            });
            assert_eq!(try_each(4, items, |_| Ok(())), Err(8));
        }
    }

    #[test]
    fn after_a_failure_no_item_is_asked_for() {
        let asked = AtomicU32::new(0);
        let items = (0..1000).inspect(|_| {
            asked.fetch_add(1, Ordering::Relaxed);
        });
        let fail = |n: u32| if n == 3 { Err(n) } else { Ok(()) };
        assert_eq!(try_each(1, items.map(Ok), fail), Err(3));
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        let broken = [Ok(1), Err(2), Ok(3)];
        let worked = Mutex::new(Vec::new());
        let work = |n| {
            worked.lock().unwrap().push(n);
            Ok(())
        };
        assert_eq!(try_each(1, broken.into_iter(), work), Err(2));
        assert_eq!(worked.into_inner().unwrap(), [1]);
    }
}
