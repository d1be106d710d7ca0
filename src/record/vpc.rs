//! The record of a network, in the shapes of EC2's API: a VPC with one subnet.

use super::network::{GroupIdentifier, NetworkName};
use super::tag::Tag;
use super::{Durability, Record};
use crate::error::Code;
use crate::id::{InstanceId, NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId};
pub use crate::plan::network::{Cidr, Cidr6, IpPermission};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// EC2 Vpc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Vpc {
    /// Its id.
    pub vpc_id: VpcId,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// Its addresses, all of which are its subnet's.
    pub cidr_block: Cidr,
    /// It is the one that a store has without being asked.
    pub is_default: bool,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What EC2 has no word for.
    pub spore: VpcSide,
}

/// Spore's own part of a network's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct VpcSide {
    /// Its name, which no other of its owner's has.
    pub name: NetworkName,
    /// Its one subnet.
    pub subnet_id: SubnetId,
    /// It has no way out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// RFC 3339, UTC.
    pub creation_date: String,
    /// Its security groups; the first is the default one.
    pub security_groups: Vec<SecurityGroup>,
    /// Who has which address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<Ipv4Addr, Lease>,
}

/// An address that an interface has for life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Lease {
    /// The interface.
    pub network_interface_id: NetworkInterfaceId,
    /// Its instance, with which the lease ends.
    pub instance_id: InstanceId,
    /// Seconds since the epoch: when it was given, before there was the instance.
    pub since: u64,
}

/// EC2 SecurityGroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SecurityGroup {
    /// Its id.
    pub group_id: SecurityGroupId,
    /// Its name, which no other of its network has.
    pub group_name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What may come to its members.
    #[serde(default)]
    pub ip_permissions: Vec<IpPermission>,
    /// What they may send.
    #[serde(default)]
    pub ip_permissions_egress: Vec<IpPermission>,
}

impl Vpc {
    /// Its addresses of IPv6: a range of 64 bits that nobody else is likely to have, and that
    /// follows from its id. (RFC 4193, 3.2)
    pub fn ipv6_cidr_block(&self) -> Cidr6 {
        let digest = Sha256::digest(format!("{} ipv6", self.vpc_id));
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&digest[..5]);
        // EC2's own services are at fd00:ec2::.
        if octets[1] == 0 {
            octets[1] = 1;
        }
        Cidr6::of(octets.into(), 64)
    }

    /// The address of IPv6 of the interface that has this one: an interface keeps both.
    pub fn ipv6_of(&self, address: Ipv4Addr) -> Ipv6Addr {
        let network = self.ipv6_cidr_block().network().to_bits();
        Ipv6Addr::from_bits(network | u128::from(address.to_bits()))
    }
}

impl SecurityGroup {
    /// How it is named by what has it.
    pub fn identifier(&self) -> GroupIdentifier {
        GroupIdentifier { group_id: self.group_id.clone(), group_name: self.group_name.clone() }
    }
}

impl Record for Vpc {
    type Id = VpcId;
    const DIRECTORY: &'static str = "networks";
    const KIND: &'static str = "network";
    const NOT_FOUND: Code = Code::InvalidVpcIDNotFound;
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &VpcId {
        &self.vpc_id
    }

    fn name(&self) -> Option<&str> {
        Some(self.spore.name.as_str())
    }

    fn owner(&self) -> &str {
        &self.owner_id
    }

    fn journal_view(&self) -> Value {
        let Self { cidr_block, tags, spore, .. } = self;
        json!({
            "Name": spore.name,
            "CidrBlock": cidr_block,
            "SecurityGroups": spore.security_groups,
            "Tags": tags,
        })
    }
}
