//! Starting a helper, and hearing what it says: within bounds of bytes and time, and believing
//! nothing.

use super::{Helper, launcher};
use crate::error::{Error, OrFail, Result};
use crate::sys::fds;
use crate::sys::process::{self, Ended, Process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How often it is asked whether to wait on.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long a helper that has closed its answer may take to end.
const END: Duration = Duration::from_secs(10);
/// The first descriptor that a helper is given.
const FIRST: i32 = 3;

/// A helper at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Child {
    process: Process,
    memory: u64,
    /// The pipe that it answers through.
    pub answer: File,
}

/// Starts a helper, which is given `files`, each with a note. One that ends with its parent ends
/// with the thread that calls this.
///
/// # Errors
/// No more processes or descriptors.
pub fn start(helper: &Helper, files: &[(BorrowedFd<'_>, &OsStr)]) -> Result<Child> {
    let (answer, theirs) = fds::pipe()?;
    let null = fds::null()?;
    let mut words: Vec<OsString> =
        vec!["spore".into(), helper.word.into(), std::process::id().to_string().into()];
    let mut all = vec![(null.as_fd(), 0), (theirs.as_fd(), 1), (null.as_fd(), 2)];
    for ((file, argument), number) in files.iter().zip(FIRST..) {
        let mut word = OsString::from(number.to_string());
        if !argument.is_empty() {
            word.push(":");
            word.push(argument);
        }
        words.push(word);
        all.push((*file, number));
    }
    let seen = helper.environment.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let environment = seen.map(|(name, value)| {
        let mut variable = OsString::from(name);
        variable.push("=");
        variable.push(value);
        variable
    });
    let environment: Vec<OsString> = environment.collect();
    let pid = process::spawn_with(&launcher()?, &words, &environment, &all)?;
    Ok(Child { process: Process::new(pid)?, memory: helper.memory, answer })
}

/// What is asked ten times a second while a helper is waited for: its error is the end of the wait.
/// This one waits `limit`.
pub fn within(limit: Duration) -> impl FnMut() -> io::Result<()> {
    let begun = Instant::now();
    move || {
        if begun.elapsed() < limit {
            return Ok(());
        }
        let why = format!("it would take more than {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    }
}

impl Child {
    /// Its answer as it comes; `wait_on` is asked while nothing comes.
    pub fn reader<'a>(&'a self, wait_on: &'a mut dyn FnMut() -> io::Result<()>) -> impl Read + 'a {
        Hearing { answer: &self.answer, wait_on }
    }

    /// Everything that it answers until it ends, at most `limit` bytes; and whether it ended well
    /// and in time, with no more to say.
    pub fn hear(
        mut self,
        limit: u64,
        wait_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> (Vec<u8>, Result<()>) {
        let mut said = Vec::new();
        let heard = self.reader(wait_on).take(limit.saturating_add(1)).read_to_end(&mut said);
        let too_much = said.len() as u64 > limit;
        said.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let end = match heard {
            Err(cause) => Err(Error::failure(format!("it was given up: {cause}"))),
            Ok(_) if too_much => Err(Error::failure("it was given up: it says too much")),
            Ok(_) => match self.process.wait_for(END) {
                Ok(Some(Ended::Exit(0))) => Ok(()),
                Ok(None) => Err(Error::failure("it was given up: it does not end")),
                Ok(Some(_)) | Err(_) => Err(self.failure("it")),
            },
        };
        (said, end)
    }

    /// Its answer, which is JSON of at most `limit` bytes and comes within `deadline`.
    ///
    /// # Errors
    /// It is no such answer, it did not come in time, or the helper was stopped.
    pub fn ask<T: DeserializeOwned>(self, limit: u64, deadline: Duration) -> Result<T> {
        let (said, end) = self.hear(limit, &mut within(deadline));
        end?;
        serde_json::from_slice(&said).or_fail(|| "understand a helper's answer")
    }

    /// Why it ended without having said so; it is ended if it has not.
    pub fn failure(&mut self, doing: &str) -> Error {
        self.process.kill();
        let why = match self.process.wait() {
            Ok(Ended::Signal(libc::SIGABRT)) => {
                format!("it would take more than {} MiB of memory", self.memory >> 20)
            }
            Ok(Ended::Signal(libc::SIGXCPU)) => "it would take too much processor time".to_owned(),
            Ok(Ended::Signal(libc::SIGSYS)) => {
                "its process made a call that it may not make".to_owned()
            }
            Ok(Ended::Signal(signal)) => format!("its process was ended by signal {signal}"),
            Ok(Ended::Exit(code)) => format!("its process ended with {code}"),
            Err(error) => error.message().to_owned(),
        };
        Error::failure(format!("{doing} was given up: {why}"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Leaves it to whoever has its socket.
    pub fn let_go(self) {
        self.process.let_go();
    }
}

/// A pipe that is read with patience that can end.
struct Hearing<'a> {
    answer: &'a File,
    wait_on: &'a mut dyn FnMut() -> io::Result<()>,
}

impl Read for Hearing<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            (self.wait_on)()?;
            let mut ready = [PollFd::from_borrowed_fd(self.answer.as_fd(), PollFlags::IN)];
            match poll(&mut ready, Some(&TICK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.answer.read(bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that does what `script` says, in place of a helper.
    fn child(script: &str) -> Child {
        let (answer, theirs) = fds::pipe().unwrap();
        let words = ["sh", "-c", script];
        let pid =
            process::spawn_with("/bin/sh".as_ref(), &words, &[] as &[&str], &[(theirs.as_fd(), 1)]);
        Child { process: Process::new(pid.unwrap()).unwrap(), memory: 64 << 20, answer }
    }

    fn failed(script: &str, deadline: Duration) -> String {
        child(script).ask::<Vec<u32>>(100, deadline).unwrap_err().message().to_owned()
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn an_answer_is_bounded_in_bytes_and_time() {
        assert_eq!(child("echo '[1, 2]'").ask::<Vec<u32>>(100, LONG).unwrap(), [1, 2]);
        assert!(failed("while echo 11111111; do :; done", LONG).contains("says too much"));
        let short = Duration::from_millis(300);
        assert!(failed("echo '[1'; sleep 1000", short).contains("more than 0 s"));
        assert!(failed("while echo 1; do sleep 0.1; done", short).contains("more than 0 s"));
    }

    #[test]
    fn a_helper_that_was_stopped_is_not_believed() {
        for (script, why) in [
            ("echo '[1]'; kill -SYS $$", "a call that it may not make"),
            ("echo '[1]'; kill -ABRT $$", "64 MiB of memory"),
            ("echo '[1]'; exit 125", "ended with 125"),
            ("echo '[1'", "answer"),
        ] {
            let message = failed(script, LONG);
            assert!(message.contains(why), "{message}");
        }
        let (said, end) = child("echo one; kill -XCPU $$").hear(100, &mut within(LONG));
        assert_eq!((&said[..], end.is_err()), (&b"one\n"[..], true), "what it said before counts");
    }

    #[test]
    fn a_helper_ends_when_nobody_asks_any_more() {
        let child = child("exec sleep 1000");
        let pid = child.process.id();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it is waited for, too");
    }
}
