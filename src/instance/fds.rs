//! The descriptors that a VMM is given.

use crate::plan::{PLAN_FD, PlanFd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Descriptors under construction, numbered from [`PLAN_FD`] + 1 on.
#[derive(Debug, Default)]
pub struct Fds(Vec<OwnedFd>);

impl Fds {
    /// Keep `fd` for the VMM; the number it will have there.
    pub fn add(&mut self, fd: impl Into<OwnedFd>) -> PlanFd {
        self.0.push(fd.into());
        PlanFd(PLAN_FD + i32::try_from(self.0.len()).unwrap_or(i32::MAX))
    }

    /// Each descriptor with its number.
    pub fn numbered(&self) -> impl Iterator<Item = (BorrowedFd<'_>, RawFd)> {
        self.0.iter().zip(PLAN_FD + 1..).map(|(fd, number)| (fd.as_fd(), number))
    }
}
