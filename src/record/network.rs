//! Network interfaces, in the shapes of EC2's API.

use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, NetworkInterfaceId, hex};
use crate::plan::MacAddress;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Most network interfaces of an instance.
pub const MAX_INTERFACES: usize = 8;

/// EC2 InstanceNetworkInterface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its id.
    pub network_interface_id: NetworkInterfaceId,
    /// The guest's address, which follows from the id.
    pub mac_address: MacAddress,
    /// How it belongs to its instance.
    pub attachment: Attachment,
    /// What EC2 has no word for.
    pub spore: HostSide,
}

/// EC2 InstanceNetworkInterfaceAttachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Attachment {
    /// Its position among the instance's, from 0.
    pub device_index: u8,
    /// The interface goes with the instance: always.
    pub delete_on_termination: bool,
}

/// Where an interface's packets come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct HostSide {
    /// The network.
    pub network: Network,
    /// Pairs of queues, 1 to [`NetPlan::MAX_PAIRS`](crate::plan::NetPlan::MAX_PAIRS): several vCPUs
    /// use them at once.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub queues: u8,
}

fn one() -> u8 {
    1
}

fn is_one(queues: &u8) -> bool {
    *queues == 1
}

impl NetworkInterface {
    /// The interface number `index` of an instance. Its id and address follow from the instance's
    /// id: no other has them.
    ///
    /// # Errors
    /// None that an instance could have.
    pub fn new(instance: &InstanceId, index: u8, network: Network, queues: u8) -> Result<Self> {
        let id = hex(&Sha256::digest(format!("{instance} {index}")));
        let network_interface_id = NetworkInterfaceId::from_digest(&id)?;
        let mut address = [0; 6];
        address.copy_from_slice(&Sha256::digest(network_interface_id.as_str())[..6]);
        // Administered locally, and no group's. (IEEE 802, 8.2)
        address[0] = address[0] & 0xfc | 2;
        let mac_address = MacAddress::new(address).ok_or_else(|| {
            Error::failure(format!(
                "{network_interface_id} has no address, which is a bug of Spore"
            ))
        })?;
        let attachment = Attachment { device_index: index, delete_on_termination: true };
        let spore = HostSide { network, queues };
        Ok(Self { network_interface_id, mac_address, attachment, spore })
    }
}

/// What an interface hangs on. As text: `tap:DEVICE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// A tap that the host's administrator has made for this user.
    Tap(TapName),
}

/// The name of a network device of the host: 1 to 15 visible ASCII characters without `/` and `:`.
/// (dev_valid_name in net/core/dev.c)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapName(String);

impl TapName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            let shown: String = text.escape_debug().take(40).collect();
            Err(Error::refused(Code::InvalidParameterValue, format!("'{shown}' {why}")))
        };
        let Some(name) = text.strip_prefix("tap:") else {
            return refuse("is no network: give tap:DEVICE, a tap of the host, or none");
        };
        let visible = |c: u8| c.is_ascii_graphic() && !b"/:".contains(&c);
        let fits = (1..=15).contains(&name.len()) && !matches!(name, "." | "..");
        if !fits || !name.bytes().all(visible) {
            return refuse("names no tap: a network device's name has 1 to 15 characters");
        }
        Ok(Self::Tap(TapName(name.to_owned())))
    }
}

impl TryFrom<String> for Network {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(name) => write!(f, "tap:{}", name.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_network_is_read_and_written() {
        for text in ["tap:tap0", "tap:a-b.c_d", "tap:123456789012345"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "tap",
            "tap:",
            "tap0",
            "tap:a/b",
            "tap:..",
            "tap:a b",
            "tap:1234567890123456",
            "tap:\n",
        ] {
            let error = bad.parse::<Network>().unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{bad:?}");
            assert!(!error.message().contains('\n'), "{error}");
        }
    }

    #[test]
    fn each_interface_has_an_address_of_its_own_and_keeps_it() {
        let mut seen = BTreeSet::new();
        for instance in 0..100 {
            let id: InstanceId = format!("i-{instance:017x}").parse().unwrap();
            for index in 0..4 {
                let new =
                    || NetworkInterface::new(&id, index, "tap:t".parse().unwrap(), 1).unwrap();
                let interface = new();
                assert_eq!(interface, new());
                let first = interface.mac_address.bytes()[0];
                assert_eq!(first & 3, 2, "one interface's, administered locally");
                assert!(seen.insert(interface.mac_address));
                assert!(interface.network_interface_id.as_str().starts_with("eni-"));
            }
        }
    }

    #[test]
    fn the_record_has_ec2s_shape() {
        let id = "i-00000000000000001".parse().unwrap();
        let interface = NetworkInterface::new(&id, 0, "tap:tap0".parse().unwrap(), 1).unwrap();
        let (eni, mac) = (&interface.network_interface_id, interface.mac_address);
        let expected = serde_json::json!({
            "NetworkInterfaceId": eni,
            "MacAddress": mac.to_string(),
            "Attachment": { "DeviceIndex": 0, "DeleteOnTermination": true },
            "Spore": { "Network": "tap:tap0" },
        });
        assert_eq!(serde_json::to_value(&interface).unwrap(), expected);
        assert_eq!(serde_json::from_value::<NetworkInterface>(expected).unwrap(), interface);
    }
}
