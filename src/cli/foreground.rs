//! `run --foreground`: the command stays, shows the consoles, and ends as the guests do.

use super::answer::finish;
use super::run::{Run, request, tell_of};
use super::ui::{Ui, say};
use super::wait::failed;
use crate::error::{Error, OrFail, Result};
use crate::record::instance::InstanceRecord;
use crate::service::Service;
use crate::service::console::Plain;
use crate::service::foreground::{Asked, Screen, Signals, Terms, stay};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, IsTerminal, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most of a line that is held back until its end comes, where lines of several guests are shown.
/// Bytes.
const MAX_LINE: usize = 4096;

/// `run --foreground`.
pub fn run(service: &Service, ui: &Ui, args: &Run) -> Result<ExitCode> {
    let signals = Caught::install()?;
    let mut request = request(args)?;
    let (lifeline, held) = io::pipe().or_fail(|| "create a pipe")?;
    request.lifeline = Some(Arc::new(lifeline.into()));
    let launched = service.run_instances(&request)?;
    // Ours was one reader of it too many: only the VMMs' count.
    drop(request);
    tell_of(&launched);
    let records = launched.records;
    let quiet = ui.output.quiet;
    let tell = |line: &str| {
        if !quiet {
            say(line);
        }
    };
    for record in &records {
        tell(&format!("{} runs, index {}", record.instance.instance_id, index(record)));
    }
    stay_with(service, ui, records, args, &signals, held, &tell)
}

fn index(record: &InstanceRecord) -> u32 {
    record.instance.ami_launch_index
}

fn stay_with(
    service: &Service,
    ui: &Ui,
    records: Vec<InstanceRecord>,
    args: &Run,
    signals: &Caught,
    held: PipeWriter,
    tell: &dyn Fn(&str),
) -> Result<ExitCode> {
    let screen = Output::new(records.iter().map(index).collect());
    let terms = Terms { stop_timeout: args.held.stop_timeout, timeout: args.timeout };
    let ended = stay(service, records, terms, signals, screen, tell);
    drop(held);
    let ended = ended?;
    for record in &ended.records {
        let instance = &record.instance;
        let why = instance.state_reason.as_ref().map_or("", |reason| &reason.message);
        tell(&format!("{} is {}: {why}", instance.instance_id, instance.state.name()));
    }
    match ended.asked {
        Some(Asked::Timeout) => return Ok(ExitCode::from(Error::timeout("").exit_code())),
        Some(Asked::Signal(number)) => return Ok(by_signal(number)),
        None => {}
    }
    let mut failures: Vec<Error> = ended.records.iter().filter_map(failed).collect();
    // The worst decides: what is the host's fault before what is a guest's.
    failures.sort_by_key(Error::exit_code);
    if failures.is_empty() && !ended.cut.is_empty() {
        return Ok(by_signal(SIGTERM));
    }
    finish(ui, failures)
}

/// 128 and the signal's number, as shells have it.
fn by_signal(number: i32) -> ExitCode {
    ExitCode::from(128u8.saturating_add(u8::try_from(number).unwrap_or(0)))
}

/// The signals that ask for the end.
struct Caught {
    /// A byte for each that came.
    pipe: UnixStream,
    /// The number of the last.
    number: Arc<AtomicUsize>,
}

impl Caught {
    /// From now on they end nothing by themselves. Those that whoever started us ignores (nohup(1),
    /// a shell's background) stay ignored.
    fn install() -> Result<Self> {
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

/// Standard output: one guest's bytes as they are, several guests' lines with their indices. A
/// terminal gets no control sequences.
struct Output {
    guests: Vec<Guest>,
    terminal: bool,
}

/// One guest's console.
struct Guest {
    /// What its lines begin with.
    label: String,
    plain: Plain,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Output {
    fn new(indices: Vec<u32>) -> Self {
        let several = indices.len() > 1;
        let label = |index| if several { format!("{index}: ") } else { String::new() };
        let guest =
            |index| Guest { label: label(index), plain: Plain::default(), line: Vec::new() };
        let guests = indices.into_iter().map(guest).collect();
        Self { guests, terminal: io::stdout().is_terminal() }
    }
}

impl Guest {
    /// What is to be printed of the next bytes, which are not held back at the end.
    fn next(&mut self, bytes: &[u8], over: bool) -> Vec<u8> {
        if self.label.is_empty() {
            return bytes.to_vec();
        }
        let mut out = Vec::new();
        for &byte in bytes {
            self.line.push(byte);
            if byte == b'\n' || self.line.len() >= MAX_LINE {
                self.flush(&mut out);
            }
        }
        if over && !self.line.is_empty() {
            self.flush(&mut out);
        }
        out
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.label.as_bytes());
        // A lone return would let the guest overwrite its label.
        let end =
            self.line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let shown = self.line[..end].iter().map(|b| if *b == b'\r' { b' ' } else { *b });
        out.extend(shown);
        out.push(b'\n');
        self.line.clear();
    }
}

impl Screen for Output {
    fn show(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let guest = &mut self.guests[index];
        let shown = match self.terminal {
            true => {
                let mut plain = Vec::with_capacity(bytes.len());
                guest.plain.feed(bytes, &mut plain);
                guest.next(&plain, false)
            }
            false => guest.next(bytes, false),
        };
        let mut out = io::stdout().lock();
        out.write_all(&shown).and_then(|()| out.flush())
    }

    fn end(&mut self, index: usize) -> io::Result<()> {
        let guest = &mut self.guests[index];
        let mut last = Vec::new();
        if self.terminal {
            guest.plain.finish(&mut last);
        }
        let shown = guest.next(&last, true);
        let mut out = io::stdout().lock();
        out.write_all(&shown).and_then(|()| out.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_guests_are_whole_and_labelled() {
        let mut output = Output::new(vec![0, 7]);
        let mut next = |index: usize, bytes: &[u8], over| {
            String::from_utf8(output.guests[index].next(bytes, over)).unwrap()
        };
        assert_eq!(next(0, b"one\r\ntw", false), "0: one\n");
        assert_eq!(next(1, b"50%\r60%\n\n", false), "7: 50% 60%\n7: \n");
        assert_eq!(next(0, b"o", true), "0: two\n");
        let long = [b'x'; MAX_LINE + 1];
        assert_eq!(next(1, &long, false).len(), MAX_LINE + 4);
        let mut one = Output::new(vec![3]);
        assert_eq!(one.guests[0].next(b"a\r\nb", false), b"a\r\nb");
    }
}
