//! QEMU's firmware configuration device on ports, with its DMA interface. (docs/specs/fw_cfg.rst in
//! QEMU)
//!
//! Its items never change; what the guest can change is where it reads. A DMA request is read from
//! guest memory once, and every address in it is checked by the access itself.

use crate::chipset::bus::BusDevice;
use crate::mem::GuestRam;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, GuestAddress};

/// Offsets of the registers.
const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;

/// What the DMA register reads as.
const DMA_SIGNATURE: &[u8; 8] = b"QEMU CFG";

/// Bits of a DMA request's control word; its upper half is a selector.
const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Longest transfer: no item comes near it, and a guest must not keep its CPU from halting for
/// long.
const MAX_TRANSFER: u32 = 1 << 20;

/// What is selected, and how much of it has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Index into the items; one past them where there is no such item.
    item: usize,
    offset: usize,
    dma_high: u32,
}

/// The device.
pub struct FwCfg {
    items: Vec<(u16, Vec<u8>)>,
    ram: GuestRam,
    position: Mutex<Position>,
}

impl FwCfg {
    /// Offer `items`, each with its selector.
    pub fn new(items: Vec<(u16, Vec<u8>)>, ram: GuestRam) -> Self {
        let device = Self { items, ram, position: Mutex::default() };
        device.reset();
        device
    }

    /// The machine's reset: item 0 from its beginning.
    pub fn reset(&self) {
        let mut position = self.position();
        *position = Position::default();
        self.select(&mut position, 0);
    }

    /// The state that a hibernated machine keeps.
    pub fn save(&self) -> Position {
        *self.position()
    }

    /// Takes over a saved state. A position beyond the items reads as zeros.
    pub fn restore(&self, state: Position) {
        *self.position() = state;
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn select(&self, position: &mut Position, selector: u16) {
        let found = self.items.iter().position(|(own, _)| *own == selector);
        (position.item, position.offset) = (found.unwrap_or(self.items.len()), 0);
    }

    /// What is left of the selected item.
    fn rest(&self, position: &Position) -> &[u8] {
        let bytes = self.items.get(position.item).map_or(&[][..], |(_, bytes)| bytes);
        bytes.get(position.offset..).unwrap_or_default()
    }

    /// Do the DMA request at `address`, and answer in its control word.
    fn dma(&self, position: &mut Position, address: u64) {
        let Ok(request) = self.ram.read_obj::<[u8; 16]>(GuestAddress(address)) else { return };
        let [control, length] = [0, 4].map(|at| {
            let bytes = [request[at], request[at + 1], request[at + 2], request[at + 3]];
            u32::from_be_bytes(bytes)
        });
        let target = request[8..].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let done = self.transfer(position, control, length, target);
        let answer = if done.is_some() { 0 } else { ERROR };
        // It was RAM a moment ago, and a machine's RAM does not go.
        let _ = self.ram.write_obj(answer.to_be_bytes(), GuestAddress(address));
    }

    /// `None` where the request cannot be done.
    fn transfer(
        &self,
        position: &mut Position,
        control: u32,
        length: u32,
        target: u64,
    ) -> Option<()> {
        if control & SELECT != 0 {
            self.select(position, (control >> 16) as u16);
        }
        if length > MAX_TRANSFER {
            return None;
        }
        if control & READ != 0 {
            self.copy_out(position, length as usize, target)?;
        } else if control & WRITE != 0 {
            // All items are read-only.
            return None;
        } else if control & SKIP == 0 {
            return Some(());
        }
        position.offset = position.offset.saturating_add(length as usize);
        Some(())
    }

    /// Beyond the item's end there are zeros.
    fn copy_out(&self, position: &Position, length: usize, target: u64) -> Option<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let rest = self.rest(position);
        let bytes = &rest[..rest.len().min(length)];
        if !bytes.is_empty() {
            self.ram.write_slice(bytes, GuestAddress(target)).ok()?;
        }
        let mut done = bytes.len();
        while done < length {
            let piece = (length - done).min(ZEROS.len());
            let at = target.checked_add(done as u64)?;
            self.ram.write_slice(&ZEROS[..piece], GuestAddress(at)).ok()?;
            done += piece;
        }
        Some(())
    }
}

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, &mut *data) {
            (DATA, [byte]) => {
                let mut position = self.position();
                *byte = self.rest(&position).first().copied().unwrap_or(0);
                position.offset = position.offset.saturating_add(1);
            }
            (DMA_HIGH, [_, _, _, _]) => data.copy_from_slice(&DMA_SIGNATURE[..4]),
            (DMA_LOW, [_, _, _, _]) => data.copy_from_slice(&DMA_SIGNATURE[4..]),
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => {
                self.select(&mut self.position(), u16::from_le_bytes([low, high]));
            }
            (DMA_HIGH, &[a, b, c, d]) => {
                self.position().dma_high = u32::from_be_bytes([a, b, c, d]);
            }
            (DMA_LOW, &[a, b, c, d]) => {
                let mut position = self.position();
                let high = std::mem::take(&mut position.dma_high);
                let address = u64::from(high) << 32 | u64::from(u32::from_be_bytes([a, b, c, d]));
                self.dma(&mut position, address);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "fw_cfg_tests.rs"]
mod tests;
