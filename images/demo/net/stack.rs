//! As much of IPv4 over Ethernet as a client and a small server need: ARP (RFC 826), IP without
//! fragments or options (RFC 791), echo (RFC 792), UDP (RFC 768). Above it, [`super::tcp`].

use super::tcp::Connection;
use crate::rt::cpu;
use crate::rt::nic::{FRAME, Nic};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// The interrupt that the timer is given.
const TIMER: u32 = 1;
/// Ticks of the timer a second.
pub const HERTZ: u32 = 20;
/// Bytes of an Ethernet header, and of an IP header.
const ETHERNET: usize = 14;
const IP: usize = 20;
/// Bytes that one IP packet carries.
pub const PAYLOAD: usize = FRAME - ETHERNET - IP;
/// EtherTypes.
const TYPE_IP: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
/// IP's protocols.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Link-layer addresses that are kept.
const NEIGHBOURS: usize = 64;
/// Packets that wait for one.
const WAITING: usize = 16;
const EVERYBODY: [u8; 6] = [0xff; 6];

/// Where this host is.
#[derive(Clone, Copy)]
pub struct Place {
    /// Its address; 0.0.0.0 as long as it has none.
    pub address: Ipv4Addr,
    /// Bits of it that its network's hosts share.
    pub prefix: u32,
    /// Who passes on what goes elsewhere.
    pub router: Ipv4Addr,
    /// Who knows names.
    pub resolver: Ipv4Addr,
}

/// A datagram that has come in.
pub struct Datagram {
    /// Whose it is, and the port it came from.
    pub from: (Ipv4Addr, u16),
    /// What it carries.
    pub payload: Vec<u8>,
}

/// An interface and what is known on it.
pub struct Stack {
    /// Where this host is.
    pub place: Place,
    /// Connections, in no order.
    pub connections: Vec<Connection>,
    /// What whoever connects to [`super::tcp::PORT`] is told.
    pub said: Vec<u8>,
    /// Whoever speaks of a connection that is not there is not told so.
    pub quiet: bool,
    nic: Nic,
    neighbours: Vec<(Ipv4Addr, [u8; 6])>,
    /// Packets without the Ethernet header, by whose address they wait for.
    waiting: Vec<(Ipv4Addr, Vec<u8>)>,
    /// The port that datagrams are taken at, and the last one.
    listening: u16,
    datagram: Option<Datagram>,
    frame: [u8; FRAME],
    ports: u16,
}

/// The Internet checksum of these parts, all but the last of an even length. (RFC 1071)
fn checksum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = pairs.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of a UDP datagram or TCP segment, with its pseudo header.
fn transport_checksum(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> u16 {
    let length = (payload.len() as u16).to_be_bytes();
    checksum(&[&from.octets(), &to.octets(), &[0, protocol], &length, payload])
}

/// A number in network order.
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The same of four bytes.
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(be32(bytes, at))
}

impl Stack {
    /// A host without an address. `seed` chooses its ports.
    pub fn new(nic: Nic, seed: u16) -> Self {
        cpu::periodic_timer(TIMER, HERTZ);
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            place: Place { address: none, prefix: 0, router: none, resolver: none },
            connections: Vec::with_capacity(256),
            said: Vec::new(),
            quiet: false,
            nic,
            neighbours: Vec::with_capacity(NEIGHBOURS),
            waiting: Vec::with_capacity(WAITING),
            listening: 0,
            datagram: None,
            frame: [0; FRAME],
            ports: seed | 0xc000,
        }
    }

    /// The interface's address.
    pub fn mac(&self) -> [u8; 6] {
        self.nic.mac
    }

    /// Ticks of the timer so far.
    pub fn now(&self) -> u64 {
        cpu::irq_count(TIMER)
    }

    /// A port of one's own. (RFC 6335, 6: the dynamic ones)
    pub fn port(&mut self) -> u16 {
        self.ports = self.ports.wrapping_add(1) | 0xc000;
        self.ports
    }

    /// Serve everybody until `found` finds something, for at most so many ticks.
    pub fn until<T>(
        &mut self,
        ticks: u64,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let end = self.now() + ticks;
        loop {
            self.poll();
            let some = found(self);
            if some.is_some() || self.now() >= end {
                return some;
            }
            self.nic.wait();
        }
    }

    /// Take what has come in, and do what is due.
    fn poll(&mut self) {
        let mut frame = self.frame;
        while let Some(len) = self.nic.receive(&mut frame) {
            self.take(&frame[..len]);
        }
        self.drive_connections();
    }

    fn take(&mut self, frame: &[u8]) {
        let Some((header, payload)) = frame.split_at_checked(ETHERNET) else { return };
        if header[..6] != self.nic.mac && header[..6] != EVERYBODY {
            return;
        }
        match be16(header, 12) {
            TYPE_ARP => self.take_arp(payload),
            TYPE_IP => self.take_ip(payload),
            _ => {}
        }
    }

    fn take_arp(&mut self, packet: &[u8]) {
        // Ethernet and IPv4.
        if packet.len() < 28 || packet[..6] != [0, 1, 8, 0, 6, 4] {
            return;
        }
        let (sender, target) = (address(packet, 14), address(packet, 24));
        if target != self.place.address {
            return;
        }
        let mac: [u8; 6] = packet[8..14].try_into().expect("six bytes");
        self.learn(sender, mac);
        if be16(packet, 6) == 1 {
            self.send_arp(2, mac, sender);
        }
    }

    fn send_arp(&mut self, operation: u8, mac: [u8; 6], target: Ipv4Addr) {
        let mut packet = [0; 28];
        packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
        packet[8..14].copy_from_slice(&self.nic.mac);
        packet[14..18].copy_from_slice(&self.place.address.octets());
        packet[18..24].copy_from_slice(&mac);
        packet[24..28].copy_from_slice(&target.octets());
        let to = if operation == 1 { EVERYBODY } else { mac };
        self.send_frame(to, TYPE_ARP, &packet);
    }

    fn learn(&mut self, neighbour: Ipv4Addr, mac: [u8; 6]) {
        self.neighbours.retain(|(known, _)| *known != neighbour);
        if self.neighbours.len() == NEIGHBOURS {
            self.neighbours.remove(0);
        }
        self.neighbours.push((neighbour, mac));
        while let Some(n) = self.waiting.iter().position(|(hop, _)| *hop == neighbour) {
            let (_, packet) = self.waiting.remove(n);
            self.send_frame(mac, TYPE_IP, &packet);
        }
    }

    fn send_frame(&mut self, to: [u8; 6], kind: u16, payload: &[u8]) {
        let mut frame = [0; FRAME];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.nic.mac);
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        let end = ETHERNET + payload.len();
        frame[ETHERNET..end].copy_from_slice(payload);
        self.nic.send(&frame[..end]);
    }

    fn take_ip(&mut self, packet: &[u8]) {
        if packet.len() < IP || packet[0] != 0x45 {
            return;
        }
        let len = usize::from(be16(packet, 2));
        // More fragments, or not the first.
        if len < IP || len > packet.len() || be16(packet, 6) & 0x3fff != 0 {
            return;
        }
        let (header, payload) = packet[..len].split_at(IP);
        // The host was not asked to leave any to this driver.
        assert_eq!(checksum(&[header]), 0, "an IP header's checksum");
        let (protocol, from, to) = (packet[9], address(packet, 12), address(packet, 16));
        if !to.is_broadcast() && !self.place.address.is_unspecified() && to != self.place.address {
            return;
        }
        match protocol {
            ICMP if payload.len() >= 8 && payload[0] == 8 => self.answer_echo(from, payload),
            UDP if payload.len() >= 8 => self.take_datagram(from, to, payload),
            TCP if payload.len() >= 20 => {
                assert_eq!(transport_checksum(TCP, from, to, payload), 0, "TCP's checksum");
                self.take_segment(from, payload);
            }
            _ => {}
        }
    }

    fn answer_echo(&mut self, from: Ipv4Addr, request: &[u8]) {
        let mut reply = request.to_vec();
        reply[..4].fill(0);
        let sum = checksum(&[&reply]);
        reply[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send_ip(ICMP, from, &reply);
    }

    fn take_datagram(&mut self, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) {
        if be16(payload, 6) != 0 {
            assert_eq!(transport_checksum(UDP, from, to, payload), 0, "UDP's checksum");
        }
        if be16(payload, 2) == self.listening {
            let payload_of = payload[8..].to_vec();
            self.datagram = Some(Datagram { from: (from, be16(payload, 0)), payload: payload_of });
        }
    }

    /// Send an IP packet; at once, or when its next hop's address is known.
    pub fn send_ip(&mut self, protocol: u8, to: Ipv4Addr, payload: &[u8]) {
        let mut packet = Vec::with_capacity(IP + payload.len());
        let len = ((IP + payload.len()) as u16).to_be_bytes();
        packet.extend([0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(self.place.address.octets());
        packet.extend(to.octets());
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        if to.is_broadcast() {
            return self.send_frame(EVERYBODY, TYPE_IP, &packet);
        }
        let differ = (self.place.address.to_bits() ^ to.to_bits()).leading_zeros();
        let hop = if differ >= self.place.prefix { to } else { self.place.router };
        if let Some(&(_, mac)) = self.neighbours.iter().find(|(known, _)| *known == hop) {
            return self.send_frame(mac, TYPE_IP, &packet);
        }
        if self.waiting.len() == WAITING {
            self.waiting.remove(0);
        }
        self.waiting.push((hop, packet));
        self.send_arp(1, [0; 6], hop);
    }

    /// Send a segment, whose checksum is missing.
    pub fn send_segment(&mut self, to: Ipv4Addr, segment: &mut [u8]) {
        let sum = transport_checksum(TCP, self.place.address, to, segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.send_ip(TCP, to, segment);
    }

    /// Send a datagram from `port` and wait for what comes back to there and is to the liking of
    /// `found`; again and again, each time for longer.
    pub fn ask<T>(
        &mut self,
        port: u16,
        to: (Ipv4Addr, u16),
        question: &[u8],
        mut found: impl FnMut(&Datagram) -> Option<T>,
    ) -> Option<T> {
        let mut datagram = Vec::with_capacity(8 + question.len());
        for number in [port, to.1, (8 + question.len()) as u16, 0] {
            datagram.extend(number.to_be_bytes());
        }
        datagram.extend(question);
        let sum = transport_checksum(UDP, self.place.address, to.0, &datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        (self.listening, self.datagram) = (port, None);
        (0..6).find_map(|turn| {
            self.send_ip(UDP, to.0, &datagram);
            let ticks = u64::from(HERTZ) << turn;
            self.until(ticks, |stack| stack.datagram.take().and_then(|datagram| found(&datagram)))
        })
    }
}
