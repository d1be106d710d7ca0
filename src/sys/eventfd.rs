//! Event counters as rustix takes descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};
use vmm_sys_util::eventfd::EventFd;

/// The counter's descriptor. (vmm-sys-util's type, which kvm-ioctls wants, has no `AsFd`.)
pub fn as_fd(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event` lives, and the borrow ends before.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
