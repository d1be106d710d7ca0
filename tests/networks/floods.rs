//! Guests that do their worst: their neighbours don't notice, and they are served when they behave.

use super::common::Store;
use super::guest::Guest;
use super::{has_networks, until};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const MANY: u32 = 10_000;

/// Connections that nothing is asked by: each round of 500 takes a second and more.
/// SPORE_TEST_CONNECTIONS has another number, as 10000.
fn connections() -> u32 {
    let given = std::env::var("SPORE_TEST_CONNECTIONS").ok();
    given.map_or(1000, |number| number.parse().unwrap())
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// An Ethernet frame of IPv4 for everybody.
fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend([from, to].concat());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 0], &header, payload].concat()
}

fn syn(from: [u8; 4], to: [u8; 4], n: u32) -> Vec<u8> {
    let port = u16::try_from(1024 + n % 60_000).unwrap().to_be_bytes();
    let mut tcp = vec![port[0], port[1], 0, 80];
    tcp.extend(n.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&from[..], &to, &[0, 6, 0, 20]].concat();
    let sum = checksum(&[&pseudo, &tcp]);
    tcp[16..18].copy_from_slice(&sum);
    ipv4(6, from, to, &tcp)
}

/// A frame that asks who has an address.
fn who_has(own: [u8; 4], address: [u8; 4]) -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 9];
    let head = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head[..], &mac, &own, &[0; 6], &address].concat()
}

fn discover(n: u32) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&n.to_be_bytes());
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1, 255]);
    let length = u16::try_from(8 + message.len()).unwrap().to_be_bytes();
    let udp = [&[0, 68, 0, 67, length[0], length[1], 0, 0][..], &message].concat();
    ipv4(17, [0; 4], [255; 4], &udp)
}

/// Two guests of a network called lab, where there can be one.
fn neighbours(store: &Store) -> Option<(Guest, Guest)> {
    if !has_networks(store) {
        return None;
    }
    store.ok(&["network", "create", "lab"]);
    Some((Guest::launch(store, "lab", &[])?, Guest::launch(store, "lab", &[])?))
}

/// SYNs, ARP, DHCP, garbage of all lengths: meanwhile the neighbour's metadata is there, and the
/// guest's own afterwards. No process ends.
#[test]
fn floods_are_the_floods_guests_own_business() {
    let store = Store::new();
    let Some((bad, good)) = neighbours(&store) else { return };
    let lab = super::killed::Network::new(&store, "lab");
    // The supervisor and the worker.
    let before: Vec<u32> = lab.processes().into_iter().take(2).collect();
    let own = bad.address.octets();
    let mut random = 1u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random
    };
    let mut garbage = |n: u32| -> Vec<u8> {
        let length =
            if n.is_multiple_of(100) { 65_000 } else { usize::try_from(next() % 200).unwrap() };
        let mut frame: Vec<u8> = (0..length).map(|_| next().to_be_bytes()[0]).collect();
        // What looks like IPv4, IPv6 or ARP gets further.
        if let Some(kind) = frame.get_mut(12..15) {
            kind.copy_from_slice(&[[8, 0, 0x45], [0x86, 0xdd, 0x60], [8, 6, 0]][n as usize % 3]);
        }
        frame
    };
    let metadata = [169, 254, 169, 254];
    let flood = |frame: &mut dyn FnMut(u32) -> Vec<u8>| {
        for n in 0..MANY {
            bad.send(&frame(n));
            if n == MANY / 2 {
                assert_eq!(good.metadata("meta-data/instance-id"), good.id);
            }
        }
        assert_eq!(good.metadata("meta-data/instance-id"), good.id);
        until(|| bad.metadata("meta-data/instance-id") == bad.id);
    };
    flood(&mut |n| syn(own, metadata, n));
    flood(&mut |n| syn(n.to_be_bytes(), metadata, n));
    flood(&mut |n| who_has(own, (0x0a00_0000 + n).to_be_bytes()));
    flood(&mut |n| who_has(n.to_be_bytes(), own));
    flood(&mut discover);
    flood(&mut garbage);
    let after = lab.processes();
    assert!(before.iter().all(|pid| after.contains(pid)), "{before:?} {after:?}");
}

/// Many connections, none of which asks anything: an instance has 32 at a time, of which
/// one more closes the oldest.
#[test]
fn an_instance_has_so_many_connections() {
    let store = Store::new();
    let Some((bad, good)) = neighbours(&store) else { return };
    let flood = bad.host.beside(|| {
        let to: SocketAddr = "169.254.169.254:80".parse().unwrap();
        let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(20));
        let mut made = 0;
        while made < connections() {
            // As many as a process may have open.
            let open: Vec<TcpStream> = (0..500).filter_map(|_| connect().ok()).collect();
            assert!(open.len() > 250, "{} of 500", open.len());
            made += u32::try_from(open.len()).unwrap();
            // The oldest are closed at once, and all in the end.
            for mut stream in open {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
            }
        }
    });
    while !flood.is_finished() {
        assert_eq!(good.metadata("meta-data/instance-id"), good.id);
    }
    flood.join().unwrap();
    until(|| bad.metadata("meta-data/instance-id") == bad.id);
}
