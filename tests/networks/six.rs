//! IPv6 of a network: addresses, the router, names, metadata, rules.

use super::common::Store;
use super::guest::Guest;
use super::{has_networks, until};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing has to come for it to count as dropped.
const SILENCE: Duration = Duration::from_millis(700);
const RESOLVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);

/// Two guests of a network that take what its router says.
fn pair(store: &Store) -> Option<[Guest; 2]> {
    if !has_networks(store) {
        return None;
    }
    store.ok(&["network", "create", "lab"]);
    let launch = |name: &str| Guest::launch(store, "lab", &["--name", name]);
    let guests = [launch("one")?, launch("two")?];
    for guest in &guests {
        // Of itself, for the kernel asks who the router is.
        until(|| guest.sh("ip -6 route show default").contains("via fe80::1"));
    }
    Some(guests)
}

/// What a server in a guest answers who comes from another.
fn reaches(from: &Guest, to: &Guest, port: u16) -> bool {
    let address = to.address6;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = to.host.beside(move || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        ready.send(()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(3);
        while std::time::Instant::now() < deadline {
            if let Ok((mut stream, _)) = listener.accept() {
                return stream.write_all(b"here").is_ok();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    });
    is_ready.recv().unwrap();
    let client = from.host.beside(move || {
        let to = SocketAddrV6::new(address, port, 0, 0).into();
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).ok().map(|()| answer)
    });
    let reached = client.join().unwrap().is_some();
    assert_eq!(server.join().unwrap(), reached);
    reached
}

/// A question for the AAAA record of a name.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 28, 0, 1]);
    bytes
}

/// The answers to a question over UDP and over TCP.
fn resolve(guest: &Guest, name: &str) -> [Vec<u8>; 2] {
    let question = question(name);
    let asked = guest.host.beside(move || {
        let to = SocketAddrV6::new(RESOLVER, 53, 0, 0);
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&question, to).unwrap();
        let mut datagram = vec![0; 4096];
        let length = socket.recv(&mut datagram).unwrap();
        datagram.truncate(length);
        let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = u16::try_from(question.len()).unwrap();
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut streamed = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut streamed).unwrap();
        [datagram, streamed]
    });
    asked.join().unwrap()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The address that DHCPv6 gives is the record's; by it guests reach each other through the router
/// of their link, their metadata and names.
#[test]
fn guests_have_an_address_of_ipv6_for_life() {
    let store = Store::new();
    let Some([one, two]) = pair(&store) else { return };
    let (own, id) = (one.address6, one.id.clone());
    let given = one.host.beside(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 546)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let index = std::fs::read_to_string("/sys/class/net/eth0/ifindex");
        let index = index.ok().and_then(|text| text.trim().parse().ok());
        // SOLICIT with rapid commit, a client's id and an association.
        let mut solicit = vec![1, 7, 8, 9, 0, 14, 0, 0, 0, 1, 0, 4, 0, 3, 0, 1, 0, 3, 0, 12];
        solicit.extend(*b"ia01\0\0\0\0\0\0\0\0");
        let servers = "ff02::1:2".parse().unwrap();
        // /sys is the test's own: where it has no such interface there is one besides loopback.
        let indices = index.into_iter().chain(1..8);
        for index in indices {
            let _ = socket.send_to(&solicit, SocketAddrV6::new(servers, 547, 0, index));
        }
        let mut reply = vec![0; 1500];
        let length = socket.recv(&mut reply).unwrap();
        reply.truncate(length);
        reply
    });
    let given = given.join().unwrap();
    assert_eq!(given[..4], [7, 7, 8, 9]);
    assert!(has(&given, &own.octets()) && has(&given, &RESOLVER.octets()), "{given:?}");
    assert!(reaches(&one, &two, 7) && reaches(&two, &one, 8));
    for answer in resolve(&one, "two.internal") {
        assert!(has(&answer, &two.address6.octets()), "{answer:?}");
    }
    let at = |path: &str| format!("http://[fd00:ec2::254]/latest/meta-data/{path}");
    assert_eq!(one.curl(&at("instance-id")), id);
    assert_eq!(one.curl(&at("ipv6")), own.to_string());
    let mac = store.describe(&id)["NetworkInterfaces"][0]["MacAddress"].clone();
    let mac = mac.as_str().unwrap();
    let of_mac =
        |leaf: &str| one.metadata(&format!("meta-data/network/interfaces/macs/{mac}/{leaf}"));
    assert_eq!(of_mac("ipv6s"), own.to_string());
    let prefix = of_mac("subnet-ipv6-cidr-blocks");
    assert!(prefix.starts_with("fd") && prefix.ends_with("::/64"), "{prefix}");
    drop(one);
    store.ok(&["stop", "--force", &id]);
    store.ok(&["start", &id]);
    let after = store.describe(&id)["NetworkInterfaces"][0]["Ipv6Addresses"].clone();
    assert_eq!(after[0]["Ipv6Address"], own.to_string());
}

/// What a guest sends from another's address, or from nobody's, is dropped, of both families.
#[test]
fn no_guest_takes_anothers_address() {
    let store = Store::new();
    let Some([one, two]) = pair(&store) else { return };
    let third = Ipv6Addr::from_bits(two.address6.to_bits() + 9);
    one.sh(&format!(
        "ip -6 addr add {third}/128 dev eth0 nodad; ip -6 addr add 2001:db8::1/128 dev eth0 nodad; \
         ip addr add 10.77.0.9/32 dev eth0; ip addr add 203.0.113.9/32 dev eth0"
    ));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let heard = two.host.beside(move || {
        let socket = UdpSocket::bind("[::]:9").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ready.send(()).unwrap();
        let mut from = Vec::new();
        while from.len() < 2 {
            let (length, _) = socket.recv_from(&mut [0; 64]).unwrap();
            from.push(length);
        }
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        assert!(socket.recv(&mut [0; 64]).is_err());
        from
    });
    is_ready.recv().unwrap();
    let (own4, own6) = (one.address, one.address6);
    let (to4, to6) = (two.address, two.address6);
    let spoofed = [third.to_string(), "2001:db8::1".into()];
    let sent = one.host.beside(move || {
        let send = |from: String, length: usize| {
            let (from, to): (std::net::IpAddr, std::net::IpAddr) = match from.parse().unwrap() {
                std::net::IpAddr::V4(from) => (from.into(), to4.into()),
                std::net::IpAddr::V6(from) => (from.into(), to6.into()),
            };
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(&vec![0; length], (to, 9)).unwrap();
        };
        for from in spoofed.into_iter().chain(["10.77.0.9".into(), "203.0.113.9".into()]) {
            send(from, 50);
        }
        // After what was dropped: its length tells which it was.
        send(own4.to_string(), 4);
        send(own6.to_string(), 6);
    });
    sent.join().unwrap();
    let mut heard = heard.join().unwrap();
    heard.sort_unstable();
    assert_eq!(heard, [4, 6]);
}

/// A security group's rules hold for IPv6: by range and port, and for ICMP.
#[test]
fn security_groups_are_ipv6s_too() {
    let store = Store::new();
    let Some([one, two]) = pair(&store) else { return };
    let group = |verb: &str, rule: &[&str]| {
        store.ok(&[&["network", "group", verb, "lab", "default"][..], rule].concat());
    };
    group("revoke", &["--from", "default"]);
    until(|| !reaches(&one, &two, 7));
    let own = format!("{}/128", one.address6);
    group("allow", &["--protocol", "tcp", "--port", "7-8", "--cidr", &own]);
    until(|| reaches(&one, &two, 7));
    assert!(!reaches(&two, &one, 7) && !reaches(&one, &two, 9));
    let ping = format!("ping -6 -c 1 -W 1 {}", two.address6);
    assert!(!one.try_sh(&ping).status.success());
    group("allow", &["--protocol", "icmpv6", "--port", "128", "--cidr", "::/0"]);
    until(|| one.try_sh(&ping).status.success());
    let listed = store.ok(&["network", "group", "ls", "lab"]);
    assert!(listed.contains(&own) && listed.contains("icmpv6"), "{listed}");
}
