//! An image and the disk that is imported for it, of which neither is ever there alone.
//!
//! The image is in the store as pending, with its snapshot's id, before the snapshot appears, and
//! available after. So a snapshot that was made for an image is never one that no image names. If
//! the command is killed in between, the next one completes the image where its snapshot is there,
//! and takes it away where it is not ([`sweep`]).

use super::receive::{Opened, open};
use crate::error::{Code, Error, Result};
use crate::id::SnapshotId;
use crate::image::manifest::Manifest;
use crate::image::{catalog, manifest};
use crate::import::{Imported, Options, Reading, Source};
use crate::record::image::{Image, ImageState};
use crate::record::snapshot::{DATA, Snapshot, SnapshotState};
use crate::record::tag::check_tags;
use crate::snapshot::{self, Wanted};
use crate::store::{Durability, Locked, Staging, Store, now};
use std::path::Path;

/// Import a disk that is being read into the staging directory, and register the image that
/// `manifest` makes of its snapshot. Whatever goes wrong, nothing stays.
///
/// # Errors
/// As [`Reading::into_disk`]'s and [`catalog::register`]'s.
pub fn import(
    store: &Store,
    (staging, reading): (Staging, Reading),
    description: &str,
    manifest: impl FnOnce(SnapshotId) -> Manifest,
) -> Result<Image> {
    let imported = reading.into_disk()?;
    let wanted = Wanted {
        snapshot_id: SnapshotId::generate()?,
        description: description.to_owned(),
        tags: Vec::new(),
    };
    let made = staged(store, &staging, imported, wanted)?;
    let manifest = manifest(made.snapshot_id.clone());
    publish(store, (staging, made), manifest, |_, _| Ok(()))
}

/// Bring the disk at `source` into `target_dir` as [`crate::record::snapshot::DATA`], complete and
/// synced. On an error the caller removes the directory with whatever is in it.
///
/// # Errors
/// The source can't be read, is damaged, is no disk, refers to other files, needs a program that is
/// not installed, or does not fit; or the import was cancelled.
pub fn disk(source: &Source, target_dir: &Path, options: &Options) -> Result<Imported> {
    match open(source, target_dir, options)? {
        Opened::Disk(reading) => reading.into_disk(),
        Opened::Exported(_) => Err(source.explain(&options.context, Error::refused(
            Code::InvalidParameterValue,
            "it is an exported image, which has more than a disk; 'spore image import' takes it",
        ))),
    }
}

/// Bring the disk at `source` into the store. Whatever goes wrong, nothing stays.
///
/// # Errors
/// As [`disk`]'s; a tag is malformed.
pub fn snapshot(
    store: &Store,
    source: &Source,
    options: &Options,
    wanted: Wanted,
) -> Result<Snapshot> {
    check_tags(&wanted.tags)?;
    let staging = Staging::new(store)?;
    let imported = disk(source, staging.path(), options)?;
    let snapshot = staged(store, &staging, imported, wanted)?;
    staging.publish(store, &snapshot, Durability::Durable)?;
    Ok(snapshot)
}

/// The record of what was imported into the staging directory, up to where it is to appear.
///
/// # Errors
/// I/O errors; cancelled.
fn staged(
    store: &Store,
    staging: &Staging,
    imported: Imported,
    wanted: Wanted,
) -> Result<Snapshot> {
    snapshot::protect(staging.dir()?, DATA)?;
    let content = (imported.format, imported.digest);
    let made = (store.owner_id(), now());
    let mut snapshot = Snapshot::flat(wanted.snapshot_id, made, imported.size_bytes, content);
    snapshot.description = wanted.description;
    snapshot.tags = wanted.tags;
    store.context().check()?;
    Ok(snapshot)
}

/// Let an image appear together with its snapshot, which is whole in `staging`. `finish` is given
/// the image's record and the directory before it appears.
///
/// # Errors
/// As [`catalog::register`]'s and as those of `finish`; no space. Neither is there then.
pub(crate) fn publish(
    store: &Store,
    (staging, snapshot): (Staging, Snapshot),
    manifest: Manifest,
    finish: impl FnOnce(&mut Image, &Path) -> Result<()>,
) -> Result<Image> {
    let gib = |id: &SnapshotId| match *id == snapshot.snapshot_id {
        true => Ok(snapshot.volume_size),
        false => manifest::snapshot_gib(store, id),
    };
    let begin = |image: &mut Image, dir: &Path| {
        image.state = ImageState::Pending;
        finish(image, dir)
    };
    let mut image = catalog::publish(store, manifest, &gib, begin)?;
    let id = snapshot.snapshot_id.clone();
    let complete = || {
        staging.publish(store, &snapshot, Durability::Durable)?;
        image.record.state = ImageState::Available;
        image.save(Durability::Durable)
    };
    match complete() {
        Ok(()) => Ok(image.record.clone()),
        Err(error) => {
            // The image first: it keeps its snapshot from being deleted.
            let _ = image.remove();
            let _ = snapshot::delete(store, &id, false);
            Err(error)
        }
    }
}

/// Bring to an end what killed commands began. What can't be done now is done by the next.
pub fn sweep(store: &Store) {
    let Ok(listing) = store.images().list() else { return };
    for image in listing.records.iter().filter(|image| is_arriving(store, image)) {
        let unlocked = matches!(store.images().is_locked(&image.image_id), Ok(false));
        if unlocked && let Ok(locked) = store.images().lock(&image.image_id) {
            let _ = settle(store, locked);
        }
    }
}

/// True of an image whose maker is at work or was killed, if it is none of those that stay to be
/// told of or gone on with: of an instance, or a copy.
fn is_arriving(store: &Store, image: &Image) -> bool {
    image.state == ImageState::Pending
        && image.owner_id == store.owner_id()
        && image.source_instance_id.is_none()
        && image.source_image_id.is_none()
}

fn settle(store: &Store, mut locked: Locked<Image>) -> Result<()> {
    if !is_arriving(store, &locked.record) {
        return Ok(());
    }
    let whole = |id: &SnapshotId| {
        store.snapshots().get(id).is_ok_and(|s| s.state == SnapshotState::Completed)
    };
    if !locked.record.snapshots().all(whole) {
        return locked.remove();
    }
    locked.record.state = ImageState::Available;
    locked.save(Durability::Durable)
}
