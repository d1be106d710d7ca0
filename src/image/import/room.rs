//! Whether a disk fits, before its import begins: after an hour it would be known anyway.

use crate::block::{self, Content};
use crate::error::{Error, OrFail, Result};
use rustix::fs::statvfs;
use std::path::Path;

/// Bytes that are read at once to find zeros.
const PIECE: u64 = 1 << 20;
/// Zeros are left out in units of a file system block.
const BLOCK: usize = 4096;

/// Refuse a disk whose content is more than is free at `dir`. What is stored as zeros takes nothing; it is read only
/// where that decides.
///
/// # Errors
/// `InsufficientVolumeCapacity`; the disk can't be read.
pub(super) fn check(disk: &dyn block::ImportSource, dir: &Path) -> Result<()> {
    let Some(free) = free(dir) else { return Ok(()) };
    if disk.size() <= free {
        return Ok(());
    }
    let data = |count: &dyn Fn(u64, u64) -> Result<u64>| -> Result<u64> {
        let (mut at, mut sum) = (0, 0);
        while let Some(extent) = disk.extent_at(at).or_fail(|| "read its metadata")? {
            super::cancel::check()?;
            if extent.content != Content::Zero {
                sum += count(at, extent.len)?;
            }
            at += extent.len;
            if sum > free {
                break;
            }
        }
        Ok(sum)
    };
    let not_zero = |start: u64, len: u64| -> Result<u64> {
        let mut sum = 0;
        for at in (start..start + len).step_by(PIECE as usize) {
            let mut bytes = vec![0; PIECE.min(start + len - at) as usize];
            disk.read_exact_at(&mut bytes, at).or_fail(|| format!("read it at byte {at}"))?;
            let blocks = bytes.chunks(BLOCK).filter(|block| block.iter().any(|b| *b != 0));
            sum += blocks.map(|block| block.len() as u64).sum::<u64>();
        }
        Ok(sum)
    };
    if data(&|_, len| Ok(len))? <= free {
        return Ok(());
    }
    refuse_beyond(data(&not_zero)?, free, dir)
}

/// As [`check`] of what takes at least this many bytes.
///
/// # Errors
/// `InsufficientVolumeCapacity`.
pub(super) fn check_bytes(bytes: u64, dir: &Path) -> Result<()> {
    free(dir).map_or(Ok(()), |free| refuse_beyond(bytes, free, dir))
}

fn refuse_beyond(bytes: u64, free: u64, dir: &Path) -> Result<()> {
    if bytes <= free {
        return Ok(());
    }
    let store = dir.ancestors().nth(2).unwrap_or(dir);
    Err(Error::refused(
        "InsufficientVolumeCapacity",
        format!(
            "its content takes more than the {} MiB that are free at {}; free some, or set SPORE_HOME to a larger file \
             system",
            free >> 20,
            store.display()
        ),
    ))
}

/// Bytes that this user may still write at `dir`, if the file system tells.
fn free(dir: &Path) -> Option<u64> {
    let stat = statvfs(dir).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}
