//! What is passed on: questions to the host's resolvers, and what comes to published ports.

use super::channel::{Answer, Ask};
use super::shared::Shared;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp,
};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Sockets on the host's network: so many questions are asked there at a time.
pub const ASKERS: usize = 16;
/// How long a resolver is waited for. (resolv.conf(5), timeout)
const ANSWER: Duration = Duration::from_secs(3);
/// How long an instance may take to accept a connection.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Connections of a published port at a time, and flows.
const MOST: usize = 256;
/// A flow of UDP without a packet for so long is over.
const IDLE: Duration = Duration::from_secs(60);
/// The longest packet of UDP.
const LONGEST: usize = 65_535;

/// Sockets that ask from the host's network, which the caller is still on.
///
/// # Errors
/// Too many open files.
pub fn askers() -> io::Result<Vec<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = |family| socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP));
    let asker = |_| match open(AddressFamily::INET6) {
        Ok(socket) => sockopt::set_ipv6_v6only(&socket, false).map(|()| socket),
        // A host without IPv6.
        Err(_) => open(AddressFamily::INET),
    };
    (0..ASKERS).map(asker).collect::<Result<_, _>>().map_err(Into::into)
}

/// The answer of the host's resolvers to a question.
pub async fn question(shared: &Shared, mut question: Vec<u8>) -> Option<Vec<u8>> {
    let permit = shared.free_askers.acquire().await.ok()?;
    let asker = shared.askers.borrow_mut().pop()?;
    let resolvers = match shared.ask(&Ask::Resolvers).await {
        Ok(Answer::Resolvers(resolvers)) => resolvers,
        _ => Vec::new(),
    };
    let id: [u8; 2] = question.get(..2)?.try_into().ok()?;
    let mut found = None;
    for resolver in resolvers {
        if let Ok(Ok(answer)) = timeout(ANSWER, ask(&asker, resolver, &mut question)).await {
            found = Some(answer);
            break;
        }
    }
    shared.askers.borrow_mut().push(asker);
    drop(permit);
    let mut answer = found?;
    answer.get_mut(..2)?.copy_from_slice(&id);
    Some(answer)
}

async fn ask(asker: &UdpSocket, resolver: IpAddr, question: &mut [u8]) -> io::Result<Vec<u8>> {
    let six = asker.local_addr()?.is_ipv6();
    let to = match resolver {
        IpAddr::V4(four) if six => IpAddr::V6(four.to_ipv6_mapped()),
        IpAddr::V6(_) if !six => return Err(ErrorKind::Unsupported.into()),
        other => other,
    };
    let to = SocketAddr::new(to, 53);
    // Whoever answers without having been asked has to guess it. (RFC 5452, 4.3)
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty())?;
    if let Some(place) = question.get_mut(..2) {
        place.copy_from_slice(&id);
    }
    asker.send_to(question, to).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, from) = asker.recv_from(&mut buffer).await?;
        if from.port() == to.port() && from.ip() == to.ip() && buffer[..2.min(length)] == id {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// The host's resolvers, as its resolv.conf(5) names them; its own if it names none.
pub fn or_own(resolvers: Vec<IpAddr>) -> Vec<IpAddr> {
    if resolvers.is_empty() {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else {
        resolvers
    }
}

/// A connection to a port of an instance, which may take so long to accept it.
///
/// # Errors
/// It refuses; it does not answer in time (`TimedOut`).
pub async fn connect(address: Ipv4Addr, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let connected = timeout(patience, TcpStream::connect((address, port))).await;
    connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Passes the connections of a listening socket of the host's on to a port of an instance.
///
/// # Errors
/// It is no such socket.
pub fn tcp(
    tasks: &mut JoinSet<()>,
    socket: OwnedFd,
    address: Ipv4Addr,
    port: u16,
) -> io::Result<()> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tasks.spawn_local(async move {
        let mut open = JoinSet::new();
        loop {
            let Ok((mut outside, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            while open.try_join_next().is_some() {}
            if open.len() < MOST {
                open.spawn_local(async move {
                    if let Ok(mut inside) = connect(address, port, CONNECT).await {
                        let _ = copy_bidirectional(&mut outside, &mut inside).await;
                    }
                });
            }
        }
    });
    Ok(())
}

/// Passes the packets that come to a socket of the host's on to a port of an instance, and its
/// answers back.
///
/// # Errors
/// It is no such socket.
pub fn udp(
    tasks: &mut JoinSet<()>,
    socket: OwnedFd,
    address: Ipv4Addr,
    port: u16,
) -> io::Result<()> {
    let socket = StdUdp::from(socket);
    socket.set_nonblocking(true)?;
    let outside = Rc::new(UdpSocket::from_std(socket)?);
    tasks.spawn_local(async move {
        let mut flows: HashMap<SocketAddr, Rc<UdpSocket>> = HashMap::new();
        let mut open = JoinSet::new();
        let mut buffer = vec![0; LONGEST];
        loop {
            let received = tokio::select! {
                received = outside.recv_from(&mut buffer) => received,
                Some(over) = open.join_next() => {
                    if let Ok(over) = over {
                        flows.remove(&over);
                    }
                    continue;
                }
            };
            let Ok((length, from)) = received else { continue };
            if !flows.contains_key(&from) {
                if flows.len() >= MOST {
                    continue;
                }
                let Ok(inside) = flow(address, port).await else { continue };
                let inside = Rc::new(inside);
                flows.insert(from, inside.clone());
                let outside = outside.clone();
                open.spawn_local(async move {
                    let mut buffer = vec![0; LONGEST];
                    // An instance that has no such port says so by ICMP.
                    while let Ok(Ok(length)) = timeout(IDLE, inside.recv(&mut buffer)).await {
                        let _ = outside.send_to(&buffer[..length], from).await;
                    }
                    from
                });
            }
            if let Some(inside) = flows.get(&from) {
                let _ = inside.send(&buffer[..length]).await;
            }
        }
    });
    Ok(())
}

async fn flow(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let inside = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    inside.connect((address, port)).await?;
    Ok(inside)
}
