//! The store's networks: what each is, who has which address on it, and the process that holds it
//! while an instance is on it.

pub mod addresses;
mod collection;
pub mod groups;
pub mod probe;
pub mod process;

pub use collection::networks;

use crate::error::{Code, Error, Result};
use crate::id::{SecurityGroupId, SubnetId, VpcId, hex};
use crate::plan::network::{Cidr6, IpProtocol, IpRange, Ipv6Range, UserIdGroupPair};
use crate::record::network::{GroupIdentifier, NetworkName};
use crate::record::tag::Tag;
use crate::record::vpc::{Cidr, IpPermission, SecurityGroup, Vpc, VpcSide};
use crate::store::{self, Durability, Store, StoreLock};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;

/// The name of the network that a store has without being asked.
pub const DEFAULT: &str = "default";
/// The name of a network's first security group.
pub const DEFAULT_GROUP: &str = "default";
/// Most networks of an account. (Amazon VPC User Guide, "Amazon VPC quotas": 5, or more if asked)
const MAX_NETWORKS: usize = 200;
/// The addresses of a default network. (Amazon VPC User Guide, "Default VPC components")
const DEFAULT_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 31, 0, 0), 16);
/// Of which ranges no network has addresses: this host, loopback, link-local (instance metadata),
/// the way out's own (RFC 7335), multicast and reserved.
const TAKEN: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// What a network is to be.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Its addresses; a free range of 10.0.0.0/8 if absent.
    pub cidr: Option<Cidr>,
    /// It has no way out.
    pub isolated: bool,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// The caller's networks.
///
/// # Errors
/// The store can't be read.
pub fn own(store: &Store) -> Result<Vec<Vpc>> {
    let me = store.owner_id();
    let all = networks(store).list()?.or_warn();
    Ok(all.into_iter().filter(|network| network.owner_id == me).collect())
}

/// The caller's network of that name or id. The default one is made if it is not there.
///
/// # Errors
/// There is none.
pub fn find(store: &Store, text: &str) -> Result<Vpc> {
    let found = |all: Vec<Vpc>| {
        let is =
            |network: &Vpc| network.spore.name.as_str() == text || network.vpc_id.as_str() == text;
        all.into_iter().find(is)
    };
    if let Some(network) = found(own(store)?) {
        return Ok(network);
    }
    if text != DEFAULT {
        return Err(absent(text));
    }
    let new = NewNetwork { name: DEFAULT.parse()?, cidr: None, isolated: false, tags: Vec::new() };
    match create(store, &new) {
        // Another command has made it meanwhile.
        Err(error) if error.kind() == crate::error::Kind::Refused => {
            found(own(store)?).ok_or(error)
        }
        made => made,
    }
}

/// The error for a network that is not there.
fn absent(text: &str) -> Error {
    let text: String = text.escape_debug().take(70).collect();
    let why = format!(
        "there is no network '{text}'; 'spore network ls' lists them, 'spore network create {text}' makes one"
    );
    Error::refused(Code::InvalidVpcIDNotFound, why)
}

/// Makes a network.
///
/// # Errors
/// Its name is taken, its addresses are another's or none that a network can have.
pub fn create(store: &Store, new: &NewNetwork) -> Result<Vpc> {
    let networks = networks(store);
    let lock = store.lock()?;
    let all = own(store)?;
    if all.len() >= MAX_NETWORKS {
        let why = format!("there are {MAX_NETWORKS} networks already; delete one");
        return Err(Error::refused(Code::VpcLimitExceeded, why));
    }
    if let Some(other) = all.iter().find(|network| network.spore.name == new.name) {
        let why = format!("the name '{}' is taken by {}; choose another", new.name, other.vpc_id);
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let cidr = match new.cidr {
        Some(cidr) => cidr,
        None => free(&all, new.name.as_str() == DEFAULT)?,
    };
    check(cidr, &all)?;
    let vpc_id = VpcId::generate()?;
    let subnet = hex(&Sha256::digest(vpc_id.as_str()));
    let record = Vpc {
        owner_id: store.owner_id(),
        cidr_block: cidr,
        is_default: new.name.as_str() == DEFAULT,
        tags: new.tags.clone(),
        spore: VpcSide {
            name: new.name.clone(),
            subnet_id: SubnetId::from_digest(&subnet)?,
            isolated: new.isolated,
            creation_date: store::now(),
            security_groups: vec![default_group()?],
            addresses: Default::default(),
        },
        vpc_id,
    };
    let made = networks.create(Durability::Durable, |_| Ok(record));
    held(lock);
    made
}

/// The store's lock has been held until now.
fn held(_: StoreLock) {}

/// All may come from the group itself, and go anywhere. (Amazon VPC User Guide, "Default security
/// groups")
fn default_group() -> Result<SecurityGroup> {
    let group_id = SecurityGroupId::generate()?;
    let all = IpPermission {
        ip_protocol: IpProtocol::All,
        from_port: None,
        to_port: None,
        ip_ranges: Vec::new(),
        ipv6_ranges: Vec::new(),
        user_id_group_pairs: Vec::new(),
    };
    let members = vec![UserIdGroupPair { group_id: group_id.clone() }];
    Ok(SecurityGroup {
        group_id,
        group_name: DEFAULT_GROUP.into(),
        description: "default VPC security group".into(),
        ip_permissions: vec![IpPermission { user_id_group_pairs: members, ..all.clone() }],
        ip_permissions_egress: vec![anywhere(all)],
    })
}

fn anywhere(all: IpPermission) -> IpPermission {
    IpPermission {
        ip_ranges: vec![IpRange { cidr_ip: Cidr::of(Ipv4Addr::UNSPECIFIED, 0) }],
        ipv6_ranges: vec![Ipv6Range { cidr_ipv6: Cidr6::ANY }],
        ..all
    }
}

/// A range that no network has.
fn free(all: &[Vpc], default: bool) -> Result<Cidr> {
    let of = |(address, bits): (Ipv4Addr, u8)| Cidr::of(address, bits);
    let tens = (0..=255).map(|n| Cidr::of(Ipv4Addr::new(10, n, 0, 0), 16));
    let first = default.then(|| of(DEFAULT_CIDR));
    let is_free = |cidr: &Cidr| all.iter().all(|network| !network.cidr_block.overlaps(cidr));
    first.into_iter().chain(tens).find(is_free).ok_or_else(|| {
        Error::refused(
            Code::InvalidVpcRange,
            "all of 10.0.0.0/8 is taken; give --cidr another range",
        )
    })
}

/// # Errors
/// A network can't have these addresses: there are too many or too few (Amazon VPC User Guide, "VPC
/// CIDR blocks": /16 to /28), they mean something else, or are another network's.
fn check(cidr: Cidr, all: &[Vpc]) -> Result<()> {
    let refuse = |why: String| Err(Error::refused(Code::InvalidVpcRange, why));
    if !(16..=28).contains(&cidr.prefix()) {
        return refuse(format!("{cidr} is no size of a network; give /16 to /28"));
    }
    let taken = TAKEN.map(|(address, bits)| Cidr::of(address, bits));
    if let Some(taken) = taken.iter().find(|taken| taken.overlaps(&cidr)) {
        return refuse(format!(
            "{cidr} is in {taken}, whose addresses are no network's; give --cidr another range"
        ));
    }
    match all.iter().find(|network| network.cidr_block.overlaps(&cidr)) {
        Some(Vpc { cidr_block, spore, .. }) => refuse(format!(
            "{cidr} overlaps {cidr_block} of network '{}'; give --cidr another range",
            spore.name
        )),
        None => Ok(()),
    }
}

/// Deletes a network that no instance is on.
///
/// # Errors
/// `DependencyViolation`: one is. It can't be removed.
pub fn delete(store: &Store, text: &str) -> Result<Vpc> {
    let network = match find_made(store, text)? {
        Some(network) => network,
        None => return Err(absent(text)),
    };
    let locked = networks(store).lock(&network.vpc_id)?;
    let users = addresses::users(store, &locked.record);
    if let Some(user) = users.first() {
        let more =
            if users.len() > 1 { format!(" and {} more", users.len() - 1) } else { String::new() };
        let why = format!(
            "network '{}' has {user}{more} on it; terminate them first",
            network.spore.name
        );
        return Err(Error::refused(Code::DependencyViolation, why));
    }
    let record = locked.record.clone();
    locked.remove()?;
    Ok(record)
}

/// As [`find`], and nothing is made.
///
/// # Errors
/// The store can't be read.
pub fn find_made(store: &Store, text: &str) -> Result<Option<Vpc>> {
    let is = |network: &Vpc| network.spore.name.as_str() == text || network.vpc_id.as_str() == text;
    Ok(own(store)?.into_iter().find(is))
}

/// The security groups of a network that these name, by id or name; the default one for none.
///
/// # Errors
/// `InvalidGroup.NotFound`: one is not there.
pub fn groups(network: &Vpc, named: &[String]) -> Result<Vec<GroupIdentifier>> {
    let groups = &network.spore.security_groups;
    if named.is_empty() {
        return Ok(groups.iter().take(1).map(SecurityGroup::identifier).collect());
    }
    named.iter().map(|text| group(network, text).map(SecurityGroup::identifier)).collect()
}

/// The security group of a network that `text` names.
///
/// # Errors
/// As [`groups`]'s.
pub fn group<'a>(network: &'a Vpc, text: &str) -> Result<&'a SecurityGroup> {
    let is = |group: &&SecurityGroup| group.group_name == text || group.group_id.as_str() == text;
    network.spore.security_groups.iter().find(is).ok_or_else(|| {
        let (text, name) = (text.escape_debug(), &network.spore.name);
        let why = format!(
            "network '{name}' has no security group '{text}'; 'spore network group ls {name}' lists them"
        );
        Error::refused(Code::InvalidGroupNotFound, why)
    })
}
