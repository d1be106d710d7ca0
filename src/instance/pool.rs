//! Doing the same to many instances at once.

use crate::sys::threads;
use rustix::process::{Resource, getrlimit};
use std::convert::Infallible;
use std::sync::Mutex;

/// Descriptors that a launch may have open at a time.
const DESCRIPTORS: u64 = 48;

/// `work` on every item by a few threads (twice the cores: each waits for a disk or a child half of
/// its time), fewer where this process may have few open files; the results in the items' order.
pub fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let files = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |files| files / DESCRIPTORS);
    let count = (cores * 2).min(items.len()).min(usize::try_from(files).unwrap_or(usize::MAX));
    if count <= 1 {
        return items.iter().map(work).collect();
    }
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    let Ok(()) = threads::try_each(count, items.iter().enumerate().map(Ok), |(index, item)| {
        let result = work(item);
        results.lock().unwrap_or_else(|e| e.into_inner()).push((index, result));
        Ok::<_, Infallible>(())
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        assert_eq!(parallel(&items, |i| i * 2), items.iter().map(|i| i * 2).collect::<Vec<_>>());
        assert!(parallel(&[], |i: &u32| *i).is_empty());
    }
}
