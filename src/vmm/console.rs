//! The host's end of the serial line: a bounded log file, and what attached clients are to see.

use crate::chipset::serial::SerialHost;
use crate::error::{OrFail, Result};
use crate::plan::times::{self, Entry};
use crate::sys::fds;
use crate::virtio::bucket::Bucket;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use vmm_sys_util::eventfd::EventFd;

/// The log never grows beyond this; then its older half goes.
const MAX_LOG: u64 = 64 << 20;
/// As the log: this much of its times is kept.
const MAX_TIMES: u64 = 2 << 20;
/// What is said so soon after something was said at the same time.
const SAME_TIME: Duration = Duration::from_millis(10);
/// Output that waits for the event thread; a guest that is faster writes its log itself.
const MAX_PENDING: usize = 64 << 10;
/// Bytes a second that the log takes, and at once after a while without. The fastest serial line
/// ever sold has a tenth of it.
const RATE: (u64, u64) = (4 << 20, 16 << 20);
/// A vCPU waits so long at most before it may go on to flood its console: it can be stopped
/// meanwhile.
const MAX_WAIT: Duration = Duration::from_millis(20);
/// What Linux says when it panics. (kernel/panic.c)
const BANNER: &[u8] = b"Kernel panic - not syncing";

struct Output {
    /// Not yet in the log.
    pending: Vec<u8>,
    log: File,
    log_len: u64,
    times: Option<Times>,
    /// Bytes of [`BANNER`] that the output ends with.
    matched: usize,
    panicked: bool,
    bucket: Bucket,
}

/// The file that says when what is in the log was said. That it can't be written is no reason to
/// stop a machine, nor to lose what it says.
struct Times {
    file: File,
    len: u64,
    /// Since the epoch.
    last: Option<Duration>,
}

/// The serial line's host end.
pub struct Console {
    output: Mutex<Output>,
    /// Readable when there is output, or input is wanted.
    pub wake: EventFd,
}

impl Console {
    /// Output goes to `log`, after what is in it, and its times to `times`.
    ///
    /// # Errors
    /// The file cannot be looked at, or no descriptors are left.
    pub fn new(log: File, times: Option<File>) -> Result<Self> {
        let log_len = log.metadata().or_fail(|| "read the console log's size")?.len();
        let pending = Vec::with_capacity(256);
        let output = Output {
            pending,
            log,
            log_len,
            times: times.map(Times::new).transpose()?,
            matched: 0,
            panicked: false,
            bucket: Bucket::new(RATE.0, RATE.1),
        };
        let wake = fds::eventfd().or_fail(|| "create an eventfd")?;
        Ok(Self { output: Mutex::new(output), wake })
    }

    fn state(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is woken already.
        let _ = self.wake.write(1);
    }

    /// Make `wake` unreadable until something new happens. Before [`Console::flush`], so that
    /// nothing is missed.
    pub fn acknowledge(&self) {
        // Non-blocking; nothing to read is as good.
        let _ = self.wake.read();
    }

    /// Write out what is pending; the same bytes are for the clients. With that, true if the
    /// guest's kernel has said that it panicked, once.
    pub fn flush(&self) -> (Vec<u8>, bool) {
        let mut output = self.state();
        let bytes = output.write_out();
        (bytes, std::mem::take(&mut output.panicked))
    }
}

impl SerialHost for Console {
    fn output(&self, byte: u8) {
        let mut output = self.state();
        output.pending.push(byte);
        match output.pending.len() {
            1 => {
                drop(output);
                self.wake();
            }
            MAX_PENDING => {
                // A guest that floods its console pays for it; clients miss what is only in the
                // log.
                output.write_out();
                let wait = output.bucket.wait();
                drop(output);
                if let Some(wait) = wait {
                    std::thread::park_timeout(wait.min(MAX_WAIT));
                }
            }
            _ => {}
        }
    }

    fn input_wanted(&self) {
        self.wake();
    }
}

impl Output {
    fn write_out(&mut self) -> Vec<u8> {
        let bytes = std::mem::replace(&mut self.pending, Vec::with_capacity(256));
        if bytes.is_empty() {
            return bytes;
        }
        self.look_for_panic(&bytes);
        self.bucket.charge(bytes.len() as u64);
        if let Some(times) = &mut self.times {
            times.note(self.log_len);
        }
        // A log that has no room left is no reason to stop a machine.
        if self.log.write_all(&bytes).is_ok() {
            self.log_len += bytes.len() as u64;
        }
        if self.log_len > MAX_LOG {
            let before = self.log_len;
            self.log_len = self.drop_older_half();
            if let Some(times) = &mut self.times {
                let collapsed = before - self.log_len == MAX_LOG / 2;
                times.write(Entry::Cut(if collapsed { MAX_LOG / 2 } else { before }));
            }
        }
        bytes
    }

    /// The new length of the log. Where the file system cannot cut a file's beginning off, all of
    /// it goes.
    fn drop_older_half(&mut self) -> u64 {
        let cut = fallocate(&self.log, FallocateFlags::COLLAPSE_RANGE, 0, MAX_LOG / 2);
        if cut.is_ok() {
            return self.log_len - MAX_LOG / 2;
        }
        let mark = b"[the console log was full and starts again here]\n";
        let started =
            self.log.set_len(0).and_then(|()| std::io::Seek::rewind(&mut self.log)).is_ok();
        if started && self.log.write_all(mark).is_ok() { mark.len() as u64 } else { 0 }
    }

    fn look_for_panic(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // The banner's first letter occurs nowhere else in it, so a mismatch starts over.
            self.matched = match byte {
                b if b == BANNER[self.matched] => self.matched + 1,
                b if b == BANNER[0] => 1,
                _ => 0,
            };
            if self.matched == BANNER.len() {
                self.panicked = true;
                self.matched = 0;
            }
        }
    }
}

impl Times {
    fn new(file: File) -> Result<Self> {
        let doing = || "read the times of the console log";
        let len = file.metadata().or_fail(doing)?.len();
        let whole = len / times::LEN as u64 * times::LEN as u64;
        if whole < len {
            file.set_len(whole).or_fail(doing)?;
        }
        Ok(Self { file, len: whole, last: None })
    }

    /// What comes after this byte of the log is said now.
    fn note(&mut self, from: u64) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let soon = |last: Duration| now.checked_sub(last).is_some_and(|since| since < SAME_TIME);
        if !self.last.is_some_and(soon) {
            self.last = Some(now);
            let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            self.write(Entry::Said { from, at });
        }
    }

    fn write(&mut self, entry: Entry) {
        if self.file.write_all(&entry.to_bytes()).is_ok() {
            self.len += times::LEN as u64;
        }
        if self.len > MAX_TIMES {
            let cut = fallocate(&self.file, FallocateFlags::COLLAPSE_RANGE, 0, MAX_TIMES / 2);
            self.len = match cut {
                Ok(()) => self.len - MAX_TIMES / 2,
                Err(_) if self.file.set_len(0).is_ok() => 0,
                Err(_) => self.len,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn console() -> (Console, File) {
        let file = fds::memfd("console").unwrap();
        (Console::new(file.try_clone().unwrap(), None).unwrap(), file)
    }

    fn send(console: &Console, text: &[u8]) {
        text.iter().for_each(|&byte| console.output(byte));
    }

    #[test]
    fn output_reaches_log_and_clients() {
        let (console, file) = console();
        send(&console, b"hello\n");
        assert_eq!(console.flush(), (b"hello\n".to_vec(), false));
        assert_eq!(file.metadata().unwrap().len(), 6);
    }

    #[test]
    fn a_flood_is_slowed_down() {
        let (console, _file) = console();
        console.state().bucket = Bucket::new(1 << 20, 1);
        let begin = Instant::now();
        (0..8).for_each(|_| send(&console, &[b'x'; MAX_PENDING]));
        assert!(begin.elapsed() >= 7 * MAX_WAIT);
    }

    #[test]
    fn a_panic_is_seen_even_in_pieces_and_told_once() {
        let (console, _file) = console();
        send(&console, b"[    1.0] KKernel pan");
        assert!(!console.flush().1);
        send(&console, b"ic - not syncing: VFS: Unable to mount root fs");
        assert!(console.flush().1);
        assert!(!console.flush().1);
    }

    #[test]
    fn the_log_stays_bounded() {
        let (console, file) = console();
        console.state().bucket = Bucket::new(u64::MAX, u64::MAX);
        for _ in 0..MAX_LOG / MAX_PENDING as u64 + 3 {
            send(&console, &[b'x'; MAX_PENDING]);
            console.flush();
        }
        assert!(file.metadata().unwrap().len() <= MAX_LOG);
    }
}
