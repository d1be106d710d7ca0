//! An instance's interface in the network namespace: its tap, its addresses and routes, and the
//! services that it is given.

use super::netlink::Netlink;
use super::shared::{Served, ServedMetadata, Shared};
use super::{dhcp, dns, forward, limit::Limit};
use crate::control::network::Published;
use crate::error::{Error, OrFail, Result};
use crate::id::NetworkInterfaceId;
use crate::metadata::token::Tokens;
use crate::metadata::{Metadata, http};
use crate::plan::network::{Cidr, MTU, Port, tap_name};
use crate::sys::tap::{Refusal, Tap};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
/// Questions of an interface that are asked elsewhere at a time.
const QUESTIONS: usize = 32;

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
        Err(Refusal::NoDevice(errno)) => Err(Error::io(
            format!("open {}", crate::sys::tap::DEVICE),
            io::Error::from_raw_os_error(errno),
        )
        .remedy("'chmod 0666 /dev/net/tun' (as root) lets everybody, as udev does; a container takes --device /dev/net/tun")),
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
    configure(&shared.netlink, shared.plan.cidr, &name, port).or_fail(doing)?;
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
    let socket = bound(network.resolver(), 53)?;
    tasks.spawn_local(answer_questions(shared.clone(), socket));
    let metadata = serve_metadata(&name, port, tokens, &mut tasks).or_fail(doing)?;
    Ok(Served { port: port.clone(), tasks, tokens: tokens.clone(), metadata })
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

/// What comes next; `None` if that failed. An interface that is down is waited for.
async fn received(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buffer).await {
        Ok(received) => Some(received),
        Err(_) => {
            sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

fn configure(netlink: &Netlink, network: Cidr, name: &str, port: &Port) -> io::Result<()> {
    let index = netlink.index(name)?;
    netlink.set_up(index, Some(MTU.into()))?;
    // Where it can't, it answers later.
    let _ = netlink.answer_at_once(index);
    // The first is what DHCP's answers come from.
    for address in [network.router(), network.resolver(), METADATA4] {
        netlink.add_address(index, address.into(), 32)?;
    }
    netlink.add_route(index, port.address.into())?;
    // A host may be without IPv6.
    if let Some(address) = port.address6 {
        let six =
            |address: Ipv6Addr, prefix| netlink.add_address(index, IpAddr::V6(address), prefix);
        six(ROUTER6, 64)?;
        six(METADATA6, 128)?;
        netlink.add_route(index, address.into())?;
    }
    Ok(())
}

/// A socket that hears this interface only.
pub fn socket(name: &str, kind: Type, protocol: Protocol, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if to.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&to.into())?;
    Ok(socket)
}

fn udp(name: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let to = SocketAddrV4::new(address, port).into();
    let socket = socket(name, Type::DGRAM, Protocol::UDP, to)?;
    socket.set_broadcast(true)?;
    UdpSocket::from_std(socket.into())
}

/// DNS for one interface.
async fn answer_questions(shared: Rc<Shared>, socket: UdpSocket) {
    let socket = Rc::new(socket);
    let mut limit = Limit::new(500, 1000);
    let mut buffer = vec![0; dns::LONGEST];
    let mut asked = JoinSet::new();
    loop {
        let Some((length, from)) = received(&socket, &mut buffer).await else { continue };
        while asked.try_join_next().is_some() {}
        if !limit.allows() {
            continue;
        }
        let question = &buffer[..length];
        let names = &shared.names;
        let reply = || names.borrow().reply(shared.plan.cidr, question);
        match catch_unwind(AssertUnwindSafe(reply)) {
            Ok(dns::Reply::Local(answer)) => drop(socket.send_to(&answer, from).await),
            Ok(dns::Reply::Forward) if !shared.plan.isolated && asked.len() < QUESTIONS => {
                let (shared, socket, question) =
                    (shared.clone(), socket.clone(), question.to_vec());
                asked.spawn_local(async move {
                    if let Some(answer) = forward::question(&shared, question).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                });
            }
            _ => {}
        }
    }
}
