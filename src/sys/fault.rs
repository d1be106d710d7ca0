//! Places where a test has a process end on the spot, to see what the next command makes of what is
//! left.
//!
//! In a debug build `SPORE_FAULT=N` sends SIGKILL to a command when it comes to its N-th point,
//! whichever that is, and `SPORE_VMM_FAULT=N` ends the VMMs that it starts at their N-th. A release
//! build has neither the points nor the variables.

#[cfg(debug_assertions)]
mod points {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The variable that a VMM, whose environment is empty otherwise, is given.
    pub const VMM: &str = "SPORE_VMM_FAULT";

    /// Whether this is the point that `variable` counts to.
    pub fn is_last(variable: &str) -> bool {
        static LAST: OnceLock<Option<u64>> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = || std::env::var(variable).ok()?.parse().ok();
        let Some(last) = *LAST.get_or_init(number) else { return false };
        COUNT.fetch_add(1, Ordering::Relaxed) + 1 == last
    }
}

/// A step of a command that a kill may come just before; `name` is told on stderr then.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    if points::is_last("SPORE_FAULT") {
        eprintln!("spore: killed before: {name}");
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// A step of a VMM that a kill may come just before. Its filters let it kill nobody, but end.
#[cfg(debug_assertions)]
pub fn vmm_point() {
    if points::is_last(points::VMM) {
        super::fds::exit_now(128 + libc::SIGKILL);
    }
}

/// What a VMM's environment has.
#[cfg(debug_assertions)]
pub fn vmm_environment() -> Vec<String> {
    let set = std::env::var(points::VMM).into_iter();
    set.map(|number| format!("{}={number}", points::VMM)).collect()
}

/// Nothing: there are no faults in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Nothing, as [`point`].
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn vmm_point() {}

/// Nothing, as [`point`].
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn vmm_environment() -> Vec<String> {
    Vec::new()
}
