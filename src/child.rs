//! Looking into what somebody else made by a process of our own that has it open and nothing else.
//!
//! Each kind of look is a row of [`HELPERS`]. Its process is this program again: it ends with its parent, limits its memory and
//! time, gives up the file system, the network and all system calls but a few, and only then reads. What it answers is not
//! trusted either: whoever asks bounds and checks it.

use super::{import, kernel};
use crate::error::{Error, OrFail, Result};
use crate::inspect::{modules, secrets};
use crate::sys::process::not_started;
use crate::sys::seccomp::{Allow, Filter};
use crate::sys::{confine, fds};
use crate::transfer::remote::helper::launcher;
use rustix::io::{FdFlags, fcntl_setfd};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// All kinds of look.
const HELPERS: &[&Helper] = &[&secrets::HELPER, &modules::HELPER, &kernel::HELPER, &import::HELPER];

/// A kind of look, by a confined process.
pub(crate) struct Helper {
    /// The hidden subcommand: `spore WORD PARENT FD[:NOTE]…`.
    pub word: &'static str,
    /// Bytes of address space.
    pub memory: u64,
    /// Seconds of processor time, unless that depends on the size of what is read.
    pub seconds: Option<u64>,
    /// The system calls that it takes beside [`confine::MEMORY_AND_END`]. Anything else ends the process.
    pub calls: &'static [Allow],
    /// What it does once it is confined. Its answer goes to standard output.
    pub run: fn(Vec<Given>) -> Result<()>,
}

/// A file that a helper is given.
pub(crate) struct Given {
    /// The file.
    pub file: File,
    /// What was said of it.
    pub note: String,
}

/// What the program does where `arguments` begin with a helper's word; `None` if they don't.
pub fn main(
    arguments: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
) -> Option<ExitCode> {
    let helper =
        HELPERS.iter().find(|helper| arguments.peek().is_some_and(|a| a == helper.word))?;
    arguments.next();
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    Some(match confined(helper, &words).and_then(|files| (helper.run)(files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125),
    })
}

fn confined(helper: &Helper, words: &[String]) -> Result<Vec<Given>> {
    let bad = || Error::usage("this is for spore itself");
    let (parent, files) = words.split_first().ok_or_else(bad)?;
    confine::die_with(parent.parse().map_err(|_| bad())?)?;
    let parse = |word: &String| {
        let (fd, note) = word.split_once(':').unwrap_or((word, ""));
        Ok((fd.parse::<i32>().map_err(|_| bad())?, note.to_owned()))
    };
    let numbers = files.iter().map(parse).collect::<Result<Vec<_>>>()?;
    fds::close_all_but(&numbers.iter().map(|(fd, _)| *fd).collect::<Vec<_>>());
    let take = |(fd, note): (i32, String)| Ok(Given { file: fds::take_file(fd)?, note });
    let files = numbers.into_iter().map(take).collect::<Result<Vec<_>>>()?;
    confine::limit(helper.memory, helper.seconds)?;
    confine::close_files()?;
    Filter::compile(&[helper.calls, confine::MEMORY_AND_END].concat())?.apply()?;
    Ok(files)
}

/// A helper at work. It ends when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    memory: u64,
}

impl Child {
    /// Starts a helper, which is given `files`, each with a note. With it comes the pipe that it answers through. Wait for it
    /// in the thread that starts it: it ends with that.
    ///
    /// # Errors
    /// No more processes or descriptors.
    pub(crate) fn start(helper: &Helper, files: &[(File, &str)]) -> Result<(Self, File)> {
        let (answer, theirs) = fds::pipe()?;
        let mut command = Command::new(launcher()?);
        command.arg(helper.word).arg(std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::null()).env_clear();
        for (file, note) in files {
            fcntl_setfd(file, FdFlags::empty()).or_fail(|| "pass a file on")?;
            let colon = if note.is_empty() { "" } else { ":" };
            command.arg(format!("{}{colon}{note}", file.as_raw_fd()));
        }
        let process = command.spawn().map_err(|cause| not_started("start a process", cause))?;
        Ok((Self { process, memory: helper.memory }, answer))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// None that the kernel has.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait().or_fail(|| "wait for a process")
    }

    /// Why it ended without having said so.
    pub(crate) fn failure(&mut self, doing: &str) -> Error {
        let _ = self.process.kill();
        let why = match self.wait().map(|status| (status.signal(), status.code())) {
            Ok((Some(libc::SIGABRT), _)) => {
                format!("it would take more than {} MiB of memory", self.memory >> 20)
            }
            Ok((Some(libc::SIGXCPU), _)) => "it would take too much processor time".to_owned(),
            Ok((Some(libc::SIGSYS), _)) => {
                "its process made a call that it may not make".to_owned()
            }
            Ok((Some(signal), _)) => format!("its process was ended by signal {signal}"),
            Ok((None, code)) => format!("its process ended with {}", code.unwrap_or_default()),
            Err(error) => error.message().to_owned(),
        };
        Error::failure(format!("{doing} was given up: {why}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks a helper for a short answer. Gives how it ended and at most `limit` bytes of what it said.
///
/// # Errors
/// It can't be started or heard.
pub(crate) fn ask(
    helper: &Helper,
    files: &[(File, &str)],
    limit: u64,
) -> Result<(ExitStatus, String)> {
    let (mut child, out) = Child::start(helper, files)?;
    let mut answer = Vec::new();
    out.take(limit).read_to_end(&mut answer).or_fail(|| "read its answer")?;
    Ok((child.wait()?, String::from_utf8_lossy(&answer).into_owned()))
}

/// What somebody else's bytes say, as a part of a line for a terminal: at most `longest` characters, without control characters.
pub(crate) fn one_line(text: &str, longest: usize) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(longest).collect()
}
