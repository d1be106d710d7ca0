//! A machine's virtio devices, by name.

use super::cdrom::CdromPlan;
use super::disk::DiskPlan;
use super::net::NetPlan;
use super::share::SharePlan;
use super::vsock::VsockPlan;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A device's name within its machine: 1 to 64 visible ASCII characters. A disk's is the device
/// name of its mapping (`/dev/vda`), as in EC2's API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

impl DeviceId {
    /// Most characters.
    pub const MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        let fits = (1..=Self::MAX).contains(&name.len());
        if fits && name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(name));
        }
        let shown: String = name.escape_debug().take(100).collect();
        Err(Error::failure(format!("'{shown}' is not the name of a device")))
    }
}

impl FromStr for DeviceId {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        name.to_owned().try_into()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A virtio device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// What requests and saved state call it. No other device of the machine has the same.
    pub id: DeviceId,
    /// Where the guest finds it, from 0 on: over virtio-mmio the window, on PCI the device number
    /// less 1. A slot that no device names is empty.
    pub slot: u8,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceKind {
    /// A block device. (VIRTIO 1.2, 5.2)
    Disk(DiskPlan),
    /// An entropy device, fed by the host's generator. (5.4)
    Entropy,
    /// A network interface. (5.1)
    Net(NetPlan),
    /// A socket device. (5.10)
    Vsock(VsockPlan),
    /// A file system device. (5.11)
    Share(SharePlan),
    /// A CD-ROM drive. (5.6)
    Cdrom(CdromPlan),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_name_that_can_be_printed() {
        for name in ["/dev/vda", "entropy", &"x".repeat(64)] {
            assert_eq!(name.parse::<DeviceId>().unwrap().as_str(), name);
        }
        for name in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(name.parse::<DeviceId>().is_err(), "{name:?}");
        }
    }
}
