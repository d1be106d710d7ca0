//! DHCP for one interface: it gets its own address, for ever. (RFC 2131, RFC 2132)

use crate::plan::MacAddress;
use crate::plan::network::{Cidr, MTU, Port};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The longest message that is read: what fits an Ethernet frame.
pub const LONGEST: usize = 1500;
/// Where options begin: after the fixed fields and the magic cookie. (RFC 2131, 2 and 3)
const OPTIONS: usize = 240;
/// The least length of a message. (RFC 1542, 2.1: BOOTP's 300 bytes)
const LEAST: usize = 300;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// A lease without end. (RFC 2131, 3.3)
const FOR_EVER: u32 = u32::MAX;

/// Message types. (RFC 2132, 9.6)
mod kind {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const INFORM: u8 = 8;
}

/// Codes of options. (RFC 2132; 119: RFC 3397)
mod option {
    pub const PAD: u8 = 0;
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const ADDRESS: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const END: u8 = 255;
}

/// What a client says, as far as it matters.
struct Message {
    kind: u8,
    /// Chosen by the client.
    transaction: [u8; 4],
    flags: [u8; 2],
    /// The address that it has.
    client: Ipv4Addr,
    relay: Ipv4Addr,
    hardware: [u8; 16],
    /// The address that it wants.
    wanted: Option<Ipv4Addr>,
    /// The server that it has chosen.
    server: Option<Ipv4Addr>,
}

/// The answer to a message that came from an interface's tap, and where to send it; `None` to what
/// gets none.
pub fn answer(network: Cidr, port: &Port, bytes: &[u8]) -> Option<(Vec<u8>, SocketAddrV4)> {
    let message = read(bytes, port.mac)?;
    let router = network.router();
    if message.server.is_some_and(|server| server != router) {
        return None;
    }
    // RFC 2131, 4.3.2: of a client that has an address it is there, of others in an option.
    let wanted = message.wanted.or((!message.client.is_unspecified()).then_some(message.client));
    let reply = match message.kind {
        kind::DISCOVER => kind::OFFER,
        kind::REQUEST if wanted == Some(port.address) => kind::ACK,
        kind::REQUEST => kind::NAK,
        kind::INFORM => kind::ACK,
        _ => return None,
    };
    let known = reply == kind::ACK && message.client == port.address;
    let to = if known { port.address } else { Ipv4Addr::BROADCAST };
    Some((write(network, port, &message, reply), SocketAddrV4::new(to, 68)))
}

fn read(bytes: &[u8], mac: MacAddress) -> Option<Message> {
    let fixed: &[u8; OPTIONS] = bytes.get(..OPTIONS)?.try_into().ok()?;
    // A request of Ethernet's. (RFC 2131, 2)
    if fixed[..3] != [1, 1, 6] || fixed[28..34] != mac.bytes() || fixed[236..240] != MAGIC {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
    let mut message = Message {
        kind: 0,
        transaction: fixed[4..8].try_into().ok()?,
        flags: fixed[10..12].try_into().ok()?,
        client: address(12),
        relay: address(24),
        hardware: fixed[28..44].try_into().ok()?,
        wanted: None,
        server: None,
    };
    // What a relay passes on is another network's.
    if !message.relay.is_unspecified() {
        return None;
    }
    let mut rest = &bytes[OPTIONS..];
    while let [code, after @ ..] = rest {
        match *code {
            option::PAD => rest = after,
            option::END => break,
            code => {
                let (length, after) = after.split_first()?;
                let (value, after) = after.split_at_checked((*length).into())?;
                rest = after;
                let address = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
                match (code, value) {
                    (option::KIND, [kind]) => message.kind = *kind,
                    (option::ADDRESS, _) => message.wanted = address,
                    (option::SERVER, _) => message.server = address,
                    _ => {}
                }
            }
        }
    }
    Some(message)
}

fn write(network: Cidr, port: &Port, message: &Message, reply: u8) -> Vec<u8> {
    let mut bytes = vec![0; OPTIONS];
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&message.transaction);
    bytes[10..12].copy_from_slice(&message.flags);
    let gives = reply != kind::NAK && message.kind != kind::INFORM;
    bytes[12..16].copy_from_slice(&message.client.octets());
    if gives {
        bytes[16..20].copy_from_slice(&port.address.octets());
    }
    bytes[28..44].copy_from_slice(&message.hardware);
    bytes[236..240].copy_from_slice(&MAGIC);
    let mut put = |code: u8, value: &[u8]| {
        let value = &value[..value.len().min(255)];
        bytes.extend([code, value.len() as u8]);
        bytes.extend(value);
    };
    put(option::KIND, &[reply]);
    put(option::SERVER, &network.router().octets());
    if reply != kind::NAK {
        if gives {
            put(option::LEASE, &FOR_EVER.to_be_bytes());
        }
        put(option::MASK, &network.mask().octets());
        put(option::ROUTER, &network.router().octets());
        put(option::DNS, &network.resolver().octets());
        put(option::DOMAIN, super::dns::DOMAIN.as_bytes());
        put(option::MTU, &MTU.to_be_bytes());
        if let Some(name) = port.names.first() {
            put(option::HOST_NAME, name.as_bytes());
        }
    }
    bytes.push(option::END);
    bytes.resize(bytes.len().max(LEAST), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Port {
        Port {
            interface: "eni-00000000000000001".parse().unwrap(),
            instance: "i-00000000000000001".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            address: Ipv4Addr::new(10, 0, 0, 5),
            address6: None,
            queues: 1,
            names: vec!["ip-10-0-0-5".into()],
            groups: Vec::new(),
            metadata: None,
        }
    }

    fn network() -> Cidr {
        "10.0.0.0/16".parse().unwrap()
    }

    /// A client's message with these options.
    fn request(options: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(b"xyz!");
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes[236..240].copy_from_slice(&MAGIC);
        bytes.extend(options.concat());
        bytes.push(option::END);
        bytes
    }

    fn options(reply: &[u8]) -> std::collections::BTreeMap<u8, Vec<u8>> {
        let (mut rest, mut found) = (&reply[OPTIONS..], std::collections::BTreeMap::new());
        while rest[0] != option::END {
            let length = usize::from(rest[1]);
            found.insert(rest[0], rest[2..2 + length].to_vec());
            rest = &rest[2 + length..];
        }
        found
    }

    #[test]
    fn an_interface_gets_its_own_address_and_mtu_for_ever() {
        let answer = |bytes: &[u8]| answer(network(), &port(), bytes);
        let (offer, to) = answer(&request(&[&[53, 1, 1]])).unwrap();
        assert_eq!((offer[0], &offer[4..8], &offer[16..20]), (2, &b"xyz!"[..], &[10, 0, 0, 5][..]));
        assert_eq!(to, "255.255.255.255:68".parse().unwrap());
        let reported = options(&offer);
        assert_eq!(reported[&option::KIND], [kind::OFFER]);
        assert_eq!(reported[&option::MTU], 9001u16.to_be_bytes());
        assert_eq!(reported[&option::LEASE], [0xff; 4]);
        assert_eq!(reported[&option::MASK], [255, 255, 0, 0]);
        assert_eq!(reported[&option::ROUTER], [10, 0, 0, 1]);
        assert_eq!(reported[&option::DNS], [10, 0, 0, 2]);
        assert_eq!(reported[&option::HOST_NAME], b"ip-10-0-0-5");
        let own = [&[53, 1, 3][..], &[50, 4, 10, 0, 0, 5], &[54, 4, 10, 0, 0, 1]];
        assert_eq!(options(&answer(&request(&own)).unwrap().0)[&option::KIND], [kind::ACK]);
        // A renewal, which is answered to its address.
        let mut renewal = request(&[&[53, 1, 3]]);
        renewal[12..16].copy_from_slice(&[10, 0, 0, 5]);
        let (ack, to) = answer(&renewal).unwrap();
        assert_eq!((options(&ack)[&option::KIND][0], *to.ip()), (kind::ACK, port().address));
    }

    #[test]
    fn another_address_is_refused_and_another_servers_business_left_alone() {
        let answer = |bytes: &[u8]| answer(network(), &port(), bytes);
        let (nak, _) = answer(&request(&[&[53, 1, 3], &[50, 4, 10, 0, 0, 6]])).unwrap();
        assert_eq!(options(&nak)[&option::KIND], [kind::NAK]);
        assert_eq!(nak[16..20], [0; 4]);
        assert!(answer(&request(&[&[53, 1, 3], &[54, 4, 10, 0, 0, 9]])).is_none());
        let (inform, _) = answer(&request(&[&[53, 1, 8]])).unwrap();
        assert!(!options(&inform).contains_key(&option::LEASE));
    }

    #[test]
    fn what_is_no_request_gets_no_answer() {
        let good = request(&[&[53, 1, 1]]);
        for (at, value) in [(0, 2), (1, 6), (2, 16), (28, 4), (33, 9), (236, 0), (24, 10)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(answer(network(), &port(), &bad).is_none(), "{at}");
        }
        for length in 0..good.len() {
            // Without its end it is understood, without its type it is not.
            let answered = answer(network(), &port(), &good[..length]).is_some();
            assert_eq!(answered, length >= OPTIONS + 3, "{length}");
        }
        for bad in [&[53, 0][..], &[53, 200, 1], &[0; 64], &[53, 1, 2], &[53, 1, 7]] {
            assert!(answer(network(), &port(), &request(&[bad])).is_none(), "{bad:?}");
        }
    }
}
