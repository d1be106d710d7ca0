//! Instance types: presets of vCPUs and memory under EC2's names.

use crate::error::{Code, Error, Result};

/// A preset. The numbers are those of EC2's table of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// e.g. `t3.micro`.
    pub name: &'static str,
    /// vCPUs.
    pub cpus: u8,
    /// MiB of RAM.
    pub memory_mib: u64,
}

const fn preset(name: &'static str, cpus: u8, memory_mib: u64) -> InstanceType {
    InstanceType { name, cpus, memory_mib }
}

/// Every preset. `spore.tiny` is Spore's own, for guests without an operating system.
pub const TYPES: [InstanceType; 18] = [
    preset("spore.tiny", 1, 32),
    preset("t2.nano", 1, 512),
    preset("t2.micro", 1, 1024),
    preset("t2.small", 1, 2048),
    preset("t3.nano", 2, 512),
    preset("t3.micro", 2, 1024),
    preset("t3.small", 2, 2048),
    preset("t3.medium", 2, 4096),
    preset("t3.large", 2, 8192),
    preset("t3.xlarge", 4, 16_384),
    preset("t3.2xlarge", 8, 32_768),
    preset("c5.large", 2, 4096),
    preset("c5.xlarge", 4, 8192),
    preset("c5.2xlarge", 8, 16_384),
    preset("m5.large", 2, 8192),
    preset("m5.xlarge", 4, 16_384),
    preset("m5.2xlarge", 8, 32_768),
    preset("r5.large", 2, 16_384),
];

/// What an instance is if neither `-t` nor the image says otherwise.
pub const DEFAULT: &str = "t3.micro";
/// The image tag that names its default instance type.
pub const IMAGE_TAG: &str = "spore:instance-type";

/// The preset of this name.
///
/// # Errors
/// `InvalidParameterValue` listing the names.
pub fn find(name: &str) -> Result<&'static InstanceType> {
    TYPES.iter().find(|t| t.name == name).ok_or_else(|| {
        let names: Vec<_> = TYPES.iter().map(|t| t.name).collect();
        Error::refused(
            Code::InvalidParameterValue,
            format!(
                "instance type '{}' is unknown; there are {} (or give `CoreCount` and `Memory`)",
                name.escape_debug(),
                names.join(", ")
            ),
        )
    })
}
