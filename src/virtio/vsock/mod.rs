//! The socket device: streams and sequences of messages between programs of the guest's and of the
//! host's. (VIRTIO 1.2, 5.10)
//!
//! On the host's side are two listening Unix sockets, one for each type. A program that connects to
//! one of them and says
//! `CONNECT PORT` is connected with that port of the guest's, as with Firecracker's; it is answered
//! `OK` and a number first. One that says `LISTEN PORT` is answered `OK` likewise, waits for the
//! guest's next connection to that port of the host's, and reads `ACCEPT` and the guest's port when
//! it is there. The device itself connects to nothing: its thread may not.

mod client;
mod connection;
mod handler;
mod messages;
pub mod notify;
mod packet;
mod shared;

pub use shared::{EVENT, RECEIVE, SEND};

use crate::error::{OrFail, Result};
use crate::sys::seccomp::Allow;
use crate::virtio::device::{Device, DeviceState, DeviceType, Service, Services, copy_config};
use handler::Muxer;
use notify::Notified;
use packet::{F_SEQPACKET, F_STREAM, GUEST_CID, Kind};
use serde::{Deserialize, Serialize};
use shared::Shared;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

/// Its row.
pub static TYPE: DeviceType = DeviceType {
    id: 19,
    pci_class: 0xff_0000, // fits in no class
    thread: "virtio-vsock",
    calls: &[&[
        Allow::Call(libc::SYS_accept4),  // programs of the host's
        Allow::Call(libc::SYS_readv),    // data to the guest
        Allow::Call(libc::SYS_writev),   // data of the guest's
        Allow::Call(libc::SYS_shutdown), // the end of one direction
    ]],
};
/// Version of [`State`].
const STATE_VERSION: u16 = 1;

/// What the snapshot keeps: connections are not.
#[derive(Serialize, Deserialize)]
struct State {
    notified: BTreeMap<String, String>,
}

/// A socket device.
pub struct Vsock(Arc<Shared>);

impl Vsock {
    /// The device of a machine whose programs come by listening sockets of SOCK_STREAM and of
    /// SOCK_SEQPACKET, which do not block, and what serves its queues.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn create(stream: OwnedFd, seqpacket: OwnedFd) -> Result<(Arc<Self>, Services)> {
        let lost = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
        let shared = Arc::new(Shared {
            notified: Notified::default(),
            new_driver: AtomicBool::new(false),
            lost: lost.or_fail(|| "start the socket device")?,
        });
        let listeners = [(Kind::Stream, stream), (Kind::Seqpacket, seqpacket)];
        let handler = Box::new(Muxer::new(shared.clone(), listeners));
        Ok((Arc::new(Self(shared)), vec![Service { queues: RECEIVE..EVENT + 1, handler }]))
    }

    /// What the guest's service manager has said of itself since the machine's last reset
    /// (sd_notify(3)), and `unit NAME` of each unit that it has said is active.
    pub fn notified(&self) -> BTreeMap<String, String> {
        self.0.notified.variables().clone()
    }

    /// Tells the guest that its connections are lost.
    pub(super) fn lose_connections(&self) {
        // It fails only when the counter is full, and then it is told.
        let _ = self.0.lost.write(1);
    }
}

impl Device for Vsock {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        "socket device"
    }

    fn features(&self) -> u64 {
        F_STREAM | F_SEQPACKET
    }

    fn queue_sizes(&self) -> &[u16] {
        &[128, 128, 16]
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        copy_config(&GUEST_CID.to_le_bytes(), offset, out);
    }

    fn reset(&self) {
        // The thread of its queues does the rest: this one may close nothing.
        self.0.notified.variables().clear();
        self.0.new_driver.store(true, Ordering::SeqCst);
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(&TYPE, STATE_VERSION, &State { notified: self.notified() })
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        let state: State = state.decode(self.name(), &TYPE, STATE_VERSION)?;
        *self.0.notified.variables() = state.notified;
        self.lose_connections();
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
