//! What a rule asks of packets, in nf_tables' expressions.

use super::message::{Message, Verdict};
use std::net::IpAddr;

/// nft_data's register of 16 bytes, and the four of 4 bytes that lie behind it.
const REGISTER: u32 = 1;
const BEHIND: u32 = 12;

/// A side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whom it is from.
    Source,
    /// Whom it is for.
    Destination,
}

/// What a rule asks, and does to the packets of which all before is true. (NFTA_RULE_EXPRESSIONS)
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rule(pub(super) Message);

impl Rule {
    /// The packet came by this interface; a name that ends with `*` is a beginning.
    pub fn came_by(self, name: &str) -> Self {
        self.meta(6).interface(name)
    }

    /// It goes by this interface.
    pub fn goes_by(self, name: &str) -> Self {
        self.meta(7).interface(name)
    }

    fn interface(self, name: &str) -> Self {
        match name.strip_suffix('*') {
            Some(beginning) => self.is(beginning.as_bytes()),
            None => self.is(&interface_key(name)),
        }
    }

    /// It is of IPv4, or of IPv6.
    pub fn family(self, six: bool) -> Self {
        self.meta(15).is(&[if six { 10 } else { 2 }])
    }

    /// It is of this protocol.
    pub fn protocol(self, number: u8) -> Self {
        self.meta(16).is(&[number])
    }

    /// Its port that it is for is one of these.
    pub fn ports(self, from: u16, to: u16) -> Self {
        let port = self.payload(2, 2, 2, REGISTER);
        if from == to {
            return port.is(&from.to_be_bytes());
        }
        port.compare(5, &from.to_be_bytes()).compare(3, &to.to_be_bytes())
    }

    /// A byte of its transport header: ICMP's type is the first, its code the second.
    pub fn transport_byte(self, offset: u32, value: u8) -> Self {
        self.payload(2, offset, 1, REGISTER).is(&[value])
    }

    /// It is from, or for, an address of this network. All of a family: whatever is of it.
    pub fn within(self, side: Side, address: IpAddr, prefix: u8) -> Self {
        let rule = self.family(address.is_ipv6());
        let (octets, bits) = match address {
            IpAddr::V4(address) => (address.octets().to_vec(), 32),
            IpAddr::V6(address) => (address.octets().to_vec(), 128),
        };
        match prefix {
            0 => rule,
            _ if prefix >= bits => rule.address(side, address.is_ipv6(), REGISTER).is(&octets),
            _ => {
                let mask = mask(octets.len(), prefix);
                let masked: Vec<u8> = octets.iter().zip(&mask).map(|(a, b)| a & b).collect();
                rule.address(side, address.is_ipv6(), REGISTER).masked(&mask).is(&masked)
            }
        }
    }

    /// It is from, or for, an address of this set.
    pub fn within_set(self, side: Side, six: bool, set: &str) -> Self {
        self.family(six).address(side, six, REGISTER).lookup(set, false, false)
    }

    /// The interface it came by and whom it is from are not in this set. (Of IPv6)
    pub fn foreign(self, set: &str) -> Self {
        self.family(true).meta(6).address(Side::Source, true, BEHIND).lookup(set, true, false)
    }

    /// The verdict is what this set has for the interface that it came by, or goes by.
    pub fn verdict_of(self, side: Side, set: &str) -> Self {
        self.meta(if side == Side::Source { 6 } else { 7 }).lookup(set, false, true)
    }

    /// It belongs to a connection that was let pass.
    pub fn known(self) -> Self {
        // NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED.
        let states = 6u32.to_ne_bytes();
        let state = self.expression("ct", |message| {
            message.number(1, REGISTER);
            message.number(2, 0);
        });
        state.masked(&states).compare(1, &[0; 4])
    }

    /// That happens to it.
    pub fn then(self, verdict: Verdict<'_>) -> Self {
        self.expression("immediate", |message| {
            message.number(1, 0);
            message.verdict(2, verdict);
        })
    }

    /// It gets the address of the interface that it goes by.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Self {
        self.0.nest(1, |message| {
            message.text(1, name);
            message.nest(2, fill);
        });
        self
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", |message| {
            message.number(1, REGISTER);
            message.number(2, key);
        })
    }

    /// `base` 1 is the network's header, 2 the transport's.
    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |message| {
            message.number(1, register);
            message.number(2, base);
            message.number(3, offset);
            message.number(4, length);
        })
    }

    /// Where addresses lie in a header. (RFC 791 3.1; RFC 8200 3)
    fn address(self, side: Side, six: bool, register: u32) -> Self {
        let (offset, length) = match (six, side) {
            (false, Side::Source) => (12, 4),
            (false, Side::Destination) => (16, 4),
            (true, Side::Source) => (8, 16),
            (true, Side::Destination) => (24, 16),
        };
        self.payload(1, offset, length, register)
    }

    fn is(self, value: &[u8]) -> Self {
        self.compare(0, value)
    }

    /// (nft_cmp_ops)
    fn compare(self, operation: u32, value: &[u8]) -> Self {
        self.expression("cmp", |message| {
            message.number(1, REGISTER);
            message.number(2, operation);
            message.data(3, value);
        })
    }

    fn masked(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |message| {
            message.number(1, REGISTER);
            message.number(2, REGISTER);
            message.number(3, u32::try_from(mask.len()).unwrap_or(0));
            message.data(4, mask);
            message.data(5, &vec![0; mask.len()]);
        })
    }

    fn lookup(self, set: &str, inverted: bool, verdict: bool) -> Self {
        self.expression("lookup", |message| {
            message.text(1, set);
            message.number(2, REGISTER);
            if verdict {
                message.number(3, 0);
            }
            if inverted {
                message.number(5, 1);
            }
        })
    }
}

/// An interface's name as packets have it. (IFNAMSIZ)
pub fn interface_key(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    for (to, from) in key[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    key
}

fn mask(length: usize, prefix: u8) -> Vec<u8> {
    let bits = |n: usize| usize::from(prefix).saturating_sub(8 * n).min(8);
    (0..length).map(|n| !(0xffu16 >> bits(n)).to_be_bytes()[1]).collect()
}
