//! Descriptors by the numbers that a plan gives them.

use serde::{Deserialize, Serialize};

/// The number of a descriptor that the launcher left open for the VMM. [`crate::sys::fds::take`]
/// claims it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanFd(pub i32);

impl From<PlanFd> for i32 {
    fn from(fd: PlanFd) -> i32 {
        fd.0
    }
}
