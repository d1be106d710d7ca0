//! `run --rm IMAGE -- CMD`: an instance for one command, which goes with it.

use super::foreground::launch_held;
use super::login::way_in;
use super::pull;
use super::run::{Run, request};
use super::session::{Outcome, Session, Task, Terms};
use super::signals::{Caught, by_signal};
use super::ui::say;
use super::wait::failed;
use crate::error::{Error, OrFail, Result};
use crate::record::instance::{InstanceRecord, State};
use crate::service::Service;
use crate::service::foreground::Signals;
use crate::service::launch::RunInstances;
use crate::sys::fds;
use rustix::event::{PollFd, PollFlags};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the guest's sshd is waited for where no `--timeout` says.
const BOOT: Duration = Duration::from_secs(600);
/// How long a guest that lets nobody in may take to get the key.
const DENIED: Duration = Duration::from_secs(60);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Lines of the console that are shown of a guest in which the command did not run to its end.
const LAST_LINES: usize = 20;

/// `run --rm IMAGE -- CMD`.
pub fn run(service: &Service, args: &Run) -> Result<ExitCode> {
    if (args.count.min, args.count.max) != (1, 1) {
        return Err(Error::usage("a command runs in one instance: leave -n out"));
    }
    let begun = Instant::now();
    // What is read for it is read before.
    let image_id = pull::settled(service, args.image.as_deref(), &args.pull)?;
    let request = RunInstances { image_id, ..request(args)? };
    let signals = Caught::install()?;
    let (launched, held) = launch_held(service, request)?;
    let Some(record) = launched.records.first() else {
        return Err(Error::failure("nothing was launched"));
    };
    let id = record.instance.instance_id.as_str();
    let outcome = work(service, args, id, &signals, begun);
    // How a guest has ended may say why.
    let ended = service.describe_instance(id);
    let console = service.last_console_lines(record, LAST_LINES);
    let gone = service.terminate_instances(&[id.to_owned()]);
    drop(held);
    for error in gone?.into_iter().filter_map(Result::err) {
        say(error);
    }
    Ok(match outcome? {
        Outcome::Exited(code) => ExitCode::from(code),
        Outcome::Signalled(number) => by_signal(number),
        Outcome::TimedOut => ExitCode::from(Error::timeout("").exit_code()),
        Outcome::NotBegun(why) | Outcome::Broken(why) => {
            for line in console.unwrap_or_default() {
                say(format_args!("console: {line}"));
            }
            return Err(not_done(&ended?, &why));
        }
    })
}

/// The command, in the running instance.
fn work(
    service: &Service,
    args: &Run,
    instance_id: &str,
    signals: &Caught,
    begun: Instant,
) -> Result<Outcome> {
    let tty = io::stdin().is_terminal() && io::stdout().is_terminal();
    let task = Task { words: args.job.command.clone(), input: true, tty, ..Task::default() };
    let patience = args.timeout.unwrap_or(BOOT);
    let deadline = args.timeout.map(|timeout| begun + timeout);
    let terms = Terms { deadline, patience: Some(args.job.kill_after) };
    let mut denied = None;
    loop {
        // What it tells on its console becomes more.
        let found = service.ssh_access(instance_id)?;
        let way = way_in(service, &found, &args.job.access, patience, Some(signals))?;
        let outcome = match way {
            Ok(way) => Session::new(&found, way.ssh, &Task { sudo: way.sudo, ..task.clone() })?
                .attend(signals, &terms)?,
            Err(outcome) => outcome,
        };
        // A guest that boots may have an sshd and no keys yet, or other keys in a moment.
        let Outcome::NotBegun(why) = &outcome else { return Ok(outcome) };
        let since = *denied.get_or_insert_with(Instant::now);
        let state = service.describe_instance(instance_id)?.instance.state;
        let hopeless = why.contains("Permission denied") && since.elapsed() >= DENIED;
        if state != State::Running || hopeless || begun.elapsed() >= BOOT {
            return Ok(outcome);
        }
        let mut polled = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        fds::wait(&mut polled, Some(PAUSE)).or_fail(|| "wait for a guest")?;
        if let Some(number) = signals.take() {
            return Ok(Outcome::Signalled(number));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Outcome::TimedOut);
        }
    }
}

/// Why the command did not run, or not to its end: the guest's end, if it was no will of anybody's.
fn not_done(record: &InstanceRecord, why: &str) -> Error {
    let instance = &record.instance;
    failed(record).unwrap_or_else(|| {
        let reason = instance.state_reason.as_ref().map(|reason| format!(" ({})", reason.message));
        let (id, state) = (&instance.instance_id, instance.state.name());
        let reason = reason.unwrap_or_default();
        Error::failure(format!("{id} is {state}{reason}; the command has not ended: {why}"))
    })
}
