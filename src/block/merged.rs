//! One table for all layers that nobody writes.
//!
//! Below the top nothing of a chain ever changes. So where a piece of the disk is has to be found
//! out once, by walking the layers, however many there are; afterwards it is one look at a table,
//! as with a single base.
//!
//! The table is a cache: each unit of the disk has one place in it, which it shares with those far
//! away. It takes no lock: an entry is one word, which says of which of them it tells.

use super::layer::Source;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one entry tells about: a cluster of our overlays.
const UNIT_BITS: u32 = 16;
/// Entries of a segment, which maps 128 MiB in 32 KiB of memory, and is there once it is used.
const SEGMENT: u64 = 2048;
/// Segments: 2 MiB of memory at most. What is 8 GiB apart shares an entry.
const SEGMENTS: u64 = 64;

/// The lowest bits of an entry: nothing is known,
const UNKNOWN: u64 = 0;
/// all zeros,
const ZERO: u64 = 1;
/// in several places, or compressed: walk the layers,
const MIXED: u64 = 2;
/// or in one place.
const HOST: u64 = 3;
const KIND_BITS: u32 = 2;
/// Then which of the units that share the entry it is about,
const TAG_BITS: u32 = 16;
/// the layer,
const LAYER_BITS: u32 = 8;
/// and the host offset in sectors.
const OFFSET_SHIFT: u32 = KIND_BITS + TAG_BITS + LAYER_BITS;
const SECTOR_BITS: u32 = 9;

/// The table.
pub(crate) struct Merged {
    segments: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Default for Merged {
    fn default() -> Self {
        Self { segments: (0..SEGMENTS).map(|_| OnceLock::new()).collect() }
    }
}

impl Merged {
    /// Where the range from `offset` is, and how much of it is there. `walk` asks the layers for a
    /// range.
    pub(crate) fn map(
        &self,
        (offset, len): (u64, u64),
        size: u64,
        walk: impl Fn(u64, u64) -> io::Result<(Source, u64)>,
    ) -> io::Result<(Source, u64)> {
        let unit = offset >> UNIT_BITS;
        let (start, within) = (unit << UNIT_BITS, offset & ((1 << UNIT_BITS) - 1));
        let tag = unit / (SEGMENT * SEGMENTS);
        if tag >> TAG_BITS != 0 {
            return walk(offset, len);
        }
        let segment = &self.segments[(unit / SEGMENT % SEGMENTS) as usize];
        let segment = segment.get_or_init(|| (0..SEGMENT).map(|_| AtomicU64::new(0)).collect());
        let entry = &segment[(unit % SEGMENT) as usize];
        let mut known = entry.load(Ordering::Acquire);
        if field(known, 0, KIND_BITS) == UNKNOWN || field(known, KIND_BITS, TAG_BITS) != tag {
            known = look(start, (1 << UNIT_BITS).min(size - start), &walk)? | tag << KIND_BITS;
            entry.store(known, Ordering::Release);
        }
        let have = len.min((1 << UNIT_BITS) - within);
        match field(known, 0, KIND_BITS) {
            ZERO => Ok((Source::Zero, have)),
            MIXED => walk(offset, len),
            _ => {
                let layer = field(known, KIND_BITS + TAG_BITS, LAYER_BITS) as usize;
                let offset = (known >> OFFSET_SHIFT << SECTOR_BITS) + within;
                Ok((Source::Host { layer, offset, copied: false }, have))
            }
        }
    }
}

fn field(entry: u64, shift: u32, bits: u32) -> u64 {
    entry >> shift & ((1 << bits) - 1)
}

/// What is to be remembered of a unit, without its tag.
fn look(
    start: u64,
    whole: u64,
    walk: impl Fn(u64, u64) -> io::Result<(Source, u64)>,
) -> io::Result<u64> {
    Ok(match walk(start, whole)? {
        (Source::Zero, have) if have == whole => ZERO,
        (Source::Host { layer, offset, .. }, have) if have == whole => {
            let sectors = offset >> SECTOR_BITS;
            let fits = layer >> LAYER_BITS == 0 && sectors >> (64 - OFFSET_SHIFT) == 0;
            match fits && offset % (1 << SECTOR_BITS) == 0 {
                true => HOST | (layer as u64) << (KIND_BITS + TAG_BITS) | sectors << OFFSET_SHIFT,
                false => MIXED,
            }
        }
        _ => MIXED,
    })
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

    #[test]
    fn units_that_share_an_entry_do_not_pass_for_each_other() {
        let merged = Merged::default();
        let walk = |offset: u64, len: u64| {
            Ok((Source::Host { layer: 1, offset: offset + (1 << 40), copied: false }, len))
        };
        let apart = (SEGMENT * SEGMENTS) << UNIT_BITS;
        for n in [0, 1, 0, 2, 1, 1 << 17] {
            let (source, _) = merged.map((n * apart, 512), 1 << 51, walk).unwrap();
            let offset = n * apart + (1 << 40);
            assert_eq!(source, Source::Host { layer: 1, offset, copied: false });
        }
    }
}
