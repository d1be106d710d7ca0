//! What a VMM leaves behind in its report file, and the line on its `ready` pipe.

use crate::error::{Error, OrFail, Result};
use crate::plan::{DeviceId, EndReason, Engine, Ready, ResetBy, SavedEnvironment, VmReport};
use crate::sys::fds;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most notices in one VMM's life: a guest can provoke them and they end in a file.
const MAX_NOTICES: u32 = 1000;
/// Most resets told one by one; the rest are told in one line at the end. What reads a report reads
/// its last 256 KiB.
const MAX_RESETS: u32 = 100;

/// The report file. Each event is one `write` of one line, so that lines of several threads do not
/// mix.
pub struct Report {
    file: File,
    /// The launcher's pipe, until it has heard.
    ready: Mutex<Option<File>>,
    notices: AtomicU32,
    resets: AtomicU32,
    /// What the boot menu last left to be remembered, if that is not told yet.
    saved: Mutex<Option<VmReport>>,
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn line(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).or_fail(|| "write JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl Report {
    /// Reports go to `file`, which is open for appending. `ready` is the launcher's pipe, if it
    /// waits.
    pub fn new(file: File, ready: Option<File>) -> Self {
        Self {
            file,
            ready: Mutex::new(ready),
            notices: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            saved: Mutex::default(),
        }
    }

    /// Tell the launcher on its pipe that the machine runs, and close that.
    pub fn running(&self, engines: BTreeMap<DeviceId, Engine>) {
        let mut pipe = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        answer(pipe.take(), &Ready::Running { engines });
    }

    /// What does not run, ends. The first thread that comes here tells why.
    pub fn fail(&self, error: &Error) -> ! {
        // Held until the process is gone.
        let mut pipe = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended(EndReason::VmmError, &error.to_string());
        let (message, code) =
            (error.message().to_owned(), error.code().map(|code| code.as_str().to_owned()));
        answer(pipe.take(), &Ready::Failed { message, kind: error.kind(), code });
        fds::exit_now(error.exit_code().into())
    }

    /// The file's descriptor, for who cannot use more than that (a signal handler).
    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Append one event. A report that cannot be written (no space left) cannot be reported: the
    /// machine runs on.
    pub fn tell(&self, event: &VmReport) {
        if let Ok(bytes) = line(event) {
            let _ = (&self.file).write_all(&bytes);
        }
    }

    /// Tell one line of text.
    pub fn notice(&self, message: &str) {
        if self.notices.fetch_add(1, Ordering::Relaxed) < MAX_NOTICES {
            self.tell(&VmReport::Notice { at: now_ms(), message: message.to_owned() });
        }
    }

    /// A hibernated machine is about to go on.
    ///
    /// # Errors
    /// It can't be told, so it must not.
    pub fn resumed(&self) -> Result<()> {
        let bytes = line(&VmReport::Resumed { at: now_ms() })?;
        (&self.file).write_all(&bytes).or_fail(|| "report that the machine goes on")
    }

    /// The machine was reset and runs again. `saved` is what the boot menu left to be remembered,
    /// if it did. Of a guest that resets for ever only the beginning is told, and the last that is
    /// to be remembered.
    pub fn reset(&self, by: ResetBy, saved: Option<Option<SavedEnvironment>>) {
        let (at, count) = (now_ms(), self.resets.fetch_add(1, Ordering::Relaxed) + 1);
        let mut kept = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = saved.map(|environment| VmReport::Saved { at, environment });
        if count > MAX_RESETS {
            *kept = saved.or(kept.take());
            return;
        }
        self.tell(&VmReport::Reset { at, by });
        if let Some(saved) = saved {
            self.tell(&saved);
        }
        self.tell(&VmReport::Started { at });
    }

    /// Resets so far.
    pub fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Tell how it ended: the last line.
    pub fn ended(&self, reason: EndReason, message: &str) {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(saved) = saved {
            self.tell(&saved);
        }
        let resets = self.resets();
        if resets > MAX_RESETS {
            let message =
                format!("{resets} resets in all, of which the first {MAX_RESETS} are told");
            self.tell(&VmReport::Notice { at: now_ms(), message });
        }
        self.tell(&VmReport::Ended { at: now_ms(), reason, message: message.to_owned() });
    }
}

fn answer(pipe: Option<File>, state: &Ready) {
    if let (Some(mut pipe), Ok(bytes)) = (pipe, line(state)) {
        // The launcher may be gone; that is its affair.
        let _ = pipe.write_all(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_guest_that_resets_for_ever_fills_no_report() {
        let file = crate::sys::fds::memfd("report").unwrap();
        let report = Report::new(file.try_clone().unwrap(), None);
        let saved = |n: u64| SavedEnvironment { digest: n.to_string(), ..Default::default() };
        for n in 0..100_000 {
            report.reset(ResetBy::Acpi, (n % 3 == 0).then(|| Some(saved(n))));
        }
        report.ended(EndReason::Terminated, "over");
        let (mut text, mut file) = (String::new(), file);
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert!(text.len() < 64 << 10, "{} bytes", text.len());
        let events: Vec<VmReport> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [.., kept, count, end] = &events[..] else { panic!("{events:?}") };
        assert!(
            matches!(kept, VmReport::Saved { environment: Some(last), .. } if *last == saved(99_999))
        );
        assert!(
            matches!(count, VmReport::Notice { message, .. } if message.contains("100000 resets"))
        );
        assert!(matches!(end, VmReport::Ended { .. }));
    }

    #[test]
    fn events_are_lines_of_json_and_notices_are_bounded() {
        let file = crate::sys::fds::memfd("report").unwrap();
        let report = Report::new(file.try_clone().unwrap(), None);
        for _ in 0..2 * MAX_NOTICES {
            report.notice("disk full");
        }
        report.ended(EndReason::GuestPoweroff, "over\nand out");
        let (mut text, mut file) = (String::new(), file);
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        let events: Vec<VmReport> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), MAX_NOTICES as usize + 1);
        assert!(matches!(&events[0], VmReport::Notice { message, .. } if message == "disk full"));
        let last = events.last().unwrap();
        assert!(matches!(last, VmReport::Ended { reason: EndReason::GuestPoweroff, .. }));
    }
}
