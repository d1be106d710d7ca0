//! Security groups: which packets pass to and from an instance. A running network's process is told
//! of a change at once.

use super::collection::{lives, networks};
use super::{find, group, process};
use crate::control::network::Request;
use crate::error::{Code, Error, Result};
use crate::id::SecurityGroupId;
use crate::plan::network::{
    Cidr, Cidr6, IpPermission, IpProtocol, IpRange, Ipv6Range, UserIdGroupPair,
};
use crate::record::instance::InstanceRecord;
use crate::record::vpc::{SecurityGroup, Vpc};
use crate::store::{Durability, Store};

/// Most groups of a network, and rules of a group each way. (Amazon VPC User Guide, "Amazon VPC
/// quotas")
const MAX_GROUPS: usize = 500;
const MAX_RULES: usize = 60;
/// Most characters of a name, and of a description. (EC2 CreateSecurityGroup)
const MAX_TEXT: usize = 255;

/// What is let in or out.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The network.
    pub network: String,
    /// The group.
    pub group: String,
    /// Out; else in.
    pub egress: bool,
    /// What it is about.
    pub protocol: IpProtocol,
    /// The first and the last port; all if absent.
    pub ports: Option<(u16, u16)>,
    /// From or to whom.
    pub whom: Whom,
}

/// The other end of a rule.
#[derive(Clone, Debug)]
pub enum Whom {
    /// These addresses.
    Cidr(Cidr),
    /// These of IPv6.
    Cidr6(Cidr6),
    /// The members of a group, by its name or id.
    Group(String),
}

/// Makes a group, whose members may send everything and get nothing. (EC2 CreateSecurityGroup)
///
/// # Errors
/// `InvalidGroup.Duplicate`; `InvalidParameterValue` for a name that is none.
pub fn create(
    store: &Store,
    network: &str,
    name: &str,
    description: &str,
) -> Result<SecurityGroup> {
    let refuse = |code, why: String| Err(Error::refused(code, why));
    for (what, text) in [("name", name), ("description", description)] {
        let fits = text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
        if !fits || (what == "name" && (text.is_empty() || text.starts_with("sg-"))) {
            let why = format!(
                "a security group's {what} has up to {MAX_TEXT} characters, and a name begins with no sg-"
            );
            return refuse(Code::InvalidParameterValue, why);
        }
    }
    let id = find(store, network)?.vpc_id;
    let mut locked = networks(store).lock(&id)?;
    let groups = &mut locked.record.spore.security_groups;
    if let Some(other) = groups.iter().find(|group| group.group_name == name) {
        let why = format!("the name '{name}' is taken by {}; choose another", other.group_id);
        return refuse(Code::InvalidGroupDuplicate, why);
    }
    if groups.len() >= MAX_GROUPS {
        return refuse(
            Code::InvalidParameterValue,
            format!("there are {MAX_GROUPS} groups already"),
        );
    }
    let mut group = super::default_group()?;
    group.ip_permissions.clear();
    group.group_name = name.to_owned();
    group.description = description.to_owned();
    groups.push(group.clone());
    locked.save(Durability::Durable)?;
    tell(store, &locked.record)?;
    Ok(group)
}

/// Lets in or out what a rule says, or no longer.
///
/// # Errors
/// `InvalidPermission.Duplicate` or `.NotFound`; the group is not there, or has too many rules.
pub fn change(store: &Store, rule: &Rule, allow: bool) -> Result<()> {
    let id = find(store, &rule.network)?.vpc_id;
    let mut locked = networks(store).lock(&id)?;
    let wanted = permission(&locked.record, rule)?;
    let id = group(&locked.record, &rule.group)?.group_id.clone();
    let groups = locked.record.spore.security_groups.iter_mut();
    for group in groups.filter(|group| group.group_id == id) {
        let permissions =
            if rule.egress { &mut group.ip_permissions_egress } else { &mut group.ip_permissions };
        let there = permissions.iter_mut().any(|there| is_of(there, &wanted, !allow));
        permissions.retain(|permission| !is_empty(permission));
        match (allow, there) {
            (true, true) => {
                let why = format!("security group '{}' has this rule already", group.group_name);
                return Err(Error::refused(Code::InvalidPermissionDuplicate, why));
            }
            (false, false) => {
                let why = format!("security group '{}' has no such rule", group.group_name);
                return Err(Error::refused(Code::InvalidPermissionNotFound, why));
            }
            (true, false) if permissions.len() >= MAX_RULES => {
                let why =
                    format!("security group '{}' has {MAX_RULES} rules already", group.group_name);
                return Err(Error::refused(Code::InvalidParameterValue, why));
            }
            (true, false) => permissions.push(wanted.clone()),
            (false, true) => {}
        }
    }
    locked.save(Durability::Durable)?;
    tell(store, &locked.record)
}

/// Deletes a group that no instance is in and no other names.
///
/// # Errors
/// `InvalidGroup.InUse`; `OperationNotPermitted` for the default one.
pub fn delete(store: &Store, network: &str, text: &str) -> Result<()> {
    let id = find(store, network)?.vpc_id;
    let mut locked = networks(store).lock(&id)?;
    let found = group(&locked.record, text)?.clone();
    let groups = &locked.record.spore.security_groups;
    if groups.first().is_some_and(|first| first.group_id == found.group_id) {
        return Err(Error::refused(
            Code::OperationNotPermitted,
            "the default group stays".to_owned(),
        ));
    }
    let names = |permissions: &[IpPermission]| {
        let pairs = permissions.iter().flat_map(|permission| &permission.user_id_group_pairs);
        pairs.into_iter().any(|pair| pair.group_id == found.group_id)
    };
    let mut others = groups.iter().filter(|other| other.group_id != found.group_id);
    let user =
        others.find(|other| names(&other.ip_permissions) || names(&other.ip_permissions_egress));
    let user = user.map(|other| other.group_name.clone());
    let user = user.or_else(|| member(store, &locked.record, &found.group_id));
    if let Some(user) = user {
        let why = format!("security group '{}' is in use by {user}", found.group_name);
        return Err(Error::refused(Code::InvalidGroupInUse, why));
    }
    locked.record.spore.security_groups.retain(|group| group.group_id != found.group_id);
    locked.save(Durability::Durable)?;
    tell(store, &locked.record)
}

/// An instance that is in the group.
fn member(store: &Store, network: &Vpc, group: &SecurityGroupId) -> Option<String> {
    let mut leases = network.spore.addresses.values();
    let found = leases.find(|lease| {
        let record = store.collection::<InstanceRecord>().get(&lease.instance_id);
        let groups = record.iter().flat_map(|record| &record.instance.network_interfaces);
        let mut groups = groups.flat_map(|interface| &interface.groups);
        lives(store, &lease.instance_id) == Some(true) && groups.any(|of| of.group_id == *group)
    });
    found.map(|lease| lease.instance_id.to_string())
}

fn permission(network: &Vpc, rule: &Rule) -> Result<IpPermission> {
    let mut permission = IpPermission {
        ip_protocol: rule.protocol,
        from_port: rule.ports.map(|(from, _)| from),
        to_port: rule.ports.map(|(_, to)| to),
        ip_ranges: Vec::new(),
        ipv6_ranges: Vec::new(),
        user_id_group_pairs: Vec::new(),
    };
    match &rule.whom {
        Whom::Cidr(cidr) => permission.ip_ranges.push(IpRange { cidr_ip: *cidr }),
        Whom::Cidr6(cidr) => permission.ipv6_ranges.push(Ipv6Range { cidr_ipv6: *cidr }),
        Whom::Group(text) => {
            let group_id = group(network, text)?.group_id.clone();
            permission.user_id_group_pairs.push(UserIdGroupPair { group_id });
        }
    }
    Ok(permission)
}

/// Whether a permission has what `wanted`, which has one other end, says; it is taken out with
/// `remove`.
fn is_of(there: &mut IpPermission, wanted: &IpPermission, remove: bool) -> bool {
    let about = |permission: &IpPermission| {
        (permission.ip_protocol, permission.from_port, permission.to_port)
    };
    if about(there) != about(wanted) {
        return false;
    }
    let count = |permission: &IpPermission| {
        permission.ip_ranges.len()
            + permission.ipv6_ranges.len()
            + permission.user_id_group_pairs.len()
    };
    let mut without = there.clone();
    without.ip_ranges.retain(|range| !wanted.ip_ranges.contains(range));
    without.ipv6_ranges.retain(|range| !wanted.ipv6_ranges.contains(range));
    without.user_id_group_pairs.retain(|pair| !wanted.user_id_group_pairs.contains(pair));
    let found = count(&without) < count(there);
    if found && remove {
        *there = without;
    }
    found
}

fn is_empty(permission: &IpPermission) -> bool {
    permission.ip_ranges.is_empty()
        && permission.ipv6_ranges.is_empty()
        && permission.user_id_group_pairs.is_empty()
}

/// Tells the process of a network, if there is one.
fn tell(store: &Store, network: &Vpc) -> Result<()> {
    let groups = process::rules(&network.spore.security_groups);
    process::ask_running(store, network, &Request::Groups { groups }, &[]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_allowed_once_and_revoked() {
        let (_dir, store) = Store::scratch();
        create(&store, "default", "web", "servers").unwrap();
        assert_eq!(
            create(&store, "default", "web", "").unwrap_err().code(),
            Some(Code::InvalidGroupDuplicate)
        );
        let rule = |whom: Whom, egress: bool| Rule {
            network: "default".into(),
            group: "web".into(),
            egress,
            protocol: if egress { IpProtocol::All } else { IpProtocol::Tcp },
            ports: (!egress).then_some((80, 80)),
            whom,
        };
        let anywhere = || Whom::Cidr("0.0.0.0/0".parse().unwrap());
        let code = |result: Result<()>| result.unwrap_err().code();
        change(&store, &rule(anywhere(), false), true).unwrap();
        let again = change(&store, &rule(anywhere(), false), true);
        assert_eq!(code(again), Some(Code::InvalidPermissionDuplicate));
        change(&store, &rule(Whom::Group("default".into()), false), true).unwrap();
        // What a group begins with is one permission for both families.
        change(&store, &rule(anywhere(), true), false).unwrap();
        let again = change(&store, &rule(anywhere(), true), false);
        assert_eq!(code(again), Some(Code::InvalidPermissionNotFound));
        let network = find(&store, "default").unwrap();
        let web = group(&network, "web").unwrap();
        assert_eq!(web.ip_permissions.len(), 2);
        assert!(web.ip_permissions_egress[0].ip_ranges.is_empty());
        assert_eq!(web.ip_permissions_egress[0].ipv6_ranges.len(), 1);
        assert_eq!(code(delete(&store, "default", "default")), Some(Code::OperationNotPermitted));
        delete(&store, "default", "web").unwrap();
        assert_eq!(code(delete(&store, "default", "web")), Some(Code::InvalidGroupNotFound));
    }
}
