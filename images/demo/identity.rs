//! What an instance writes into its volume's last sector: text, padded with zeros.

use crate::rt::blk::SECTOR;
use alloc::format;
use alloc::string::{String, ToString};

/// Who booted here, and how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The instance's id.
    pub instance: String,
    /// Its launch index.
    pub index: String,
    /// Boots from this volume so far, this one included.
    pub boots: u32,
}

impl Identity {
    /// An identity that has not booted yet.
    pub fn new(instance: &str, index: &str) -> Self {
        Self { instance: instance.to_string(), index: index.to_string(), boots: 0 }
    }

    /// The sector to write.
    pub fn to_sector(&self) -> [u8; SECTOR] {
        let text = format!("spore-demo {} {} {}\n", self.instance, self.index, self.boots);
        let mut sector = [0; SECTOR];
        sector[..text.len()].copy_from_slice(text.as_bytes());
        sector
    }

    /// What an earlier boot wrote, if one did.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(sector.split(|&b| b == b'\n').next()?).ok()?;
        let mut words = text.strip_prefix("spore-demo ")?.split(' ');
        let mut identity = Self::new(words.next()?, words.next()?);
        identity.boots = words.next()?.parse().ok()?;
        Some(identity)
    }
}
