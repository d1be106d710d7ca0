//! Ranges of IPv6 addresses.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A range of IPv6 addresses, as `fd00:1::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr6 {
    network: Ipv6Addr,
    prefix: u8,
}

impl Cidr6 {
    /// All addresses, `::/0`.
    pub const ANY: Self = Self { network: Ipv6Addr::UNSPECIFIED, prefix: 0 };

    /// The range of `prefix` bits, 0 to 128, that has `address`.
    pub fn of(address: Ipv6Addr, prefix: u8) -> Self {
        let prefix = prefix.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        Self { network: Ipv6Addr::from_bits(address.to_bits() & mask), prefix }
    }

    /// Bits that all of its addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its first address.
    pub fn network(&self) -> Ipv6Addr {
        self.network
    }
}

impl FromStr for Cidr6 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            let shown: String = text.escape_debug().take(60).collect();
            let why = format!(
                "'{shown}' is no range of addresses: give the first and its bits, as 10.0.0.0/16, fd00:1::/64 or ::/0"
            );
            Error::refused(Code::InvalidParameterValue, why)
        };
        let (address, bits) = text.split_once('/').ok_or_else(refuse)?;
        let address: Ipv6Addr = address.parse().map_err(|_| refuse())?;
        let digits = (1..=3).contains(&bits.len()) && bits.bytes().all(|c| c.is_ascii_digit());
        let prefix = bits.parse().ok().filter(|bits| digits && *bits <= 128).ok_or_else(refuse)?;
        let cidr = Self::of(address, prefix);
        if cidr.network == address {
            return Ok(cidr);
        }
        let why = format!("{address}/{prefix} has bits of one address; say {cidr} for all of them");
        Err(Error::refused(Code::InvalidParameterValue, why))
    }
}

impl TryFrom<String> for Cidr6 {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr6> for String {
    fn from(cidr: Cidr6) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for text in ["::/0", "fd00:1::/64", "::1/128", "2001:db8::/32", "8000::/1"] {
            assert_eq!(text.parse::<Cidr6>().unwrap().to_string(), text);
        }
        for bad in
            ["", "::", "::/", "::/129", "::/+8", "fd00::1/64", "10.0.0.0/16", "::/0/0", "x::/8"]
        {
            let error = bad.parse::<Cidr6>().unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{bad}");
            assert!(!error.message().contains('\n'), "{error}");
        }
    }
}
