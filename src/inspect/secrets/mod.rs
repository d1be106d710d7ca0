//! What of an image nobody should see: found by looking into its file systems before it becomes public.
//!
//! The file system is the guest's and may be made to hurt, so a process of its own reads it: `__secrets`, which has the
//! snapshot's files open, no other way to the file system or the network, few system calls, and little memory and time.
//! What it says is not trusted either: it is a number of [`KINDS`] and a path, a line each.

mod inside;

pub(crate) use inside::HELPER;
pub use inside::name;

use crate::error::{Error, Result};
use crate::helper;
use crate::plan::DiskFormat;
use crate::record::snapshot::Snapshot;
use crate::snapshot;
use crate::store::Store;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Most bytes of the answer that are read.
const MAX_ANSWER: u64 = 64 << 10;
/// How long the look may take on a slow disk; its processor time is bounded besides.
const DEADLINE: Duration = Duration::from_secs(600);

/// What is looked for. The numbers are the order.
const KINDS: [&str; 7] = [
    "an SSH host key",
    "a list of SSH keys that may log in",
    "a private key",
    "a shell's or a client's history",
    "cloud credentials",
    "a password file of a client",
    "a file of environment variables",
];

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
    let suffix = |format| if format == DiskFormat::Raw { "raw" } else { "qcow2" };
    let given = layers.iter().map(|(file, format)| (file.as_fd(), OsStr::new(suffix(*format))));
    let child = helper::start(&HELPER, &given.collect::<Vec<_>>())?;
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

/// Lines `NUMBER PATH`; `- REASON` for what was not looked at.
fn understand(answer: &str) -> Report {
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

/// What kind of secret the file at `path` (absolute, in its file system) is likely to be.
fn kind(path: &str) -> Option<usize> {
    let (dir, name) = path.rsplit_once('/')?;
    let below = |end: &str| dir.ends_with(end);
    let public = name.ends_with(".pub");
    let is = match () {
        () if name.starts_with("ssh_host_") && name.ends_with("_key") => 0,
        () if below("/.ssh") && name.starts_with("authorized_keys") => 1,
        () if below("/.ssh") && name.starts_with("id_") && !public => 2,
        () if below("/etc/ssl/private") || below("/private-keys-v1.d") => 2,
        () if name.starts_with('.') && name.ends_with("_history") => 3,
        () if [".lesshst", ".viminfo"].contains(&name) => 3,
        () if below("/.aws") || below("/.azure") || below("/.config/gcloud") => 4,
        () if below("/.kube") && name == "config" => 4,
        () if below("/.docker") && name == "config.json" => 4,
        () if [".netrc", ".pgpass", ".my.cnf", ".git-credentials", ".npmrc", ".pypirc"]
            .contains(&name) =>
        {
            5
        }
        () if name == ".env" || (name.starts_with(".env.") && !name.ends_with("example")) => 6,
        () => return None,
    };
    Some(is)
}

/// # Errors
/// It is no format.
fn parse_format(text: &str) -> Result<DiskFormat> {
    match text {
        "raw" => Ok(DiskFormat::Raw),
        "qcow2" => Ok(DiskFormat::Qcow2),
        _ => Err(Error::usage("this is for spore itself")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_places() {
        for (path, number) in [
            ("/etc/ssh/ssh_host_ed25519_key", Some(0)),
            ("/etc/ssh/ssh_host_ed25519_key.pub", None),
            ("/root/.ssh/authorized_keys", Some(1)),
            ("/home/a/.ssh/id_rsa", Some(2)),
            ("/home/a/.ssh/id_rsa.pub", None),
            ("/etc/ssl/private/web.key", Some(2)),
            ("/root/.bash_history", Some(3)),
            ("/home/a/.aws/credentials", Some(4)),
            ("/home/a/.netrc", Some(5)),
            ("/srv/app/.env", Some(6)),
            ("/srv/app/.env.production", Some(6)),
            ("/srv/app/.env.example", None),
            ("/etc/passwd", None),
            ("history", None),
        ] {
            assert_eq!(kind(path), number, "{path}");
        }
    }

    #[test]
    fn an_answer_is_not_trusted() {
        let report = understand("0 /a b\n99 /x\n-1 /y\njunk\n\n3 /h\n- stopped\n");
        let whats: Vec<&str> = report.found.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(whats, ["/a b", "/h"]);
        assert_eq!(report.unknown.as_deref(), Some("stopped"));
    }
}
