//! What a boot menu is asked, and what it leaves to be remembered.

use super::device::DeviceId;
use super::fd::PlanFd;
use crate::id::{InstanceId, KernelId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A boot menu on a disk, which was read once for the kernel that the plan has, if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MenuPlan {
    /// The disk that has it.
    pub disk: DeviceId,
    /// The socket of the process that reads it (`crate::pvgrub`).
    pub reader: PlanFd,
    /// What it is asked.
    pub boot: PvBoot,
    /// SHA-256 of the kernel file that the plan's kernel was made of, in hexadecimal.
    pub kernel_digest: Option<String>,
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

/// What GRUB would have written into its environment on the root volume (`savedefault`,
/// `save_env`), which is only ever read here. It counts until the guest changes the file: then that
/// says how things stand.
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
