//! Copies of images and snapshots: within a region, and between regions that are directories.

mod transfer;

use super::package::{self, NewImage, Package};
use super::pending::{PendingImage, open_data, pending_snapshot, register, seal};
use crate::disk::Disk;
use crate::error::{OrFail, Result};
use crate::id::SnapshotId;
use crate::kernel::BootFiles;
use crate::plan::DiskFormat;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::record::volume::{Layer, LayerName};
use crate::snapshot::{self, Wanted};
use crate::store::Store;
use crate::store::beneath::Owned;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Copy an image (EC2 CopyImage) into the same store or into another. The copy is the user's own.
///
/// # Errors
/// As [`Package::of`]'s and [`PendingImage::begin`]'s; a snapshot's content is not what its digest says; I/O errors and no
/// space: what was copied by then stays for the next attempt.
pub fn image(from: &Store, image: &Image, to: &Store, new: &NewImage) -> Result<Image> {
    let package = Package::of(from, image)?;
    let boot = boot(from, image, to, &package)?;
    let mut incoming = PendingImage::begin(to, &package, new, boot)?;
    for (n, disk) in package.disks.iter().enumerate() {
        if let Err(error) = bring(from, &disk.name.parse()?, to, &mut incoming, n) {
            return Err(incoming.failed(error));
        }
    }
    incoming.complete()
}

/// The image's kernel and ramdisk in the store that it goes to.
fn boot(from: &Store, image: &Image, to: &Store, package: &Package) -> Result<BootFiles> {
    let mut boot = BootFiles::default();
    let result = (|| {
        // Whoever opens it by number sees the file that was checked, whatever the name leads to by now.
        let path =
            |file: &std::fs::File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        if let (Some(file), Some(content)) = (package::open_kernel(from, image)?, &package.kernel) {
            boot.kernel = register(to, &path(&file), content)?;
        }
        if let (Some(file), Some(content)) = (package::open_ramdisk(from, image)?, &package.ramdisk)
        {
            boot.ramdisk = register(to, &path(&file), content)?;
        }
        Ok(())
    })();
    match result {
        Ok(()) => Ok(boot),
        Err(error) => {
            boot.undo(to);
            Err(error)
        }
    }
}

/// Bring a snapshot's content into disk `n` of an image.
fn bring(
    from: &Store,
    id: &SnapshotId,
    to: &Store,
    incoming: &mut PendingImage<'_>,
    n: usize,
) -> Result<()> {
    let Some(dir) = incoming.dir(n) else { return Ok(()) };
    let source = package::available(from, id)?;
    if let Some((format, layers)) = share(from, &source, to, &dir) {
        return incoming.seal_chain(n, format, layers, &source.digest);
    }
    let Some((out, begun)) = incoming.file(n)? else { return Ok(()) };
    let layers = snapshot::open_layers(from, &source)?;
    transfer::transfer(layers, (&out, begun), &source, to.context())?;
    incoming.seal(n, &source.digest)
}

/// Share one's own content within a store: it never changes, so a copy of it would only cost space. Another's could
/// change it, and is copied.
fn share(
    from: &Store,
    source: &Snapshot,
    to: &Store,
    dir: &Path,
) -> Option<(DiskFormat, Vec<Layer>)> {
    if from.home() != to.home() || source.owner_id != to.owner_id() {
        return None;
    }
    let data = Layer { file: LayerName::data(), format: source.format };
    let chain: Vec<Layer> = std::iter::once(data).chain(source.layers.iter().cloned()).collect();
    match crate::volume::link_chain(&from.snapshots().dir(&source.snapshot_id), &chain, dir) {
        Ok(()) => Some((source.format, source.layers.clone())),
        Err(_) => {
            if let Ok(dir) = Owned::open(dir) {
                chain.iter().for_each(|layer| drop(dir.remove(&layer.file)));
            }
            None
        }
    }
}

/// Copy a snapshot into another store.
///
/// # Errors
/// It is not completed, or its content is not what its digest says; I/O errors and no space. Nothing stays then.
pub fn snapshot(from: &Store, source: &Snapshot, to: &Store, wanted: Wanted) -> Result<Snapshot> {
    snapshot::check(&wanted)?;
    let source = package::available(from, &source.snapshot_id)?;
    let mut pending = pending_snapshot(
        to,
        wanted.snapshot_id,
        source.size_bytes,
        wanted.description,
        wanted.tags,
    )?;
    let mut work = || -> Result<()> {
        let (out, begun) = open_data(pending.owned())?;
        transfer::transfer(
            snapshot::open_layers(from, &source)?,
            (&out, begun),
            &source,
            to.context(),
        )?;
        seal(&mut pending, DiskFormat::Raw, Vec::new(), &source.digest)
    };
    match work() {
        Ok(()) => Ok(pending.record.clone()),
        Err(error) => {
            let _ = pending.remove();
            Err(error)
        }
    }
}

/// Open a snapshot's content.
///
/// # Errors
/// A file can't be opened or believed.
pub fn open(store: &Store, id: &SnapshotId) -> Result<Disk> {
    let source = package::available(store, id)?;
    Disk::open(snapshot::open_layers(store, &source)?).or_fail(|| format!("read {id}"))
}
