//! The serial line: its log, what can be seen in it, and attaching to it.

use super::client::ask;
use super::dir::{CONSOLE, InstanceDir};
use super::plain::Plain;
use super::times::{Stamped, Times};
use crate::control::Request;
use crate::error::{Error, OrFail, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::Builder;

/// ^], the key that detaches, as in telnet and virsh.
pub const DETACH: u8 = 0x1d;
/// A login prompt, as agetty(8) and busybox print it.
pub const PROMPT: &[&[u8]] = &[b"login: "];
/// cloud-init's last words of a boot. (cloudinit/cmd/main.py)
pub const CLOUD_INIT: &[&[u8]] = &[b"Cloud-init v.", b" finished at "];
/// Most bytes of a line that are looked at.
const MAX_LINE: usize = 4096;

/// Watches a console log for a line that holds these pieces in their order, reading each byte once.
#[derive(Debug)]
pub struct ConsoleWatch {
    pieces: &'static [&'static [u8]],
    at: u64,
    line: Vec<u8>,
    seen: bool,
}

impl ConsoleWatch {
    /// Watch from byte `start` on.
    pub fn new(start: u64, pieces: &'static [&'static [u8]]) -> Self {
        Self { pieces, at: start, line: Vec::new(), seen: false }
    }

    /// True once there is such a line, or its beginning.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn seen(&mut self, dir: &InstanceDir) -> Result<bool> {
        if self.seen {
            return Ok(true);
        }
        let path = dir.file(CONSOLE);
        let Some(mut file) = dir.open_file(CONSOLE)? else { return Ok(false) };
        file.seek(SeekFrom::Start(self.at)).or_fail(|| format!("read {}", path.display()))?;
        let mut chunk = [0; 64 << 10];
        while !self.seen {
            let count = file.read(&mut chunk).or_fail(|| format!("read {}", path.display()))?;
            if count == 0 {
                break;
            }
            self.at += count as u64;
            self.feed(&chunk[..count]);
        }
        Ok(self.seen)
    }

    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            self.seen |= holds(&self.line, self.pieces);
            if piece.ends_with(b"\n") {
                self.line.clear();
            }
            // What a line without an end has in its middle is nothing that is watched for.
            let excess = self.line.len().saturating_sub(MAX_LINE);
            self.line.drain(..excess);
        }
    }
}

/// Whether a line holds these pieces in their order.
fn holds(mut line: &[u8], pieces: &[&[u8]]) -> bool {
    pieces.iter().all(|piece| {
        let at = memchr::memmem::find(line, piece);
        line = at.map_or(&[], |at| &line[at + piece.len()..]);
        at.is_some()
    })
}

/// The last `count` lines of the log from byte `start` on, made safe to print: no control
/// characters.
///
/// # Errors
/// The log can't be read.
pub fn last_lines(dir: &InstanceDir, start: u64, count: usize) -> Result<Vec<String>> {
    const WINDOW: u64 = 64 << 10;
    let path = dir.file(CONSOLE);
    let Some(mut file) = dir.open_file(CONSOLE)? else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::End(0))
        .and_then(|end| file.seek(SeekFrom::Start(start.max(end.saturating_sub(WINDOW)))))
        .and_then(|_| file.take(WINDOW).read_to_end(&mut bytes))
        .or_fail(|| format!("read {}", path.display()))?;
    let text = Plain::text(&bytes);
    // What was overwritten on the line is not on the screen any more.
    let seen = |line: &str| line.rsplit('\r').next().unwrap_or_default().to_owned();
    let lines: Vec<String> =
        text.lines().map(seen).filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(count)..].to_vec())
}

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Go on until the VMM is gone.
    pub follow: bool,
    /// Only so many lines of what there is; all without.
    pub tail: Option<usize>,
    /// Only lines since this time, in milliseconds since the epoch.
    pub since: Option<u64>,
    /// Each line has its time before it.
    pub timestamps: bool,
}

/// Copy a part of the log of that name to `out`.
///
/// # Errors
/// The log can't be read or `out` not written; this user has no inotify instance left.
pub fn copy_log(dir: &InstanceDir, name: &str, part: Part, out: &mut dyn Write) -> Result<()> {
    let Some(mut file) = dir.open_file(name)? else { return Ok(()) };
    let path = &dir.file(name);
    let times = if part.is_timed() { Times::of(dir)? } else { Times::default() };
    let from = seek_to(&mut file, part, &times).or_fail(|| format!("read {}", path.display()))?;
    let mut stamped;
    let out: &mut dyn Write = match part.timestamps {
        true => {
            stamped = Stamped::new(out, times, from);
            &mut stamped
        }
        false => out,
    };
    let follow = part.follow;
    // Watched before the first reading: what is written between a reading and the wait ends the
    // wait.
    let mut growth = if follow { Some(Growth::watch(dir, path)?) } else { None };
    loop {
        match io::copy(&mut file, out).and_then(|_| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result.or_fail(|| "write to standard output")?,
        }
        match &growth {
            None => return Ok(()),
            // What a VMM wrote before it ended is read once more.
            Some(watched) if !watched.wait()? => growth = None,
            Some(_) => {}
        }
    }
}

impl Part {
    /// Whether it takes the times of what was said.
    fn is_timed(self) -> bool {
        self.timestamps || self.since.is_some()
    }
}

/// Seeks to where a part begins, which is given.
fn seek_to(file: &mut (impl Read + Seek), part: Part, times: &Times) -> io::Result<u64> {
    let tail = match part.tail {
        Some(lines) => {
            seek_to_tail(file, lines)?;
            file.stream_position()?
        }
        None => 0,
    };
    let since = match part.since {
        Some(since) => line_from(file, times.since(since))?,
        None => 0,
    };
    file.seek(SeekFrom::Start(tail.max(since)))
}

/// Where the first line begins that begins at this byte or later; else the end.
fn line_from(file: &mut (impl Read + Seek), byte: u64) -> io::Result<u64> {
    let Some(before) = byte.checked_sub(1) else { return Ok(0) };
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = file.seek(SeekFrom::Start(before.min(end)))?;
    let mut chunk = [0; 16 << 10];
    loop {
        let count = file.read(&mut chunk)?;
        if let Some(n) = memchr::memchr(b'\n', &chunk[..count]) {
            return Ok(at + n as u64 + 1);
        }
        at += count as u64;
        if count == 0 {
            return Ok(at);
        }
    }
}

/// Seeks to the beginning of the last `lines` lines; the end of the last need not be there.
fn seek_to_tail(file: &mut (impl Read + Seek), lines: usize) -> io::Result<()> {
    const CHUNK: u64 = 16 << 10;
    let end = file.seek(SeekFrom::End(0))?;
    let (mut at, mut ends) = (end, 0);
    let mut chunk = Vec::new();
    while at > 0 {
        let start = at.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        file.by_ref().take(at - start).read_to_end(&mut chunk)?;
        for (offset, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + offset as u64 + 1;
            // The last line's own end begins none.
            ends += usize::from(after < end);
            if ends >= lines.max(1) && after < end {
                let from = if lines == 0 { end } else { after };
                return file.seek(SeekFrom::Start(from)).map(drop);
            }
        }
        at = start;
    }
    file.seek(SeekFrom::Start(if lines == 0 { end } else { 0 })).map(drop)
}

/// A log that a VMM writes.
struct Growth {
    changes: OwnedFd,
    end: PipeReader,
}

impl Growth {
    fn watch(dir: &InstanceDir, path: &Path) -> Result<Self> {
        let doing = || format!("watch {}", path.display());
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .or_fail(doing)?;
        inotify::add_watch(&changes, path, inotify::WatchFlags::MODIFY).or_fail(doing)?;
        let (end, living) = io::pipe().or_fail(doing)?;
        let dir = dir.clone();
        // No event tells that a lock became free, only waiting for it does. The thread ends with
        // the VMM or with us.
        let wait = move || {
            let _ = dir.await_vmm_end();
            drop(living);
        };
        Builder::new().spawn(wait).or_fail(doing)?;
        Ok(Self { changes, end })
    }

    /// Wait until there is more in the log. False once there will be no more than is there by now.
    fn wait(&self) -> Result<bool> {
        let doing = || "wait for the console";
        let mut fds =
            [PollFd::new(&self.changes, PollFlags::IN), PollFd::new(&self.end, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).or_fail(doing)?;
        let over = !fds[1].revents().is_empty();
        // That something changed is all there is to know: one page has many such events.
        match rustix::io::read(&self.changes, &mut [0u8; 4096]) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(!over),
            Err(e) => Err(Error::io(doing(), e)),
        }
    }
}

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// By the detach key.
    ByKey,
    /// The VM is over.
    ByEnd,
}

/// Connects to the instance's serial line: what is written is typed, what is read was said.
///
/// # Errors
/// No VMM answers.
pub fn connect(dir: &InstanceDir) -> Result<UnixStream> {
    Ok(ask(dir, &Request::Console {})?.1)
}

/// Join `input` and `output` to the instance's serial line. With `keys`, [`DETACH`] in the input
/// ends it; otherwise input is passed on untouched, and after its end output goes on until the VM
/// ends.
///
/// # Errors
/// No VMM answers, or a stream fails.
pub fn attach(
    dir: &InstanceDir,
    input: impl Read + AsFd,
    mut output: impl Write + Send,
    keys: bool,
) -> Result<Detached> {
    let stream = connect(dir)?;
    let (mut from, mut to) = (&stream, &stream);
    std::thread::scope(|scope| {
        let print = move || {
            let mut chunk = [0; 16 << 10];
            loop {
                match from.read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(count) => output.write_all(&chunk[..count]).and_then(|()| output.flush())?,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(e) => return Err(e),
                }
            }
        };
        let printer = Builder::new().spawn_scoped(scope, print);
        let printer = printer.or_fail(|| "start a thread for the console")?;
        let typed = type_in(&stream, &mut to, input, keys);
        // Ends the printer too.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let printed = printer.join().unwrap_or(Ok(()));
        let detached = typed?;
        match printed {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::io("write to standard output", e))
            }
            _ => Ok(detached),
        }
    })
}

fn type_in(
    stream: &UnixStream,
    to: &mut impl Write,
    mut input: impl Read + AsFd,
    keys: bool,
) -> Result<Detached> {
    let mut chunk = [0; 16 << 10];
    let mut open = true;
    loop {
        let gone = PollFlags::RDHUP | PollFlags::HUP;
        let (end, typed) = {
            let mut fds = vec![PollFd::new(stream, PollFlags::RDHUP)];
            if open {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                result => result.or_fail(|| "wait for the console")?,
            };
            (
                fds[0].revents().intersects(gone),
                fds.get(1).is_some_and(|fd| !fd.revents().is_empty()),
            )
        };
        if typed && !end {
            let count = input.read(&mut chunk).or_fail(|| "read standard input")?;
            open = count > 0;
            let bytes = &chunk[..count];
            let key = bytes.iter().position(|&b| keys && b == DETACH);
            let sent = to.write_all(&bytes[..key.unwrap_or(count)]);
            if key.is_some() {
                return Ok(Detached::ByKey);
            }
            // A reset connection is reported by the next poll.
            if sent.is_err() {
                return Ok(Detached::ByEnd);
            }
        }
        if end {
            return Ok(Detached::ByEnd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_seen_across_reads() {
        let mut watch = ConsoleWatch::new(0, PROMPT);
        for piece in ["Debian GNU/Linux 12 web ttyS0\n\nweb lo", "gin", ":", " "] {
            assert!(!watch.seen);
            watch.feed(piece.as_bytes());
        }
        assert!(watch.seen);
    }

    #[test]
    fn the_last_lines_of_a_log_are_found() {
        let tail = |text: &str, lines| {
            let mut file = io::Cursor::new(text.as_bytes().to_vec());
            seek_to_tail(&mut file, lines).unwrap();
            let mut rest = String::new();
            file.read_to_string(&mut rest).unwrap();
            rest
        };
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 1, "\n"),
        ] {
            assert_eq!(tail(text, lines), expected, "{text:?} {lines}");
        }
        let long = format!("{}\nlast\n", "x".repeat(100_000));
        assert_eq!(tail(&long, 1), "last\n");
        assert_eq!(tail(&long, 2), long);
    }

    #[test]
    fn a_part_begins_with_a_line() {
        let from = |byte| line_from(&mut io::Cursor::new(b"one\ntwo\nthree".to_vec()), byte);
        assert_eq!([0, 1, 4, 5, 8, 9, 99].map(|byte| from(byte).unwrap()), [0, 4, 4, 8, 8, 13, 13]);
    }

    #[test]
    fn pieces_are_of_one_line_and_in_their_order() {
        let seen = |text: &str| {
            let mut watch = ConsoleWatch::new(0, CLOUD_INIT);
            text.as_bytes().chunks(3).for_each(|chunk| watch.feed(chunk));
            watch.seen
        };
        assert!(seen("[ 9.1] cloud-init[7]: Cloud-init v. 25.1.4 finished at Sun, 29 Nov 2026\n"));
        assert!(!seen("Cloud-init v. 25.1.4 running 'init'\njob finished at noon\n"));
        assert!(!seen(" finished at Cloud-init v.\n"));
        assert!(!seen(&format!("Cloud-init v.{} finished at ", "x".repeat(2 * MAX_LINE))));
    }
}
