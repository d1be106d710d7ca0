//! DHCPv6 for one interface: it gets its own address, for ever. (RFC 8415)

use super::sockets::RESOLVER6;
use crate::plan::network::Port;
use std::net::Ipv6Addr;

/// The longest message that is read: what fits an Ethernet frame.
pub const LONGEST: usize = 1500;
/// Where clients listen. (RFC 8415, 7.2)
pub const CLIENT: u16 = 546;
/// Where servers do.
pub const SERVER: u16 = 547;
/// All servers of a link. (RFC 8415, 7.1)
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Who answers: a DUID of the kind that is a UUID (RFC 6355), the same on all links, each of which
/// has one server.
const DUID: [u8; 18] = *b"\x00\x04spore __net dhcp";
/// The longest of a client's. (RFC 8415, 11.1: 128 bytes and two for its kind)
const MAX_DUID: usize = 130;
/// Most associations of a message that are answered.
const MAX_ASSOCIATIONS: usize = 8;
/// A life without end. (RFC 8415, 7.7)
const FOR_EVER: u32 = u32::MAX;

/// Message types. (RFC 8415, 7.3)
mod kind {
    pub const SOLICIT: u8 = 1;
    pub const ADVERTISE: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const CONFIRM: u8 = 4;
    pub const RENEW: u8 = 5;
    pub const REBIND: u8 = 6;
    pub const REPLY: u8 = 7;
    pub const RELEASE: u8 = 8;
    pub const DECLINE: u8 = 9;
    pub const INFORMATION: u8 = 11;
}

/// Codes of options. (RFC 8415, 21; RFC 3646)
mod option {
    pub const CLIENT: u16 = 1;
    pub const SERVER: u16 = 2;
    pub const ASSOCIATION: u16 = 3;
    pub const ADDRESS: u16 = 5;
    pub const STATUS: u16 = 13;
    pub const RAPID: u16 = 14;
    pub const RESOLVERS: u16 = 23;
    pub const DOMAINS: u16 = 24;
}

/// Codes of a status. (RFC 8415, 21.13)
mod status {
    pub const SUCCESS: u16 = 0;
    pub const NO_ADDRESS: u16 = 2;
    pub const NOT_ON_LINK: u16 = 4;
}

/// What a client says, as far as it matters.
#[derive(Default)]
struct Message<'a> {
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    /// Associations: each has a number, and the addresses that the client has or wants.
    associations: Vec<([u8; 4], Vec<Ipv6Addr>)>,
    rapid: bool,
}

/// The answer to a message that came from an interface's tap; `None` to what gets none.
pub fn answer(port: &Port, bytes: &[u8]) -> Option<Vec<u8>> {
    let own = port.address6?;
    let [kind, transaction @ ..] = bytes.first_chunk::<4>()?;
    let message = read(&bytes[4..])?;
    let from_anyone =
        matches!(*kind, kind::SOLICIT | kind::CONFIRM | kind::REBIND) && message.server.is_none();
    let to_this = message.server == Some(&DUID[..]);
    let information = *kind == kind::INFORMATION && (message.server.is_none() || to_this);
    // RFC 8415, 16: who has to be named, and who must not.
    let valid = match *kind {
        kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => to_this,
        _ => from_anyone || information,
    };
    if !valid || (message.client.is_none() && !information) {
        return None;
    }
    let reply = match *kind {
        kind::SOLICIT if !message.rapid => kind::ADVERTISE,
        _ => kind::REPLY,
    };
    let mut answer = vec![reply];
    answer.extend(transaction);
    put(&mut answer, option::SERVER, &DUID);
    if let Some(client) = message.client {
        put(&mut answer, option::CLIENT, client);
    }
    match *kind {
        kind::SOLICIT | kind::REQUEST | kind::RENEW | kind::REBIND => {
            if reply == kind::REPLY && *kind == kind::SOLICIT {
                put(&mut answer, option::RAPID, &[]);
            }
            give(&mut answer, &message, own);
        }
        kind::CONFIRM => {
            let mut all = message.associations.iter().flat_map(|(_, addresses)| addresses);
            let on_link = all.all(|address| *address == own);
            let code = if on_link { status::SUCCESS } else { status::NOT_ON_LINK };
            put(&mut answer, option::STATUS, &code.to_be_bytes());
        }
        kind::RELEASE | kind::DECLINE => {
            // The address is the interface's whatever it says.
            put(&mut answer, option::STATUS, &status::SUCCESS.to_be_bytes());
        }
        _ => {}
    }
    put(&mut answer, option::RESOLVERS, &RESOLVER6.octets());
    let domain = super::dns::DOMAIN.as_bytes();
    put(&mut answer, option::DOMAINS, &[&[domain.len() as u8], domain, &[0]].concat());
    Some(answer)
}

/// The first association has the interface's address, and others none.
fn give(answer: &mut Vec<u8>, message: &Message<'_>, own: Ipv6Addr) {
    for (n, (number, held)) in message.associations.iter().enumerate() {
        // When it is to be asked about again: never.
        let mut association = [&number[..], &[0xff; 8]].concat();
        let mut address = |address: Ipv6Addr, life: u32| {
            let (life, octets) = (life.to_be_bytes(), address.octets());
            put(&mut association, option::ADDRESS, &[&octets[..], &life, &life].concat());
        };
        // What it has and may not have is over. (RFC 8415, 18.3.4)
        held.iter().filter(|held| **held != own || n > 0).for_each(|held| address(*held, 0));
        if n == 0 {
            address(own, FOR_EVER);
        } else {
            put(&mut association, option::STATUS, &status::NO_ADDRESS.to_be_bytes());
        }
        put(answer, option::ASSOCIATION, &association);
    }
}

fn put(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
}

fn read(bytes: &[u8]) -> Option<Message<'_>> {
    let mut message = Message::default();
    for option in options(bytes) {
        match option? {
            (option::CLIENT, value) if (3..=MAX_DUID).contains(&value.len()) => {
                message.client = Some(value);
            }
            (option::CLIENT, _) => return None,
            (option::SERVER, value) => message.server = Some(value),
            (option::RAPID, _) => message.rapid = true,
            (option::ASSOCIATION, value) if message.associations.len() < MAX_ASSOCIATIONS => {
                let (number, rest) = value.split_first_chunk::<4>()?;
                let mut held = Vec::new();
                for inner in options(rest.get(8..)?) {
                    let (code, value) = inner?;
                    if code == option::ADDRESS && held.len() < MAX_ASSOCIATIONS {
                        held.push(Ipv6Addr::from(*value.first_chunk::<16>()?));
                    }
                }
                message.associations.push((*number, held));
            }
            _ => {}
        }
    }
    Some(message)
}

/// The options of a message, or of one of them; `None` for one that ends too soon, the last then.
fn options(mut rest: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = rest.split_first_chunk::<4>().and_then(|(head, after)| {
            let length = u16::from_be_bytes([head[2], head[3]]);
            let (value, after) = after.split_at_checked(length.into())?;
            rest = after;
            Some((u16::from_be_bytes([head[0], head[1]]), value))
        });
        if next.is_none() {
            rest = &[];
        }
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const OWN: &str = "fd00:1::a00:5";

    fn port() -> Port {
        Port {
            interface: "eni-00000000000000001".parse().unwrap(),
            instance: "i-00000000000000001".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            address: "10.0.0.5".parse().unwrap(),
            address6: Some(OWN.parse().unwrap()),
            queues: 1,
            names: Vec::new(),
            groups: Vec::new(),
            metadata: None,
        }
    }

    const CLIENT_ID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

    /// A client's message with these options beside its id.
    fn message(kind: u8, more: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![kind, 7, 8, 9];
        put(&mut bytes, option::CLIENT, &CLIENT_ID);
        more.iter().for_each(|(code, value)| put(&mut bytes, *code, value));
        bytes
    }

    fn association(addresses: &[&str]) -> Vec<u8> {
        let mut bytes = b"ia01\0\0\0\0\0\0\0\0".to_vec();
        for address in addresses {
            let address: Ipv6Addr = address.parse().unwrap();
            put(&mut bytes, option::ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        bytes
    }

    fn reported(answer: &[u8]) -> BTreeMap<u16, Vec<u8>> {
        assert_eq!(answer[1..4], [7, 8, 9]);
        let all = options(&answer[4..]).map(Option::unwrap);
        let all: BTreeMap<u16, Vec<u8>> = all.map(|(code, v)| (code, v.to_vec())).collect();
        assert_eq!(
            (&all[&option::SERVER][..], &all[&option::CLIENT][..]),
            (&DUID[..], &CLIENT_ID[..])
        );
        all
    }

    /// Addresses of an association with their lives.
    fn given(association: &[u8]) -> Vec<(String, u32)> {
        let all = options(&association[12..]).map(Option::unwrap);
        let addresses = all.filter(|(code, _)| *code == option::ADDRESS);
        let one = |(_, value): (u16, &[u8])| {
            let address = Ipv6Addr::from(*value.first_chunk::<16>().unwrap());
            (address.to_string(), u32::from_be_bytes(*value.last_chunk().unwrap()))
        };
        addresses.map(one).collect()
    }

    #[test]
    fn an_interface_gets_its_own_address_for_ever() {
        let ask = |bytes: &[u8]| answer(&port(), bytes);
        let wants = association(&[]);
        let offer = ask(&message(kind::SOLICIT, &[(option::ASSOCIATION, &wants)])).unwrap();
        assert_eq!(offer[0], kind::ADVERTISE);
        let offer = reported(&offer);
        assert_eq!(given(&offer[&option::ASSOCIATION]), [(OWN.to_owned(), u32::MAX)]);
        assert_eq!(offer[&option::RESOLVERS], RESOLVER6.octets());
        assert_eq!(offer[&option::DOMAINS], b"\x08internal\0");
        let server = (option::SERVER, &DUID[..]);
        for kind in [kind::REQUEST, kind::RENEW] {
            let reply = ask(&message(kind, &[server, (option::ASSOCIATION, &wants)])).unwrap();
            assert_eq!(reply[0], kind::REPLY);
            assert_eq!(
                given(&reported(&reply)[&option::ASSOCIATION]),
                [(OWN.to_owned(), u32::MAX)]
            );
        }
        let rapid = [(option::RAPID, &[][..]), (option::ASSOCIATION, &wants)];
        let reply = ask(&message(kind::SOLICIT, &rapid)).unwrap();
        assert!(reply[0] == kind::REPLY && reported(&reply).contains_key(&option::RAPID));
        // A second association has none.
        let two = [(option::ASSOCIATION, &wants[..]), (option::ASSOCIATION, &wants)];
        let reply = ask(&message(kind::SOLICIT, &two)).unwrap();
        assert!(given(&reported(&reply)[&option::ASSOCIATION]).is_empty());
    }

    #[test]
    fn another_address_is_over() {
        let ask = |kind: u8, held: &[&str]| {
            answer(&port(), &message(kind, &[(option::ASSOCIATION, &association(held))])).unwrap()
        };
        let reply = ask(kind::REBIND, &["fd00:2::9"]);
        let given = given(&reported(&reply)[&option::ASSOCIATION]);
        assert_eq!(given, [("fd00:2::9".to_owned(), 0), (OWN.to_owned(), u32::MAX)]);
        assert_eq!(reported(&ask(kind::CONFIRM, &[OWN]))[&option::STATUS], [0, 0]);
        assert_eq!(reported(&ask(kind::CONFIRM, &["fd00:2::9"]))[&option::STATUS], [0, 4]);
    }

    #[test]
    fn what_is_no_request_gets_no_answer() {
        let ask = |bytes: &[u8]| answer(&port(), bytes);
        let good = message(kind::SOLICIT, &[(option::ASSOCIATION, &association(&[OWN]))]);
        // An option that is cut off.
        for length in (0..good.len()).filter(|length| *length != 4 + 14) {
            assert!(ask(&good[..length]).is_none(), "{length}");
        }
        let other = (option::SERVER, &[0; 8][..]);
        for bad in [
            message(kind::SOLICIT, &[(option::SERVER, &DUID)]),
            message(kind::REQUEST, &[]),
            message(kind::REQUEST, &[other]),
            message(kind::INFORMATION, &[other]),
            message(kind::ADVERTISE, &[]),
            message(kind::REPLY, &[(option::SERVER, &DUID)]),
            message(12, &[]),
            vec![kind::SOLICIT, 0, 0, 0],
            message(kind::SOLICIT, &[(option::CLIENT, &[0; 131])]),
            vec![0xff; 64],
        ] {
            assert!(ask(&bad).is_none(), "{bad:?}");
        }
        assert!(ask(&[kind::INFORMATION, 0, 0, 0, 0, 6, 0, 0]).is_some());
        assert!(answer(&Port { address6: None, ..port() }, &good).is_none());
    }
}
