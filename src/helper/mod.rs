//! Helpers: processes of our own that read what somebody else made, and can do nothing else.
//!
//! Each kind is a row of one table, [`crate::HELPERS`]. A helper is this program again: it closes
//! all descriptors but those it is given, limits its memory and time, gives up the file system, the
//! network and all system calls but a few, and only then reads. What it answers is not trusted
//! either: [`Child::hear`] and [`Child::ask`] bound it in bytes and time, and whoever asks checks
//! it.

mod child;
mod denied;
pub mod foreign;
mod program;

pub use child::{Child, start, within};
pub use program::{REMOTE, beside, lasting, launcher};

use crate::error::{Error, Result, shown};
use crate::sys::seccomp::{Allow, Filter};
use crate::sys::{confine, fds};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

/// A kind of helper.
pub struct Helper {
    /// The hidden subcommand: `spore WORD PARENT FD[:NOTE]…`, where PARENT is the process that
    /// starts it.
    pub word: &'static str,
    /// What it may ask of the kernel.
    pub syscalls: Syscalls,
    /// Bytes of address space.
    pub memory: u64,
    /// Seconds of processor time, unless that depends on the size of what is read.
    pub seconds: Option<u64>,
    /// When it ends at the latest.
    pub ends: Ends,
    /// Names of the environment variables that it sees.
    pub environment: &'static [&'static str],
    /// What it does once it is confined. Its answer goes to standard output.
    pub run: fn(Vec<Given>) -> Result<()>,
}

/// The system calls of a helper.
pub enum Syscalls {
    /// These beside [`confine::MEMORY_AND_END`]; anything else ends the process. It has no way to
    /// the file system or network.
    These(&'static [Allow]),
    /// It becomes a program of somebody else's, and `run` builds the walls for that.
    OfAnotherProgram,
    /// It serves a directory of the user's, and `run` makes that its whole file system.
    OfADirectory,
}

/// When a helper ends at the latest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// With the thread that started it.
    WithParent,
    /// When the other end of the socket that it is given is closed, by whichever process has it
    /// then.
    WithSocket,
}

/// A file that a helper is given.
pub struct Given {
    /// The file.
    pub file: File,
    /// What was said of it.
    pub argument: OsString,
}

impl Given {
    /// What was said of it, as text.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&self) -> Result<&str> {
        self.argument.to_str().ok_or_else(not_ours)
    }
}

/// The error of a helper that is not started as we start it.
pub fn not_ours() -> Error {
    Error::usage("this is for spore itself")
}

/// What the program does where `arguments` begin with the word of a helper of `table`; `None` if
/// they don't.
pub fn main(
    table: &[&Helper],
    arguments: &mut Peekable<impl Iterator<Item = OsString>>,
) -> Option<ExitCode> {
    let helper = table.iter().find(|helper| arguments.peek().is_some_and(|a| a == helper.word))?;
    arguments.next();
    let words: Vec<OsString> = arguments.collect();
    Some(match confined(helper, &words).and_then(|files| (helper.run)(files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125),
    })
}

fn confined(helper: &Helper, words: &[OsString]) -> Result<Vec<Given>> {
    let (parent, files) = words.split_first().ok_or_else(not_ours)?;
    let parent = parent.to_str().and_then(|parent| parent.parse().ok()).ok_or_else(not_ours)?;
    if helper.ends == Ends::WithParent {
        confine::die_with(parent)?;
    }
    let numbers = files.iter().map(|word| descriptor(word)).collect::<Result<Vec<_>>>()?;
    fds::close_all_but(&numbers.iter().map(|(fd, _)| *fd).collect::<Vec<_>>());
    let take = |(fd, argument): (i32, OsString)| Ok(Given { file: fds::take_file(fd)?, argument });
    let files = numbers.into_iter().map(take).collect::<Result<Vec<_>>>()?;
    // rustix asks the kernel for it once, by a call that is not allowed later.
    rustix::param::page_size();
    confine::limit(helper.memory, helper.seconds)?;
    if let Syscalls::These(calls) = helper.syscalls {
        confine::close_files()?;
        Filter::compile(&[calls, confine::MEMORY_AND_END].concat())?.apply()?;
    }
    Ok(files)
}

/// `FD` or `FD:NOTE`.
fn descriptor(word: &OsStr) -> Result<(i32, OsString)> {
    let bytes = word.as_bytes();
    let (fd, argument) = match bytes.iter().position(|byte| *byte == b':') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let fd = std::str::from_utf8(fd).ok().and_then(|fd| fd.parse().ok()).ok_or_else(not_ours)?;
    Ok((fd, OsString::from_vec(argument.to_vec())))
}

/// What somebody else's bytes say, as a part of a line for a terminal: at most `longest`
/// characters, without control characters.
pub fn one_line(untrusted: &str, longest: usize) -> String {
    untrusted.chars().map(shown).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_helper_are_descriptors_and_notes() {
        let of = |word: &str| descriptor(OsStr::new(word)).ok();
        assert_eq!(of("5"), Some((5, "".into())));
        assert_eq!(of("7:/a:b,c"), Some((7, "/a:b,c".into())));
        assert_eq!(of("x:5"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_line_of_anothers_is_one_line() {
        assert_eq!(one_line("a\x1b[2J\nb", 5), "a?[2J");
    }
}
