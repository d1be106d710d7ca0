//! ^C in the middle of a long copy: noticed between two chunks, so that what was begun can be taken away.

use crate::error::{Error, OrFail, Result};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// The number of the signal that asked; 0 for none.
fn signal() -> &'static Arc<AtomicUsize> {
    static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    SIGNAL.get_or_init(Arc::default)
}

/// From now on SIGINT, SIGTERM and SIGHUP are requests to cancel; a second one ends the process at once.
///
/// # Errors
/// The handlers can't be installed.
pub fn watch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for number in [SIGINT, SIGTERM, SIGHUP] {
        // Registered first, so that the first signal passes it and sets the flag.
        signal_hook::flag::register_conditional_shutdown(number, 128 + number, flag().clone())
            .or_fail(|| "install a signal handler")?;
        let value = number.unsigned_abs() as usize;
        signal_hook::flag::register_usize(number, signal().clone(), value)
            .or_fail(|| "install a signal handler")?;
        signal_hook::flag::register(number, flag().clone())
            .or_fail(|| "install a signal handler")?;
    }
    Ok(())
}

/// The exit code of a command that was cancelled: 128 and the signal's number, as shells have it.
pub fn exit_code() -> u8 {
    let signal = u8::try_from(signal().load(Ordering::Relaxed)).unwrap_or(0);
    128 + if signal == 0 { 2 } else { signal }
}

/// Whether a signal has asked to stop.
pub fn requested() -> bool {
    flag().load(Ordering::Relaxed)
}

/// # Errors
/// Cancellation was requested.
pub fn check() -> Result<()> {
    if requested() { Err(Error::failure("cancelled; nothing was kept")) } else { Ok(()) }
}

/// [`check`] for readers.
///
/// # Errors
/// Cancellation was requested.
pub fn check_io() -> io::Result<()> {
    if requested() { Err(io::Error::other("cancelled; nothing was kept")) } else { Ok(()) }
}
