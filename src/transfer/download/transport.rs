//! What a place that files are fetched from has to be able to do, whatever its protocol.

use crate::context::Cancel;
use crate::error::{Code, Error};

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask<'a> {
    /// From which byte on, if the place can do that.
    pub from: u64,
    /// Only if the file is still the one that had this mark; else all of it.
    pub if_still: Option<&'a str>,
    /// Not at all if the file is still the one that had this mark.
    pub unless_still: Option<&'a str>,
}

/// What comes back.
pub(crate) enum Reply<'a> {
    /// It is still the one that it was.
    Unchanged,
    /// What it has.
    Content(Content<'a>),
}

/// A file's bytes on their way.
pub(crate) struct Content<'a> {
    /// Where they begin: what was asked for, or 0.
    pub from: u64,
    /// Bytes of the whole file, if the place says.
    pub size: Option<u64>,
    /// What tells this file from another that has its name later.
    pub mark: Option<String>,
    /// The bytes.
    pub body: Box<dyn Body + 'a>,
}

/// Bytes that come in pieces.
pub(crate) trait Body {
    /// The next ones; `None` at the end.
    ///
    /// # Errors
    /// They break off; `cancel` was requested.
    fn next(&mut self, cancel: &Cancel) -> Result<Option<Vec<u8>>, Trouble>;
}

/// A place that one file is fetched from.
pub(crate) trait Transport {
    /// Asks for the file.
    ///
    /// # Errors
    /// It is not there, may not be had, or can't be had now; `cancel` was requested.
    fn get(&self, ask: Ask<'_>, cancel: &Cancel) -> Result<Reply<'_>, Trouble>;
}

/// Why something did not come.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may come another time: the network, a server that is busy.
    Passing(String),
    /// It does not come, however often it is asked for.
    Final(Code, String),
    /// Somebody has asked to stop.
    Cancelled,
}

impl Trouble {
    /// The error for what was asked of `from`.
    pub(crate) fn error(self, from: &str) -> Error {
        match self {
            Self::Passing(why) => {
                let why = format!("{from} can't be had: {}", line(&why));
                Error::refused(Code::Unavailable, why).remedy("try again: what has come is kept")
            }
            Self::Final(code, why) => Error::refused(code, format!("{from}: {}", line(&why))),
            Self::Cancelled => Error::failure("cancelled").remedy("pull again to go on with it"),
        }
    }
}

/// What somebody else says, as a part of a line.
fn line(why: &str) -> String {
    let words: Vec<&str> = why.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}

/// An address without the password in it.
pub(crate) fn shown(address: &str) -> String {
    let plain = address.split_once("://").and_then(|(scheme, rest)| {
        let host = rest.find('/').unwrap_or(rest.len());
        let at = rest[..host].rfind('@')?;
        Some(format!("{scheme}://{}", &rest[at + 1..]))
    });
    plain.unwrap_or_else(|| address.to_owned())
}
