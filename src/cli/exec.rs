//! `exec`: commands in instances, by OpenSSH.

use super::answer::finish;
use super::lines::Labelled;
use super::signals::{Caught, SAME, by_signal};
use super::ssh::{Access, Patience, no_openssh, openssh, settings};
use super::ui::Ui;
use crate::error::{Error, OrFail, Result};
use crate::service::Service;
use crate::service::foreground::Signals;
use crate::service::reach::SshAccess;
use crate::sys::fds;
use clap::Args;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::rand::{GetRandomFlags, getrandom};
use signal_hook::consts::{SIGHUP, SIGINT};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Most bytes of what OpenSSH tells of a session that are looked at.
const MAX_LOG: u64 = 1 << 20;
/// What OpenSSH tells of a command's end. (OpenSSH, ssh.c)
const EXIT_STATUS: &str = "debug1: Exit status ";

/// What it tells of being let in. (sshconnect2.c)
const AUTHENTICATED: &str = "Authenticated to ";

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore exec web -- systemctl is-active nginx
  spore exec -i web -- tar -xC /srv <site.tar
  spore exec -it web -- bash
  spore exec web-1 web-2 web-3 -- uptime     each line with its instance

Exit codes: the command's; of several instances' the largest. 125: Spore, or
OpenSSH, failed; 124: no sshd within --timeout; 128 and its number for a
signal, which the command gets, too.")]
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

/// A command in a guest.
#[derive(Debug, Default)]
pub struct Task {
    /// Its words.
    pub words: Vec<OsString>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// The directory that it begins in.
    pub directory: Option<String>,
    /// Standard input is passed on.
    pub input: bool,
    /// It has a terminal.
    pub tty: bool,
}

/// What a command's session came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command's exit code.
    Exited(u8),
    /// This signal asked for the end, and the command was asked.
    Signalled(i32),
    /// The time was up, and the command was asked.
    TimedOut,
    /// Nobody was let in: why, in OpenSSH's words. Nothing was read of standard input.
    NotBegun(String),
    /// The connection broke: why, likewise.
    Broken(String),
}

/// `exec`.
pub fn exec(service: &Service, ui: &Ui, args: &Exec) -> Result<ExitCode> {
    let task = Task {
        words: args.command.clone(),
        environment: args.environment.clone(),
        directory: args.workdir.clone(),
        input: args.interactive,
        tty: args.tty,
    };
    if args.tty && !io::stdin().is_terminal() {
        return Err(Error::usage("standard input is no terminal: leave -t out"));
    }
    if args.targets.len() > 1 && (args.interactive || args.tty) {
        return Err(Error::usage("-i and -t are for one instance"));
    }
    let begun = Instant::now();
    let failed = |target: &str, why: String| {
        let told = format!("{target}: {why}");
        // What was waited for has not come: __dial has said what.
        match begun.elapsed() >= args.patience.timeout {
            true => Error::timeout(told),
            false => Error::failure(told),
        }
    };
    if let [target] = &args.targets[..] {
        let found = service.ssh_access(target)?;
        let ssh = settings(service, &found, &args.access, args.patience.timeout)?;
        let session = Session::new(&found, ssh, &task)?;
        return Ok(match session.attend(&Caught::install()?, &Terms::default())? {
            Outcome::Exited(code) => ExitCode::from(code),
            Outcome::Signalled(number) => by_signal(number),
            Outcome::TimedOut => ExitCode::from(Error::timeout("").exit_code()),
            Outcome::NotBegun(why) | Outcome::Broken(why) => return Err(failed(target, why)),
        });
    }
    several(service, ui, args, &task, &failed)
}

/// The command in several instances at once.
fn several(
    service: &Service,
    ui: &Ui,
    args: &Exec,
    task: &Task,
    failed: &dyn Fn(&str, String) -> Error,
) -> Result<ExitCode> {
    let found: Vec<SshAccess> =
        args.targets.iter().map(|target| service.ssh_access(target)).collect::<Result<_>>()?;
    let mut sessions = Vec::new();
    for (found, target) in found.iter().zip(&args.targets) {
        let ssh = settings(service, found, &args.access, args.patience.timeout)?;
        let mut session = Session::new(found, ssh, task)?;
        session.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = session.start()?;
        let shown = [
            running.child.stdout.take().map(|out| show(target, out, io::stdout())),
            running.child.stderr.take().map(|out| show(target, out, io::stderr())),
        ];
        let shown: Vec<JoinHandle<()>> = shown.into_iter().flatten().collect::<Result<_>>()?;
        sessions.push((target, running, shown));
    }
    let (mut worst, mut errors) = (0, Vec::new());
    for (target, mut running, shown) in sessions {
        let status = running.child.wait().or_fail(|| "wait for ssh")?;
        shown.into_iter().for_each(|thread| drop(thread.join()));
        match running.outcome(status)? {
            Outcome::Exited(code) => worst = worst.max(code),
            Outcome::Signalled(_) | Outcome::TimedOut => worst = u8::MAX,
            Outcome::NotBegun(why) | Outcome::Broken(why) => errors.push(failed(target, why)),
        }
    }
    match errors.is_empty() {
        true => Ok(ExitCode::from(worst)),
        false => finish(ui, errors),
    }
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

/// A command's session that is yet to begin.
pub struct Session {
    command: Command,
    log: File,
    /// The same way in, for what ends it.
    ask: Vec<(&'static str, String)>,
    instance: String,
    token: String,
    tty: bool,
}

/// One that has begun.
pub struct Running {
    child: Child,
    log: File,
}

impl Session {
    /// Of a command in an instance.
    ///
    /// # Errors
    /// A word is no text; the host has no memory file.
    pub fn new(found: &SshAccess, ask: Vec<(&'static str, String)>, task: &Task) -> Result<Self> {
        let token = token()?;
        let log = fds::memfd("ssh")?;
        // The last value of a keyword does not count, but the first.
        let mut told = vec![("LogLevel", "DEBUG1".to_owned())];
        told.extend(ask.iter().cloned());
        let mut command = openssh("ssh", &told);
        // What it tells of itself is apart from what the command prints.
        command.arg("-E").arg(format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd()));
        command.args(task.tty.then_some("-tt")).args((!task.tty).then_some("-T"));
        if !task.input && !task.tty {
            command.stdin(Stdio::null());
        }
        let instance = found.instance_id.to_string();
        command.arg(&instance).arg("--").arg(script(task, &token)?);
        Ok(Self { command, log, ask, instance, token, tty: task.tty })
    }

    fn start(&mut self) -> Result<Running> {
        let child = self.command.spawn().map_err(|cause| no_openssh("ssh", &cause))?;
        let log = self.log.try_clone().or_fail(|| "hear from ssh")?;
        Ok(Running { child, log })
    }

    /// Runs it to its end. A signal is passed on to the command, and so is SIGTERM when its time
    /// is up; who gets a second one, or does not end in time then, is left.
    ///
    /// # Errors
    /// OpenSSH can't be run.
    pub fn attend(mut self, signals: &Caught, terms: &Terms) -> Result<Outcome> {
        // A terminal's ^C is for us to pass on; who reads the terminal has to stay with it.
        if !self.tty && !io::stdin().is_terminal() {
            self.command.process_group(0);
        }
        let mut running = self.start()?;
        // Ours until it is waited for: its number is nobody else's.
        let ended = pidfd_open(Pid::from_child(&running.child), PidfdFlags::empty());
        let ended = ended.or_fail(|| "watch ssh")?;
        let mut asked: Option<Asked> = None;
        loop {
            if let Some(status) = running.child.try_wait().or_fail(|| "wait for ssh")? {
                let outcome = running.outcome(status)?;
                return Ok(match asked {
                    Some(asked) => asked.outcome(&outcome),
                    None => outcome,
                });
            }
            let due = match &asked {
                None => terms.deadline,
                Some(asked) => terms.patience.map(|patience| asked.at + patience),
            };
            if let Some(asked) = &mut asked {
                let by = asked.by;
                asked.tell_again(|| self.messenger(by));
            }
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            let left = if asked.is_some() { Some(left.unwrap_or(SAME).min(SAME)) } else { left };
            let mut polled = [
                PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
                PollFd::new(&ended, PollFlags::IN),
            ];
            fds::wait(&mut polled, left).or_fail(|| "wait for ssh")?;
            let late = due.is_some_and(|due| Instant::now() >= due);
            match (signals.take(), &asked) {
                (Some(number), None) => asked = Some(self.ask_to_end(Some(number))),
                (None, None) if late => asked = Some(self.ask_to_end(None)),
                (Some(_), Some(before)) if before.at.elapsed() >= SAME => {
                    return before.leave(&mut running);
                }
                (_, Some(before)) if late => return before.leave(&mut running),
                _ => {}
            }
        }
    }

    /// Has the command, and what it has started, get a signal; SIGTERM if it is for the time.
    fn ask_to_end(&self, by: Option<i32>) -> Asked {
        Asked { by, at: Instant::now(), messenger: self.messenger(by) }
    }

    /// Who tells the command. Who can't be reached is not told, and nobody waits for it.
    fn messenger(&self, by: Option<i32>) -> Option<Child> {
        let name = match by {
            Some(SIGINT) => "INT",
            Some(SIGHUP) => "HUP",
            _ => "TERM",
        };
        let mut command = openssh("ssh", &self.ask);
        command.args(["-T", &self.instance, "--"]).arg(kill_script(&self.token, name));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).spawn().ok()
    }
}

/// How long a session may last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Then the command is asked to end.
    pub deadline: Option<Instant>,
    /// How long a command may take that was asked, before it is left.
    pub patience: Option<Duration>,
}

/// A command that was asked to end.
struct Asked {
    /// By this signal; by the time, otherwise.
    by: Option<i32>,
    at: Instant,
    /// Who tells it.
    messenger: Option<Child>,
}

impl Asked {
    /// What a session came to that has ended since.
    fn outcome(&self, ended: &Outcome) -> Outcome {
        match (self.by, ended) {
            (None, _) => Outcome::TimedOut,
            (Some(_), Outcome::Exited(code)) => Outcome::Exited(*code),
            (Some(number), _) => Outcome::Signalled(number),
        }
    }

    /// Sends another messenger for one that a signal to all of us has ended: timeout(1) sends it
    /// twice, and the second may come before a messenger is a process of its own.
    fn tell_again(&mut self, messenger: impl FnOnce() -> Option<Child>) {
        let ended = self.messenger.as_mut().and_then(|sent| sent.try_wait().ok().flatten());
        if ended.is_some_and(|status| status.signal().is_some()) {
            self.messenger = messenger();
        }
    }

    /// Leaves a command that does not end.
    fn leave(&self, running: &mut Running) -> Result<Outcome> {
        let _ = running.child.kill();
        running.child.wait().or_fail(|| "wait for ssh")?;
        Ok(self.by.map_or(Outcome::TimedOut, Outcome::Signalled))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(messenger) = &mut self.messenger {
            let _ = messenger.kill();
            let _ = messenger.wait();
        }
    }
}

impl Running {
    /// What an ended session came to.
    fn outcome(&mut self, status: ExitStatus) -> Result<Outcome> {
        let doing = || "hear from ssh";
        let mut text = Vec::new();
        self.log.rewind().or_fail(doing)?;
        (&self.log).take(MAX_LOG).read_to_end(&mut text).or_fail(doing)?;
        Ok(outcome(&String::from_utf8_lossy(&text), status))
    }
}

/// What OpenSSH's log says of a session.
fn outcome(log: &str, status: ExitStatus) -> Outcome {
    let code = log.lines().rev().find_map(|line| line.strip_prefix(EXIT_STATUS));
    let code = code.and_then(|code| code.trim().parse::<u8>().ok());
    // 255 is OpenSSH's own, too.
    if let (Some(code), None) = (code, status.signal()) {
        return Outcome::Exited(code);
    }
    let words = log.lines().filter(|line| !line.starts_with("debug"));
    let last = words.map(str::trim).rfind(|line| !line.is_empty());
    let why = match (last, status.signal()) {
        (Some(line), _) => line.to_owned(),
        (None, Some(signal)) => format!("ssh was ended by signal {signal}"),
        (None, None) => "the connection ended before the command".to_owned(),
    };
    match log.lines().any(|line| line.starts_with(AUTHENTICATED)) {
        true => Outcome::Broken(why),
        false => Outcome::NotBegun(why),
    }
}

/// A word that no other session's commands have.
fn token() -> Result<String> {
    let mut bytes = [0; 12];
    getrandom(&mut bytes, GetRandomFlags::empty()).or_fail(|| "read randomness")?;
    Ok(crate::id::hex(&bytes))
}

/// What the guest's shell is told. The command takes the shell's place; by the variable it is found
/// with all that it starts.
fn script(task: &Task, token: &str) -> Result<String> {
    let mut script = String::new();
    if let Some(directory) = &task.directory {
        script.push_str(&format!("cd {} || exit 126; ", shell_word(directory)));
    }
    script.push_str(&format!("exec env SPORE_EXEC={token}"));
    for (name, value) in &task.environment {
        script.push_str(&format!(" {}", shell_word(&format!("{name}={value}"))));
    }
    // env(1) takes what has a '=' for a variable.
    script.push_str(" sh -c 'exec \"$@\"' sh");
    for word in &task.words {
        let word = word.to_str().ok_or_else(|| {
            Error::usage(format!("'{}' is no text", word.to_string_lossy().escape_debug()))
        })?;
        script.push_str(&format!(" {}", shell_word(word)));
    }
    Ok(script)
}

/// Has the commands of a session get a signal.
fn kill_script(token: &str, signal: &str) -> String {
    format!(
        "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ | grep -qx SPORE_EXEC={token} && \
         kill -s {signal} ${{p#/proc/}}; done 2>/dev/null"
    )
}

/// A word as a POSIX shell reads it.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::consts::SIGTERM;

    fn run_by_sh(task: &Task) -> std::process::Output {
        Command::new("sh").arg("-c").arg(script(task, "0123").unwrap()).output().unwrap()
    }

    fn task(words: &[&str]) -> Task {
        Task { words: words.iter().map(OsString::from).collect(), ..Task::default() }
    }

    #[test]
    fn a_shell_runs_the_command_as_it_was_given() {
        let words = ["printf", "<%s>", "a b", "it's", "$HOME", "*", "", "-x", "k=v", "\n"];
        assert_eq!(run_by_sh(&task(&words)).stdout, b"<a b><it's><$HOME><*><><-x><k=v><\n>");
        let mut there = task(&["sh", "-c", "echo \"$A|$PWD|$SPORE_EXEC\"; exit 7"]);
        there.environment = vec![("A".into(), "x 'y'".into())];
        there.directory = Some("/usr".into());
        let output = run_by_sh(&there);
        assert_eq!((output.stdout, output.status.code()), (b"x 'y'|/usr|0123\n".to_vec(), Some(7)));
        there.directory = Some("/nowhere".into());
        assert_eq!(run_by_sh(&there).status.code(), Some(126));
        assert_eq!(run_by_sh(&task(&["no-such-command"])).status.code(), Some(127));
    }

    #[test]
    fn a_signal_finds_the_command_and_what_it_has_started() {
        let token = token().unwrap();
        let words = ["sh", "-c", "sleep 300 & echo up; wait"];
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(script(&task(&words), &token).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 3]).unwrap();
        let kill = |token: &str| {
            Command::new("sh").arg("-c").arg(kill_script(token, "TERM")).status().unwrap()
        };
        kill("another");
        assert!(child.try_wait().unwrap().is_none());
        kill(&token);
        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        // Its end is seen when the last that had it is gone.
        assert_eq!(out.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_commands_exit_code_is_told_from_a_connection_that_broke() {
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        let log = "debug1: Entering interactive session.\ndebug1: Exit status 255\n";
        assert_eq!(outcome(log, ended(255)), Outcome::Exited(255));
        let failed = |log: &str| match outcome(log, ended(255)) {
            Outcome::NotBegun(why) => why,
            other => panic!("{other:?}"),
        };
        let denied = "debug1: x\nroot@i-1: Permission denied (publickey).\ndebug1: y\n";
        assert_eq!(failed(denied), "root@i-1: Permission denied (publickey).");
        assert!(failed("debug1: Exit status -1\n").contains("ended before the command"));
        assert!(failed("").contains("ended before the command"));
        let broke = "Authenticated to i-1 (via proxy) using \"publickey\".\nconnection reset\n";
        assert_eq!(outcome(broke, ended(255)), Outcome::Broken("connection reset".into()));
    }

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        assert_eq!(parse_variable("A_1=b=c").unwrap(), ("A_1".into(), "b=c".into()));
        for text in ["A", "=b", "1=b", "a b=c", "$(x)=y"] {
            assert!(parse_variable(text).is_err(), "{text}");
        }
    }
}
