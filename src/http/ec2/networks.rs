//! Networks: a VPC with one subnet, and its security groups.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::record::network::NetworkName;
use crate::record::vpc::{SecurityGroup, Vpc};
use crate::service::instances::{DescribeInstances, reservations};
use crate::service::networks::{DescribedNetwork, Rule, Whom};
use crate::service::shape::ZONE;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("AuthorizeSecurityGroupEgress", authorize_egress),
    ("AuthorizeSecurityGroupIngress", authorize_ingress),
    ("CreateSecurityGroup", create_security_group),
    ("DeleteSecurityGroup", delete_security_group),
    ("DescribeAddresses", describe_addresses),
    ("DescribeInternetGateways", describe_internet_gateways),
    ("DescribeNetworkInterfaces", describe_network_interfaces),
    ("DescribeRouteTables", describe_route_tables),
    ("DescribeSecurityGroups", describe_security_groups),
    ("DescribeSubnets", describe_subnets),
    ("DescribeVpcAttribute", describe_vpc_attribute),
    ("DescribeVpcs", describe_vpcs),
    ("RevokeSecurityGroupEgress", revoke_egress),
    ("RevokeSecurityGroupIngress", revoke_ingress),
];

fn described(call: &Call<'_>) -> Result<Vec<DescribedNetwork>> {
    // The default one is there before anybody asks for it.
    if let Some(name) = call.network {
        call.service.describe_networks(&[name.to_string()], &[])?;
    }
    call.service.describe_networks(&[], &[])
}

fn networks(call: &Call<'_>) -> Result<Vec<Vpc>> {
    Ok(described(call)?.into_iter().map(|network| network.vpc).collect())
}

/// A group, and its network.
fn group_of<'a>(networks: &'a [Vpc], group: &str) -> Result<(&'a Vpc, &'a SecurityGroup)> {
    let mut groups = networks
        .iter()
        .flat_map(|vpc| vpc.spore.security_groups.iter().map(move |group| (vpc, group)));
    groups.find(|(_, other)| other.group_id.as_str() == group).ok_or_else(|| {
        let why = format!("The security group '{}' does not exist", group.escape_debug());
        Error::refused(Code::InvalidGroupNotFound, why)
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    vpc_ids: Vec<String>,
    subnet_ids: Vec<String>,
    group_ids: Vec<String>,
    group_names: Vec<String>,
    network_interface_ids: Vec<String>,
}

/// Those of `list` that the request names and its filters let through. A filter's name is that of a
/// member in EC2's other spelling, `vpc-id` for `VpcId`.
fn chosen(
    call: &Call<'_>,
    member: &str,
    ids: &[String],
    key: &str,
    list: Vec<Value>,
    absent: Code,
) -> Result<Value> {
    let has = |id: &String| list.iter().any(|object| object[key] == id.as_str());
    if let Some(unknown) = ids.iter().find(|id| !has(id)) {
        let why = format!("'{}' does not exist", unknown.escape_debug());
        return Err(Error::refused(absent, why));
    }
    let filters = call.filters()?;
    let mut found = Vec::new();
    for object in &list {
        let named = ids.is_empty() || ids.iter().any(|id| object[key] == id.as_str());
        let mut passes = named;
        for filter in &filters {
            passes &= filter.passes(object)?;
        }
        if passes {
            found.push(object.clone());
        }
    }
    call.listed(member, ids, found, key)
}

fn describe_vpcs(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let row = |network: &DescribedNetwork| {
        let mut row = json_of(network)?;
        row["DhcpOptionsId"] = "default".into();
        row["Tags"] = named(&network.vpc);
        Ok(row)
    };
    let list = described(call)?.iter().map(row).collect::<Result<_>>()?;
    chosen(call, "Vpcs", &asked.vpc_ids, "VpcId", list, Code::InvalidVpcIDNotFound)
}

/// A network's tags, and its name as one.
fn named(vpc: &Vpc) -> Value {
    let mut tags = json!(vpc.tags);
    if let (Some(tags), false) = (tags.as_array_mut(), vpc.tags.iter().any(|t| t.key == "Name")) {
        tags.push(json!({ "Key": "Name", "Value": vpc.spore.name }));
    }
    tags
}

fn describe_subnets(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let described = |vpc: Vpc| {
        let all = 1u64 << (32 - u32::from(vpc.cidr_block.prefix().min(32)));
        let taken = vpc.spore.addresses.len() as u64;
        json!({
            "SubnetId": vpc.spore.subnet_id,
            "VpcId": vpc.vpc_id,
            "OwnerId": vpc.owner_id,
            "CidrBlock": vpc.cidr_block,
            "AvailabilityZone": ZONE,
            "AvailabilityZoneId": ZONE,
            // Five of each are EC2's own.
            "AvailableIpAddressCount": all.saturating_sub(5).saturating_sub(taken).min(i32::MAX as u64),
            "DefaultForAz": vpc.is_default,
            "MapPublicIpOnLaunch": false,
            "AssignIpv6AddressOnCreation": true,
            "Ipv6CidrBlockAssociationSet": [{
                "AssociationId": format!("subnet-cidr-assoc-{}", vpc.spore.subnet_id),
                "Ipv6CidrBlock": vpc.ipv6_cidr_block(),
                "Ipv6CidrBlockState": { "State": "associated" },
            }],
            "State": "available",
            "Tags": named(&vpc),
        })
    };
    let list = networks(call)?.into_iter().map(described).collect();
    chosen(call, "Subnets", &asked.subnet_ids, "SubnetId", list, Code::InvalidSubnetIDNotFound)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VpcAttribute {
    vpc_id: String,
    attribute: String,
}

fn describe_vpc_attribute(call: &Call<'_>) -> Result<Value> {
    let asked: VpcAttribute = call.input()?;
    let found = call.service.describe_networks(&[asked.vpc_id], &[])?;
    let id = found.first().map(|network| network.vpc.vpc_id.to_string()).unwrap_or_default();
    let key = match asked.attribute.as_str() {
        "enableDnsSupport" => "EnableDnsSupport",
        "enableDnsHostnames" => "EnableDnsHostnames",
        other => {
            let why = format!("networks have no attribute '{}' here", other.escape_debug());
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
    };
    Ok(json!({ "VpcId": id, key: { "Value": true } }))
}

/// What goes out of a network goes by its own way, and not by a gateway that could be named.
fn describe_internet_gateways(call: &Call<'_>) -> Result<Value> {
    let Described { .. } = call.input()?;
    Ok(json!({ "InternetGateways": [] }))
}

/// There is no address but the private ones.
fn describe_addresses(call: &Call<'_>) -> Result<Value> {
    let Described { .. } = call.input()?;
    Ok(json!({ "Addresses": [] }))
}

fn describe_route_tables(call: &Call<'_>) -> Result<Value> {
    let Described { .. } = call.input()?;
    Ok(json!({ "RouteTables": [] }))
}

fn describe_network_interfaces(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let records = call.service.describe_instances(&DescribeInstances::default())?;
    let mut list = Vec::new();
    for reservation in json_of(reservations(&records))?.as_array().into_iter().flatten() {
        for instance in reservation["Instances"].as_array().into_iter().flatten() {
            for interface in instance["NetworkInterfaces"].as_array().into_iter().flatten() {
                let mut interface = interface.clone();
                let attachment = interface["Attachment"].as_object_mut();
                if let Some(attachment) = attachment {
                    attachment.insert("InstanceId".into(), instance["InstanceId"].clone());
                    attachment.insert("Status".into(), "attached".into());
                }
                let own = [
                    ("AvailabilityZone", json!(ZONE)),
                    ("OwnerId", reservation["OwnerId"].clone()),
                    ("TagSet", json!([])),
                    ("RequesterManaged", json!(false)),
                ];
                for (key, value) in own {
                    interface[key] = value;
                }
                list.push(interface);
            }
        }
    }
    let (ids, key) = (&asked.network_interface_ids, "NetworkInterfaceId");
    chosen(call, "NetworkInterfaces", ids, key, list, Code::InvalidNetworkInterfaceIDNotFound)
}

fn describe_security_groups(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let mut list = Vec::new();
    for network in described(call)? {
        let groups = call.service.describe_security_groups(network.vpc.vpc_id.as_str())?;
        list.extend(groups.iter().map(json_of).collect::<Result<Vec<_>>>()?);
    }
    if let Some(unknown) =
        asked.group_names.iter().find(|n| !list.iter().any(|g| g["GroupName"] == n.as_str()))
    {
        let why = format!("The security group '{}' does not exist", unknown.escape_debug());
        return Err(Error::refused(Code::InvalidGroupNotFound, why));
    }
    list.retain(|group| {
        asked.group_names.is_empty()
            || asked.group_names.iter().any(|n| group["GroupName"] == n.as_str())
    });
    chosen(call, "SecurityGroups", &asked.group_ids, "GroupId", list, Code::InvalidGroupNotFound)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    group_name: String,
    description: String,
    #[serde(default)]
    vpc_id: Option<String>,
}

fn create_security_group(call: &Call<'_>) -> Result<Value> {
    let asked: Created = call.input()?;
    if !call.tags("security-group", &["security-group"])?.is_empty() {
        let why = "security groups have no tags here";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let network = match (&asked.vpc_id, call.network) {
        (Some(id), _) => id.clone(),
        (None, Some(name)) => name.to_string(),
        (None, None) => {
            let why =
                "The request must contain the parameter VpcId: this service has no usual network";
            return Err(Error::refused(Code::MissingParameter, why));
        }
    };
    let made =
        call.service.create_security_group(&network, &asked.group_name, &asked.description)?;
    Ok(json!({ "GroupId": made, "Tags": [] }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Group {
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    group_name: Option<String>,
    #[serde(default)]
    ip_permissions: Vec<Permission>,
    // The words of old, of one rule.
    #[serde(default)]
    ip_protocol: Option<String>,
    #[serde(default)]
    from_port: Option<i64>,
    #[serde(default)]
    to_port: Option<i64>,
    #[serde(default)]
    cidr_ip: Option<String>,
    #[serde(default)]
    source_security_group_name: Option<String>,
}

/// EC2 IpPermission.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Permission {
    ip_protocol: String,
    #[serde(default)]
    from_port: Option<i64>,
    #[serde(default)]
    to_port: Option<i64>,
    #[serde(default)]
    ip_ranges: Vec<Range>,
    #[serde(default)]
    ipv6_ranges: Vec<Range6>,
    #[serde(default)]
    user_id_group_pairs: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    cidr_ip: String,
    #[serde(default, rename = "Description")]
    _description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range6 {
    cidr_ipv6: String,
    #[serde(default, rename = "Description")]
    _description: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pair {
    group_id: Option<String>,
    group_name: Option<String>,
    #[serde(rename = "UserId")]
    _user_id: String,
    #[serde(rename = "Description")]
    _description: String,
}

impl Group {
    /// Its network and its own id.
    fn found(&self, call: &Call<'_>) -> Result<(String, String)> {
        let networks = networks(call)?;
        let (vpc, group) = match (&self.group_id, &self.group_name) {
            (Some(id), _) => group_of(&networks, id)?,
            (None, Some(name)) => {
                let usual = call.network.map(NetworkName::as_str);
                let usual = networks.iter().filter(|vpc| Some(vpc.spore.name.as_str()) == usual);
                let mut groups = usual.flat_map(|vpc| {
                    vpc.spore.security_groups.iter().map(move |group| (vpc, group))
                });
                groups.find(|(_, group)| group.group_name == *name).ok_or_else(|| {
                    let why =
                        format!("The security group '{}' does not exist", name.escape_debug());
                    Error::refused(Code::InvalidGroupNotFound, why)
                })?
            }
            (None, None) => {
                let why = "The request must contain the parameter GroupId";
                return Err(Error::refused(Code::MissingParameter, why));
            }
        };
        Ok((vpc.vpc_id.to_string(), group.group_id.to_string()))
    }

    /// What of the request's rules there is, one for each other end.
    fn rules(mut self, call: &Call<'_>, egress: bool) -> Result<Vec<Rule>> {
        let (network, group) = self.found(call)?;
        if let Some(ip_protocol) = self.ip_protocol.take() {
            let range =
                self.cidr_ip.take().map(|cidr_ip| Range { cidr_ip, _description: String::new() });
            let name = self.source_security_group_name.take();
            let pair = name.map(|name| Pair { group_name: Some(name), ..Pair::default() });
            self.ip_permissions.push(Permission {
                ip_protocol,
                from_port: self.from_port,
                to_port: self.to_port,
                ip_ranges: range.into_iter().collect(),
                ipv6_ranges: Vec::new(),
                user_id_group_pairs: pair.into_iter().collect(),
            });
        }
        let mut rules = Vec::new();
        for permission in &self.ip_permissions {
            let protocol = serde_json::from_value(permission.ip_protocol.as_str().into());
            let protocol = protocol.map_err(|_| {
                let why = format!(
                    "the protocol '{}' is not known here; there are -1, tcp, udp and icmp",
                    permission.ip_protocol.escape_debug()
                );
                Error::refused(Code::InvalidParameterValue, why)
            })?;
            let ports = ports(permission)?;
            for whom in permission.whom()? {
                let (network, group) = (network.clone(), group.clone());
                rules.push(Rule { network, group, egress, protocol, ports, whom });
            }
        }
        match rules.is_empty() {
            true => Err(Error::refused(
                Code::MissingParameter,
                "The request must contain the parameter IpPermissions, with ranges or groups",
            )),
            false => Ok(rules),
        }
    }
}

/// The ports of a rule; -1, as EC2 has it, is all.
fn ports(permission: &Permission) -> Result<Option<(u16, u16)>> {
    let port = |port: i64| {
        u16::try_from(port)
            .map_err(|_| Error::refused(Code::InvalidParameterValue, format!("{port} is no port")))
    };
    match (permission.from_port, permission.to_port) {
        (None | Some(-1), None | Some(-1)) => Ok(None),
        (Some(0), Some(65_535)) => Ok(None),
        (Some(from), to) => Ok(Some((port(from)?, port(to.unwrap_or(from))?))),
        (None, Some(to)) => Ok(Some((port(to)?, port(to)?))),
    }
}

impl Permission {
    fn whom(&self) -> Result<Vec<Whom>> {
        let mut found = Vec::new();
        for range in &self.ip_ranges {
            found.push(Whom::Cidr(range.cidr_ip.parse()?));
        }
        for range in &self.ipv6_ranges {
            found.push(Whom::Cidr6(range.cidr_ipv6.parse()?));
        }
        for pair in &self.user_id_group_pairs {
            let group = pair.group_id.as_ref().or(pair.group_name.as_ref());
            let missing = || {
                let why = "The request must contain the parameter GroupId of a pair";
                Error::refused(Code::MissingParameter, why)
            };
            found.push(Whom::Group(group.ok_or_else(missing)?.clone()));
        }
        Ok(found)
    }
}

fn delete_security_group(call: &Call<'_>) -> Result<Value> {
    let asked: Group = call.input()?;
    let (network, group) = asked.found(call)?;
    call.service.delete_security_group(&network, &group)?;
    Ok(json!({ "GroupId": group }))
}

fn authorize(call: &Call<'_>, egress: bool) -> Result<Value> {
    let rules = call.input::<Group>()?.rules(call, egress)?;
    rules.iter().try_for_each(|rule| call.service.authorize_security_group(rule))?;
    Ok(json!({}))
}

fn revoke(call: &Call<'_>, egress: bool) -> Result<Value> {
    let rules = call.input::<Group>()?.rules(call, egress)?;
    rules.iter().try_for_each(|rule| call.service.revoke_security_group(rule))?;
    Ok(json!({}))
}

fn authorize_ingress(call: &Call<'_>) -> Result<Value> {
    authorize(call, false)
}

fn authorize_egress(call: &Call<'_>) -> Result<Value> {
    authorize(call, true)
}

fn revoke_ingress(call: &Call<'_>) -> Result<Value> {
    revoke(call, false)
}

fn revoke_egress(call: &Call<'_>) -> Result<Value> {
    revoke(call, true)
}
