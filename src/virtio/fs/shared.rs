//! What the device and the thread of its queues share.

use crate::virtio::Notices;
use std::sync::atomic::AtomicBool;

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
}
