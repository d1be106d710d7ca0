//! Becoming another program, one that becomes no further one.

use super::seccomp::Deny;
use crate::error::{OrFail, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Descriptors that the program can have; it is a small one.
const DESCRIPTORS: i32 = 256;

/// The program, opened. Its descriptor has a number that is above this process's limit and so, once
/// it is closed by the program's start, no other can get it: a filter may let execveat(2) take this
/// number alone.
pub struct FinalProgram(OwnedFd);

impl FinalProgram {
    /// Open the program, and limit this process's descriptors for good (who is to be held by that
    /// needs [`FinalProgram::denials`] too).
    ///
    /// # Errors
    /// It is not there, or not for us.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        // The highest that may be: a user's own limit may be lower.
        let may = getrlimit(Resource::Nofile).current.and_then(|limit| i32::try_from(limit).ok());
        let number = may.map_or(DESCRIPTORS, |limit| DESCRIPTORS.min(limit - 1));
        let placed = fcntl_dupfd_cloexec(&file, number)?;
        let limit = u64::try_from(placed.as_raw_fd()).ok();
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
        Ok(Self(placed))
    }

    /// What keeps it from becoming another program.
    pub fn denials(&self) -> [Deny; 4] {
        let number = u64::from(self.0.as_raw_fd().unsigned_abs());
        let (all, int) = (u64::MAX, u64::from(u32::MAX));
        [
            Deny::Call(libc::SYS_execve),
            Deny::Unless { call: libc::SYS_execveat, argument: 0, mask: int, value: number },
            Deny::Call(libc::SYS_setrlimit),
            // To ask for a limit, by which C libraries implement getrlimit(3), is allowed: no new
            // one is given.
            Deny::Unless { call: libc::SYS_prlimit64, argument: 2, mask: all, value: 0 },
        ]
    }

    /// Become it, with the environment as it is.
    ///
    /// # Errors
    /// Always: why not.
    pub fn execute(self, arguments: Vec<OsString>) -> Result<()> {
        let doing = || "execute a program";
        let environment = std::env::vars_os().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        });
        let strings = |all: Vec<OsString>| -> Result<Vec<CString>> {
            all.into_iter().map(|text| CString::new(text.into_vec()).or_fail(doing)).collect()
        };
        let (arguments, environment) = (strings(arguments)?, strings(environment.collect())?);
        let pointers = |all: &[CString]| -> Vec<*const libc::c_char> {
            all.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        // SAFETY: both arrays end with a null pointer; they, and the strings that they point to,
        // outlive the call, which only reads them.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Err(io::Error::last_os_error()).or_fail(doing)
    }
}
