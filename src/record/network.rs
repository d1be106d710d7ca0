//! Network interfaces, in the shapes of EC2's API.

use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId, hex};
use crate::plan::MacAddress;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Most network interfaces of an instance.
pub const MAX_INTERFACES: usize = 8;

/// Most ports of the host's that are passed on to an instance.
pub const MAX_PORTS: usize = 64;

/// EC2 InstanceNetworkInterface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its id.
    pub network_interface_id: NetworkInterfaceId,
    /// The guest's address, which follows from the id.
    pub mac_address: MacAddress,
    /// Its address on its network, the interface's for life. A tap of the host's has none that
    /// Spore knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_ip_address: Option<Ipv4Addr>,
    /// Likewise of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv6_addresses: Vec<InstanceIpv6Address>,
    /// The subnet that the addresses are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<SubnetId>,
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<VpcId>,
    /// The security groups whose rules its packets pass by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupIdentifier>,
    /// How it belongs to its instance.
    pub attachment: Attachment,
    /// What EC2 has no word for.
    pub spore: HostSide,
}

/// EC2 InstanceIpv6Address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct InstanceIpv6Address {
    /// The address.
    pub ipv6_address: Ipv6Addr,
}

/// EC2 GroupIdentifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GroupIdentifier {
    /// The group.
    pub group_id: SecurityGroupId,
    /// Its name, which it keeps.
    pub group_name: String,
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
    /// Ports of the host's that are passed on to the instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
}

/// A port of the host's whose connections or packets an instance gets. As text:
/// `[ADDR:]HOST:GUEST[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PublishedPort {
    /// An address of the host's.
    pub host_ip: IpAddr,
    /// Its port; 0 until the host has chosen one.
    pub host_port: u16,
    /// The instance's port.
    pub guest_port: u16,
    /// TCP or UDP.
    pub protocol: PortProtocol,
}

/// What a published port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl PublishedPort {
    /// Where it is on the host.
    pub fn host(&self) -> SocketAddr {
        SocketAddr::new(self.host_ip, self.host_port)
    }
}

impl FromStr for PublishedPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let (rest, protocol) = match text.rsplit_once('/') {
                None => (text, PortProtocol::Tcp),
                Some((rest, "tcp")) => (rest, PortProtocol::Tcp),
                Some((rest, "udp")) => (rest, PortProtocol::Udp),
                Some(_) => return None,
            };
            let (rest, guest) = rest.rsplit_once(':')?;
            let (host_ip, host) = match rest.rsplit_once(':') {
                None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
                Some((address, host)) => {
                    let address = address
                        .strip_prefix('[')
                        .and_then(|a| a.strip_suffix(']'))
                        .unwrap_or(address);
                    (address.parse().ok()?, host)
                }
            };
            let port = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
                text.parse::<u16>().ok().filter(|_| digits)
            };
            let guest_port = port(guest).filter(|port| *port != 0)?;
            Some(Self { host_ip, host_port: port(host)?, guest_port, protocol })
        };
        parsed().ok_or_else(|| {
            refused(text, "is no port to publish: give [ADDRESS:]HOST:GUEST[/udp], as 8080:80, or 0:22 for any of the host's")
        })
    }
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
        let spore = HostSide { network, queues, ports: Vec::new() };
        Ok(Self {
            network_interface_id,
            mac_address,
            private_ip_address: None,
            ipv6_addresses: Vec::new(),
            subnet_id: None,
            vpc_id: None,
            groups: Vec::new(),
            attachment,
            spore,
        })
    }
}

/// What an interface hangs on. As text: `tap:DEVICE`, or a network's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// A tap that the host's administrator has made for this user.
    Tap(TapName),
    /// One of the store's networks.
    Named(NetworkName),
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

/// The name of one of the store's networks, which is a DNS label: 1 to 63 lower-case letters,
/// digits and dashes, the first and the last no dash (RFC 1123, 2.1). `none` is no name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

impl NetworkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=63).contains(&text.len()) && text.bytes().all(|c| letter(c) || c == b'-');
        if fits && !text.starts_with('-') && !text.ends_with('-') && text != "none" {
            return Ok(Self(text.to_owned()));
        }
        Err(refused(
            text,
            "is no network: give a network's name, which has 1 to 63 lower-case letters, digits and \
             dashes, tap:DEVICE, a tap of the host, or none",
        ))
    }
}

impl TryFrom<String> for NetworkName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NetworkName> for String {
    fn from(name: NetworkName) -> Self {
        name.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refused(text: &str, why: &str) -> Error {
    let shown: String = text.escape_debug().take(40).collect();
    Error::refused(Code::InvalidParameterValue, format!("'{shown}' {why}"))
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(name) = text.strip_prefix("tap:") else {
            return text.parse().map(Self::Named);
        };
        let visible = |c: u8| c.is_ascii_graphic() && !b"/:".contains(&c);
        let fits = (1..=15).contains(&name.len()) && !matches!(name, "." | "..");
        if !fits || !name.bytes().all(visible) {
            let why = "names no tap: a network device's name has 1 to 15 characters";
            return Err(refused(text, why));
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
            Self::Named(name) => write!(f, "{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_network_is_read_and_written() {
        for text in ["tap:tap0", "tap:a-b.c_d", "tap:123456789012345", "default", "a", "web-2"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "none",
            "-a",
            "a-",
            "Web",
            "a.b",
            "../a",
            "bridge:br0",
            &"a".repeat(64),
            "tap:",
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
    fn published_ports_are_read() {
        let of = |text: &str| text.parse::<PublishedPort>().unwrap();
        let web = of("8080:80");
        assert_eq!((web.host(), web.guest_port), ("127.0.0.1:8080".parse().unwrap(), 80));
        assert_eq!(of("0.0.0.0:0:22").host(), "0.0.0.0:0".parse().unwrap());
        assert_eq!(of("[::1]:53:53/udp").host(), "[::1]:53".parse().unwrap());
        assert_eq!(of("53:53/udp").protocol, PortProtocol::Udp);
        for bad in [
            "",
            "80",
            ":80",
            "80:",
            "80:0",
            "a:80",
            "80:+1",
            "80:80/sctp",
            "x:80:80",
            "1:2:3:4",
            "70000:1",
        ] {
            let error = bad.parse::<PublishedPort>().unwrap_err();
            assert!(error.message().contains("no port to publish"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_networks_interface_has_ec2s_shape() {
        let id = "i-00000000000000001".parse().unwrap();
        let mut interface = NetworkInterface::new(&id, 0, "default".parse().unwrap(), 1).unwrap();
        interface.private_ip_address = Some(Ipv4Addr::new(10, 0, 0, 5));
        interface.ipv6_addresses =
            vec![InstanceIpv6Address { ipv6_address: "fd00::5".parse().unwrap() }];
        interface.subnet_id = Some("subnet-00000000000000001".parse().unwrap());
        interface.vpc_id = Some("vpc-00000000000000001".parse().unwrap());
        let group_id = "sg-00000000000000001".parse().unwrap();
        interface.groups = vec![GroupIdentifier { group_id, group_name: "default".into() }];
        let json = serde_json::to_value(&interface).unwrap();
        assert_eq!(json["PrivateIpAddress"], "10.0.0.5");
        assert_eq!(json["Ipv6Addresses"], serde_json::json!([{ "Ipv6Address": "fd00::5" }]));
        assert_eq!(json["SubnetId"], "subnet-00000000000000001");
        assert_eq!(json["VpcId"], "vpc-00000000000000001");
        let groups =
            serde_json::json!([{ "GroupId": "sg-00000000000000001", "GroupName": "default" }]);
        assert_eq!(json["Groups"], groups);
        assert_eq!(json["Spore"], serde_json::json!({ "Network": "default" }));
        assert_eq!(serde_json::from_value::<NetworkInterface>(json).unwrap(), interface);
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
