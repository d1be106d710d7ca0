//! What the device and the thread of its queues share.

use crate::sys::fds;
use crate::virtio::Notices;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

/// The queue of requests that wait for no other, which is FORGET alone. (5.11.2)
pub const HIGH_PRIORITY: u16 = 0;
/// The one queue of all other requests.
pub const REQUESTS: u16 = 1;
/// The state of the device.
pub(super) struct Shared {
    /// What notices call it.
    pub name: String,
    /// What is open is a driver's that is gone.
    pub new_driver: AtomicBool,
    /// Where it tells of its server.
    pub notices: Notices,
    /// The socket of its server, while the thread has it.
    pub server: Weak<OwnedFd>,
    /// Why the thread has let go of it.
    pub why_lost: OnceLock<String>,
}

impl Shared {
    /// Why there is no server any more, if there is none: also before a driver has come, whose
    /// requests would show it.
    pub fn lost(&self) -> Option<String> {
        let Some(server) = self.server.upgrade() else {
            return Some(self.why_lost.get().cloned().unwrap_or_default());
        };
        let mut looked = [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::empty())];
        let hung_up = fds::wait(&mut looked, Some(Duration::ZERO)).is_ok()
            && looked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        hung_up.then(|| "it has ended".to_owned())
    }
}
