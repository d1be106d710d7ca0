//! An image that is being brought into a store: pending, with pending snapshots, until all of its content is there.
//!
//! Its maker holds the locks of all of them. If that is killed or fails, what is there already stays in the pending
//! snapshots, and the same copy run again goes on with it. Nothing can be launched from it before.

use super::package::{Content, NewImage, Package};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{ImageId, SnapshotId};
use crate::image::manifest::MAX_MAPPINGS;
use crate::image::{catalog, manifest};
use crate::kernel::{self, BootFile, BootFiles, Registered};
use crate::plan::{DiskFormat, PvGrub};
use crate::record::image::{Image, ImageState, StateReason};
use crate::record::name;
use crate::record::snapshot::{DATA, Snapshot, SnapshotState};
use crate::record::volume::Layer;
use crate::store::beneath::Owned;
use crate::store::{Durability, Locked, Store, StoreLock, now};
use std::fs::File;
use std::path::Path;

/// Register a kernel's or ramdisk's file under its name if that is free, else under one made of it and of a part of the
/// content's digest.
///
/// # Errors
/// As [`kernel::register`]'s.
pub fn register<R: BootFile>(
    store: &Store,
    path: &Path,
    content: &Content,
) -> Result<Option<Registered<R>>> {
    let name = name::from_file(&content.name);
    let registered = match kernel::register(store, path, Some(&name)) {
        Err(e) if e.code() == Some(Code::InvalidAMINameDuplicate) => {
            let name = format!("{name}-{}", &content.digest[..8]);
            kernel::register(store, path, Some(&name))
        }
        registered => registered,
    };
    registered.map(Some)
}

/// An image in the making.
#[derive(Debug)]
pub struct PendingImage<'a> {
    store: &'a Store,
    image: Locked<Image>,
    /// By the package's order of disks.
    disks: Vec<Slot>,
    boot: BootFiles,
}

/// One of its snapshots.
#[derive(Debug)]
enum Slot {
    Pending(Box<Locked<Snapshot>>),
    Done,
}

impl<'a> PendingImage<'a> {
    /// Begin, or go on with what an earlier copy of the same image under the same name left.
    ///
    /// # Errors
    /// The name is malformed or taken, the earlier copy is still running (`IncorrectState`), or anything of what
    /// the package says can't be.
    pub fn begin(
        store: &'a Store,
        package: &Package,
        new: &NewImage,
        boot: BootFiles,
    ) -> Result<Self> {
        let lock = store.lock()?;
        let image = match unfinished(store, package, new, &lock)? {
            Some(mut image) => {
                (image.record.state, image.record.state_reason) = (ImageState::Pending, None);
                image.save(Durability::Durable)?;
                drop(lock);
                image
            }
            None => {
                drop(lock);
                let begun = pending(store, package, new, &boot);
                begun.inspect_err(|_| boot.undo(store))?
            }
        };
        let mut incoming = Self { store, image, disks: Vec::new(), boot };
        for disk in &package.disks {
            match incoming.slot(package, disk) {
                Ok(slot) => incoming.disks.push(slot),
                Err(error) => return Err(incoming.failed(error)),
            }
        }
        Ok(incoming)
    }

    /// The snapshot for a disk: as an earlier copy left it, or new.
    fn slot(&self, package: &Package, disk: &Content) -> Result<Slot> {
        let pairs = package.image.snapshots().zip(self.image.record.snapshots());
        let ours = pairs.into_iter().find(|(theirs, _)| theirs.as_str() == disk.name);
        // What no mapping refers to is brought along by nobody who means well.
        let id = ours.map(|(_, ours)| ours.clone()).ok_or_else(|| {
            super::package::malformed("it has a disk that none of its devices begins as")
        })?;
        if self.store.snapshots().exists(&id) {
            let mut found = self.store.snapshots().lock(&id)?;
            if found.record.state == SnapshotState::Completed {
                return Ok(Slot::Done);
            }
            found.record.state = SnapshotState::Pending;
            found.record.state_message = None;
            found.save(Durability::Durable)?;
            return Ok(Slot::Pending(Box::new(found)));
        }
        let (image, source) = (&self.image.record, &package.image.image_id);
        let description = format!(
            "Copied for DestinationAmi {} from SourceAmi {source} for SourceSnapshot {}",
            image.image_id, disk.name
        );
        let new = pending_snapshot(self.store, id, disk.size_bytes, description, Vec::new())?;
        Ok(Slot::Pending(Box::new(new)))
    }

    /// The image, as it is so far.
    pub fn image(&self) -> &Image {
        &self.image.record
    }

    /// The file that disk `n`'s content goes into, and whether it may have some of it; `None` if it is complete.
    ///
    /// # Errors
    /// It can't be made.
    pub fn file(&self, n: usize) -> Result<Option<(File, bool)>> {
        match &self.disks[n] {
            Slot::Done => Ok(None),
            Slot::Pending(snapshot) => open_data(snapshot.owned()).map(Some),
        }
    }

    /// The directory of disk `n`'s snapshot, unless that is complete.
    pub fn dir(&self, n: usize) -> Option<std::path::PathBuf> {
        match &self.disks[n] {
            Slot::Done => None,
            Slot::Pending(snapshot) => Some(snapshot.dir()),
        }
    }

    /// All of disk `n` is in its file, durable and verified.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn seal(&mut self, n: usize, digest: &str) -> Result<()> {
        self.seal_chain(n, DiskFormat::Raw, Vec::new(), digest)
    }

    /// As [`PendingImage::seal`], for content in several files.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn seal_chain(
        &mut self,
        n: usize,
        format: DiskFormat,
        layers: Vec<Layer>,
        digest: &str,
    ) -> Result<()> {
        if let Slot::Pending(snapshot) = &mut self.disks[n] {
            seal(snapshot, format, layers, digest)?;
        }
        self.disks[n] = Slot::Done;
        Ok(())
    }

    /// The image is available.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn complete(mut self) -> Result<Image> {
        if let Err(error) = self.store.context().check() {
            return Err(self.failed(error));
        }
        self.image.record.state = ImageState::Available;
        self.image.save(Durability::Durable)?;
        Ok(self.image.record.clone())
    }

    /// It did not work out. A user who cancelled wants nothing of it; else the image has failed, and what is there
    /// stays for the next attempt.
    pub fn failed(mut self, error: Error) -> Error {
        if self.store.context().cancelled() {
            self.remove();
            return error;
        }
        for slot in &mut self.disks {
            if let Slot::Pending(snapshot) = slot {
                let record = &mut snapshot.record;
                record.state = SnapshotState::Error;
                record.state_message = Some("its copy failed; run the same copy again".to_owned());
                let _ = snapshot.save(Durability::Durable);
            }
        }
        let record = &mut self.image.record;
        record.state = ImageState::Failed;
        let reason = StateReason::new(
            error.code().map_or("Server.InternalError", Code::as_str),
            &format!("{}; run the same copy again to go on with it", error.message()),
        );
        record.state_reason = Some(reason);
        // If even that can't be written, the next command finds it pending and without a holder.
        let _ = self.image.save(Durability::Durable);
        error.remedy("run the same copy again to go on with it")
    }

    /// Take all of it away again.
    pub fn remove(self) {
        let ids: Vec<SnapshotId> = self.image.record.snapshots().cloned().collect();
        // The image first: it keeps its snapshots from being deleted.
        let _ = self.image.remove();
        drop(self.disks);
        for id in ids {
            let _ = self.store.snapshots().remove(&id);
        }
        self.boot.undo(self.store);
    }
}

/// A new pending snapshot without content.
pub(crate) fn pending_snapshot(
    store: &Store,
    id: SnapshotId,
    size_bytes: u64,
    description: String,
    tags: Vec<crate::record::tag::Tag>,
) -> Result<Locked<Snapshot>> {
    store.snapshots().create_locked(Durability::Durable, |_| {
        let content = (DiskFormat::Raw, String::new());
        let mut snapshot = Snapshot::flat(id, (store.owner_id(), now()), size_bytes, content);
        snapshot.state = SnapshotState::Pending;
        (snapshot.description, snapshot.tags) = (description, tags);
        Ok(snapshot)
    })
}

/// The content's file in a pending snapshot's directory, and whether it may have something already.
pub(crate) fn open_data(dir: &Owned) -> Result<(File, bool)> {
    let path = dir.path().join(DATA);
    // It was sealed, and its maker killed before the record said so.
    let _ = dir.set_mode(DATA, 0o600);
    let file = dir.open_or_create(DATA).or_fail(|| format!("write {}", path.display()))?;
    let begun = file.metadata().or_fail(|| format!("read {}", path.display()))?.len() > 0;
    Ok((file, begun))
}

/// Record that a snapshot's files are complete.
pub(crate) fn seal(
    snapshot: &mut Locked<Snapshot>,
    format: DiskFormat,
    layers: Vec<Layer>,
    digest: &str,
) -> Result<()> {
    crate::snapshot::protect(snapshot.owned(), DATA)?;
    snapshot.owned().sync().or_fail(|| format!("sync {}", snapshot.dir().display()))?;
    let record = &mut snapshot.record;
    (record.format, record.layers) = (format, layers);
    record.digest = digest.to_owned();
    record.state = SnapshotState::Completed;
    record.start_time = now();
    snapshot.save(Durability::Durable)
}

/// What an earlier copy left: of the same source, under the same name.
///
/// # Errors
/// It is still running (`IncorrectState`), or the name, which was free since it failed, has been taken.
pub(crate) fn unfinished(
    store: &Store,
    package: &Package,
    new: &NewImage,
    lock: &StoreLock,
) -> Result<Option<Locked<Image>>> {
    let region = Some(&new.source_region).filter(|region| !region.is_empty());
    let left = |image: &Image| {
        image.name == new.name
            && image.owner_id == store.owner_id()
            && matches!(image.state, ImageState::Pending | ImageState::Failed)
            && image.source_image_id.as_ref() == Some(&package.image.image_id)
            && image.source_image_region.as_ref() == region
            && region.is_some()
            && image.snapshots().count() == package.image.snapshots().count()
    };
    let Some(found) = store.images().list()?.records.into_iter().find(left) else {
        return Ok(None);
    };
    let id = found.image_id;
    if store.images().is_locked(&id)? {
        return Err(Error::refused(
            Code::IncorrectState,
            format!("{id} ('{}') is being copied by another command", new.name),
        ));
    }
    store.images().check_free(lock, &new.name)?;
    let locked = store.images().lock(&id)?;
    Ok(left(&locked.record).then_some(locked))
}

/// The new image, pending, with new ids for its snapshots.
fn pending(
    store: &Store,
    package: &Package,
    new: &NewImage,
    boot: &BootFiles,
) -> Result<Locked<Image>> {
    let mut manifest = package.manifest(new)?;
    let built_in = package.image.kernel_id.clone().filter(|id| PvGrub::of(id).is_some());
    manifest.kernel_id = boot.kernel_id().or(built_in);
    manifest.ramdisk_id = boot.ramdisk_id();
    if manifest.block_device_mappings.len() > MAX_MAPPINGS {
        return Err(super::package::malformed("it has too many block devices"));
    }
    let mut ids: Vec<(SnapshotId, SnapshotId)> = Vec::new();
    for mapping in &mut manifest.block_device_mappings {
        let Some(id) = mapping.ebs.as_mut().and_then(|ebs| ebs.snapshot_id.as_mut()) else {
            continue;
        };
        let known = ids.iter().find(|(theirs, _)| theirs == id).map(|(_, ours)| ours.clone());
        let ours = known.map_or_else(SnapshotId::generate, Ok)?;
        let theirs = std::mem::replace(id, ours.clone());
        ids.push((theirs, ours));
    }
    let gib = |id: &SnapshotId| -> Result<u64> {
        let theirs = ids.iter().find(|(_, ours)| ours == id).map(|(theirs, _)| theirs);
        let disk = package.disk(theirs.unwrap_or(id))?;
        Ok(package.disks[disk].size_bytes.div_ceil(1 << 30))
    };
    let mut image = manifest::resolve_with(store, manifest, ImageId::generate()?, &gib)?;
    image.state = ImageState::Pending;
    image.product_codes = package.image.product_codes.clone();
    image.hourly_rate = package.image.hourly_rate.clone();
    catalog::begin(store, image)
}
