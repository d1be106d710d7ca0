//! ^C in the middle of a long copy: noticed between two chunks, so that what was begun can be taken away.

use crate::error::{Error, OrFail, Result};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// From now on SIGINT, SIGTERM and SIGHUP are requests to cancel; a second one ends the process at once.
///
/// # Errors
/// The handlers can't be installed.
pub fn watch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Registered first, so that the first signal passes it and sets the flag.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag().clone())
            .or_fail(|| "install a signal handler")?;
        signal_hook::flag::register(signal, flag().clone())
            .or_fail(|| "install a signal handler")?;
    }
    Ok(())
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
