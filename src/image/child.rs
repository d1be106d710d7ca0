//! Looking into what somebody else made by a process of our own that has it open and nothing else.
//!
//! The process confines itself before it looks; here is how it is started and heard.

use super::remote::helper::launcher;
use crate::error::{OrFail, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::{Command, ExitStatus, Stdio};

/// Ask the hidden `subcommand`, whose arguments are the descriptors of `files`, each with what stands beside it after
/// it (`7`, `7:raw`). Gives how it ended and at most `limit` bytes of what it said.
///
/// # Errors
/// It can't be started or heard.
pub(super) fn ask(
    subcommand: &str,
    files: &[(File, &str)],
    limit: u64,
) -> Result<(ExitStatus, String)> {
    let mut command = Command::new(launcher()?);
    command.arg(subcommand).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    for (file, suffix) in files {
        fcntl_setfd(file, FdFlags::empty()).or_fail(|| "pass a file on")?;
        command.arg(format!("{}{suffix}", file.as_raw_fd()));
    }
    let mut child = command.spawn().or_fail(|| "start a process")?;
    let mut answer = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(limit).read_to_end(&mut answer).or_fail(|| "read its answer")?;
    }
    let status = child.wait().or_fail(|| "wait for a process")?;
    Ok((status, String::from_utf8_lossy(&answer).into_owned()))
}
