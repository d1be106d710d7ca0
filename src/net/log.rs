//! What a network's process has to tell: lines in the network's log.

use std::fmt;
use std::fs::File;
use std::io::Write;

/// The network's log, which is standard error here.
#[derive(Debug)]
pub struct Log(File);

/// Bytes of a line at most.
const LONGEST: usize = 400;

impl Log {
    /// The log.
    pub fn open() -> Option<Self> {
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).ok().map(File::from).map(Self)
    }

    /// One line. Where there is no room for it, it is lost.
    pub fn line(&self, text: impl fmt::Display) {
        let line: String =
            text.to_string().chars().map(crate::error::shown).take(LONGEST).collect();
        let _ = (&self.0).write_all(format!("{line}\n").as_bytes());
    }
}
