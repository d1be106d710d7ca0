//! The protocol of a VMM's control socket: one JSON [`Request`] a line, answered by one JSON
//! [`Response`] line. After [`Request::Console`] is answered `Ok` the connection is the serial line:
//! bytes both ways until either end closes.

use crate::plan::{DiskFormat, Engine};
use serde::{Deserialize, Serialize};

/// The longest request or response line, in bytes with its newline; longer ones close the connection.
pub const MAX_LINE: usize = 4096;

/// What may be asked of a running VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request", deny_unknown_fields)]
pub enum Request {
    /// How are you?
    Status {},
    /// Press the ACPI power button.
    PowerButton {},
    /// Reset the machine as the reset button does, in the same process.
    Reset {},
    /// End at once.
    Terminate {},
    /// Attach to the serial line: output from now on, input to the guest.
    Console {},
    /// What are the disks' files?
    Layers {},
    /// Exchange the tops of these disks, all at one instant, for new, empty overlays. Their descriptors come with the
    /// line (SCM_RIGHTS, unix(7)), one a disk in this order.
    Freeze {
        /// Each once.
        disks: Vec<DiskTop>,
    },
    /// Read what is below a disk's top from another file, whose descriptor comes with the line.
    Rebase {
        /// The disk.
        disk: DiskTop,
        /// The file's format.
        format: DiskFormat,
    },
    /// Keep this connection open without answering more; it closes when the VMM is gone.
    Wait {},
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "response")]
pub enum Response {
    /// Done, or begun.
    Ok {},
    /// The answer to [`Request::Status`].
    Status(Status),
    /// The answer to [`Request::Layers`]: the disks in order.
    Layers {
        /// Each disk's.
        disks: Vec<DiskLayers>,
    },
    /// The answer to [`Request::Freeze`]: it is done.
    Frozen {
        /// For how long the disks stood still, in microseconds.
        pause_us: u64,
    },
    /// Refused, with the reason in one line.
    Error {
        /// The reason.
        message: String,
    },
}

/// A disk and its top as the asker believes it to be: if it is not, the request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskTop {
    /// 0-based, in the plan's order.
    pub disk: usize,
    /// The inode number of its top.
    pub top: u64,
}

/// A disk's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayers {
    /// The inode number of its top.
    pub top: u64,
    /// How many there are.
    pub layers: usize,
    /// What was the top before the last [`Request::Freeze`] is whole on its own, durably.
    pub sealed: bool,
    /// Why it can't be, yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// State of a running VMM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The VMM's process id.
    pub pid: u32,
    /// Milliseconds since its vCPUs first ran.
    pub uptime_ms: u64,
    /// Resets so far.
    pub resets: u32,
    /// vCPUs that the guest has brought up.
    pub cpus_online: u32,
    /// Each disk's engine and counters, in order.
    pub disks: Vec<DiskStatus>,
}

/// Counters of one block device since the VMM started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The engine in use.
    pub engine: Engine,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written by the guest.
    pub write_bytes: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Requests answered with VIRTIO_BLK_S_IOERR.
    pub errors: u64,
}
