//! What a VMM tells: that it is ready, what happened, how it ended.

use super::device::DeviceId;
use super::disk::Engine;
use super::menu::SavedEnvironment;
use crate::error::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The line a VMM writes to the `ready` pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Ready {
    /// The vCPUs run.
    Running {
        /// The engine that each disk's I/O is done by.
        engines: BTreeMap<DeviceId, Engine>,
    },
    /// It could not start; one line naming thing, cause and remedy.
    Failed {
        /// The reason.
        message: String,
        /// Whose doing it is.
        kind: Kind,
        /// Its code, if it has one.
        code: Option<String>,
    },
}

/// What a VMM leaves in its report file: one JSON object a line, the last one says how it ended.
/// A VMM that is killed leaves no `Ended` line, which is how the others know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum VmReport {
    /// The vCPUs run (again: also after each reset).
    Started {
        /// Milliseconds since the epoch.
        at: u64,
    },
    /// A hibernated machine is about to go on: from here on its memory file is of the past,
    /// whatever happens.
    Resumed {
        /// Milliseconds since the epoch.
        at: u64,
    },
    /// The guest asked for a reset and gets one in the same process.
    Reset {
        /// Milliseconds since the epoch.
        at: u64,
        /// What asked for it.
        by: ResetBy,
    },
    /// A device or the VMM has something to tell (a stopped device, an I/O error, no space left).
    Notice {
        /// Milliseconds since the epoch.
        at: u64,
        /// One line.
        message: String,
    },
    /// What the boot menu, read again before a reset, left to be remembered.
    Saved {
        /// Milliseconds since the epoch.
        at: u64,
        /// In place of what was remembered before.
        environment: Option<SavedEnvironment>,
    },
    /// The VM is over.
    Ended {
        /// Milliseconds since the epoch.
        at: u64,
        /// Why.
        reason: EndReason,
        /// One line for a person.
        message: String,
    },
}

/// What made a VM reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetBy {
    /// ACPI reset register (FADT RESET_REG).
    Acpi,
    /// Port 0xcf9.
    Port0xcf9,
    /// The keyboard controller's pulse of its reset line (0xfe to port 0x64).
    I8042,
    /// Bit 0 of port 0x92.
    SystemControl,
    /// `spore reboot --force`.
    Control,
}

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The guest switched itself off (ACPI S5), by itself or after the power button.
    GuestPoweroff,
    /// A control request or SIGTERM ended it.
    Terminated,
    /// The process that its lifeline leads to is gone.
    Orphaned,
    /// A control request hibernated it: its memory file is whole, and its disks are as it left
    /// them.
    Hibernated,
    /// A triple fault (KVM_EXIT_SHUTDOWN) that no reset request preceded.
    TripleFault,
    /// The guest's kernel said that it panicked and will not run on.
    GuestPanic,
    /// KVM could not go on (KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_FAIL_ENTRY).
    KvmError,
    /// The VMM itself failed.
    VmmError,
}
