//! An instance's interfaces on the store's networks: their addresses, their taps, the host's ports
//! that are passed on to them, and what is done where a network's process was killed.

use super::dial::Call;
use super::dir::InstanceDir;
use super::pool::parallel;
use super::{client, metadata};
use crate::control::Request as VmmRequest;
use crate::control::network::{MAX_PACKET, Published, Request, Response};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{InstanceId, VpcId};
use crate::metadata::tree::{self, Given, Subnet};
use crate::network::{self as networks, addresses, process};
use crate::plan::network::{IpProtocol, Port};
use crate::record::instance::{Instance, InstanceRecord};
use crate::record::network::{
    GroupIdentifier, InstanceIpv6Address, MAX_PORTS, Network, NetworkInterface, NetworkName,
    PortProtocol, PublishedPort,
};
use crate::record::vpc::Vpc;
use crate::store::Store;
use crate::sys::passing;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a tap may be in use still: the kernel closes what a VMM had open one after the other.
const PATIENCE: Duration = Duration::from_secs(3);
/// Likewise a port of the host's that was the instance's own before.
const CLOSING: Duration = Duration::from_millis(200);
/// How often it is tried meanwhile.
const TICK: Duration = Duration::from_millis(10);

/// Gives interfaces on the store's networks their addresses there, and the security groups that
/// these name; with `publish_all` also a port of the host's for each that the groups open to all.
///
/// # Errors
/// A network or a group is not there, or has too few addresses; no port is open to all, or too many
/// are. Nothing is given then.
pub fn place(
    store: &Store,
    mut interfaces: Vec<(InstanceId, &mut NetworkInterface)>,
    groups: &[String],
    publish_all: bool,
) -> Result<()> {
    let name = |interface: &NetworkInterface| match &interface.spore.network {
        Network::Named(name) => Some(name.clone()),
        Network::Tap(_) => None,
    };
    let names: BTreeSet<_> =
        interfaces.iter().filter_map(|(_, interface)| name(interface)).collect();
    for wanted in names {
        let network = networks::find(store, wanted.as_str())?;
        let groups = networks::groups(&network, groups)?;
        let open = if publish_all { open_ports(&network, &groups)? } else { Vec::new() };
        let on = interfaces
            .iter_mut()
            .filter(|(_, interface)| name(interface).as_ref() == Some(&wanted));
        let mut on: Vec<_> = on.collect();
        let ids = on.iter().map(|(id, on)| (id.clone(), on.network_interface_id.clone()));
        let ids: Vec<_> = ids.collect();
        let (network, given) = addresses::assign(store, &network.vpc_id, &ids)?;
        for ((_, interface), address) in on.iter_mut().zip(given) {
            interface.private_ip_address = Some(address);
            interface.ipv6_addresses =
                vec![InstanceIpv6Address { ipv6_address: network.ipv6_of(address) }];
            interface.spore.ports.extend(&open);
            interface.subnet_id = Some(network.spore.subnet_id.clone());
            interface.vpc_id = Some(network.vpc_id.clone());
            interface.groups.clone_from(&groups);
        }
    }
    Ok(())
}

/// A port of the host's, whichever is free, for each port that these groups of a network open to
/// all of IPv4.
fn open_ports(network: &Vpc, groups: &[GroupIdentifier]) -> Result<Vec<PublishedPort>> {
    let name = &network.spore.name;
    let of = network.spore.security_groups.iter();
    let of = of.filter(|group| groups.iter().any(|named| named.group_id == group.group_id));
    let open = of
        .flat_map(|group| &group.ip_permissions)
        .filter(|permission| permission.ip_ranges.iter().any(|range| range.cidr_ip.prefix() == 0));
    let ports = open.filter_map(|permission| {
        let protocol = match permission.ip_protocol {
            IpProtocol::Tcp => PortProtocol::Tcp,
            IpProtocol::Udp => PortProtocol::Udp,
            _ => return None,
        };
        Some((protocol, permission.from_port?.max(1)..=permission.to_port?))
    });
    let port = |protocol: PortProtocol, guest_port: u16| PublishedPort {
        host_ip: Ipv4Addr::LOCALHOST.into(),
        host_port: 0,
        guest_port,
        protocol,
    };
    let mut found: Vec<PublishedPort> = Vec::new();
    for port in ports.flat_map(|(protocol, range)| range.map(move |n| port(protocol, n))) {
        if !found.contains(&port) {
            found.push(port);
        }
        if found.len() > MAX_PORTS {
            let why = format!(
                "the security groups open more than {MAX_PORTS} ports to all; publish single ones with -p"
            );
            return Err(Error::refused(Code::InvalidParameterCombination, why));
        }
    }
    if found.is_empty() {
        let why = format!(
            "the security groups open no port to all; open one by 'spore network group allow {name} GROUP --protocol tcp \
             --port 80 --cidr 0.0.0.0/0', or publish one with -p"
        );
        return Err(Error::refused(Code::InvalidParameterCombination, why));
    }
    Ok(found)
}

/// Takes back the addresses of interfaces of instances that did not come to be.
pub fn take_back<'a>(
    store: &Store,
    interfaces: impl Iterator<Item = (&'a InstanceId, &'a NetworkInterface)>,
) {
    let mut gone: BTreeMap<&VpcId, BTreeSet<InstanceId>> = BTreeMap::new();
    for (instance, interface) in interfaces {
        if let Some(network) = &interface.vpc_id {
            gone.entry(network).or_default().insert(instance.clone());
        }
    }
    for (network, instances) in gone {
        // What fails is free later.
        let _ = addresses::release(store, network, &instances);
    }
}

/// The network of an interface on one of the store's.
///
/// # Errors
/// It is gone.
fn of(store: &Store, interface: &NetworkInterface) -> Result<Vpc> {
    let gone = || Error::failure(format!("network '{}' is not there", interface.spore.network));
    let id = interface.vpc_id.as_ref().ok_or_else(gone)?;
    networks::networks(store).get(id)
}

/// Makes the tap of an instance's interface of that index, and has its network serve it; a
/// descriptor for each queue. The host's ports that are passed on to it are taken first: they may
/// be somebody's.
///
/// # Errors
/// The network's process can't be started; a port is taken.
pub fn attach(
    store: &Store,
    record: &mut InstanceRecord,
    index: usize,
    user_data: Option<&[u8]>,
) -> Result<Vec<OwnedFd>> {
    let network = of(store, &record.instance.network_interfaces[index])?;
    // What was passed on to its last VMM is passed on no longer.
    let interface = record.instance.network_interfaces[index].network_interface_id.clone();
    process::ask_running(store, &network, &Request::Remove { interface }, &[])?;
    let ports = &mut record.instance.network_interfaces[index].spore.ports;
    let deadline = Instant::now() + CLOSING;
    let sockets = ports.iter_mut().map(|port| bind(port, deadline)).collect::<Result<Vec<_>>>()?;
    // Who launches many would look after all of them each time.
    if !process::is_running(store, &network)? {
        revive(store, &network)?;
    }
    let interface = &record.instance.network_interfaces[index];
    let port = port(store, record, interface, user_data)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It may be killed again at any time.
        let taps = add(store, &network, &port, &sockets, &|| living_tap(store, &network))?;
        if !taps.is_empty() {
            return Ok(taps);
        }
        // Its last VMM has it still.
        if Instant::now() >= deadline {
            let why = format!("the tap of {} is in use", interface.network_interface_id);
            return Err(Error::refused(Code::InvalidNetworkInterfaceInUse, why));
        }
        std::thread::sleep(TICK);
    }
}

/// Has the process of a network serve an interface, and pass what comes to these sockets on to it.
fn add(
    store: &Store,
    network: &Vpc,
    port: &Port,
    sockets: &[(Published, OwnedFd)],
    tap: &dyn Fn() -> Option<OwnedFd>,
) -> Result<Vec<OwnedFd>> {
    let publish = sockets.iter().map(|(published, _)| *published).collect();
    let request = Request::Add { port: Box::new(port.clone()), publish };
    let fds: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    process::ask(store, network, &request, &fds, tap)
}

/// Takes a port of the host's; 0 becomes one that is free. One that is in use may be free until the
/// deadline.
fn bind(port: &mut PublishedPort, deadline: Instant) -> Result<(Published, OwnedFd)> {
    let (host, tcp) = (port.host(), port.protocol == PortProtocol::Tcp);
    let once = || -> io::Result<(OwnedFd, SocketAddr)> {
        if tcp {
            let listener = TcpListener::bind(host)?;
            let address = listener.local_addr()?;
            return Ok((listener.into(), address));
        }
        let socket = UdpSocket::bind(host)?;
        let address = socket.local_addr()?;
        Ok((socket.into(), address))
    };
    let (socket, address) = loop {
        match once() {
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(TICK);
            }
            bound => break bound.map_err(|cause| taken(port, &cause))?,
        }
    };
    port.host_port = address.port();
    Ok((Published { port: port.guest_port, tcp }, socket))
}

/// Why the host's port can't be had.
fn taken(port: &PublishedPort, cause: &io::Error) -> Error {
    let (host, protocol) = (port.host(), port.protocol);
    match cause.kind() {
        io::ErrorKind::AddrInUse => Error::refused(
            Code::InvalidParameterValue,
            format!("port {host}/{protocol} is in use; give another, or 0 for any"),
        ),
        io::ErrorKind::AddrNotAvailable => Error::refused(
            Code::InvalidParameterValue,
            format!("{} is no address of this host", port.host_ip),
        ),
        io::ErrorKind::PermissionDenied => Error::refused(
            Code::OperationNotPermitted,
            format!(
                "port {host}/{protocol} is not for this user: give one above 1023, or 'sysctl \
                 net.ipv4.ip_unprivileged_port_start={}' (as root)",
                port.host_port
            ),
        ),
        _ => Error::failure(format!("cannot take port {host}/{protocol}: {cause}")),
    }
}

/// What the process of a network is told of an instance's interface.
fn port(
    store: &Store,
    record: &InstanceRecord,
    interface: &NetworkInterface,
    user_data: Option<&[u8]>,
) -> Result<Port> {
    let (id, instance) = (&interface.network_interface_id, &record.instance);
    let address = interface.private_ip_address;
    let address = address.ok_or_else(|| Error::failure(format!("{id} has no address")))?;
    let mut names = vec![tree::host_name(address), instance.instance_id.to_string()];
    // A name that is a label of DNS.
    let label = |name: &str| name.to_ascii_lowercase().parse::<NetworkName>().ok();
    if let Some(name) = instance.name() {
        let numbered = format!("{name}-{}", instance.ami_launch_index);
        names.extend([numbered.as_str(), name].into_iter().filter_map(label).map(String::from));
    }
    // The metadata is the instance's, whichever interface asks.
    let on_networks = instance.network_interfaces.iter().filter(|i| i.vpc_id.is_some());
    let subnets =
        on_networks.map(|interface| subnet(store, interface)).collect::<Result<Vec<_>>>()?;
    let given = Given { user_data, subnets: &subnets };
    let metadata = serde_json::to_value(tree::of(record, given));
    Ok(Port {
        interface: id.clone(),
        instance: instance.instance_id.clone(),
        mac: interface.mac_address,
        address,
        address6: interface.ipv6_addresses.first().map(|address| address.ipv6_address),
        queues: interface.spore.queues,
        names,
        groups: interface.groups.iter().map(|group| group.group_id.clone()).collect(),
        metadata: Some(metadata.or_fail(|| "write an instance's metadata")?),
    })
}

/// Has the networks that a running instance is on know its names and its metadata as its record has
/// them now: its tags and its metadata options have changed.
///
/// # Errors
/// Its user data can't be read; a network's process does not answer.
pub fn update(dir: &InstanceDir, record: &InstanceRecord) -> Result<()> {
    let store = dir.store();
    for interface in record.instance.network_interfaces.iter().filter(|each| each.vpc_id.is_some())
    {
        let network = of(store, interface)?;
        let user_data = metadata::user_data(dir)?;
        let Port { interface, names, metadata, .. } =
            port(store, record, interface, user_data.as_deref())?;
        let metadata = metadata.unwrap_or_default();
        let request = Request::Update { interface, names, metadata };
        // Where there is no process, the next one gets what is so then.
        process::ask_running(store, &network, &request, &[])?;
    }
    Ok(())
}

/// What an instance is told of the network of one of its interfaces.
fn subnet(store: &Store, interface: &NetworkInterface) -> Result<Subnet> {
    let network = of(store, interface)?;
    let six = !interface.ipv6_addresses.is_empty();
    Ok(Subnet {
        device_index: interface.attachment.device_index,
        ipv4_cidr: network.cidr_block.to_string(),
        ipv6_cidr: six.then(|| network.ipv6_cidr_block().to_string()),
        dhcp6: six,
    })
}

/// Its first interface on a network of the store's, and the address that it has there.
fn reachable(instance: &Instance) -> Option<(&NetworkInterface, Ipv4Addr)> {
    let mut interfaces = instance.network_interfaces.iter();
    interfaces.find_map(|interface| Some((interface, interface.private_ip_address?)))
}

/// Whether an instance is on a network of the store's.
pub fn is_on(instance: &Instance) -> bool {
    reachable(instance).is_some()
}

/// Calls a TCP port of an instance once by its network, and waits so long for its answer. The
/// network's security groups let it pass: who asks is their owner.
///
/// # Errors
/// It is on no network of the store's, or the network's process is not there and can't be started.
pub fn connect(store: &Store, instance: &Instance, port: u16, patience: Duration) -> Result<Call> {
    let id = &instance.instance_id;
    let Some((interface, address)) = reachable(instance) else {
        let why = format!("{id} is on no network of the store's; launch it with --network default");
        return Err(Error::refused(Code::UnsupportedOperation, why));
    };
    let network = of(store, interface)?;
    revive(store, &network)?;
    let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    let request = Request::Connect { address, port, patience };
    Ok(match process::ask_running(store, &network, &request, &[])? {
        Some((Response::Refused {}, _)) => Call::Nobody,
        Some((_, mut fds)) => fds.pop().map_or(Call::Silent, Call::Connected),
        // It ends with its last instance.
        None => Call::Silent,
    })
}

/// Starts the processes of networks that were killed while instances were on them.
///
/// # Errors
/// The store can't be read. A network that can't be revived is warned of.
pub fn revive_all(store: &Store) -> Result<()> {
    for network in networks::own(store)? {
        if let Err(error) = revive(store, &network) {
            store.context().warn(error.message());
        }
    }
    Ok(())
}

/// The running instances that have an interface which nobody serves: what could not be revived.
pub fn unserved(store: &Store) -> BTreeSet<InstanceId> {
    let networks = networks::own(store).unwrap_or_default();
    let missing = networks.iter().filter_map(|network| missing(store, network).ok());
    missing.flatten().map(|(dir, _)| dir.id().clone()).collect()
}

/// Gives a network that was killed back what it had: its process, in its namespace if that lives on
/// by a tap that a VMM has, and the interfaces of the instances that run.
fn revive(store: &Store, network: &Vpc) -> Result<()> {
    if missing(store, network)?.is_empty() {
        return process::clear(store, network);
    }
    let _one = process::reviving(store, network)?;
    let missing = missing(store, network)?;
    // The first has the process started. It serves the others one after the other, and need not
    // wait for us between two of them.
    let Some((first, others)) = missing.split_first() else { return Ok(()) };
    serve_again(store, network, first)?;
    parallel(others, |each| serve_again(store, network, each)).into_iter().collect()
}

/// Has a network's process serve the interfaces of an instance that runs.
fn serve_again(
    store: &Store,
    network: &Vpc,
    (dir, record): &(InstanceDir, InstanceRecord),
) -> Result<()> {
    let user_data = metadata::user_data(dir)?;
    for interface in on(record, network) {
        let port = port(store, record, interface, user_data.as_deref())?;
        // What a killed process had is closed one after the other.
        let deadline = Instant::now() + PATIENCE;
        let ports = interface.spore.ports.iter().map(|port| bind(&mut port.clone(), deadline));
        let warned = |error: Error| store.context().warn(error.message());
        let sockets: Vec<_> = ports.filter_map(|bound| bound.map_err(warned).ok()).collect();
        if !add(store, network, &port, &sockets, &|| living_tap(store, network))?.is_empty() {
            // The namespace went before there was anybody to keep it.
            let id = dir.id();
            store.context().warn(format!(
                "{id} lost its network while it was launched; stop it, and start it again"
            ));
        }
    }
    Ok(())
}

/// A tap of a network's, from an instance that runs on it.
fn living_tap(store: &Store, network: &Vpc) -> Option<OwnedFd> {
    let ids: BTreeSet<&InstanceId> =
        network.spore.addresses.values().map(|lease| &lease.instance_id).collect();
    ids.into_iter().find_map(|id| {
        let (dir, record) = living(store, id)?;
        on(&record, network).find_map(|interface| tap_of(&dir, interface).ok())
    })
}

/// An instance that runs.
fn living(store: &Store, id: &InstanceId) -> Option<(InstanceDir, InstanceRecord)> {
    let dir = InstanceDir::new(store, id);
    let lives = dir.vmm_alive().unwrap_or(false);
    let record = if lives { dir.record().ok()?? } else { return None };
    Some((dir, record))
}

/// The instances that run on a network and have an interface that its process does not know.
fn missing(store: &Store, network: &Vpc) -> Result<Vec<(InstanceDir, InstanceRecord)>> {
    let status = match process::ask_running(store, network, &Request::Status {}, &[])? {
        Some((Response::Status(status), _)) => status,
        _ => Default::default(),
    };
    let known: BTreeSet<_> = status.interfaces.into_iter().collect();
    let leases = network.spore.addresses.values();
    let unknown = leases.filter(|lease| !known.contains(&lease.network_interface_id));
    let ids: BTreeSet<&InstanceId> = unknown.map(|lease| &lease.instance_id).collect();
    Ok(ids.into_iter().filter_map(|id| living(store, id)).collect())
}

/// An instance's interfaces on a network.
fn on<'a>(
    record: &'a InstanceRecord,
    network: &'a Vpc,
) -> impl Iterator<Item = &'a NetworkInterface> {
    let interfaces = record.instance.network_interfaces.iter();
    interfaces.filter(|interface| interface.vpc_id.as_ref() == Some(&network.vpc_id))
}

/// The tap of an interface, from the VMM that has it.
fn tap_of(dir: &InstanceDir, interface: &NetworkInterface) -> Result<OwnedFd> {
    let doing = || format!("get the tap of {}", interface.network_interface_id);
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).or_fail(doing)?;
    let interface = interface.network_interface_id.as_str().parse()?;
    client::ask_with(dir, &VmmRequest::Tap { interface }, &[theirs.as_fd()])?;
    drop(theirs);
    let (_, mut taps) = passing::receive(&ours, MAX_PACKET).or_fail(doing)?;
    taps.pop().ok_or_else(|| Error::failure(format!("cannot {}: it did not come", doing())))
}
