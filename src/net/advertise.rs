//! The router of an interface's link says so: a guest gets its IPv6 address by DHCPv6, and its way
//! to all others by this router. (RFC 4861, 4.2)

use super::limit::Limit;
use super::sockets::{MULTICAST_HOPS, RESOLVER6, socket};
use crate::plan::network::MTU;
use socket2::{Protocol, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Types of ICMPv6. (RFC 4861, 4.1 and 4.2)
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Types of options. (RFC 4861, 4.6.4; RFC 8106, 5.1)
const OPTION_MTU: u8 = 5;
const OPTION_RESOLVERS: u8 = 25;
/// Addresses, and the rest, come by DHCPv6. (RFC 4861, 4.2: M and O)
const MANAGED: u8 = 0xc0;
/// How many routers a packet may pass.
const HOP_LIMIT: u8 = 64;
/// How long guests take this for their router without being told again, in seconds. (RFC 8319, 4)
const LIFETIME: u16 = u16::MAX;
/// How often they are told. (RFC 4861, 6.2.1: MaxRtrAdvInterval's default)
const INTERVAL: Duration = Duration::from_secs(600);
/// All hosts of a link, and all routers. (RFC 4291, 2.7.1)
const HOSTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// More of a packet does not matter.
const LONGEST: usize = 256;

/// A socket that hears what the guest of an interface asks its routers.
///
/// # Errors
/// The interface is gone; there are too many open files.
pub fn open(name: &str, index: u32) -> io::Result<UdpSocket> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = socket(name, Type::RAW, Protocol::ICMPV6, any)?;
    // Others are not believed. (RFC 4861, 6.1.2)
    socket.set_multicast_hops_v6(MULTICAST_HOPS)?;
    socket.set_multicast_loop_v6(false)?;
    socket.join_multicast_v6(&ROUTERS, index)?;
    UdpSocket::from_std(socket.into())
}

/// Tells the guest of an interface who its router is: now, when it asks, and now and then.
pub async fn serve(socket: UdpSocket) {
    let mut limit = Limit::new(2, 5);
    let mut buffer = [0; LONGEST];
    let to = SocketAddr::from((HOSTS, 0));
    loop {
        if limit.allows() {
            // A guest that is not there yet asks.
            let _ = socket.send_to(&advertisement(), to).await;
        }
        let asked = async {
            loop {
                match socket.recv_from(&mut buffer).await {
                    // Its code is 0. (RFC 4861, 6.1.1)
                    Ok((length, _)) if is_solicitation(&buffer[..length]) => return,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        };
        let _ = timeout(INTERVAL, asked).await;
    }
}

fn is_solicitation(packet: &[u8]) -> bool {
    packet.len() >= 8 && packet[..2] == [SOLICITATION, 0]
}

/// The kernel writes the checksum. (RFC 3542, 3.1)
fn advertisement() -> Vec<u8> {
    let mut packet = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, MANAGED];
    packet.extend(LIFETIME.to_be_bytes());
    // For how long a neighbour is reachable, and how often it is asked: as the guest has it.
    packet.extend([0; 8]);
    packet.extend([OPTION_MTU, 1, 0, 0]);
    packet.extend(u32::from(MTU).to_be_bytes());
    packet.extend([OPTION_RESOLVERS, 3, 0, 0]);
    packet.extend(u32::MAX.to_be_bytes());
    packet.extend(RESOLVER6.octets());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_has_its_form() {
        let packet = advertisement();
        assert_eq!(packet[..8], [134, 0, 0, 0, 64, 0xc0, 0xff, 0xff]);
        // Options in units of 8 bytes, each with its length, to the end.
        let (mut rest, mut kinds) = (&packet[16..], Vec::new());
        while let [kind, length, ..] = *rest {
            kinds.push(kind);
            rest = &rest[usize::from(length) * 8..];
        }
        assert!(rest.is_empty());
        assert_eq!(kinds, [5, 25]);
        assert_eq!(packet[20..24], 9001u32.to_be_bytes());
        assert!(is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0]));
        for other in [&[][..], &[133, 0, 0, 0], &[133, 1, 0, 0, 0, 0, 0, 0], &[128; 8]] {
            assert!(!is_solicitation(other));
        }
    }
}
