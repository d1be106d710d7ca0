//! What a VMM is told: a [`VmPlan`] in a memory file on fd 3, and open descriptors beside it.
//!
//! The file is in postcard's format, which programs of one build understand alike: a guest's start
//! would wait 0.05 ms longer for JSON.
//!
//! A VMM never sees the store, an image id or a path. Every descriptor that the plan names is
//! already open in the VMM's process under that number.

mod cdrom;
mod cidr6;
mod config;
mod device;
mod disk;
mod event;
mod fd;
mod menu;
mod net;
pub mod network;
mod processor;
mod share;
pub mod times;
mod vsock;

pub use cdrom::CdromPlan;
pub use config::{
    BootPlan, Chipset, DiskBus, Drivers, FirmwareKind, ROOT_DEVICE, TransportKind, VmConfig,
};
pub use device::{DeviceConfig, DeviceId, DeviceKind};
pub use disk::{DiskFormat, DiskLimits, DiskPlan, Engine, LayerPlan, Rate};
pub use event::{EndReason, Ready, ResetBy, VmReport};
pub use fd::PlanFd;
pub use menu::{MenuPlan, PvBoot, PvGrub, SavedEnvironment};
pub use net::{MacAddress, NetLimits, NetPlan};
pub use processor::{CpuModel, CpuidLeaf, Processor};
pub use share::SharePlan;
pub use vsock::{NOTIFY_PORT, VsockPlan};

use crate::error::{OrFail, Result};
use crate::id::InstanceId;
use serde::{Deserialize, Serialize};

/// The hidden subcommand that is a VMM.
pub const SUBCOMMAND: &str = "__vmm";

/// The sources that this program was compiled of. A plan means the same to programs of one build
/// only.
pub const BUILD: &str = env!("SPORE_BUILD");

/// The descriptor on which a VMM finds its plan.
pub const PLAN_FD: i32 = 3;

/// What a VMM is told: the machine, whose it is, and the descriptors that join it to the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmPlan {
    /// The instance's id: SMBIOS serial, and `spore.instance=` on the command line.
    pub instance_id: InstanceId,
    /// EC2's ami-launch-index: 0-based position in its reservation.
    pub launch_index: u32,
    /// SMBIOS product UUID (RFC 4122 text form; the SMBIOS serial is its same text). It begins with
    /// `ec2` where the guest finds metadata as on EC2.
    pub uuid: String,
    /// Further OEM strings of SMBIOS's type 11, each without a NUL. (DSP0134 7.12)
    #[serde(default)]
    pub oem_strings: Vec<String>,
    /// The machine.
    pub config: VmConfig,
    /// What this host's KVM supports, if the launcher has asked (KVM_GET_SUPPORTED_CPUID); else the
    /// VMM does.
    #[serde(default)]
    pub cpuid: Vec<CpuidLeaf>,
    /// The serial line's output is appended here.
    pub console: PlanFd,
    /// When it says that: [`times::Entry`]s.
    pub times: Option<PlanFd>,
    /// The listening Unix stream socket of [`crate::control`]; none for a benchmark.
    pub control: Option<PlanFd>,
    /// [`VmReport`]s are appended here, one JSON object a line; each is one `write`.
    pub report: PlanFd,
    /// A pipe: the VMM writes one [`Ready`] line when its vCPUs run or when it cannot start, then
    /// closes it.
    pub ready: Option<PlanFd>,
    /// Held open for the life of the VMM: the launcher has taken an exclusive flock on this open
    /// file description, so the kernel releases it exactly when the VMM is gone.
    pub lock: Option<PlanFd>,
    /// The reading end of a pipe whose other end its supervisor has: at its end-of-file the VM
    /// ends. Signals don't end it.
    #[serde(default)]
    pub lifeline: Option<PlanFd>,
    /// Benchmark: the time of the guest's first port or memory-mapped I/O is written here
    /// (CLOCK_MONOTONIC in ns, 8 bytes), and the VM ends.
    pub first_io: Option<PlanFd>,
    /// The memory file of the hibernated machine that goes on, in place of a boot. Open for
    /// reading.
    #[serde(default)]
    pub resume: Option<PlanFd>,
    /// Drop privileges after assembly (seccomp, Landlock, no_new_privs). Off only for debugging.
    pub sandbox: bool,
}

impl VmPlan {
    /// What [`VmPlan::from_bytes`] reads.
    ///
    /// # Errors
    /// None that a plan of the launcher's could have.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        postcard::to_stdvec(self).or_fail(|| "write a VM's plan")
    }

    /// A plan as [`VmPlan::to_bytes`] wrote it.
    ///
    /// # Errors
    /// It is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes).or_fail(|| "understand the plan")
    }
}
