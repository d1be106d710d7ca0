//! Networks: CreateVpc, DescribeVpcs, DeleteVpc, and the security groups on them:
//! CreateSecurityGroup, AuthorizeSecurityGroupIngress and Egress, RevokeSecurityGroupIngress and
//! Egress, DescribeSecurityGroups, DeleteSecurityGroup.

use super::Service;
use super::filter::{Filter, Filters, select};
pub use super::shape::network::{DescribedNetwork, SecurityGroup};
use crate::control::network::{Request, Response};
use crate::error::Result;
use crate::id::SecurityGroupId;
use crate::instance::vpc;
use crate::network;
pub use crate::network::NewNetwork;
pub use crate::network::groups::{Rule, Whom};
use crate::network::{groups, process};
use crate::record::network::PublishedPort;
use crate::record::tag::check_tags;
use crate::record::vpc::Vpc;

const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("cidr", "CidrBlock"),
        ("is-default", "IsDefault"),
        ("owner-id", "OwnerId"),
        ("vpc-id", "VpcId"),
    ],
};

impl Service {
    /// EC2 CreateVpc.
    ///
    /// # Errors
    /// As [`network::create`]'s; a tag is malformed.
    pub fn create_network(&self, new: &NewNetwork) -> Result<DescribedNetwork> {
        check_tags(&new.tags)?;
        Ok(self.described(network::create(&self.store, new)?))
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
        let described = found.into_iter().map(|vpc| self.described(vpc)).collect();
        select(described, filters, FILTERS)
    }

    /// What is to be said of a network.
    fn described(&self, vpc: Vpc) -> DescribedNetwork {
        let status = process::ask_running(&self.store, &vpc, &Request::Status {}, &[]);
        let status = match status.ok().flatten() {
            Some((Response::Status(status), _)) => Some(status),
            _ => None,
        };
        DescribedNetwork {
            instances: network::addresses::users(&self.store, &vpc).len(),
            running: status.is_some(),
            way_out: status.is_some_and(|status| status.way_out),
            vpc,
        }
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
    ) -> Result<SecurityGroupId> {
        groups::create(&self.store, network, name, description).map(|group| group.group_id)
    }

    /// EC2 DescribeSecurityGroups.
    ///
    /// # Errors
    /// The network is not there.
    pub fn describe_security_groups(&self, network: &str) -> Result<Vec<SecurityGroup>> {
        let network = network::find(&self.store, network)?;
        let groups = network.spore.security_groups.iter();
        Ok(groups.map(|group| SecurityGroup::of(&network, group)).collect())
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
