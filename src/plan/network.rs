//! What a network's process is told: its addresses, its interfaces, and which packets pass.

use super::MacAddress;
pub use super::cidr6::Cidr6;
use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, NetworkInterfaceId, SecurityGroupId, VpcId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The largest packet of a network, in bytes without its Ethernet header, as on EC2. (EC2 User
/// Guide, "Jumbo frames")
pub const MTU: u16 = 9001;

/// A range of IPv4 addresses, as `10.0.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The range of `prefix` bits, 0 to 32, that has `address`.
    pub fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// Its first address.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Bits that all of its addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The same as a mask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// Its last address.
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix))
    }

    /// Whether the address is one of it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether both have an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The address at this distance from its first; the last if there are fewer.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().saturating_add(n)).min(self.last())
    }

    /// A network's router. (Amazon VPC User Guide, "Subnet CIDR blocks": the first four addresses
    /// and the last are not for instances)
    pub fn router(&self) -> Ipv4Addr {
        self.nth(1)
    }

    /// A network's DNS server. (likewise)
    pub fn resolver(&self) -> Ipv4Addr {
        self.nth(2)
    }

    /// The addresses that instances may have. (likewise)
    pub fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> {
        (self.network.to_bits().saturating_add(4)..self.last().to_bits()).map(Ipv4Addr::from_bits)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            let shown: String = text.escape_debug().take(40).collect();
            let why = format!(
                "'{shown}' is no range of addresses: give the first and its bits, as 10.0.0.0/16"
            );
            Error::refused(Code::InvalidParameterValue, why)
        };
        let (address, bits) = text.split_once('/').ok_or_else(refuse)?;
        let address: Ipv4Addr = address.parse().map_err(|_| refuse())?;
        let digits = (1..=2).contains(&bits.len()) && bits.bytes().all(|c| c.is_ascii_digit());
        let prefix = bits.parse().ok().filter(|bits| digits && *bits <= 32).ok_or_else(refuse)?;
        let cidr = Self::of(address, prefix);
        if cidr.network == address {
            return Ok(cidr);
        }
        let why = format!("{address}/{prefix} has bits of one address; say {cidr} for all of them");
        Err(Error::refused(Code::InvalidParameterValue, why))
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// What the process of a network begins with. It lies in a memory file on descriptor
/// [`NetworkPlan::FD`], as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// The network.
    pub vpc_id: VpcId,
    /// Its addresses.
    pub cidr: Cidr,
    /// It has no way out.
    pub isolated: bool,
    /// Which packets pass, by security group.
    pub groups: Vec<GroupRules>,
    /// A tap of it lives on in a VMM: its descriptor is [`NetworkPlan::TAP`].
    pub lives: bool,
}

impl NetworkPlan {
    /// The hidden subcommand.
    pub const SUBCOMMAND: &'static str = "__net";
    /// The plan.
    pub const FD: i32 = 3;
    /// The listening control socket. ([`crate::control::network`])
    pub const CONTROL: i32 = 4;
    /// The file whose flock it holds as long as it lives.
    pub const LOCK: i32 = 5;
    /// The pipe that it writes one line of JSON into when it is ready, or why it is not: a
    /// [`crate::control::network::Response`].
    pub const READY: i32 = 6;
    /// A tap of the network namespace that lives on, if one does.
    pub const TAP: i32 = 7;
}

/// An instance's interface on a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The interface.
    pub interface: NetworkInterfaceId,
    /// The instance that has it.
    pub instance: InstanceId,
    /// Its Ethernet address: DHCP answers to no other.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address of IPv6.
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
    /// Queues of its tap.
    pub queues: u8,
    /// Names in the network's DNS, without a domain, lower case. The first is the host name.
    pub names: Vec<String>,
    /// The security groups whose rules hold for it.
    pub groups: Vec<SecurityGroupId>,
    /// What its instance metadata service answers, if it has one: `metadata::Metadata`.
    #[serde(default)]
    pub metadata: Option<serde_json::Value>,
}

/// The name of an interface's tap: `t` and the first digits of its id. (IFNAMSIZ)
pub fn tap_name(interface: &NetworkInterfaceId) -> String {
    let digits = interface.as_str().trim_start_matches(NetworkInterfaceId::PREFIX);
    format!("t{}", &digits[..digits.len().min(14)])
}

/// The rules of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRules {
    /// The group.
    pub group: SecurityGroupId,
    /// What may come to its members.
    pub ingress: Vec<IpPermission>,
    /// What they may send.
    pub egress: Vec<IpPermission>,
}

/// EC2 IpPermission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct IpPermission {
    /// What it is about.
    pub ip_protocol: IpProtocol,
    /// The first port, or the type of ICMP. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_port: Option<u16>,
    /// The last port, or the code of ICMP. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_port: Option<u16>,
    /// From or to these addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_ranges: Vec<IpRange>,
    /// From or to these addresses of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv6_ranges: Vec<Ipv6Range>,
    /// From or to members of these groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_id_group_pairs: Vec<UserIdGroupPair>,
}

/// EC2 IpRange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct IpRange {
    /// The addresses.
    pub cidr_ip: Cidr,
}

/// EC2 Ipv6Range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ipv6Range {
    /// The addresses.
    pub cidr_ipv6: Cidr6,
}

/// EC2 UserIdGroupPair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UserIdGroupPair {
    /// The group.
    pub group_id: SecurityGroupId,
}

/// EC2's IpProtocol, as far as it is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpProtocol {
    /// All.
    #[serde(rename = "-1")]
    All,
    /// TCP.
    #[serde(rename = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "udp")]
    Udp,
    /// ICMP, of IPv4.
    #[serde(rename = "icmp")]
    Icmp,
    /// ICMP of IPv6.
    #[serde(rename = "icmpv6")]
    Icmpv6,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for text in ["10.0.0.0/16", "172.31.0.0/20", "0.0.0.0/0", "1.2.3.4/32", "10.1.2.0/28"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/016",
            "10.0.0.1/16",
            "10.0.0/16",
            "::/0",
            "10.0.0.0/16/16",
        ] {
            let error = bad.parse::<Cidr>().unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{bad}");
            assert!(!error.message().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_range_knows_its_addresses() {
        let of = |text: &str| text.parse::<Cidr>().unwrap();
        let small = of("10.1.2.16/28");
        assert_eq!(small.mask(), Ipv4Addr::new(255, 255, 255, 240));
        assert_eq!(small.router(), Ipv4Addr::new(10, 1, 2, 17));
        assert_eq!(small.resolver(), Ipv4Addr::new(10, 1, 2, 18));
        let hosts: Vec<_> = small.hosts().collect();
        assert_eq!(hosts.len(), 11);
        assert_eq!(hosts[0], Ipv4Addr::new(10, 1, 2, 20));
        assert_eq!(hosts[10], Ipv4Addr::new(10, 1, 2, 30));
        assert!(of("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        assert!(of("10.0.0.0/16").overlaps(&of("10.0.128.0/20")));
        assert!(of("10.0.128.0/20").overlaps(&of("10.0.0.0/16")));
        assert!(!of("10.0.0.0/17").overlaps(&of("10.0.128.0/17")));
        assert_eq!(of("1.2.3.4/32").hosts().count(), 0);
    }
}
