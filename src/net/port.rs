//! An instance's interface in the network namespace: its tap, its addresses and routes, and the
//! services that it is given.

use super::begin::WITHOUT;
use super::netlink::Netlink;
use super::shared::{Served, ServedMetadata, Shared};
use super::sockets::{RESOLVER6, received, socket};
use super::{advertise, dhcp, dhcp6, forward, limit::Limit, questions};
use crate::control::network::Published;
use crate::error::{Error, OrFail, Result};
use crate::id::NetworkInterfaceId;
use crate::metadata::token::Tokens;
use crate::metadata::{Metadata, http};
use crate::plan::network::{Cidr, MTU, Port, tap_name};
use crate::sys::tap::{self, Refusal, Tap};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The instance metadata service. (EC2 User Guide, "Access instance metadata")
pub const METADATA4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The same of IPv6.
pub const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// The router of an interface's link.
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Connections to a service that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long an address may be a killed process's still.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const TICK: Duration = Duration::from_millis(10);

/// Makes the interface's tap. None: it is there already, and a VMM has it.
///
/// # Errors
/// There are no taps, or no more.
pub fn make_tap(port: &Port) -> Result<Vec<OwnedFd>> {
    let name = tap_name(&port.interface);
    let several = port.queues > 1;
    let opened = (0..port.queues.max(1)).map(|_| Tap::create(&name, several));
    match opened.collect::<Result<Vec<_>, _>>() {
        Ok(taps) => Ok(taps.into_iter().map(OwnedFd::from).collect()),
        Err(Refusal::Busy) => Ok(Vec::new()),
        Err(Refusal::NoDevice(errno)) => Err(tap::no_device(errno).remedy(WITHOUT)),
        Err(refusal) => Err(Error::failure(format!("cannot make a tap: {refusal:?}"))),
    }
}

/// Serves an interface whose tap is there, in place of what it was before, and passes on what comes
/// to these sockets of the host's.
///
/// # Errors
/// Its tap is gone; there are too many open files.
pub async fn serve(
    shared: &Rc<Shared>,
    port: Port,
    publish: Vec<(Published, OwnedFd)>,
) -> Result<()> {
    let interface = port.interface.clone();
    let address6 = port.address6.filter(|_| shared.six);
    let port = Port { address6, ..port };
    // An instance's tokens outlive a change of its metadata.
    let tokens = match stop(shared, &interface).await {
        Some(tokens) => tokens,
        None => Arc::new(Tokens::generate()?),
    };
    let deadline = Instant::now() + PATIENCE;
    let mut served = loop {
        match begin(shared, &port, &tokens) {
            // A process that was killed has let go of its lock, and not of all its sockets.
            Err(error) if in_use(&error) && Instant::now() < deadline => sleep(TICK).await,
            Err(error) => {
                shared.log.line(format_args!("{interface}: {error}"));
                return Err(error);
            }
            Ok(served) => break served,
        }
    };
    for (Published { port: number, tcp }, socket) in publish {
        let pass = if tcp { forward::tcp } else { forward::udp };
        let passed = pass(&mut served.tasks, socket, port.address, number);
        passed.or_fail(|| format!("pass on to port {number}"))?;
    }
    shared.served.borrow_mut().insert(interface, served);
    shared.changed();
    Ok(())
}

/// Serves an interface no longer: when this is done its sockets are closed. Its tokens, if it was
/// served.
pub async fn stop(shared: &Rc<Shared>, interface: &NetworkInterfaceId) -> Option<Arc<Tokens>> {
    let before = shared.served.borrow_mut().remove(interface);
    let mut before = before?;
    before.tasks.shutdown().await;
    Some(before.tokens)
}

/// Whether an address that was to be served is another socket's.
fn in_use(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::AddrInUse)
}

/// Gives the interface its addresses, routes and services.
fn begin(shared: &Rc<Shared>, port: &Port, tokens: &Arc<Tokens>) -> Result<Served> {
    let name = tap_name(&port.interface);
    let doing = || format!("configure the tap of {}", port.interface);
    let index = configure(&shared.netlink, shared.plan.cidr, &name, port).or_fail(doing)?;
    let six = port.address6.is_some().then_some(index);
    let mut tasks = JoinSet::new();
    let bound = |address: Ipv4Addr, number: u16| udp(&name, address, number).or_fail(doing);
    let socket = bound(Ipv4Addr::UNSPECIFIED, 67)?;
    let (network, own) = (shared.plan.cidr, port.clone());
    tasks.spawn_local(async move {
        let mut limit = Limit::new(20, 50);
        let mut buffer = [0; dhcp::LONGEST];
        loop {
            let Some((length, _)) = received(&socket, &mut buffer).await else { continue };
            if limit.allows()
                && let Some((answer, to)) = dhcp::answer(network, &own, &buffer[..length])
            {
                let _ = socket.send_to(&answer, to).await;
            }
        }
    });
    resolver(shared, &name, network.resolver().into(), &mut tasks).or_fail(doing)?;
    if let Some(index) = six {
        serve_six(shared, &name, index, port, &mut tasks).or_fail(doing)?;
    }
    let metadata = serve_metadata(&name, port, tokens, &mut tasks).or_fail(doing)?;
    Ok(Served { port: port.clone(), tasks, tokens: tokens.clone(), metadata })
}

/// The network's DNS at one of its addresses.
fn resolver(
    shared: &Rc<Shared>,
    name: &str,
    address: IpAddr,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let to = SocketAddr::new(address, 53);
    let datagrams = socket(name, Type::DGRAM, Protocol::UDP, to)?;
    tasks.spawn_local(questions::udp(shared.clone(), UdpSocket::from_std(datagrams.into())?));
    let streams = socket(name, Type::STREAM, Protocol::TCP, to)?;
    streams.listen(BACKLOG)?;
    tasks.spawn_local(questions::tcp(shared.clone(), TcpListener::from_std(streams.into())?));
    Ok(())
}

/// What IPv6 has beside: who the router is, DHCPv6, and the resolver.
fn serve_six(
    shared: &Rc<Shared>,
    name: &str,
    index: u32,
    port: &Port,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    tasks.spawn_local(advertise::serve(advertise::open(name, index)?));
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, dhcp6::SERVER));
    let socket = socket(name, Type::DGRAM, Protocol::UDP, any)?;
    socket.join_multicast_v6(&dhcp6::SERVERS, index)?;
    let socket = UdpSocket::from_std(socket.into())?;
    let own = port.clone();
    tasks.spawn_local(async move {
        let mut limit = Limit::new(20, 50);
        let mut buffer = [0; dhcp6::LONGEST];
        loop {
            let Some((length, from)) = received(&socket, &mut buffer).await else { continue };
            let link_local = matches!(from.ip(), IpAddr::V6(from) if from.is_unicast_link_local());
            if limit.allows()
                && link_local
                && from.port() == dhcp6::CLIENT
                && let Some(answer) = dhcp6::answer(&own, &buffer[..length])
            {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    resolver(shared, name, RESOLVER6.into(), tasks)
}

/// The instance metadata service of one interface. Its answers travel as far as the instance's hop
/// limit says, from the first packet of a connection on.
fn serve_metadata(
    name: &str,
    port: &Port,
    tokens: &Arc<Tokens>,
    tasks: &mut JoinSet<()>,
) -> io::Result<Option<ServedMetadata>> {
    let Some(metadata) = &port.metadata else { return Ok(None) };
    let metadata = Metadata::deserialize(metadata).map_err(io::Error::other)?;
    let hops = u8::from(metadata.options.http_put_response_hop_limit);
    let (newest, receiver) = watch::channel(Arc::new(metadata));
    let mut sockets = Vec::new();
    let four = Some(IpAddr::V4(METADATA4));
    let six = port.address6.map(|_| IpAddr::V6(METADATA6));
    for address in [four, six].into_iter().flatten() {
        let to = SocketAddr::new(address, 80);
        let socket = socket(name, Type::STREAM, Protocol::TCP, to)?;
        limit_hops(&socket, hops)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket.try_clone()?);
        let listener = TcpListener::from_std(socket.into())?;
        let (receiver, tokens) = (receiver.clone(), tokens.clone());
        tasks.spawn_local(http::serve(listener, receiver, tokens));
    }
    Ok(Some(ServedMetadata { newest, sockets }))
}

/// Has the answers of a listening socket travel so far. (ip(7), IP_TTL; ipv6(7), IPV6_UNICAST_HOPS)
fn limit_hops(socket: &Socket, hops: u8) -> io::Result<()> {
    match socket.domain()? {
        Domain::IPV6 => socket.set_unicast_hops_v6(hops.into()),
        _ => socket.set_ttl_v4(hops.into()),
    }
}

/// Gives an interface other names and metadata. What is open stays open; who asks next is answered
/// from the new ones.
///
/// # Errors
/// It is no metadata.
pub fn update(
    shared: &Rc<Shared>,
    interface: &NetworkInterfaceId,
    names: Vec<String>,
    metadata: serde_json::Value,
) -> Result<()> {
    let doing = || format!("change the metadata of {interface}");
    if let Some(served) = shared.served.borrow_mut().get_mut(interface) {
        let newest = Metadata::deserialize(&metadata).or_fail(doing)?;
        let hops = u8::from(newest.options.http_put_response_hop_limit);
        if let Some(service) = &served.metadata {
            service
                .sockets
                .iter()
                .try_for_each(|socket| limit_hops(socket, hops))
                .or_fail(doing)?;
            service.newest.send_replace(Arc::new(newest));
        }
        served.port.names = names;
        served.port.metadata = Some(metadata);
    }
    shared.changed();
    Ok(())
}

/// The interface's number.
fn configure(netlink: &Netlink, network: Cidr, name: &str, port: &Port) -> io::Result<u32> {
    let index = netlink.index(name)?;
    netlink.set_up(index, Some(MTU.into()))?;
    // Where it can't, it answers later.
    let _ = netlink.answer_at_once(index);
    // The first is what DHCP's answers come from.
    for address in [network.router(), network.resolver(), METADATA4] {
        netlink.add_address(index, address.into(), 32)?;
    }
    netlink.add_route(index, port.address.into())?;
    if let Some(address) = port.address6 {
        let six =
            |address: Ipv6Addr, prefix| netlink.add_address(index, IpAddr::V6(address), prefix);
        six(ROUTER6, 64)?;
        six(METADATA6, 128)?;
        six(RESOLVER6, 128)?;
        netlink.add_route(index, address.into())?;
    }
    Ok(index)
}

fn udp(name: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let to = SocketAddrV4::new(address, port).into();
    let socket = socket(name, Type::DGRAM, Protocol::UDP, to)?;
    socket.set_broadcast(true)?;
    UdpSocket::from_std(socket.into())
}
