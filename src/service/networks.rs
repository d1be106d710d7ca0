//! Networks: CreateVpc, DescribeVpcs, DeleteVpc, and the security groups on them:
//! CreateSecurityGroup, AuthorizeSecurityGroupIngress and Egress, RevokeSecurityGroupIngress and
//! Egress, DescribeSecurityGroups, DeleteSecurityGroup.

use super::Service;
use super::filter::{Filter, Filters, select};
use crate::error::Result;
use crate::instance::vpc;
use crate::network;
pub use crate::network::NewNetwork;
pub use crate::network::groups::{Rule, Whom};
use crate::network::{groups, process};
use crate::record::network::PublishedPort;
use crate::record::tag::check_tags;
use crate::record::vpc::{SecurityGroup, Vpc};
use serde::Serialize;

const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("cidr", "CidrBlock"),
        ("is-default", "IsDefault"),
        ("owner-id", "OwnerId"),
        ("vpc-id", "VpcId"),
    ],
};

/// A network, and what the record does not say of it.
#[derive(Clone, Debug, Serialize)]
pub struct DescribedNetwork {
    /// The record.
    #[serde(flatten)]
    pub vpc: Vpc,
    /// How many instances are on it.
    #[serde(skip)]
    pub instances: usize,
    /// Its process runs: an instance that runs is on it.
    #[serde(skip)]
    pub running: bool,
}

impl Service {
    /// EC2 CreateVpc.
    ///
    /// # Errors
    /// As [`network::create`]'s; a tag is malformed.
    pub fn create_network(&self, new: &NewNetwork) -> Result<Vpc> {
        check_tags(&new.tags)?;
        network::create(&self.store, new)
    }

    /// EC2 DescribeVpcs: the networks named, or all, of which all filters hold.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_networks(
        &self,
        names: &[String],
        filters: &[Filter],
    ) -> Result<Vec<DescribedNetwork>> {
        let store = &self.store;
        let found = match names {
            [] => network::own(store)?,
            names => names.iter().map(|name| network::find(store, name)).collect::<Result<_>>()?,
        };
        let described = |vpc: Vpc| DescribedNetwork {
            instances: network::addresses::users(store, &vpc).len(),
            running: process::is_running(store, &vpc).unwrap_or(false),
            vpc,
        };
        select(found.into_iter().map(described).collect(), filters, FILTERS)
    }

    /// The host's ports that are passed on to an instance.
    ///
    /// # Errors
    /// It is unknown.
    pub fn published_ports(&self, instance: &str) -> Result<Vec<PublishedPort>> {
        let record = self.describe_instance(instance)?;
        let interfaces = record.instance.network_interfaces.into_iter();
        Ok(interfaces.flat_map(|interface| interface.spore.ports).collect())
    }

    /// Starts again what was killed of the networks that instances are on.
    pub fn revive_networks(&self) {
        if let Err(error) = vpc::revive_all(&self.store) {
            self.store.context().warn(error.message());
        }
    }

    /// EC2 CreateSecurityGroup.
    ///
    /// # Errors
    /// As [`groups::create`]'s.
    pub fn create_security_group(
        &self,
        network: &str,
        name: &str,
        description: &str,
    ) -> Result<SecurityGroup> {
        groups::create(&self.store, network, name, description)
    }

    /// EC2 DescribeSecurityGroups.
    ///
    /// # Errors
    /// The network is not there.
    pub fn describe_security_groups(&self, network: &str) -> Result<Vec<SecurityGroup>> {
        Ok(network::find(&self.store, network)?.spore.security_groups)
    }

    /// EC2 AuthorizeSecurityGroupIngress or, with `egress`, AuthorizeSecurityGroupEgress.
    ///
    /// # Errors
    /// As [`groups::change`]'s.
    pub fn authorize_security_group(&self, rule: &Rule) -> Result<()> {
        groups::change(&self.store, rule, true)
    }

    /// EC2 RevokeSecurityGroupIngress or, with `egress`, RevokeSecurityGroupEgress.
    ///
    /// # Errors
    /// As [`groups::change`]'s.
    pub fn revoke_security_group(&self, rule: &Rule) -> Result<()> {
        groups::change(&self.store, rule, false)
    }

    /// EC2 DeleteSecurityGroup.
    ///
    /// # Errors
    /// As [`groups::delete`]'s.
    pub fn delete_security_group(&self, network: &str, group: &str) -> Result<()> {
        groups::delete(&self.store, network, group)
    }

    /// EC2 DeleteVpc.
    ///
    /// # Errors
    /// As [`network::delete`]'s.
    pub fn delete_network(&self, text: &str) -> Result<()> {
        network::delete(&self.store, text).map(drop)
    }
}
