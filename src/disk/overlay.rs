//! What is done to a volume's overlay by its tables, each by a process that has nothing but the
//! overlay.
//!
//! A guest has its VMM write these tables, and a VMM that it has taken over may write any.

use super::inside::parse_format;
use super::served::{as_io, other};
use crate::block::DiskFormat;
use crate::block::overlay::{self, Backing, format_name};
use crate::error::{Error, OrFail, Result};
use crate::helper::{self, Ends, Given, Helper, Syscalls, not_ours, one_line};
use crate::sys::seccomp::{Allow, Allow::Call};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

pub use crate::block::overlay::{Repaired, create, is_dirty};

/// Bytes of address space: a bit for each cluster, and the tables.
const MEMORY: u64 = 4 << 30;
/// How long the work may take on a slow disk.
const DEADLINE: Duration = Duration::from_secs(600);
/// Bytes of the answer at most.
const MAX_ANSWER: u64 = 16 << 10;

/// What the work takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_pread64),   // tables
    Call(libc::SYS_preadv),    // tables
    Call(libc::SYS_pwrite64),  // tables
    Call(libc::SYS_pwritev),   // tables
    Call(libc::SYS_fdatasync), // each step before the next
    Call(libc::SYS_fallocate), // space that is given back
    Call(libc::SYS_ftruncate), // the same, at the end
    Call(libc::SYS_lseek),     // the file's size
    Call(libc::SYS_statx),     // the same
    Call(libc::SYS_fstat),     // the same
    Call(libc::SYS_write),     // the answer
    Call(libc::SYS_close),     // what is left
    Call(libc::SYS_fcntl),     // std looks at what it closes
];

/// The worker, with the overlay, noted with the work.
pub(crate) const HELPER: Helper = Helper {
    word: "__overlay",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    seconds: Some(DEADLINE.as_secs()),
    ends: Ends::WithParent,
    environment: &[],
    run,
};

/// What is to be done.
#[derive(Serialize, Deserialize)]
enum Work {
    Repair,
    IsEmpty,
    NameBase { name: String, format: String },
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Repaired(u64),
    Empty(bool),
    Named,
    Failed(String),
}

/// As [`overlay::repair`].
///
/// # Errors
/// As there; it took too much.
pub fn repair(file: &File) -> io::Result<Repaired> {
    match ask(file, &Work::Repair)? {
        Answer::Repaired(clusters) => Ok(Repaired { clusters }),
        answer => Err(unexpected(answer)),
    }
}

/// As [`overlay::is_empty`].
///
/// # Errors
/// As there; it took too much.
pub fn is_empty(file: &File) -> io::Result<bool> {
    match ask(file, &Work::IsEmpty)? {
        Answer::Empty(empty) => Ok(empty),
        answer => Err(unexpected(answer)),
    }
}

/// As [`overlay::name_base`].
///
/// # Errors
/// As there; it took too much.
pub fn name_base(file: &File, base: &Backing<'_>) -> io::Result<()> {
    let (name, format) = (base.name.to_owned(), format_name(base.format).to_owned());
    match ask(file, &Work::NameBase { name, format })? {
        Answer::Named => Ok(()),
        answer => Err(unexpected(answer)),
    }
}

fn ask(file: &File, work: &Work) -> io::Result<Answer> {
    let json = OsString::from(serde_json::to_string(work)?);
    let child = as_io(helper::start(&HELPER, &[(file.as_fd(), &json)]))?;
    as_io(child.ask(MAX_ANSWER, DEADLINE))
}

fn unexpected(answer: Answer) -> io::Error {
    match answer {
        Answer::Failed(why) => io::Error::new(io::ErrorKind::InvalidData, one_line(&why, 2000)),
        _ => other(Error::failure("the process that works on it said nonsense")),
    }
}

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(not_ours)?;
    let work: Work = serde_json::from_str(given.text()?).map_err(|_| not_ours())?;
    let file = &given.file;
    let done = match work {
        Work::Repair => overlay::repair(file).map(|done| Answer::Repaired(done.clusters)),
        Work::IsEmpty => overlay::is_empty(file).map(Answer::Empty),
        Work::NameBase { name, format } => {
            let format: DiskFormat = parse_format(&format)?;
            overlay::name_base(file, &Backing { name: &name, format }).map(|()| Answer::Named)
        }
    };
    let answer = done.unwrap_or_else(|why| Answer::Failed(one_line(&why.to_string(), 2000)));
    let json = serde_json::to_vec(&answer).or_fail(|| "write JSON")?;
    io::stdout().write_all(&json).or_fail(|| "answer")
}
