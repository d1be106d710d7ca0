//! Threads where a user may have few of them (RLIMIT_NPROC): `std::thread::spawn` panics there.

use std::thread::{Builder, scope};

/// Do `work` by up to `count` threads, of which the caller's is one. There are fewer where the system lets the user have
/// no more; at the least the caller does all of it.
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
