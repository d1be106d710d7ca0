//! Who logs into a guest where the command line does not say.

use super::openssh::{Access, settings};
use super::session::{Outcome, Session, Task};
use crate::error::Result;
use crate::service::Service;
use crate::service::foreground::Signals;
use crate::service::reach::{Login, SshAccess, is_user};
use std::time::Duration;

/// Who is let in where nothing else is known.
const ROOT: &str = "root";

/// A way into a guest.
#[derive(Debug)]
pub struct WayIn {
    /// What OpenSSH is given.
    pub ssh: Vec<(&'static str, String)>,
    /// A command becomes root's by sudo(8): nobody has asked for that user.
    pub sudo: bool,
}

/// The way into an instance that its guest offers, or why there is none: root's, and that of the
/// user in whose place cloud-init keeps root out. Where it has not said yet who that is, root is
/// asked. `signals` end that; without them they end the process.
///
/// # Errors
/// OpenSSH can't be run, or can't be given a path.
pub fn way_in(
    service: &Service,
    found: &SshAccess,
    access: &Access,
    patience: Duration,
    signals: Option<&dyn Signals>,
) -> Result<Result<WayIn, Outcome>> {
    let by = |user: &str| settings(service, found, access, user, patience);
    let user = match (&access.user, &found.login) {
        (Some(user), _) => return Ok(Ok(WayIn { ssh: by(user)?, sudo: false })),
        (None, Login::User(user)) => user.clone(),
        (None, Login::Root) => ROOT.to_owned(),
        (None, Login::RootUnlessCloudInit) => {
            let task = Task { words: vec!["true".into()], ..Task::default() };
            let asked = Session::new(found, by(ROOT)?, &task)?;
            match asked.first_line(signals, None, other_user)? {
                Ok(user) => user,
                Err(Outcome::Exited(_)) => ROOT.to_owned(),
                Err(outcome) => return Ok(Err(outcome)),
            }
        }
    };
    Ok(Ok(WayIn { ssh: by(&user)?, sudo: user != ROOT }))
}

/// The user whom a guest lets in, as far as that is known without asking it.
pub fn presumed(found: &SshAccess, access: &Access) -> String {
    match (&access.user, &found.login) {
        (Some(user), _) | (None, Login::User(user)) => user.clone(),
        _ => ROOT.to_owned(),
    }
}

/// The user whom a line names who keeps root out. (cloudinit/ssh_util.py, DISABLE_USER_OPTS)
fn other_user(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Please login as the user \"")?;
    let (user, rest) = rest.split_once('"')?;
    (rest.contains("rather than the user") && is_user(user)).then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_init_says_who_logs_in_in_roots_place() {
        let line = |user: &str| {
            format!("Please login as the user \"{user}\" rather than the user \"root\".")
        };
        assert_eq!(other_user(&line("debian")).as_deref(), Some("debian"));
        for line in [line(""), line("-oProxyCommand=x"), line("a b"), "Please login".into()] {
            assert_eq!(other_user(&line), None, "{line}");
        }
    }
}
