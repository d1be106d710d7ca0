//! What becomes of an instance whose machine has ended.

use super::image::{RootDeviceType, StateReason};
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// When an instance is started again, in docker's words. One that its user has stopped or
/// hibernated is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its guest has panicked, its VMM has failed or was killed.
    OnFailure,
    /// Also when its guest has powered off, and when the host has started.
    Always,
}

impl RestartPolicy {
    /// It is the default.
    pub fn is_no(&self) -> bool {
        *self == Self::No
    }

    /// Whether it has an instance started that stopped for this reason.
    pub fn starts_after(self, reason: Option<&StateReason>) -> bool {
        let code = reason.map_or("", |reason| &reason.code);
        let failed = matches!(code, "Client.InternalError" | "Server.InternalError");
        match self {
            Self::No => false,
            Self::OnFailure => failed,
            Self::Always => failed || code == "Client.InstanceInitiatedShutdown",
        }
    }

    /// Whether it has a stopped instance started when the host has started: for `always`, whoever
    /// stopped it.
    pub fn starts_with_the_host(self, reason: Option<&StateReason>) -> bool {
        self == Self::Always || self.starts_after(reason)
    }

    /// Check that an instance can have it; it `terminates` when its guest powers off, or not.
    ///
    /// # Errors
    /// `InvalidParameterCombination`: there would be nothing to be started again.
    pub fn check(self, terminates: bool, root: RootDeviceType) -> Result<()> {
        let why = match (self, terminates, root) {
            (Self::No, ..) => return Ok(()),
            (_, true, _) => "one that is terminated when its guest powers off",
            (_, _, RootDeviceType::InstanceStore) => "one with an instance-store root",
            _ => return Ok(()),
        };
        let why =
            format!("{why} is gone when it ends: it can't be started again; leave one of them out");
        Err(Error::refused(Code::InvalidParameterCombination, why))
    }
}

impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "no" => Ok(Self::No),
            "on-failure" => Ok(Self::OnFailure),
            "always" => Ok(Self::Always),
            _ => Err(Error::usage("it is no, on-failure or always")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_starts_again_after_its_own_ends() {
        let reason = |code: &str| StateReason::new(code, "");
        let table = [
            ("Client.InternalError", [false, true, true], [false, true, true]),
            ("Server.InternalError", [false, true, true], [false, true, true]),
            ("Client.InstanceInitiatedShutdown", [false, false, true], [false, false, true]),
            ("Client.UserInitiatedShutdown", [false; 3], [false, false, true]),
            ("Client.UserInitiatedHibernate", [false; 3], [false, false, true]),
            ("", [false; 3], [false, false, true]),
        ];
        let policies = ["no", "on-failure", "always"].map(|text| text.parse().unwrap());
        for (code, after, with_host) in table {
            let reason = reason(code);
            let starts = |policy: RestartPolicy| policy.starts_after(Some(&reason));
            assert_eq!(policies.map(starts), after, "{code}");
            let starts = |policy: RestartPolicy| policy.starts_with_the_host(Some(&reason));
            assert_eq!(policies.map(starts), with_host, "{code}");
        }
        assert!("unless-stopped".parse::<RestartPolicy>().is_err());
    }

    #[test]
    fn what_is_gone_when_it_ends_has_none() {
        use RootDeviceType::{Ebs, InstanceStore};
        for policy in [RestartPolicy::OnFailure, RestartPolicy::Always] {
            assert!(policy.check(false, Ebs).is_ok());
            assert!(policy.check(true, Ebs).is_err());
            assert!(policy.check(false, InstanceStore).is_err());
        }
        assert!(RestartPolicy::No.check(true, InstanceStore).is_ok());
    }
}
