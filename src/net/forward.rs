//! What comes to ports of the host's and is passed on to instances.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an instance may take to accept a connection.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Connections of a published port at a time, and flows.
const MOST: usize = 256;
/// A flow of UDP without a packet for so long is over.
const IDLE: Duration = Duration::from_secs(60);
/// The longest packet of UDP.
const LONGEST: usize = 65_535;

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
