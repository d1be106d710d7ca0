//! A client's side of DHCP (RFC 2131, RFC 2132).

use super::stack::{Place, Stack, be16};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Where options begin, behind the fixed fields and the magic cookie. (RFC 2131, 2 and 3)
const OPTIONS: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Message types. (RFC 2132, 9.6)
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// A server's message.
struct Reply {
    address: [u8; 4],
    options: Vec<u8>,
}

impl Reply {
    /// The answer of this type to the message with this number.
    fn read(bytes: &[u8], transaction: u32, kind: u8) -> Option<Self> {
        let (fixed, options) = bytes.split_at_checked(OPTIONS)?;
        let own = fixed[0] == 2 && fixed[4..8] == transaction.to_be_bytes();
        let reply = Self { address: fixed[16..20].try_into().ok()?, options: options.to_vec() };
        (own && fixed[236..] == MAGIC && reply.option(53)? == [kind]).then_some(reply)
    }

    fn option(&self, code: u8) -> Option<&[u8]> {
        let mut rest = &self.options[..];
        loop {
            let (&this, after) = rest.split_first()?;
            if this == 0 {
                rest = after;
                continue;
            }
            let (&len, after) = after.split_first()?;
            let (value, after) = after.split_at_checked(len.into())?;
            if this == code {
                return Some(value);
            }
            rest = after;
        }
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.option(code)?.get(..4)?).ok()?))
    }
}

fn message(stack: &Stack, transaction: u32, options: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OPTIONS + 64);
    bytes.resize(OPTIONS, 0);
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[10] = 0x80; // BROADCAST
    bytes[28..34].copy_from_slice(&stack.mac());
    bytes[236..].copy_from_slice(&MAGIC);
    options.iter().for_each(|option| bytes.extend(*option));
    bytes.push(255);
    bytes
}

/// Get an address: the host's name and the network's MTU.
pub fn configure(stack: &mut Stack, transaction: u32) -> (Vec<u8>, u16) {
    let mut ask = |options: &[&[u8]], kind: u8| {
        let question = message(stack, transaction, options);
        let reply = |datagram: &[u8]| Reply::read(datagram, transaction, kind);
        let everybody = (Ipv4Addr::BROADCAST, SERVER_PORT);
        let answer = stack.ask(CLIENT_PORT, everybody, &question, |found| reply(&found.payload));
        answer.expect("an answer by DHCP")
    };
    let wanted = &[55, 5, 1, 3, 6, 12, 26][..];
    let offer = ask(&[&[53, 1, DISCOVER], wanted], OFFER);
    let server = offer.address(54).expect("a server").octets();
    let request = [&[53, 1, REQUEST][..], &[50, 4], &offer.address, &[54, 4], &server, wanted];
    let lease = ask(&request, ACK);
    let part = |code: u8| lease.address(code).unwrap_or(Ipv4Addr::UNSPECIFIED);
    stack.place = Place {
        address: lease.address.into(),
        prefix: part(1).to_bits().leading_ones(),
        router: part(3),
        resolver: part(6),
    };
    let mtu = lease.option(26).filter(|mtu| mtu.len() == 2).map_or(0, |mtu| be16(mtu, 0));
    (lease.option(12).unwrap_or_default().to_vec(), mtu)
}
