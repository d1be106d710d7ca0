//! `run --foreground`: the command stays, shows the consoles, and ends as the guests do.

use super::answer::finish;
use super::console::{Raw, Unbuffered};
use super::lines::Labelled;
use super::pull;
use super::run::{Run, request, tell_of};
use super::signals::{Caught, by_signal};
use super::ui::{Ui, say};
use super::wait::failed;
use crate::error::{Error, OrFail, Result};
use crate::record::instance::InstanceRecord;
use crate::service::Service;
use crate::service::console::{Detached, Plain};
use crate::service::foreground::{Asked, Screen, Terms, stay};
use crate::service::launch::{Launched, RunInstances};
use crate::service::wait::{Goal, Until, WaitForInstances, Waited};
use signal_hook::consts::SIGTERM;
use std::io::{self, IsTerminal, PipeWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::Duration;

/// Launches instances that end with what comes with them, be that by a kill -9 of this process.
///
/// # Errors
/// As [`Service::run_instances`]'s.
pub fn launch_held(service: &Service, mut request: RunInstances) -> Result<(Launched, PipeWriter)> {
    let (lifeline, held) = io::pipe().or_fail(|| "create a pipe")?;
    request.lifeline = Some(Arc::new(lifeline.into()));
    let launched = service.run_instances(&request)?;
    // Ours was one reader of it too many: only the VMMs' count.
    drop(request);
    tell_of(&launched);
    Ok((launched, held))
}

/// `run --foreground`.
pub fn run(service: &Service, ui: &Ui, args: &Run) -> Result<ExitCode> {
    // What is read for it is read before.
    let image_id = pull::settled(service, args.image.as_deref(), &args.pull)?;
    let request = RunInstances { image_id, ..request(args)? };
    let signals = Caught::install()?;
    if args.held.interactive && args.count.max != 1 {
        return Err(Error::usage("-i types to one guest: leave -n out"));
    }
    let (launched, held) = launch_held(service, request)?;
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
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readiness = Readiness { service, ids: ids(&records), goal: args.wait, over: &over };
        let watch = Builder::new().name("readiness".into());
        watch.spawn_scoped(scope, move || readiness.tell()).or_fail(|| "watch guests")?;
        if let (true, [record]) = (args.held.interactive, &records[..]) {
            let record = record.clone();
            let typing = Builder::new().name("typing".into());
            let typing = typing.spawn_scoped(scope, move || type_to(service, &record));
            typing.or_fail(|| "read standard input")?;
        }
        let stayed = stay_with(service, ui, records, args, &signals, held, &tell);
        over.store(true, Ordering::SeqCst);
        stayed
    })
}

/// Passes standard input on to a guest's serial line, until either ends.
fn type_to(service: &Service, record: &InstanceRecord) {
    let raw = if io::stdin().is_terminal() { Raw::enter() } else { None };
    let detached = service.attach_console(record, Unbuffered, io::sink(), raw.is_some());
    drop(raw);
    match detached {
        Ok(Detached::ByKey) => {
            let _ = signal_hook::low_level::raise(SIGTERM);
        }
        Ok(Detached::ByEnd) => {}
        Err(error) => say(error),
    }
}

fn ids(records: &[InstanceRecord]) -> Vec<String> {
    records.iter().map(|record| record.instance.instance_id.to_string()).collect()
}

/// How often it is looked whether all is over.
const LOOK: Duration = Duration::from_millis(200);

/// What tells a service manager that the service is up. (sd_notify(3))
struct Readiness<'a> {
    service: &'a Service,
    ids: Vec<String>,
    /// How far the guests have to be: anywhere, if it is not said.
    goal: Option<Goal>,
    over: &'a AtomicBool,
}

impl Readiness<'_> {
    /// Waits until it is so, if whoever started this wants to hear of it, and tells.
    fn tell(&self) {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        while !self.over.load(Ordering::SeqCst) {
            if self.goal.is_none_or(|goal| self.are(goal)) {
                // A manager that does not listen has nothing to be told.
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
                return;
            }
        }
    }

    fn are(&self, goal: Goal) -> bool {
        let (instance_ids, timeout) = (self.ids.clone(), Some(LOOK));
        let request = WaitForInstances { instance_ids, until: Until::Guest(goal), timeout };
        let waited = self.service.wait_for_instances(&request, &mut |_| ());
        waited.is_ok_and(|all| all.iter().all(|one| matches!(one, Waited::Reached(_))))
    }
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
    let screen = Output::new(records.iter().map(index).collect(), args.held.interactive);
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
    /// Of guests with these indices; what an `interactive` one says goes to the terminal as it is.
    fn new(indices: Vec<u32>, interactive: bool) -> Self {
        let several = indices.len() > 1;
        let lines = |index| several.then(|| Labelled::new(format!("{index}: ")));
        let guest = |index| Guest { plain: Plain::default(), lines: lines(index) };
        let guests = indices.into_iter().map(guest).collect();
        Self { guests, terminal: io::stdout().is_terminal() && !interactive }
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
