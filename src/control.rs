//! The protocol of a VMM's control socket: one JSON [`Request`] a line, answered by one JSON
//! [`Response`] line. After [`Request::Console`] is answered `Ok` the connection is the serial
//! line: bytes both ways until either end closes.
//!
//! A VMM outlives an upgraded `spore`, so a request's line has the protocol's version beside it,
//! where that matters: what is as it was in version 1, which had none, is said without. A stop
//! reaches VMMs of every version.

pub mod network;

use crate::error::{OrFail, Result};
use crate::plan::{DeviceId, DiskFormat, DiskPlan, Engine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The version that this Spore speaks. Version 1 counted disks; since 2 they are named.
pub const VERSION: u32 = 2;

/// The longest request or response line, in bytes with its newline; longer ones close the
/// connection.
pub const MAX_LINE: usize = 16 << 10;

/// What begins the refusal of a line that can't be understood, in every version.
const NO_REQUEST: &str = "not a request";

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
    /// Exchange the tops of these disks, all at one instant, for new, empty overlays. A larger one
    /// makes its disk larger, and the guest is told. Their descriptors come with the line
    /// (SCM_RIGHTS, unix(7)), one a disk in this order.
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
    /// Give the guest another disk. The descriptors of its files come with the line, top first, and
    /// last the one that holds the volume; the plan's numbers of them mean nothing. The engine is
    /// sync.
    Attach {
        /// What it is called.
        disk: DeviceId,
        /// What it is.
        plan: DiskPlan,
    },
    /// Ask the guest to let go of a disk.
    Detach {
        /// Which.
        disk: DeviceId,
        /// Take it away at once; the guest is told afterwards.
        force: bool,
    },
    /// Write the machine, which stands still from then on, to the memory file whose descriptor
    /// comes with the line, and end. A machine that can't be written runs on. Meanwhile it tells
    /// its status and can be ended, and that is all.
    Hibernate {},
    /// Pass a network interface's tap, by which its network namespace is found, to the socket whose
    /// descriptor comes with the line: a packet of one byte.
    Tap {
        /// The interface.
        interface: DeviceId,
    },
    /// Keep this connection open without answering more; it closes when the VMM is gone.
    Wait {},
}

/// The version since which the request with this name, and its answer, are as they are; of one that
/// is not known, this.
fn since(name: &str) -> u32 {
    match name {
        "power-button" | "reset" | "terminate" | "console" | "wait" => 1,
        _ => VERSION,
    }
}

impl Request {
    /// The request as it is sent: one line with its end.
    ///
    /// # Errors
    /// None that a request could have.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        let doing = || "write a request to a VMM";
        let mut fields = serde_json::to_value(self).or_fail(doing)?;
        let since = since(fields["request"].as_str().unwrap_or_default());
        if since > 1 {
            fields["version"] = since.into();
        }
        let mut line = serde_json::to_vec(&fields).or_fail(doing)?;
        line.push(b'\n');
        Ok(line)
    }

    /// The request that a line without its end says.
    ///
    /// # Errors
    /// It says none, or one of a version that is not spoken here: why, in one line, for who asked.
    pub fn from_line(line: &[u8]) -> std::result::Result<Self, String> {
        let none = |error: serde_json::Error| format!("{NO_REQUEST}: {error}");
        let mut fields: Map<String, Value> = serde_json::from_slice(line).map_err(none)?;
        let version: u32 = match fields.remove("version") {
            None => 1,
            Some(version) => serde_json::from_value(version).map_err(none)?,
        };
        let name = fields.get("request").and_then(Value::as_str).unwrap_or_default();
        if !(since(name)..=VERSION).contains(&version) {
            let name: String = name.escape_debug().take(40).collect();
            return Err(format!(
                "its VMM speaks version {VERSION} of the control protocol and was asked '{name}' of version \
                 {version}: use the spore that started it, or stop and start it with this one"
            ));
        }
        serde_json::from_value(Value::Object(fields)).map_err(none)
    }

    /// Why a VMM refused this request, for a person: one that is older than [`Request::from_line`]
    /// understood no word of it.
    pub fn explain(&self, refusal: String) -> String {
        let line = self.to_line().unwrap_or_default();
        let fields: Value = serde_json::from_slice(&line).unwrap_or_default();
        match (fields.get("version"), fields["request"].as_str()) {
            (Some(version), Some(name)) if refusal.starts_with(NO_REQUEST) => format!(
                "its VMM was started by an older spore and does not know '{name}' of version {version} of the \
                 control protocol: use that spore, or stop and start it with this one"
            ),
            _ => refusal,
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "response")]
pub enum Response {
    /// Done, or begun.
    Ok {},
    /// The answer to [`Request::Status`].
    Status(Status),
    /// The answer to [`Request::Layers`].
    Layers {
        /// Each disk's.
        disks: BTreeMap<DeviceId, DiskLayers>,
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
    /// The disk.
    pub disk: DeviceId,
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
    /// It stands still and is being written to its memory file.
    #[serde(default)]
    pub hibernating: bool,
    /// Each disk's engine and counters.
    pub disks: BTreeMap<DeviceId, DiskStatus>,
    /// The slot of each device.
    #[serde(default)]
    pub slots: BTreeMap<DeviceId, u8>,
    /// Each network interface's link and counters.
    #[serde(default)]
    pub interfaces: BTreeMap<DeviceId, NetStatus>,
    /// Shared directories whose servers are gone, and why: their guest has I/O errors there.
    #[serde(default)]
    pub lost_shares: BTreeMap<DeviceId, String>,
    /// What the guest's service manager has said of itself since the last reset (sd_notify(3)), by
    /// variable, and `unit NAME` of each unit that it has said is active. The guest's words.
    #[serde(default)]
    pub notified: BTreeMap<String, String>,
}

/// How far a disk has come or gone, in EC2's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// The guest has it, or finds it as it begins.
    #[default]
    Attached,
    /// It has come while the guest runs, and no driver has taken it yet.
    Attaching,
    /// The guest is asked to let go of it.
    Detaching,
    /// The guest has heard that, and still uses it.
    Busy,
}

impl DiskState {
    /// EC2's VolumeAttachmentState.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Attaching => "attaching",
            Self::Detaching => "detaching",
            Self::Busy => "busy",
        }
    }
}

/// Counters of one block device since the VMM started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The engine in use.
    pub engine: Engine,
    /// How far it has come or gone.
    #[serde(default)]
    pub state: DiskState,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written by the guest.
    pub write_bytes: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Requests answered with VIRTIO_BLK_S_IOERR.
    pub errors: u64,
}

/// What a network interface has carried since the VMM started. A packet may be as large as 64 KiB,
/// whatever the MTU, where segments go together. Bytes count from the Ethernet header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStatus {
    /// Whether the guest is told that its link is up.
    pub up: bool,
    /// Packets to the guest.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets to the guest for which it had no room.
    pub receive_dropped: u64,
    /// Packets of the guest's.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets of the guest's that were malformed, or that the host did not take.
    pub send_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_request() -> Vec<Request> {
        let disk = DiskTop { disk: "/dev/vda".parse().unwrap(), top: 7 };
        vec![
            Request::Status {},
            Request::PowerButton {},
            Request::Reset {},
            Request::Terminate {},
            Request::Console {},
            Request::Layers {},
            Request::Freeze { disks: vec![disk.clone()] },
            Request::Rebase { disk, format: DiskFormat::Raw },
            Request::Detach { disk: "/dev/vdb".parse().unwrap(), force: true },
            Request::Wait {},
        ]
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for request in every_request() {
            let line = request.to_line().unwrap();
            let (end, line) = line.split_last().unwrap();
            assert_eq!((*end, Request::from_line(line)), (b'\n', Ok(request)));
        }
    }

    #[test]
    fn what_has_not_changed_since_version_1_is_said_as_it_was() {
        let lines: Vec<String> = every_request()
            .iter()
            .map(|request| String::from_utf8(request.to_line().unwrap()).unwrap())
            .filter(|line| !line.contains("version"))
            .collect();
        let expected = ["power-button", "reset", "terminate", "console", "wait"];
        assert_eq!(lines, expected.map(|name| format!("{{\"request\":\"{name}\"}}\n")));
    }

    #[test]
    fn another_version_is_refused_in_one_line() {
        for line in [
            r#"{"request":"layers"}"#,
            r#"{"request":"freeze","disks":[{"disk":0,"top":7}]}"#,
            r#"{"request":"status","version":1}"#,
            r#"{"request":"status","version":3}"#,
            r#"{"request":"terminate","version":3}"#,
            r#"{"request":"make-coffee","version":3,"milk":true}"#,
        ] {
            let refusal = Request::from_line(line.as_bytes()).unwrap_err();
            assert!(refusal.contains("speaks version 2") && !refusal.contains('\n'), "{refusal}");
            assert_eq!(Request::Layers {}.explain(refusal.clone()), refusal);
        }
        let known = Request::from_line(br#"{"request":"terminate","version":2}"#);
        assert_eq!(known, Ok(Request::Terminate {}));
    }

    #[test]
    fn what_an_older_vmm_does_not_understand_is_explained() {
        // As version 1 says it.
        let refusal = "not a request: unknown field `version`, there are no fields";
        let reported = Request::Layers {}.explain(refusal.to_owned());
        assert!(
            reported.contains("older spore") && reported.contains("'layers' of version 2"),
            "{reported}"
        );
        assert_eq!(Request::Terminate {}.explain(refusal.to_owned()), refusal);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for line in [
            "",
            "7",
            "[]",
            r#"{"request":"make-coffee","version":2}"#,
            r#"{"request":"wait","milk":true}"#,
            r#"{"request":"wait","version":"2"}"#,
            r#"{"version":2}"#,
        ] {
            let refusal = Request::from_line(line.as_bytes()).unwrap_err();
            assert!(refusal.starts_with(NO_REQUEST), "{line}: {refusal}");
        }
    }
}
