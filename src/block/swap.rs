//! Changing a disk's layers under its queues.
//!
//! Freezing a disk copies nothing: a new, empty overlay becomes the top, and what was the top is
//! written no more. Queues wait only while the one is exchanged for the other, microseconds, and
//! for the writes that are halfway. What the old top still has in memory, metadata that no flush
//! has asked for, the committing thread brings to disk afterwards; until it has, each flush of the
//! guest does that first, so that a flush means what it always does.
//!
//! An overlay that is larger than the disk makes the disk larger, which is how one grows under its
//! guest.
//!
//! Several disks are exchanged at one instant: all are held before the first is exchanged. A write
//! that began after another was acknowledged, on whichever disk, is not in the old layers unless
//! that other is.

use super::DiskFormat;
use super::chain::LayerChain;
use super::layer::Layer;
use super::state::{Current, Shared, Work};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// A disk and its next top, ready to be exchanged.
pub struct Swap<'a> {
    disk: &'a Current,
    before: Arc<Shared>,
    next: Shared,
}

impl<'a> Swap<'a> {
    pub(super) fn prepare(disk: &'a Current, top: File) -> io::Result<Self> {
        let before = disk.get();
        ready(&before)?;
        let mut layers = vec![Arc::new(Layer::open(top, DiskFormat::Qcow2)?)];
        layers.extend(before.chain.layers.iter().cloned());
        let chain = LayerChain::new(layers)?;
        if chain.size() < before.chain.size() {
            return Err(invalid("the new overlay is not as large as the disk"));
        }
        match &*chain.layers[0] {
            Layer::Qcow2(image) if image.is_empty() => {}
            _ => return Err(invalid("the new overlay is not empty")),
        }
        let next = Shared::new(chain, false)?;
        Ok(Self { disk, before, next })
    }
}

/// Whether the disk's layers may be changed now.
fn ready(shared: &Shared) -> io::Result<()> {
    if shared.writer.is_none() {
        return Err(invalid("the disk has no overlay that is written to"));
    }
    if shared.previous.lock().unwrap().is_some() {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "the disk's last snapshot is not on its medium yet; try again",
        ));
    }
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Exchange the tops of several disks at one instant. For how long their queues stood still.
///
/// # Errors
/// A disk's layers have changed since its [`Swap`] was prepared; none is exchanged then.
pub fn swap_all(swaps: Vec<Swap<'_>>) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut held: Vec<RwLockWriteGuard<'_, Arc<Shared>>> = Vec::with_capacity(swaps.len());
    for swap in &swaps {
        let current = swap.disk.shared.write().unwrap();
        if !Arc::ptr_eq(&current, &swap.before) {
            return Err(invalid("the disk's layers have changed meanwhile"));
        }
        held.push(current);
    }
    let mut disks = Vec::with_capacity(swaps.len());
    for (Swap { disk, before, next }, current) in swaps.into_iter().zip(&mut held) {
        *next.previous.lock().unwrap() = Some((before, None));
        **current = Arc::new(next);
        disks.push(disk);
    }
    drop(held);
    let pause = begin.elapsed();
    for disk in disks {
        if !disk.commit_aside(Work::Seal) {
            disk.get().seal_previous();
        }
    }
    Ok(pause)
}

/// Read what is below the top from another file, which has the same content.
pub(super) fn rebase(disk: &Current, base: File, format: DiskFormat) -> io::Result<()> {
    let before = disk.get();
    ready(&before)?;
    let base = Arc::new(Layer::open(base, format)?);
    let chain = LayerChain::new(vec![before.chain.layers[0].clone(), base])?;
    let next = Shared {
        chain,
        writer: before.writer.clone(),
        read_only: before.read_only,
        previous: Mutex::default(),
    };
    let mut current = disk.shared.write().unwrap();
    if !Arc::ptr_eq(&current, &before) {
        return Err(invalid("the disk's layers have changed meanwhile"));
    }
    *current = Arc::new(next);
    Ok(())
}
