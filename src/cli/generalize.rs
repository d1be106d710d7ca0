//! `image create --generalize`: what a running guest forgets before an image is made of it, by a
//! command of root's. Nothing else could: the guest alone writes to its file systems.

use super::login::way_in;
use super::openssh::Access;
use super::session::{Outcome, Session, Task};
use crate::error::{Error, Result};
use crate::service::Service;
use crate::service::reach::SshAccess;
use std::time::Duration;

/// What the guest runs.
const SCRIPT: &str = include_str!("generalize.sh");
/// Most characters of what it says that are told.
const MAX_WORDS: usize = 200;
/// How long it may take, most of which is what cloud-init has not done yet.
const LONGEST: Duration = Duration::from_secs(20 * 60);
/// What it says in the end.
const DONE: &str = "done";

/// What else may help.
const REMEDY: &str =
    "--generalize is a command in the guest, which has to run and to let root in: try 'spore exec'";

/// The instance whose guest is to forget.
///
/// # Errors
/// It is unknown, another's, or does not run.
pub fn find(service: &Service, instance: &str) -> Result<SshAccess> {
    service.ssh_access(instance).map_err(|error| error.remedy(REMEDY))
}

/// Has its guest forget what makes it this machine.
///
/// # Errors
/// Nobody is let in within `patience`, or the guest can't: why.
pub fn generalize(service: &Service, found: &SshAccess, patience: Duration) -> Result<()> {
    let access = Access { user: None, identity: None };
    let outcome = match way_in(service, found, &access, patience, None)? {
        Err(outcome) => outcome,
        Ok(way) => {
            let words = ["sh", "-c", SCRIPT].map(Into::into).to_vec();
            let task = Task { words, sudo: way.sudo, ..Task::default() };
            match Session::new(found, way.ssh, &task)?.first_line(None, Some(LONGEST), verdict)? {
                Ok(said) if said == DONE => return service.forget_guest(found),
                Ok(said) => return Err(failed(found, &said)),
                Err(outcome) => outcome,
            }
        }
    };
    let why = match outcome {
        Outcome::NotBegun(why) | Outcome::Broken(why) => why,
        Outcome::Exited(code) => format!("it ended with {code} and said nothing"),
        Outcome::Signalled(_) => "it was interrupted".into(),
        Outcome::TimedOut => format!("it takes more than {} minutes", LONGEST.as_secs() / 60),
    };
    Err(failed(found, &why).remedy(REMEDY))
}

fn failed(found: &SshAccess, why: &str) -> Error {
    Error::failure(format!("the guest of {} was not generalized: {why}", found.instance_id))
}

/// The line that says how it went.
fn verdict(line: &str) -> Option<String> {
    let said = line.strip_prefix("spore: ")?.trim_end();
    Some(said.chars().take(MAX_WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_verdict_is_one_line_of_bounded_length() {
        assert_eq!(verdict("spore: done\n").as_deref(), Some("done"));
        assert_eq!(verdict("Linux web 6.1\n"), None);
        let long = format!("spore: {}\n", "x".repeat(1000));
        assert_eq!(verdict(&long).unwrap().len(), MAX_WORDS);
    }
}
