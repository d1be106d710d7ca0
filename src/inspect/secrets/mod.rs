//! What of an image nobody should see: found by looking into its file systems before it becomes
//! public.
//!
//! The file system is the guest's and may be made to hurt, so a process of its own reads it:
//! `__secrets`, which has the snapshot's files open, no other way to the file system or the
//! network, few system calls, and little memory and time. What it says is not trusted either: it is
//! a number of [`kinds::KINDS`] and a path, a line each.

mod inside;
mod kinds;

pub(crate) use inside::HELPER;
pub use inside::name;

use crate::disk;
use crate::error::Result;
use crate::helper;
use crate::record::snapshot::Snapshot;
use crate::snapshot;
use crate::store::Store;
use kinds::KINDS;
use std::time::Duration;

/// Most bytes of the answer that are read.
const MAX_ANSWER: u64 = 64 << 10;
/// How long the look may take on a slow disk; its processor time is bounded besides.
const DEADLINE: Duration = Duration::from_secs(600);

/// Something that is likely a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What it is likely to be.
    pub what: &'static str,
    /// Where it is in its file system.
    pub path: String,
}

/// What was found in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Likely secrets.
    pub found: Vec<Secret>,
    /// Why there may be more, or any.
    pub unknown: Option<String>,
}

/// Look into the file systems of a snapshot.
pub fn look(store: &Store, snapshot: &Snapshot) -> Report {
    match ask(store, snapshot) {
        Ok(report) => report,
        Err(error) => Report { found: Vec::new(), unknown: Some(error.message().to_owned()) },
    }
}

fn ask(store: &Store, snapshot: &Snapshot) -> Result<Report> {
    let layers = snapshot::open_layers(store, snapshot)?;
    let child = helper::start(&HELPER, &disk::given(&layers))?;
    let (said, end) = child.hear(MAX_ANSWER, &mut helper::within(DEADLINE));
    let mut report = understand(&String::from_utf8_lossy(&said));
    if let Err(why) = end
        && report.unknown.is_none()
    {
        let why = why.message();
        report.unknown = Some(format!("its file system could not be read to the end: {why}"));
    }
    Ok(report)
}

/// What the helper says: lines `NUMBER PATH`; `- REASON` for what was not looked at.
pub fn understand(answer: &str) -> Report {
    let mut report = Report::default();
    for line in answer.lines() {
        match line.split_once(' ') {
            Some(("-", why)) => report.unknown = Some(why.to_owned()),
            Some((number, path)) => {
                let what = number.parse::<usize>().ok().and_then(|n| KINDS.get(n).copied());
                report.found.extend(what.map(|what| Secret { what, path: path.to_owned() }));
            }
            None => {}
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_not_trusted() {
        let report = understand("0 /a b\n99 /x\n-1 /y\njunk\n\n3 /h\n- stopped\n");
        let whats: Vec<&str> = report.found.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(whats, ["/a b", "/h"]);
        assert_eq!(report.unknown.as_deref(), Some("stopped"));
    }
}
