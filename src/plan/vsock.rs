//! What a socket device is told.

use super::fd::PlanFd;
use serde::{Deserialize, Serialize};

/// The port of the host's at which a guest's service manager says how it is: systemd's
/// `vmm.notify_socket` credential names it as `vsock-stream:2:9999`.
/// (systemd.system-credentials(7))
pub const NOTIFY_PORT: u32 = 9999;

/// A socket device. (VIRTIO 1.2, 5.10)
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockPlan {
    /// The listening Unix socket of SOCK_STREAM by which programs of the host come. It does not
    /// block.
    pub stream: PlanFd,
    /// The same of SOCK_SEQPACKET.
    pub seqpacket: PlanFd,
}

impl VsockPlan {
    /// Both.
    pub fn listeners(&self) -> [PlanFd; 2] {
        [self.stream, self.seqpacket]
    }
}
