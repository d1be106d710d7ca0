//! What a network interface is told: its taps, its address, what the guest may have of it.

use super::disk::Rate;
use super::fd::PlanFd;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One network interface. (VIRTIO 1.2, 5.1)
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetPlan {
    /// A queue of the host's tap for each pair of queues, 1 to [`NetPlan::MAX_PAIRS`]. More than
    /// one: opened with IFF_MULTI_QUEUE.
    ///
    /// Each is open with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, with headers of 12 bytes
    /// (TUNSETVNETHDRSZ), and does not block. The VMM sets its offloads as the driver wishes
    /// (TUNSETOFFLOAD).
    pub taps: Vec<PlanFd>,
    /// The guest's address.
    pub mac: MacAddress,
    /// The largest packet without its Ethernet header, in bytes: [`NetPlan::MIN_MTU`] to 65535. The
    /// guest is told.
    pub mtu: u16,
    /// What the guest may have of it.
    #[serde(default)]
    pub limits: NetLimits,
}

impl NetPlan {
    /// Most pairs of queues.
    pub const MAX_PAIRS: usize = 8;
    /// The least MTU that a driver takes. (5.1.4.1)
    pub const MIN_MTU: u16 = 68;

    /// Check the numbers; `id` is what the device is called.
    ///
    /// # Errors
    /// One is out of its range; the line names it.
    pub(super) fn check(&self, id: &dyn fmt::Display) -> Result<()> {
        let (pairs, most, mtu) = (self.taps.len(), Self::MAX_PAIRS, self.mtu);
        if !(1..=most).contains(&pairs) {
            let why = format!("device {id} has {pairs} pairs of queues; it may have 1 to {most}");
            return Err(Error::failure(why));
        }
        if mtu < Self::MIN_MTU {
            let least = Self::MIN_MTU;
            let why = format!("device {id} has an MTU of {mtu}; the least is {least}");
            return Err(Error::failure(why));
        }
        Ok(())
    }
}

/// What a guest may have of a network interface, sent and received together. Absent: as much as the
/// host gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetLimits {
    /// Packets, of which one may be as large as 64 KiB where the guest takes or sends segments
    /// together.
    pub pps: Option<Rate>,
    /// Bytes, Ethernet headers included.
    pub bandwidth: Option<Rate>,
}

impl NetLimits {
    /// There are none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The Ethernet address of one interface: no group's, and not all zeros. (IEEE 802, 8.2)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address with these bytes, unless they are a group's or all zeros.
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// Its bytes, as they are in a frame.
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        let read = bytes.iter_mut().all(|byte| {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            part.and_then(|part| u8::from_str_radix(part, 16).ok()).is_some_and(|value| {
                *byte = value;
                true
            })
        });
        let whole = read && parts.next().is_none();
        whole.then(|| Self::new(bytes)).flatten().ok_or_else(|| {
            let shown: String = text.escape_debug().take(40).collect();
            Error::failure(format!(
                "'{shown}' is not the address of an interface: give six bytes as 02:12:34:56:78:9a, the first even"
            ))
        })
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    /// In lower case, as EC2's metadata has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written() {
        for text in ["02:00:00:00:00:01", "fe:ff:ff:ff:ff:ff"] {
            assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), text);
        }
        assert_eq!("0A:bC:1f:00:00:00".parse::<MacAddress>().unwrap().bytes()[1], 0xbc);
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
            "02-00-00-00-00-01",
            "03:00:00:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "é2:00:00:00:00:1",
        ] {
            let reported = bad.parse::<MacAddress>().unwrap_err().to_string();
            assert!(reported.contains("not the address") && !reported.contains('\n'), "{reported}");
        }
    }
}
