//! Whether this host lets this user have networks: one is made to see, with everything that an
//! instance's takes, and nothing of it stays.

use super::{NewNetwork, create, delete, process};
use crate::control::network::Request;
use crate::error::{Error, Result};
use crate::id::{InstanceId, NetworkInterfaceId, VpcId};
use crate::plan::network::Port;
use crate::record::network::{Network, NetworkInterface};
use crate::store::Store;

/// Makes namespaces, a tap, its addresses and routes, and the rules.
///
/// # Errors
/// What this host does not allow, and what helps.
pub fn networks(store: &Store) -> Result<()> {
    let name = format!("doctor-{}", &VpcId::generate()?.as_str()[VpcId::PREFIX.len()..]);
    let new = NewNetwork { name: name.parse()?, cidr: None, isolated: true, tags: Vec::new() };
    let network = create(store, &new)?;
    let probed = port(network.cidr_block.nth(4), new.name).and_then(|port| {
        let request = Request::Add { port: Box::new(port), publish: Vec::new() };
        let taps = process::ask(store, &network, &request, &[], &|| None)?;
        if taps.is_empty() { Err(Error::failure("a network gives no tap")) } else { Ok(()) }
    });
    let deleted = delete(store, &name).map(drop);
    probed.and(deleted)
}

/// The programs that a network takes, which are not there, and what each is for.
pub fn missing() -> Vec<(&'static str, &'static str)> {
    let programs = [("pasta", "networks have no way out (package passt)")];
    programs.into_iter().filter(|(name, _)| !process::has(name)).collect()
}

fn port(address: std::net::Ipv4Addr, name: crate::record::network::NetworkName) -> Result<Port> {
    let instance = InstanceId::generate()?;
    let interface = NetworkInterface::new(&instance, 0, Network::Named(name), 1)?;
    let id: NetworkInterfaceId = interface.network_interface_id;
    Ok(Port {
        interface: id,
        instance,
        mac: interface.mac_address,
        address,
        address6: None,
        queues: 1,
        names: Vec::new(),
        groups: Vec::new(),
        metadata: None,
    })
}
