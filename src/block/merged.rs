//! One table for all layers that nobody writes.
//!
//! Below the top nothing of a chain ever changes. So where a piece of the disk is has to be found out once, by walking
//! the layers, however many there are; afterwards it is one look at a table, as with a single base.

use super::chain::Source;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// What one entry tells about: a cluster of our overlays.
const UNIT_BITS: u32 = 16;
/// Entries of a slice: one page.
const SLICE: u64 = 512;
/// Slices held before all are dropped: 4 MiB, which map 32 GiB.
const MAX_SLICES: usize = 1024;

/// Entries: not looked up yet.
const UNKNOWN: u64 = 0;
/// All zeros.
const ZERO: u64 = 1;
/// In several places, or compressed: walk the layers.
const MIXED: u64 = 2;
/// In one place: this bit, the layer in the highest byte, and the host offset, a multiple of 512, between.
const HOST: u64 = 4;
const LAYER_SHIFT: u32 = 56;
const OFFSET_MASK: u64 = (1 << LAYER_SHIFT) - 512;

type Slice = Arc<[AtomicU64]>;

/// The table.
#[derive(Default)]
pub(crate) struct Merged {
    slices: RwLock<HashMap<u64, Slice>>,
}

impl Merged {
    /// Where the range from `offset` is, and how much of it is there. `walk` asks the layers for a range.
    pub(crate) fn map(
        &self,
        (offset, len): (u64, u64),
        size: u64,
        walk: impl Fn(u64, u64) -> io::Result<(Source, u64)>,
    ) -> io::Result<(Source, u64)> {
        let unit = offset >> UNIT_BITS;
        let (start, within) = (unit << UNIT_BITS, offset & ((1 << UNIT_BITS) - 1));
        let slice = self.slice(unit / SLICE);
        let entry = &slice[(unit % SLICE) as usize];
        let mut known = entry.load(Ordering::Acquire);
        if known == UNKNOWN {
            let whole = (1 << UNIT_BITS).min(size - start);
            known = match walk(start, whole)? {
                (Source::Zero, have) if have == whole => ZERO,
                (Source::Host { layer, offset, .. }, have)
                    if have == whole && layer < 256 && offset & !OFFSET_MASK == 0 =>
                {
                    (layer as u64) << LAYER_SHIFT | offset | HOST
                }
                _ => MIXED,
            };
            entry.store(known, Ordering::Release);
        }
        let have = len.min((1 << UNIT_BITS) - within);
        match known {
            ZERO => Ok((Source::Zero, have)),
            MIXED => walk(offset, len),
            known => {
                let layer = (known >> LAYER_SHIFT) as usize;
                let offset = (known & OFFSET_MASK) + within;
                Ok((Source::Host { layer, offset, copied: false }, have))
            }
        }
    }

    fn slice(&self, index: u64) -> Slice {
        if let Some(slice) = self.slices.read().unwrap().get(&index) {
            return slice.clone();
        }
        let mut slices = self.slices.write().unwrap();
        if slices.len() >= MAX_SLICES {
            slices.clear();
        }
        let new = || (0..SLICE).map(|_| AtomicU64::new(UNKNOWN)).collect();
        slices.entry(index).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn layers_are_walked_once_for_each_unit() {
        let merged = Merged::default();
        let walks = Cell::new(0);
        let walk = |offset: u64, len: u64| {
            walks.set(walks.get() + 1);
            Ok(match offset >> UNIT_BITS {
                0 => (Source::Host { layer: 7, offset: 1 << 20, copied: true }, len),
                1 => (Source::Zero, len),
                _ => (Source::Zero, len.min(4096)),
            })
        };
        let size = (5 << UNIT_BITS) + 512;
        for _ in 0..3 {
            let (source, have) = merged.map((512, 1 << 20), size, walk).unwrap();
            let offset = (1 << 20) + 512;
            assert_eq!(source, Source::Host { layer: 7, offset, copied: false });
            assert_eq!(have, (1 << UNIT_BITS) - 512);
            assert_eq!(merged.map((1 << UNIT_BITS, 512), size, walk).unwrap().1, 512);
        }
        assert_eq!(walks.get(), 2);
        for _ in 0..2 {
            assert_eq!(merged.map((2 << UNIT_BITS, 8192), size, walk).unwrap().1, 4096);
        }
        assert_eq!(walks.get(), 2 + 3, "what is in pieces is walked each time");
        assert_eq!(merged.map((5 << UNIT_BITS, 512), size, walk).unwrap().1, 512);
    }
}
