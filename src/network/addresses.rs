//! Who has which address on a network: each interface one, for the life of its instance. What says
//! so is the network's record, and is changed under its lock.

use super::collection::{lives, networks};
use crate::error::{Code, Error, Result};
use crate::id::{InstanceId, NetworkInterfaceId, VpcId};
use crate::record::vpc::{Lease, Vpc};
use crate::store::{Durability, Store};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

/// An address whose instance is not there is free after so many seconds: it may be being launched.
const PENDING: u64 = 600;

/// Gives each of these interfaces an address, its own if it has one. All get one, or none does.
///
/// # Errors
/// `InsufficientFreeAddressesInSubnet`; the record can't be written.
pub fn assign(
    store: &Store,
    network: &VpcId,
    interfaces: &[(InstanceId, NetworkInterfaceId)],
) -> Result<(Vpc, Vec<Ipv4Addr>)> {
    let mut locked = networks(store).lock(network)?;
    let now = now();
    let mut given = give(&mut locked.record, interfaces, now);
    if given.is_none() {
        let gone = |lease: &Lease| match lives(store, &lease.instance_id) {
            Some(lives) => !lives,
            None => now.saturating_sub(lease.since) > PENDING,
        };
        locked.record.spore.addresses.retain(|_, lease| !gone(lease));
        given = give(&mut locked.record, interfaces, now);
    }
    let Some(given) = given else {
        let Vpc { cidr_block, spore, .. } = &locked.record;
        let why = format!(
            "network '{}' ({cidr_block}) has fewer than {} addresses left; terminate instances, or make another network",
            spore.name,
            interfaces.len()
        );
        return Err(Error::refused(Code::InsufficientFreeAddressesInSubnet, why));
    };
    locked.save(Durability::Volatile)?;
    Ok((locked.record.clone(), given))
}

/// Takes back the addresses of instances that are not there any more.
///
/// # Errors
/// The record can't be written.
pub fn release(store: &Store, network: &VpcId, instances: &BTreeSet<InstanceId>) -> Result<()> {
    let mut locked = networks(store).lock(network)?;
    locked.record.spore.addresses.retain(|_, lease| !instances.contains(&lease.instance_id));
    locked.save(Durability::Volatile)
}

/// The instances on a network.
pub fn users(store: &Store, network: &Vpc) -> Vec<InstanceId> {
    let leases = network.spore.addresses.values();
    let ids: BTreeSet<&InstanceId> = leases.map(|lease| &lease.instance_id).collect();
    ids.into_iter().filter(|id| lives(store, id) == Some(true)).cloned().collect()
}

/// `None`, and nothing is changed, if there are not as many.
fn give(
    record: &mut Vpc,
    interfaces: &[(InstanceId, NetworkInterfaceId)],
    now: u64,
) -> Option<Vec<Ipv4Addr>> {
    let addresses = &record.spore.addresses;
    let mut free = record.cidr_block.hosts().filter(|address| !addresses.contains_key(address));
    let own = |interface: &NetworkInterfaceId| {
        let mut leases = addresses.iter();
        leases.find(|(_, lease)| lease.network_interface_id == *interface).map(|(own, _)| *own)
    };
    let given = interfaces.iter().map(|(_, interface)| own(interface).or_else(|| free.next()));
    let given: Vec<Ipv4Addr> = given.collect::<Option<_>>()?;
    for (address, (instance_id, network_interface_id)) in given.iter().zip(interfaces) {
        let lease = Lease {
            network_interface_id: network_interface_id.clone(),
            instance_id: instance_id.clone(),
            since: now,
        };
        record.spore.addresses.insert(*address, lease);
    }
    Some(given)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{NewNetwork, create, delete, find};

    fn interface(n: u32) -> (InstanceId, NetworkInterfaceId) {
        (format!("i-{n:017x}").parse().unwrap(), format!("eni-{n:017x}").parse().unwrap())
    }

    #[test]
    fn each_interface_has_an_address_of_its_own_and_keeps_it() {
        let (_dir, store) = Store::scratch();
        let cidr = Some("10.0.0.0/28".parse().unwrap());
        let new =
            NewNetwork { name: "small".parse().unwrap(), cidr, isolated: false, tags: Vec::new() };
        let id = create(&store, &new).unwrap().vpc_id;
        let assign = |range: std::ops::Range<u32>| {
            super::assign(&store, &id, &range.map(interface).collect::<Vec<_>>()).map(|(_, a)| a)
        };
        let first = assign(0..8).unwrap();
        assert_eq!(first[0], Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 8);
        assert_eq!(assign(0..8).unwrap(), first);
        // Eleven there are, and all are given or none.
        let error = assign(8..12).unwrap_err();
        assert_eq!(error.code(), Some(Code::InsufficientFreeAddressesInSubnet));
        assert!(error.message().contains("small") && !error.message().contains('\n'), "{error}");
        assert_eq!(assign(8..11).unwrap().len(), 3);
        release(&store, &id, &[interface(3).0].into()).unwrap();
        assert_eq!(assign(20..21).unwrap(), [first[3]]);
    }

    #[test]
    fn ranges_do_not_overlap() {
        let (_dir, store) = Store::scratch();
        let make = |name: &str, cidr: Option<&str>| {
            let cidr = cidr.map(|cidr| cidr.parse().unwrap());
            let name = name.parse().unwrap();
            create(&store, &NewNetwork { name, cidr, isolated: false, tags: Vec::new() })
        };
        assert_eq!(find(&store, "default").unwrap().cidr_block.to_string(), "172.31.0.0/16");
        assert!(find(&store, "default").unwrap().is_default);
        assert_eq!(make("a", None).unwrap().cidr_block.to_string(), "10.0.0.0/16");
        assert_eq!(make("b", Some("10.1.128.0/20")).unwrap().cidr_block.prefix(), 20);
        assert_eq!(make("c", None).unwrap().cidr_block.to_string(), "10.2.0.0/16");
        for (cidr, why) in [
            ("10.1.0.0/16", "overlaps 10.1.128.0/20 of network 'b'"),
            ("10.2.9.0/24", "overlaps"),
            ("169.254.0.0/20", "no network's"),
            ("192.0.0.0/24", "no network's"),
            ("224.1.0.0/16", "no network's"),
            ("10.0.0.0/8", "/16 to /28"),
            ("10.9.0.0/29", "/16 to /28"),
        ] {
            let error = make("d", Some(cidr)).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidVpcRange), "{cidr}");
            assert!(error.message().contains(why), "{error}");
        }
        assert!(
            make("a", Some("10.77.0.0/16")).unwrap_err().message().contains("is taken by vpc-")
        );
        delete(&store, "b").unwrap();
        assert!(delete(&store, "b").is_err() && find(&store, "b").is_err());
        assert!(make("d", Some("10.1.0.0/16")).is_ok());
    }
}
