//! The MSI-X table: what each of a function's interrupts is, and which wait. (PCI Local Bus 3.0,
//! 6.8.2)

use crate::virtio::transport::virtio_core::{set_high, set_low};
use serde::{Deserialize, Serialize};

/// VIRTIO_MSI_NO_VECTOR. (VIRTIO 1.2, 4.1.5.1.2)
pub const NO_VECTOR: u16 = 0xffff;
/// Bytes of an entry. (6.8.2.6)
pub const ENTRY_LEN: u64 = 16;
/// Vector Control: the Mask bit. The others are reserved. (6.8.2.9)
const MASK: u32 = 1;

/// A message: 32 bits of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message Address and Message Upper Address.
    pub address: u64,
    /// Message Data.
    pub data: u32,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    /// The interrupt waits for being unmasked.
    pending: bool,
}

impl Entry {
    /// After reset every vector is masked. (6.8.2.9)
    const RESET: Self = Self { address: 0, data: 0, masked: true, pending: false };

    /// What it would deliver. Only messages to local APICs are interrupts (Intel SDM vol. 3,
    /// 11.11.1); anything else would be a write to memory, which nobody wants who is in his right
    /// mind: it delivers nothing.
    fn message(&self) -> Option<Message> {
        const APICS: u64 = 0xfee;
        (self.address >> 20 == APICS).then_some(Message { address: self.address, data: self.data })
    }
}

/// What is to be done about an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It goes out.
    Now,
    /// It is masked and waits.
    Later,
    /// There is none: MSI-X is off, or the vector has no such number.
    Never,
}

/// The table, the pending bits, and Message Control's two bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Msix {
    enabled: bool,
    function_mask: bool,
    entries: Vec<Entry>,
}

impl Msix {
    /// `vectors` vectors, as after reset.
    pub fn new(vectors: u16) -> Self {
        let entries = vec![Entry::RESET; vectors.into()];
        Self { enabled: false, function_mask: false, entries }
    }

    /// As after reset.
    pub fn reset(&mut self) {
        *self = Self::new(self.vectors());
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// MSI-X is in use.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Follow Message Control: MSI-X Enable (bit 15) and Function Mask (bit 14). (6.8.2.3)
    pub fn set_control(&mut self, control: u16) {
        self.enabled = control & 1 << 15 != 0;
        self.function_mask = control & 1 << 14 != 0;
    }

    /// The vector can go out, and this is what it delivers.
    pub fn live(&self, vector: u16) -> Option<Option<Message>> {
        let entry = self.entries.get(usize::from(vector))?;
        (self.enabled && !self.function_mask && !entry.masked).then(|| entry.message())
    }

    /// There is an interrupt. One that must wait is remembered.
    pub fn raise(&mut self, vector: u16) -> Delivery {
        let masked = self.function_mask;
        match self.entries.get_mut(usize::from(vector)) {
            Some(entry) if self.enabled && (masked || entry.masked) => {
                entry.pending = true;
                Delivery::Later
            }
            Some(_) if self.enabled => Delivery::Now,
            _ => Delivery::Never,
        }
    }

    /// Whether the vector waited, which it does no longer.
    pub fn take_pending(&mut self, vector: u16) -> bool {
        let entry = self.entries.get_mut(usize::from(vector));
        entry.is_some_and(|entry| std::mem::take(&mut entry.pending))
    }

    /// The guest reads the table: an aligned double or quad word, else all ones. (6.8.2.6)
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((entry, at)) = self.locate(offset, data.len()) else { return };
        let mut bytes = [0; ENTRY_LEN as usize];
        bytes[..8].copy_from_slice(&entry.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&entry.data.to_le_bytes());
        bytes[12..].copy_from_slice(&u32::from(entry.masked).to_le_bytes());
        data.copy_from_slice(&bytes[at..at + data.len()]);
    }

    fn locate(&self, offset: u64, size: usize) -> Option<(&Entry, usize)> {
        let at = (offset % ENTRY_LEN) as usize;
        let entry = self.entries.get(usize::try_from(offset / ENTRY_LEN).ok()?)?;
        (matches!(size, 4 | 8) && at.is_multiple_of(size)).then_some((entry, at))
    }

    /// The guest writes the table: an aligned double or quad word. Which vector it changed.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        let (_, at) = self.locate(offset, data.len())?;
        let vector = (offset / ENTRY_LEN) as usize;
        let entry = self.entries.get_mut(vector)?;
        for (at, word) in (at..).step_by(4).zip(data.chunks_exact(4)) {
            let word = u32::from_le_bytes(word.try_into().ok()?);
            match at {
                // Bits 1:0 of the address are always zero. (6.8.2.7)
                0 => set_low(&mut entry.address, word & !3),
                4 => set_high(&mut entry.address, word),
                8 => entry.data = word,
                _ => entry.masked = word & MASK != 0,
            }
        }
        Some(vector as u16)
    }

    /// The guest reads the Pending Bit Array. (6.8.2.10)
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let first = offset.saturating_mul(8);
        for (bit, entry) in (0u64..).zip(&self.entries) {
            let place =
                bit.checked_sub(first).and_then(|at| Some((usize::try_from(at / 8).ok()?, at % 8)));
            if let Some((byte, shift)) = place
                && let Some(byte) = data.get_mut(byte)
            {
                *byte |= u8::from(entry.pending) << shift;
            }
        }
    }
}

/// Which interrupts there are, and who has which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vectors {
    /// The table.
    pub msix: Msix,
    /// config_msix_vector.
    pub config: u16,
    /// queue_msix_vector of each queue.
    pub queues: Vec<u16>,
}

impl Vectors {
    /// What a driver that asks for `vector` gets: that, or none if there is no such. (4.1.5.1.2.1)
    pub fn checked(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() { vector } else { NO_VECTOR }
    }
}
