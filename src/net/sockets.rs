//! Sockets of the services that an interface is given.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// The resolver of IPv6, as on EC2. (Amazon VPC User Guide, "Amazon DNS server")
pub const RESOLVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);
/// The hop limit of what does not leave its link. (RFC 4861, 4.2)
pub const MULTICAST_HOPS: u32 = 255;
/// A socket that hears this interface only.
pub fn socket(name: &str, kind: Type, protocol: Protocol, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // A raw one is of one family.
    if to.is_ipv6() && kind != Type::RAW {
        socket.set_only_v6(true)?;
    }
    socket.bind(&to.into())?;
    Ok(socket)
}

/// What comes next; `None` if that failed. An interface that is down is waited for.
pub async fn received(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buffer).await {
        Ok(received) => Some(received),
        Err(_) => {
            sleep(Duration::from_millis(200)).await;
            None
        }
    }
}
