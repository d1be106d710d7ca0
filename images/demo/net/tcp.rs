//! As much of TCP as two that have little to say to each other need (RFC 9293): whatever is said
//! fits one segment, which is sent until it is acknowledged; what comes out of order comes again.

use super::stack::{HERTZ, PAYLOAD, Stack, be16, be32};
use crate::rt::cpu::tsc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Where a host tells who it is.
pub const PORT: u16 = 7;
/// Bytes of a header without options.
const HEADER: usize = 20;
/// Bytes that one segment carries.
const SEGMENT: usize = PAYLOAD - HEADER;
/// Bytes that may come in at once.
const WINDOW: u16 = 8 * SEGMENT as u16;
/// How often a segment is sent before its connection counts as broken.
const TRIES: u32 = 8;
/// Ticks that a conversation may take.
const PATIENCE: u64 = 60 * HERTZ as u64;
/// Connections at a time.
const CONNECTIONS: usize = 256;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// What names a connection: the other's address and port, and one's own port.
pub type Name = (Ipv4Addr, u16, u16);

/// One connection.
pub struct Connection {
    name: Name,
    /// The first byte that the other end has not acknowledged.
    first: u32,
    /// What is to be sent from there on: SYN, bytes, FIN.
    syn: bool,
    output: Vec<u8>,
    fin: bool,
    /// FIN was acknowledged.
    closed: bool,
    /// The byte that comes next from the other end, once it has spoken.
    expected: Option<u32>,
    input: Vec<u8>,
    /// Nothing more comes in.
    ended: bool,
    /// There is no such connection any more.
    broken: bool,
    /// The tick at which everything is sent again, and how often it was.
    again: u64,
    tries: u32,
}

impl Connection {
    /// One to say this in. Whoever was called says no more than that.
    fn new(name: Name, expected: Option<u32>, output: &[u8]) -> Self {
        assert!(output.len() <= SEGMENT, "little is said here");
        Self {
            name,
            first: tsc() as u32,
            syn: true,
            output: output.to_vec(),
            fin: expected.is_some(),
            closed: false,
            expected,
            input: Vec::new(),
            ended: false,
            broken: false,
            again: 0,
            tries: 0,
        }
    }

    /// Numbers of the sequence that are not acknowledged.
    fn unacknowledged(&self) -> u32 {
        u32::from(self.syn) + self.output.len() as u32 + u32::from(self.fin)
    }

    /// The other end has everything up to `number`.
    fn acknowledge(&mut self, number: u32) {
        let mut count = number.wrapping_sub(self.first);
        if count == 0 || count > self.unacknowledged() {
            return;
        }
        (self.first, self.again, self.tries) = (number, 0, 0);
        if self.syn {
            (self.syn, count) = (false, count - 1);
        }
        let bytes = self.output.len().min(count as usize);
        self.output.drain(..bytes);
        if count as usize > bytes {
            (self.fin, self.closed) = (false, true);
        }
    }

    /// Bytes and the end of them, if they are the next ones.
    fn hear(&mut self, number: u32, bytes: &[u8], fin: bool) {
        if self.syn || self.expected != Some(number) || self.ended {
            return;
        }
        self.input.extend(bytes);
        self.ended = fin;
        // Whoever hears no more has no more to say.
        self.fin |= fin && !self.closed;
        self.expected = Some(number.wrapping_add(bytes.len() as u32 + u32::from(fin)));
    }
}

/// A segment without its checksum.
fn segment(name: Name, number: u32, expected: Option<u32>, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(HEADER + bytes.len());
    segment.extend(name.2.to_be_bytes());
    segment.extend(name.1.to_be_bytes());
    segment.extend(number.to_be_bytes());
    segment.extend(expected.unwrap_or(0).to_be_bytes());
    let acknowledged = if expected.is_some() { ACK } else { 0 };
    segment.extend([(HEADER / 4 << 4) as u8, flags | acknowledged]);
    segment.extend(WINDOW.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(bytes);
    segment
}

impl Stack {
    /// Say `output` to a port of another host, and hear until it closes the connection. `None`: it
    /// did not answer, or broke off.
    pub fn converse(&mut self, to: (Ipv4Addr, u16), output: &[u8]) -> Option<Vec<u8>> {
        let name = (to.0, to.1, self.port());
        self.connections.push(Connection::new(name, None, output));
        let heard = self.until(PATIENCE, |stack| {
            match stack.connections.iter_mut().find(|one| one.name == name) {
                Some(one) if one.ended => Some(Some(core::mem::take(&mut one.input))),
                Some(_) => None,
                None => Some(None),
            }
        });
        heard.flatten()
    }

    /// Ask for a connection and nothing else: with [`Stack::quiet`] it stays half-open over there.
    pub fn knock(&mut self, to: (Ipv4Addr, u16)) {
        let name = (to.0, to.1, self.port());
        let mut syn = segment(name, tsc() as u32, None, SYN, &[]);
        self.send_segment(to.0, &mut syn);
    }

    /// Send what is due, and forget what is over.
    pub fn drive_connections(&mut self) {
        let now = self.now();
        for n in 0..self.connections.len() {
            let one = &mut self.connections[n];
            if one.unacknowledged() > 0 && now >= one.again {
                one.broken |= one.tries == TRIES;
                one.again = now + (u64::from(HERTZ / 5) << one.tries);
                one.tries += 1;
                self.transmit(n);
            }
        }
        self.connections.retain(|one| !one.broken && !(one.ended && one.closed));
    }

    /// Send all of connection `n` that is not acknowledged, and an acknowledgement.
    fn transmit(&mut self, n: usize) {
        let one = &self.connections[n];
        let (name, expected) = (one.name, one.expected);
        let mut segment = if one.syn {
            segment(name, one.first, expected, SYN, &[])
        } else {
            let fin = if one.fin { FIN } else { 0 };
            segment(name, one.first, expected, PSH | fin, &one.output)
        };
        self.send_segment(name.0, &mut segment);
    }

    /// A segment of at least a header that has come in.
    pub fn take_segment(&mut self, from: Ipv4Addr, segment: &[u8]) {
        let name = (from, be16(segment, 0), be16(segment, 2));
        let (number, acknowledged, flags) = (be32(segment, 4), be32(segment, 8), segment[13]);
        let Some(bytes) = segment.get(usize::from(segment[12] >> 4) * 4..) else { return };
        let length = bytes.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let Some(n) = self.connections.iter().position(|one| one.name == name) else {
            return self.take_first(name, number, acknowledged, flags, length);
        };
        let one = &mut self.connections[n];
        if flags & RST != 0 {
            one.broken |= match one.expected {
                Some(expected) => expected == number,
                None => acknowledged == one.first.wrapping_add(1),
            };
            return;
        }
        if flags & SYN != 0 && one.expected.is_none() {
            one.expected = Some(number.wrapping_add(1));
        }
        if flags & ACK != 0 {
            one.acknowledge(acknowledged);
        }
        one.hear(number, bytes, flags & FIN != 0);
        if length > 0 && one.unacknowledged() > 0 {
            one.again = 0; // which acknowledges as well
        } else if length > 0 {
            self.transmit(n);
        }
    }

    /// A segment of no connection: a new one's, or nobody's. (RFC 9293, 3.10.7.1 and 3.10.7.2)
    fn take_first(&mut self, name: Name, number: u32, acknowledged: u32, flags: u8, length: u32) {
        if flags & RST != 0 || self.quiet {
            return;
        }
        let next = Some(number.wrapping_add(length));
        if flags & (SYN | ACK) == SYN && name.2 == PORT && !self.said.is_empty() {
            if self.connections.len() < CONNECTIONS {
                self.connections.push(Connection::new(name, next, &self.said));
            }
            return;
        }
        let mut reset = match flags & ACK {
            0 => segment(name, 0, next, RST, &[]),
            _ => segment(name, acknowledged, None, RST, &[]),
        };
        self.send_segment(name.0, &mut reset);
    }
}
