//! EC2 Vpc and SecurityGroup.

use crate::id::{SecurityGroupId, VpcId};
use crate::record::tag::Tag;
use crate::record::vpc::{self, Cidr, Cidr6, IpPermission, VpcSide};
use serde::{Serialize, Serializer};

/// A network, and what the record does not say of it. As JSON it is EC2's Vpc.
#[derive(Clone, Debug)]
pub struct DescribedNetwork {
    /// The record.
    pub vpc: vpc::Vpc,
    /// How many instances are on it.
    pub instances: usize,
    /// Its process runs: an instance that runs is on it.
    pub running: bool,
    /// It has a way out now.
    pub way_out: bool,
}

impl Serialize for DescribedNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape::of(self).serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    vpc_id: &'a VpcId,
    owner_id: &'a str,
    state: &'static str,
    cidr_block: Cidr,
    cidr_block_association_set: [Association; 1],
    ipv6_cidr_block_association_set: [Association6; 1],
    instance_tenancy: &'static str,
    is_default: bool,
    tags: &'a [Tag],
    spore: Own<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Own<'a> {
    #[serde(flatten)]
    record: &'a VpcSide,
    instances: usize,
    running: bool,
    way_out: bool,
}

/// EC2 VpcCidrBlockState.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Associated {
    state: &'static str,
}

const ASSOCIATED: Associated = Associated { state: "associated" };

/// EC2 VpcCidrBlockAssociation.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Association {
    association_id: String,
    cidr_block: Cidr,
    cidr_block_state: Associated,
}

/// EC2 VpcIpv6CidrBlockAssociation.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Association6 {
    association_id: String,
    ipv6_cidr_block: Cidr6,
    ipv6_cidr_block_state: Associated,
}

impl<'a> Shape<'a> {
    fn of(described: &'a DescribedNetwork) -> Self {
        let DescribedNetwork { vpc, instances, running, way_out } = described;
        // Each network has one range of each family for ever.
        let digits = vpc.vpc_id.as_str().trim_start_matches(VpcId::PREFIX);
        let association_id = || format!("vpc-cidr-assoc-{digits}");
        Self {
            vpc_id: &vpc.vpc_id,
            owner_id: &vpc.owner_id,
            state: "available",
            cidr_block: vpc.cidr_block,
            cidr_block_association_set: [Association {
                association_id: association_id(),
                cidr_block: vpc.cidr_block,
                cidr_block_state: ASSOCIATED,
            }],
            ipv6_cidr_block_association_set: [Association6 {
                association_id: association_id(),
                ipv6_cidr_block: vpc.ipv6_cidr_block(),
                ipv6_cidr_block_state: ASSOCIATED,
            }],
            instance_tenancy: "default",
            is_default: vpc.is_default,
            tags: &vpc.tags,
            spore: Own {
                record: &vpc.spore,
                instances: *instances,
                running: *running,
                way_out: *way_out,
            },
        }
    }
}

/// EC2 SecurityGroup.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecurityGroup {
    /// Its id.
    pub group_id: SecurityGroupId,
    /// Its name.
    pub group_name: String,
    /// What it is for.
    pub description: String,
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// Its network.
    pub vpc_id: VpcId,
    /// What may come to its members.
    pub ip_permissions: Vec<IpPermission>,
    /// What they may send.
    pub ip_permissions_egress: Vec<IpPermission>,
    /// None: groups have no tags.
    pub tags: [Tag; 0],
}

impl SecurityGroup {
    /// One of a network's.
    pub fn of(network: &vpc::Vpc, group: &vpc::SecurityGroup) -> Self {
        let vpc::SecurityGroup { group_id, group_name, description, .. } = group.clone();
        Self {
            group_id,
            group_name,
            description,
            owner_id: network.owner_id.clone(),
            vpc_id: network.vpc_id.clone(),
            ip_permissions: group.ip_permissions.clone(),
            ip_permissions_egress: group.ip_permissions_egress.clone(),
            tags: [],
        }
    }
}
