//! How much of a disk has to be stored: what is zeros takes nothing.

use super::source::Window;
use crate::block::foreign::{self, Bytes, Image, Place};
use crate::snapshot::digest::is_zero;
use std::io;

/// Zeros are left out in units of a file system block.
const BLOCK: usize = 4096;
/// Bytes that are read at once to find zeros.
const PIECE: u64 = 1 << 20;

/// Whether the disk's content is at most `free` bytes. What is stored as zeros is read only where
/// that decides.
///
/// # Errors
/// As the image's.
pub(super) fn fits(window: &Window, image: &dyn Image, free: u64) -> io::Result<bool> {
    if image.size() <= free || count(window, image, free, &|_, len| Ok(len))? <= free {
        return Ok(true);
    }
    let stored = |from: u64, len: u64| {
        let mut sum = 0;
        for at in (0..len).step_by(PIECE as usize) {
            let mut bytes = vec![0; PIECE.min(len - at) as usize];
            window.read_exact_at(&mut bytes, from + at)?;
            sum += content(&bytes);
        }
        Ok(sum)
    };
    Ok(count(window, image, free, &stored)? <= free)
}

fn content(bytes: &[u8]) -> u64 {
    bytes.chunks(BLOCK).filter(|block| !is_zero(block)).map(|block| block.len() as u64).sum()
}

/// The sum of all runs that have data, as `of` counts them; a little more than `free` where it is
/// more than that.
fn count(
    window: &Window,
    image: &dyn Image,
    free: u64,
    of: &dyn Fn(u64, u64) -> io::Result<u64>,
) -> io::Result<u64> {
    let mut sum = 0u64;
    foreign::each_run(image, window.size(), &mut |_, place, len| {
        match place {
            Place::Zero => {}
            // To unpack it twice would take longer than to find that it does not fit.
            Place::Packed => {}
            Place::At(from) => {
                let mut at = 0;
                while at < len && sum <= free {
                    let (skip, data) = window.data_at(from + at, len - at);
                    at += skip;
                    sum = sum.saturating_add(of(from + at, data)?);
                    at += data;
                }
            }
        }
        Ok(())
    })?;
    Ok(sum)
}
