//! The signals that ask a command which stays to end.

use crate::error::{OrFail, Result};
use crate::service::foreground::Signals;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A signal that comes so soon after one is the same: timeout(1) and others send two.
pub const SAME: Duration = Duration::from_secs(1);

/// 128 and the signal's number, as shells have it.
pub fn by_signal(number: i32) -> ExitCode {
    ExitCode::from(128u8.saturating_add(u8::try_from(number).unwrap_or(0)))
}

/// The signals that ask for the end.
pub struct Caught {
    /// A byte for each that came.
    pipe: UnixStream,
    /// The number of the last.
    number: Arc<AtomicUsize>,
}

impl Caught {
    /// From now on they end nothing by themselves. Those that whoever started us ignores (nohup(1),
    /// a shell's background) stay ignored.
    ///
    /// # Errors
    /// The handlers can't be installed.
    pub fn install() -> Result<Self> {
        let doing = || "install a signal handler";
        let (pipe, end) = UnixStream::pair().or_fail(doing)?;
        pipe.set_nonblocking(true).or_fail(doing)?;
        let number = Arc::<AtomicUsize>::default();
        let ignored = ignored();
        for signal in [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|s| ignored >> (s - 1) & 1 == 0)
        {
            signal_hook::flag::register_usize(
                signal,
                number.clone(),
                signal.unsigned_abs() as usize,
            )
            .or_fail(doing)?;
            signal_hook::low_level::pipe::register(signal, end.try_clone().or_fail(doing)?)
                .or_fail(doing)?;
        }
        Ok(Self { pipe, number })
    }
}

/// The signals that this process ignores, a bit each from signal 1 on. (proc(5), SigIgn)
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

impl Signals for Caught {
    fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    fn take(&self) -> Option<i32> {
        let count = (&self.pipe).read(&mut [0; 64]).unwrap_or(0);
        (count > 0).then(|| i32::try_from(self.number.load(Ordering::Relaxed)).unwrap_or(SIGTERM))
    }
}

/// Who passes signals on to one of several that wait each for themselves.
pub struct Relay(UnixStream);

/// The signals that are passed on to one of them.
pub struct Relayed(UnixStream);

/// A pair of them.
///
/// # Errors
/// There are no more descriptors.
pub fn relay() -> Result<(Relay, Relayed)> {
    let doing = || "pass signals on";
    let (sender, relayed) = UnixStream::pair().or_fail(doing)?;
    sender.set_nonblocking(true).or_fail(doing)?;
    relayed.set_nonblocking(true).or_fail(doing)?;
    Ok((Relay(sender), Relayed(relayed)))
}

impl Relay {
    /// Passes one on. Who has so many before it has no need of it.
    pub fn tell(&self, number: i32) {
        let _ = (&self.0).write_all(&[u8::try_from(number).unwrap_or(0)]);
    }
}

impl Signals for Relayed {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn take(&self) -> Option<i32> {
        let mut numbers = [0; 64];
        let count = (&self.0).read(&mut numbers).unwrap_or(0);
        numbers[..count].last().map(|number| i32::from(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_signals_that_are_passed_on_the_last_counts() {
        let (sender, relayed) = relay().unwrap();
        assert_eq!(relayed.take(), None);
        [SIGINT, SIGTERM].into_iter().for_each(|number| sender.tell(number));
        assert_eq!(relayed.take(), Some(SIGTERM));
        assert_eq!(relayed.take(), None);
    }
}
