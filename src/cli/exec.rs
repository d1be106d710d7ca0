//! `exec`: commands in instances, by OpenSSH.

use super::answer::finish;
use super::lines::Labelled;
use super::login::way_in;
use super::openssh::{Access, Patience};
use super::session::{Outcome, Session, Task, Terms};
use super::signals::{Caught, by_signal, relay};
use super::ui::Ui;
use crate::error::{Error, OrFail, Result};
use crate::service::Service;
use crate::service::foreground::Signals;
use crate::service::reach::SshAccess;
use crate::sys::fds;
use clap::Args;
use rustix::event::{PollFd, PollFlags};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore exec web -- systemctl is-active nginx
  spore exec -i web -- tar -xC /srv <site.tar
  spore exec -it web -- bash
  spore exec web-1 web-2 web-3 -- uptime     each line with its instance

The command is root's: where the guest's cloud-init lets in another user in
root's place, by sudo. With --user it is that user's.

Exit codes: the command's; of several instances' the largest. 125: Spore, or
OpenSSH, failed; 124: no sshd within --timeout; 128 and its number for a
signal, which the command gets, too, in each of several instances.")]
pub struct Exec {
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// An environment variable of the command (repeatable)
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = parse_variable)]
    pub environment: Vec<(String, String)>,
    /// The directory that the command begins in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// How.
    #[command(flatten)]
    pub access: Access,
    /// How long.
    #[command(flatten)]
    pub patience: Patience,
    /// Instances: ids, unique prefixes or names; of several, each line of output has its instance
    #[arg(required = true, value_name = "INSTANCE")]
    pub targets: Vec<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let variable = text.split_once('=').filter(|(name, _)| {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty()
            && name.chars().all(fine)
            && !name.starts_with(|c: char| c.is_ascii_digit())
    });
    let (name, value) =
        variable.ok_or("a variable is KEY=VALUE, its key of letters, digits and '_'")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `exec`.
pub fn exec(service: &Service, ui: &Ui, args: &Exec) -> Result<ExitCode> {
    let task = Task {
        words: args.command.clone(),
        environment: args.environment.clone(),
        directory: args.workdir.clone(),
        input: args.interactive,
        tty: args.tty,
        sudo: false,
    };
    if args.tty && !io::stdin().is_terminal() {
        return Err(Error::usage("standard input is no terminal: leave -t out"));
    }
    if args.targets.len() > 1 && (args.interactive || args.tty) {
        return Err(Error::usage("-i and -t are for one instance"));
    }
    let begun = Instant::now();
    let failed = |target: &str, why: String| {
        let reported = format!("{target}: {why}");
        // What was waited for has not come: __dial has said what.
        match begun.elapsed() >= args.patience.timeout {
            true => Error::timeout(reported),
            false => Error::failure(reported),
        }
    };
    if let [target] = &args.targets[..] {
        let signals = Caught::install()?;
        let found = service.ssh_access(target)?;
        let patience = args.patience.timeout;
        let outcome = match way_in(service, &found, &args.access, patience, Some(&signals))? {
            Ok(way) => Session::new(&found, way.ssh, &Task { sudo: way.sudo, ..task })?
                .attend(&signals, &Terms::default())?,
            Err(outcome) => outcome,
        };
        return Ok(match outcome {
            Outcome::Exited(code) => ExitCode::from(code),
            Outcome::Signalled(number) => by_signal(number),
            Outcome::TimedOut => ExitCode::from(Error::timeout("").exit_code()),
            Outcome::NotBegun(why) | Outcome::Broken(why) => return Err(failed(target, why)),
        });
    }
    several(service, ui, args, &task, &failed)
}

/// The command in several instances at once. Each gets the signals that we get.
fn several(
    service: &Service,
    ui: &Ui,
    args: &Exec,
    task: &Task,
    failed: &dyn Fn(&str, String) -> Error,
) -> Result<ExitCode> {
    let found: Vec<SshAccess> =
        args.targets.iter().map(|target| service.ssh_access(target)).collect::<Result<_>>()?;
    let signals = Caught::install()?;
    let doing = || "run a command in several instances";
    let (over, living) = io::pipe().or_fail(doing)?;
    let ended = std::thread::scope(|scope| -> Result<Vec<_>> {
        let mut sessions = Vec::with_capacity(found.len());
        for (found, target) in found.iter().zip(&args.targets) {
            let (sender, relayed) = relay()?;
            let living = living.try_clone().or_fail(doing)?;
            let session = move || {
                let outcome =
                    one_of_several(service, args, task, (target.as_str(), found), &relayed);
                drop(living);
                outcome
            };
            let thread = Builder::new().name("session".into()).spawn_scoped(scope, session);
            sessions.push((target, sender, thread.or_fail(doing)?));
        }
        drop(living);
        loop {
            let mut polled = [
                PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
                PollFd::new(&over, PollFlags::IN),
            ];
            fds::wait(&mut polled, None).or_fail(doing)?;
            if !polled[1].revents().is_empty() {
                break;
            }
            if let Some(number) = signals.take() {
                sessions.iter().for_each(|(_, sender, _)| sender.tell(number));
            }
        }
        let ended = sessions.into_iter().map(|(target, _, thread)| {
            let broken = |_| Err(Error::failure(format!("{target}: its session broke down")));
            (target, thread.join().unwrap_or_else(broken))
        });
        Ok(ended.collect::<Vec<_>>())
    })?;
    let (mut worst, mut signalled, mut errors) = (0, None, Vec::new());
    for (target, outcome) in ended {
        match outcome {
            Ok(Outcome::Exited(code)) => worst = worst.max(code),
            Ok(Outcome::Signalled(number)) => signalled = Some(number),
            Ok(Outcome::TimedOut) => worst = u8::MAX,
            Ok(Outcome::NotBegun(why) | Outcome::Broken(why)) => errors.push(failed(target, why)),
            Err(error) => errors.push(error),
        }
    }
    match (errors.is_empty(), signalled) {
        (false, _) => finish(ui, errors),
        (true, Some(number)) => Ok(by_signal(number)),
        (true, None) => Ok(ExitCode::from(worst)),
    }
}

/// The command in one of them, whose lines are shown with its name.
fn one_of_several(
    service: &Service,
    args: &Exec,
    task: &Task,
    (target, found): (&str, &SshAccess),
    signals: &dyn Signals,
) -> Result<Outcome> {
    let mut way = match way_in(service, found, &args.access, args.patience.timeout, Some(signals))?
    {
        Ok(way) => way,
        Err(outcome) => return Ok(outcome),
    };
    // Of several nobody could tell who asks for a password.
    way.ssh.push(("BatchMode", "yes".into()));
    let mut session = Session::new(found, way.ssh, &Task { sudo: way.sudo, ..task.clone() })?;
    session.apart = true;
    let doing = || "show a command's output";
    let (out, theirs) = io::pipe().or_fail(doing)?;
    session.command.stdout(theirs);
    let (err, theirs) = io::pipe().or_fail(doing)?;
    session.command.stderr(theirs);
    let shown = [show(target, out, io::stdout())?, show(target, err, io::stderr())?];
    let outcome = session.attend(signals, &Terms::default());
    shown.into_iter().for_each(|thread| drop(thread.join()));
    outcome
}

/// Prints lines with their instance before them.
fn show(
    target: &str,
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> Result<JoinHandle<()>> {
    let mut lines = Labelled::new(format!("{target}: "));
    let copy = move || {
        let mut chunk = [0; 16 << 10];
        loop {
            let count = from.read(&mut chunk).unwrap_or(0);
            let out = lines.next(&chunk[..count], count == 0);
            // Nobody looks any more: the command is let go on.
            let _ = to.write_all(&out).and_then(|()| to.flush());
            if count == 0 {
                return;
            }
        }
    };
    Builder::new().name("output".into()).spawn(copy).or_fail(|| "show a command's output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        assert_eq!(parse_variable("A_1=b=c").unwrap(), ("A_1".into(), "b=c".into()));
        for text in ["A", "=b", "1=b", "a b=c", "$(x)=y"] {
            assert!(parse_variable(text).is_err(), "{text}");
        }
    }
}
