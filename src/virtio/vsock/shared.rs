//! What the device and the thread of its queues share.

use super::notify::Notified;
use std::sync::atomic::AtomicBool;
use vmm_sys_util::eventfd::EventFd;

/// Where packets go to the guest. (5.10.2)
pub const RECEIVE: u16 = 0;
/// Where the guest's packets come from.
pub const SEND: u16 = 1;
/// Where events go.
pub const EVENT: u16 = 2;

/// The state of the device.
pub(super) struct Shared {
    pub notified: Notified,
    /// Connections are those of a driver that is gone.
    pub new_driver: AtomicBool,
    /// Counts the times that connections were lost without their driver's knowing.
    pub lost: EventFd,
}
