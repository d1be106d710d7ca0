//! A command's session in a guest, by OpenSSH: what passes between the two, and how it ends.

use super::openssh::{no_openssh, openssh};
use super::signals::SAME;
use crate::error::{Error, OrFail, Result};
use crate::service::foreground::Signals;
use crate::service::reach::SshAccess;
use crate::sys::fds;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::rand::{GetRandomFlags, getrandom};
use signal_hook::consts::{SIGHUP, SIGINT};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most bytes of what OpenSSH tells of a session that are looked at.
const MAX_LOG: u64 = 1 << 20;
/// Most bytes of what a guest says where one line is waited for.
const MAX_WORDS: usize = 16 << 10;
/// What OpenSSH tells of a command's end. (OpenSSH, ssh.c)
const EXIT_STATUS: &str = "debug1: Exit status ";

/// What it tells of being let in. (sshconnect2.c)
const AUTHENTICATED: &str = "Authenticated to ";

/// A command in a guest.
#[derive(Clone, Debug, Default)]
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
    /// It becomes root's by sudo(8).
    pub sudo: bool,
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

/// A command's session that is yet to begin.
pub struct Session {
    /// OpenSSH's.
    pub command: Command,
    log: Arc<File>,
    /// The same way in, for what ends it.
    ask: Vec<(&'static str, String)>,
    instance: String,
    token: String,
    tty: bool,
    sudo: bool,
    /// OpenSSH is not in our process group: what a terminal sends to that is for us to pass on.
    pub apart: bool,
}

/// One that has begun.
pub struct Running {
    /// OpenSSH.
    pub child: Child,
    /// OpenSSH opens it by its number, whenever it gets to it.
    log: Arc<File>,
}

impl Session {
    /// Of a command in an instance.
    ///
    /// # Errors
    /// A word is no text; the host has no memory file.
    pub fn new(found: &SshAccess, ask: Vec<(&'static str, String)>, task: &Task) -> Result<Self> {
        let token = token()?;
        let log = Arc::new(fds::memfd("ssh")?);
        // The last value of a keyword does not count, but the first.
        let mut reported = vec![("LogLevel", "DEBUG1".to_owned())];
        reported.extend(ask.iter().cloned());
        let mut command = openssh("ssh", &reported);
        // What it tells of itself is apart from what the command prints.
        command.arg("-E").arg(format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd()));
        command.args(task.tty.then_some("-tt")).args((!task.tty).then_some("-T"));
        if !task.input && !task.tty {
            command.stdin(Stdio::null());
        }
        let instance = found.instance_id.to_string();
        command.arg(&instance).arg("--").arg(script(task, &token)?);
        Ok(Self {
            command,
            log,
            ask,
            instance,
            token,
            tty: task.tty,
            sudo: task.sudo,
            apart: false,
        })
    }

    /// Begins it.
    ///
    /// # Errors
    /// OpenSSH can't be run.
    pub fn start(&mut self) -> Result<Running> {
        let child = self.command.spawn().map_err(|cause| no_openssh("ssh", &cause))?;
        Ok(Running { child, log: self.log.clone() })
    }

    /// Runs it until a line of its output is one that `of` takes; else to its end, which it gives.
    /// The output is nobody's; a signal ends it, and so does the end of `time`.
    ///
    /// # Errors
    /// OpenSSH can't be run.
    pub fn first_line<T>(
        mut self,
        signals: Option<&dyn Signals>,
        time: Option<Duration>,
        of: impl Fn(&str) -> Option<T>,
    ) -> Result<Result<T, Outcome>> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::null());
        if signals.is_some() {
            self.command.process_group(0);
        }
        let mut running = self.start()?;
        let Some(mut out) = running.child.stdout.take() else {
            return Err(Error::failure("ssh has no output"));
        };
        let mut text = Vec::new();
        let end = time.map(|time| Instant::now() + time);
        let left = |running: &mut Running, outcome| {
            let _ = running.child.kill();
            running.child.wait().or_fail(|| "wait for ssh").map(|_| outcome)
        };
        loop {
            let mut polled = vec![PollFd::new(&out, PollFlags::IN)];
            polled.extend(
                signals.map(|signals| PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)),
            );
            let time = end.map(|end| end.saturating_duration_since(Instant::now()));
            fds::wait(&mut polled, time).or_fail(|| "wait for ssh")?;
            if time.is_some_and(|left| left.is_zero()) {
                return left(&mut running, Err(Outcome::TimedOut));
            }
            if let Some(number) = signals.and_then(|signals| signals.take()) {
                return left(&mut running, Err(Outcome::Signalled(number)));
            }
            let mut chunk = [0; 1024];
            let count = out.read(&mut chunk).or_fail(|| "hear from ssh")?;
            text.extend_from_slice(&chunk[..count]);
            let words = String::from_utf8_lossy(&text).into_owned();
            let whole = words.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(taken) = whole.filter_map(&of).next() {
                return left(&mut running, Ok(taken));
            }
            if count == 0 || text.len() > MAX_WORDS {
                // Who says so much has not answered.
                drop(out);
                let status = running.child.wait().or_fail(|| "wait for ssh")?;
                return running.outcome(status).map(Err);
            }
        }
    }

    /// Runs it to its end. A signal is passed on to the command, and so is SIGTERM when its time
    /// is up; who gets a second one, or does not end in time then, is left.
    ///
    /// # Errors
    /// OpenSSH can't be run.
    pub fn attend(mut self, signals: &dyn Signals, terms: &Terms) -> Result<Outcome> {
        // A terminal's ^C is for us to pass on; who reads the terminal has to stay with it.
        if self.apart || (!self.tty && !io::stdin().is_terminal()) {
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
        command.args(["-T", &self.instance, "--"]).arg(kill_script(&self.token, name, self.sudo));
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
    ///
    /// # Errors
    /// OpenSSH's log can't be read.
    pub fn outcome(&mut self, status: ExitStatus) -> Result<Outcome> {
        let doing = || "hear from ssh";
        let mut text = Vec::new();
        (&*self.log).rewind().or_fail(doing)?;
        (&*self.log).take(MAX_LOG).read_to_end(&mut text).or_fail(doing)?;
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
    let words = || log.lines().filter(|line| !line.starts_with("debug")).map(str::trim);
    // `__dial` knows why there is no connection; OpenSSH, which speaks last, that there is none.
    let dial = words().rev().find_map(|line| line.strip_prefix("spore: "));
    let last = dial.or_else(|| words().rfind(|line| !line.is_empty()));
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
    if task.sudo {
        // Where root's own session begins.
        script.push_str("cd; ");
    }
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
    Ok(as_root(script, task.sudo))
}

/// The script, which is root's by sudo(8) if it is to be: without a question.
fn as_root(script: String, sudo: bool) -> String {
    match sudo {
        true => format!("exec sudo -n -H -- sh -c {}", shell_word(&script)),
        false => script,
    }
}

/// Has the commands of a session get a signal.
fn kill_script(token: &str, signal: &str, sudo: bool) -> String {
    let script = format!(
        "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ | grep -qx SPORE_EXEC={token} && \
         kill -s {signal} ${{p#/proc/}}; done 2>/dev/null"
    );
    as_root(script, sudo)
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
            Command::new("sh").arg("-c").arg(kill_script(token, "TERM", false)).status().unwrap()
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
        let unreached =
            "spore: nobody listens there\nproxy dialer did not pass back a connection\n";
        assert_eq!(failed(unreached), "nobody listens there");
        assert!(failed("debug1: Exit status -1\n").contains("ended before the command"));
        assert!(failed("").contains("ended before the command"));
        let broke = "Authenticated to i-1 (via proxy) using \"publickey\".\nconnection reset\n";
        assert_eq!(outcome(broke, ended(255)), Outcome::Broken("connection reset".into()));
    }
}
