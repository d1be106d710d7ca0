//! The records of kernels and initial ramdisks.

use super::image::Architecture;
use super::tag::Tag;
use super::{Durability, Record};
use crate::error::Code;
use crate::id::{KernelId, RamdiskId};
use crate::plan::{DiskBus, TransportKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A registered kernel: an ELF vmlinux in `kernel` beside the record, unpacked once, page-aligned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Kernel {
    /// The kernel's id.
    pub kernel_id: KernelId,
    /// Unique name, 3 to 128 characters, of those that EC2 allows in an image's.
    pub name: String,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// RFC 3339, UTC.
    pub creation_date: String,
    /// Guest architecture.
    pub architecture: Architecture,
    /// The version string found in a bzImage's header, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of the file as it was registered, hexadecimal.
    pub digest: String,
    /// Bytes of the unpacked kernel.
    pub size_bytes: u64,
    /// The transports of virtio devices that it has drivers for without any module.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<TransportKind>,
    /// The disks that it has drivers for so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_buses: Vec<DiskBus>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl Kernel {
    /// PV-GRUB's kernels, which every store has: they mean that a menu on the root volume says what
    /// boots.
    pub fn pv_grub() -> Vec<Self> {
        let kernel = |id: &str| {
            Some(Self {
                kernel_id: id.parse().ok()?,
                name: id.trim_start_matches(KernelId::PREFIX).to_owned(),
                owner_id: "spore".into(),
                creation_date: "1970-01-01T00:00:00.000Z".into(),
                architecture: Architecture::X86_64,
                version: None,
                digest: String::new(),
                size_bytes: 0,
                transports: Vec::new(),
                disk_buses: Vec::new(),
                tags: Vec::new(),
            })
        };
        KernelId::BUILT_IN.iter().filter_map(|id| kernel(id)).collect()
    }
}

/// A registered initial ramdisk: `ramdisk` beside the record, byte for byte as registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ramdisk {
    /// The ramdisk's id.
    pub ramdisk_id: RamdiskId,
    /// Unique name, 3 to 128 characters, of those that EC2 allows in an image's.
    pub name: String,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// RFC 3339, UTC.
    pub creation_date: String,
    /// SHA-256, hexadecimal.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
    /// The transports of virtio devices that it has drivers for; absent if that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<TransportKind>,
    /// The disks that it has drivers for; absent if that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_buses: Vec<DiskBus>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl Record for Kernel {
    type Id = KernelId;
    const DIRECTORY: &'static str = "kernels";
    const KIND: &'static str = "kernel";
    const NOT_FOUND: Code = Code::InvalidAKIIDNotFound;
    const REMOVAL: Durability = Durability::Durable;

    fn built_in() -> Vec<Self> {
        Self::pv_grub()
    }

    fn id(&self) -> &KernelId {
        &self.kernel_id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({ "Name": self.name, "Tags": self.tags })
    }
}

impl Record for Ramdisk {
    type Id = RamdiskId;
    const DIRECTORY: &'static str = "ramdisks";
    const KIND: &'static str = "ramdisk";
    const NOT_FOUND: Code = Code::InvalidARIIDNotFound;
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &RamdiskId {
        &self.ramdisk_id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({ "Name": self.name, "Tags": self.tags })
    }
}
