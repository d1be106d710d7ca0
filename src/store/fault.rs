//! Places where a test has this process killed, to see what the next command makes of what is left.
//!
//! In a debug build `SPORE_FAULT=N` sends SIGKILL to the process when it comes to its N-th point,
//! whichever that is. A release build has neither the points nor the variable.

/// A step of the store that a kill may come just before; `name` is told on stderr then.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: OnceLock<Option<u64>> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = || std::env::var("SPORE_FAULT").ok()?.parse().ok();
    let Some(last) = *LAST.get_or_init(number) else { return };
    if COUNT.fetch_add(1, Ordering::Relaxed) + 1 == last {
        eprintln!("spore: killed before: {name}");
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing: there are no faults in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}
