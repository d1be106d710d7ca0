//! `run --foreground`: the command stays, shows the consoles, and ends as the guests do.

use super::answer::finish;
use super::lines::Labelled;
use super::run::{Run, request, tell_of};
use super::signals::{Caught, by_signal};
use super::ui::{Ui, say};
use super::wait::failed;
use crate::error::{Error, OrFail, Result};
use crate::record::instance::InstanceRecord;
use crate::service::Service;
use crate::service::console::Plain;
use crate::service::foreground::{Asked, Screen, Terms, stay};
use signal_hook::consts::SIGTERM;
use std::io::{self, IsTerminal, PipeWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

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

/// Standard output: one guest's bytes as they are, several guests' lines with their indices. A
/// terminal gets no control sequences.
struct Output {
    guests: Vec<Guest>,
    terminal: bool,
}

/// One guest's console.
struct Guest {
    plain: Plain,
    /// Its lines, where there are several guests'.
    lines: Option<Labelled>,
}

impl Output {
    fn new(indices: Vec<u32>) -> Self {
        let several = indices.len() > 1;
        let lines = |index| several.then(|| Labelled::new(format!("{index}: ")));
        let guest = |index| Guest { plain: Plain::default(), lines: lines(index) };
        let guests = indices.into_iter().map(guest).collect();
        Self { guests, terminal: io::stdout().is_terminal() }
    }
}

impl Guest {
    /// What is to be printed of the next bytes, which are not held back at the end.
    fn next(&mut self, bytes: &[u8], over: bool) -> Vec<u8> {
        match &mut self.lines {
            Some(lines) => lines.next(bytes, over),
            None => bytes.to_vec(),
        }
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
