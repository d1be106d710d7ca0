//! What a VMM is told: a [`VmPlan`] in a memory file on fd 3, and open descriptors beside it.
//!
//! The file is in postcard's format, which programs of one build understand alike: a guest's start would wait 0.05 ms longer
//! for JSON.
//!
//! A VMM never sees the store, an image id or a path. Every descriptor that the plan names is
//! already open in the VMM's process under that number.

use crate::error::{Kind, OrFail, Result};
use crate::id::{InstanceId, KernelId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The hidden subcommand that is a VMM.
pub const SUBCOMMAND: &str = "__vmm";

/// The sources that this program was compiled of. A plan means the same to programs of one build only.
pub const BUILD: &str = env!("SPORE_BUILD");

/// The descriptor on which a VMM finds its plan.
pub const PLAN_FD: i32 = 3;

/// The number of a descriptor that the launcher left open for the VMM. [`crate::sys::fds::take`] claims it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanFd(pub i32);

impl From<PlanFd> for i32 {
    fn from(fd: PlanFd) -> i32 {
        fd.0
    }
}

/// What a guest calls its first virtio disk, which has its root: the root's device name unless an image says another.
pub const ROOT_DEVICE: &str = "/dev/vda";

/// One virtual machine, fully resolved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmPlan {
    /// The instance's id: SMBIOS serial, and `spore.instance=` on the command line.
    pub instance_id: InstanceId,
    /// EC2's ami-launch-index: 0-based position in its reservation.
    pub launch_index: u32,
    /// Virtual CPUs, 1 to 64.
    pub cpus: u8,
    /// What this host's KVM supports, if the launcher has asked (KVM_GET_SUPPORTED_CPUID); else the VMM does.
    #[serde(default)]
    pub cpuid: Vec<CpuidLeaf>,
    /// Guest RAM in bytes, a multiple of 4 KiB and at least 16 MiB.
    pub memory: u64,
    /// What runs first.
    pub boot: BootPlan,
    /// How the guest finds its virtio devices.
    pub transport: Transport,
    /// Block devices in order: the first is the root device ([`ROOT_DEVICE`]).
    pub disks: Vec<DiskPlan>,
    /// SMBIOS product UUID (RFC 4122 text form, `ec2…`; the SMBIOS serial is its same text).
    pub uuid: String,
    /// The serial line's output is appended here.
    pub console: PlanFd,
    /// The listening Unix stream socket of [`crate::control`]; none for a benchmark.
    pub control: Option<PlanFd>,
    /// [`VmReport`]s are appended here, one JSON object a line; each is one `write`.
    pub report: PlanFd,
    /// A pipe: the VMM writes one [`Ready`] line when its vCPUs run or when it cannot start, then closes it.
    pub ready: Option<PlanFd>,
    /// Held open for the life of the VMM: the launcher has taken an exclusive flock on this open file
    /// description, so the kernel releases it exactly when the VMM is gone.
    pub lock: Option<PlanFd>,
    /// Benchmark: the time of the guest's first port or memory-mapped I/O is written here (CLOCK_MONOTONIC in ns, 8 bytes),
    /// and the VM ends.
    pub first_io: Option<PlanFd>,
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

/// An entry of KVM's list: function, index, flags, eax, ebx, ecx, edx. (struct kvm_cpuid_entry2)
pub type CpuidLeaf = [u32; 7];

/// What a VM executes first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum BootPlan {
    /// A kernel is entered directly by the Linux 64-bit boot protocol
    /// (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Direct {
        /// An ELF vmlinux (as registration leaves it) or a bzImage.
        kernel: PlanFd,
        /// The initial ramdisk, if any.
        initrd: Option<PlanFd>,
        /// The whole kernel command line.
        cmdline: String,
        /// Where these came from, if that is to be read again before each reset.
        #[serde(default)]
        menu: Option<Box<MenuPlan>>,
    },
    /// Firmware runs the boot record of the first disk that has one.
    Firmware {
        /// SeaBIOS for a machine without PCI: at most 256 KiB, which end at 4 GiB.
        image: PlanFd,
    },
}

impl BootPlan {
    /// The descriptors that it names.
    pub fn fds(&self) -> impl Iterator<Item = PlanFd> {
        let fds = match self {
            Self::Direct { kernel, initrd, menu, .. } => {
                [Some(*kernel), *initrd, menu.as_ref().map(|menu| menu.reader)]
            }
            Self::Firmware { image } => [Some(*image), None, None],
        };
        fds.into_iter().flatten()
    }
}

/// A boot menu on the first disk, which was read once for the kernel that the plan has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MenuPlan {
    /// The socket of the process that reads it (`crate::pvgrub`).
    pub reader: PlanFd,
    /// What it is asked.
    pub boot: PvBoot,
    /// SHA-256 of the kernel file that the plan's kernel was made of, in hexadecimal.
    pub kernel_digest: String,
    /// The same of the initial ramdisk.
    pub ramdisk_digest: Option<String>,
}

/// Which of PV-GRUB's kernels: where the menu is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PvGrub {
    /// The root volume is one file system (`aki-pv-grub-hd0`).
    Hd0,
    /// It has partitions (`aki-pv-grub-hd00`): the first, then the others.
    Hd00,
    /// Whichever of the two it is.
    Any,
}

impl PvGrub {
    /// The one that a kernel's id means, if it means one.
    pub fn of(kernel: &KernelId) -> Option<Self> {
        match kernel.as_str() {
            "aki-pv-grub-hd0" => Some(Self::Hd0),
            "aki-pv-grub-hd00" => Some(Self::Hd00),
            _ => None,
        }
    }
}

/// What is to be booted from a menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PvBoot {
    /// Where the menu is.
    pub from: PvGrub,
    /// The entry by index, id or title; what the menu says if absent.
    pub entry: Option<String>,
    /// Added to the entry's arguments.
    pub append: String,
    /// For the command line.
    pub instance_id: InstanceId,
    /// For the command line.
    pub launch_index: u32,
    /// What earlier boots saved.
    #[serde(default)]
    pub saved: Option<SavedEnvironment>,
}

/// What GRUB would have written into its environment on the root volume (`savedefault`, `save_env`), which is only ever
/// read here. It counts until the guest changes the file: then that says how things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SavedEnvironment {
    /// SHA-256 of the file as the guest left it, in hexadecimal.
    pub digest: String,
    /// Variables that differ from it; GRUB legacy's file has but `saved_entry`.
    pub variables: BTreeMap<String, String>,
}

impl SavedEnvironment {
    /// Most bytes of its variables: GRUB 2's file has 1024 in all.
    pub const MAX: usize = 4096;

    /// True if it is of a size that can be kept.
    pub fn is_sound(&self) -> bool {
        let bytes: usize =
            self.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        bytes <= Self::MAX && self.variables.len() <= Self::MAX && self.digest.len() == 64
    }
}

/// How a guest finds its virtio devices. (VIRTIO 1.2, 4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Registers in memory, named by the ACPI tables; a line of the I/O APIC each. (4.2)
    Mmio,
    /// Functions on a PCI bus, with MSI-X. (4.1) An interrupt costs the guest no exits, and a disk image whose ramdisk
    /// was made for one host has no other driver.
    #[default]
    Pci,
}

/// One block device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPlan {
    /// The volume's id, which the guest reads as the disk's serial, without the dash.
    pub volume_id: VolumeId,
    /// Offered to the guest as VIRTIO_BLK_F_RO; no layer is opened writable.
    pub read_only: bool,
    /// Layers from the top (the volume's own overlay) down to the base. At least one.
    pub layers: Vec<LayerPlan>,
    /// Held open for the life of the VMM: it carries the flock that keeps others from using the volume.
    #[serde(default)]
    pub hold: Option<PlanFd>,
    /// How the host does the I/O.
    pub engine: Engine,
    /// Request queues, 1 to 64; usually one a vCPU, at most 4.
    pub queues: u16,
    /// What the guest may have of it.
    pub limits: DiskLimits,
}

/// What a guest may have of a disk, all of its queues together. Absent: as much as the host gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DiskLimits {
    /// Requests.
    pub iops: Option<Rate>,
    /// Bytes read and written.
    pub bandwidth: Option<Rate>,
}

impl DiskLimits {
    /// There are none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How much of something, on the average and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Rate {
    /// A second, at least 1.
    pub per_second: u64,
    /// At once after a while without any, at least 1.
    pub burst: u64,
}

/// One file of a disk's chain. Only the first layer of a writable disk is open for writing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// The open file.
    pub fd: PlanFd,
    /// Its format as recorded, never sniffed.
    pub format: DiskFormat,
}

/// The format of a disk file, as declared in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Sector n of the disk is at byte 512 n of the file.
    Raw,
    /// QEMU's qcow2, version 2 or 3. (docs/interop/qcow2.txt in QEMU)
    Qcow2,
}

/// How host I/O is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// io_uring if the host has it and lets us, else sync.
    #[default]
    Auto,
    /// io_uring(7).
    Uring,
    /// preadv(2) and pwritev(2).
    Sync,
}

/// The line a VMM writes to the `ready` pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Ready {
    /// The vCPUs run.
    Running {
        /// Engine in use by each disk, in order.
        engines: Vec<Engine>,
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
    /// A triple fault (KVM_EXIT_SHUTDOWN) that no reset request preceded.
    TripleFault,
    /// The guest's kernel said that it panicked and will not run on.
    GuestPanic,
    /// KVM could not go on (KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_FAIL_ENTRY).
    KvmError,
    /// The VMM itself failed.
    VmmError,
}
