//! The one error type of the crate: what went wrong, why, and what to do about it, in one line.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::io;

/// Whose doing an error is; it decides the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The command line itself is wrong: exit code 2.
    Usage,
    /// The request is well-formed but can't be done (unknown id, name taken, wrong state …): exit code 1.
    Refused,
    /// Something did not become true in time; the object is left alive: exit code 124.
    Timeout,
    /// Spore or its host failed (I/O error, no space, KVM error): exit code 125.
    Failure,
}

/// The code of what the host has no space for.
const FULL: &str = "InsufficientVolumeCapacity";

/// An error as a user reads it. `Display` is one line without a trailing full stop.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    /// EC2's error code where EC2 has one, e.g. `InvalidAMIID.NotFound`.
    code: Option<Cow<'static, str>>,
    message: String,
}

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A mistake in the command line (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, code: None, message: message.into() }
    }

    /// A request that can't be granted, with EC2's error code (exit code 1).
    pub fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, code: Some(code.into()), message: message.into() }
    }

    /// A wait that ran out of time (exit code 124).
    pub fn timeout(message: impl Into<String>) -> Self {
        Self { kind: Kind::Timeout, code: None, message: message.into() }
    }

    /// A failure of Spore or of its host (exit code 125).
    pub fn failure(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, code: None, message: message.into() }
    }

    /// An error that another process had.
    pub fn reported(kind: Kind, code: Option<String>, message: String) -> Self {
        Self { kind, code: code.map(Cow::Owned), message }
    }

    /// An I/O error with what was being done to what: `cannot open /x: Permission denied (os error 13)`.
    pub fn io(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        // ENOSPC and EDQUOT, in the words of std::io::Error.
        let full = ["(os error 28)", "(os error 122)"].iter().any(|code| cause.ends_with(code));
        let remedy =
            if full { "; free some, or set SPORE_HOME to a larger file system" } else { "" };
        let error = Self::failure(format!("cannot {doing}: {cause}{remedy}"));
        Self { code: full.then_some(FULL.into()), ..error }
    }

    /// As [`Error::io`], of a file that the user named: what is wrong with the name is a refusal.
    pub fn input(doing: impl fmt::Display, cause: &io::Error) -> Self {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the file's name",
            io::ErrorKind::PermissionDenied => "you need permission to read it",
            io::ErrorKind::IsADirectory => "give a file",
            io::ErrorKind::InvalidData => "give a text file",
            _ => return Self::io(doing, cause),
        };
        Self::refused("InvalidParameterValue", format!("cannot {doing}: {cause}; {remedy}"))
    }

    /// Prefix the message with more context: `context: message`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Append what to do about it: `message; remedy`.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.message = format!("{}; {remedy}", self.message);
        self
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// EC2's error code, if there is one.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether the host had no space for it (ENOSPC, EDQUOT).
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Failure && self.code() == Some(FULL)
    }

    /// The message without the code.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The process exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Refused => 1,
            Kind::Timeout => 124,
            Kind::Failure => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

/// Attach "cannot DOING" to any error: `file.sync_all().or_fail(|| format!("sync {path}"))?`.
pub trait OrFail<T> {
    /// Turn the error into an [`Error::io`] that says what was being done.
    fn or_fail<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: fmt::Display> OrFail<T> for std::result::Result<T, E> {
    fn or_fail<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::io(doing(), cause))
    }
}

/// Likewise for a file that the user named.
pub trait OrRefuse<T> {
    /// Turn the error into an [`Error::input`] that says what was being done.
    fn or_refuse<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> OrRefuse<T> for io::Result<T> {
    fn or_refuse<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::input(doing(), &cause))
    }
}
