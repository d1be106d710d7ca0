//! An image that is being brought into a store: pending, with pending snapshots, until all of its
//! content is there.
//!
//! Its maker holds the locks of all of them. If that is killed or fails, what is there already
//! stays in the pending snapshots, and the same copy run again goes on with it. Nothing can be
//! launched from it before.

use super::writer::{BootWriter, DiskWriter, register, seal};
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, SnapshotId};
use crate::image::manifest::MAX_MAPPINGS;
use crate::image::{catalog, manifest};
use crate::import::room;
use crate::kernel::{BootFile, BootFiles, Registered};
use crate::plan::{DiskFormat, PvGrub};
use crate::record::image::{Image, ImageState, StateReason};
use crate::record::snapshot::{DATA, Snapshot, SnapshotState};
use crate::record::volume::{Layer, LayerName};
use crate::snapshot::{self, Wanted};
use crate::store::beneath::{Dir, Owned};
use crate::store::{Durability, Locked, Store, StoreLock, now};
use crate::transfer::copy::{Files, Pending, Source, Writer};
use crate::transfer::package::{Content, NewImage, Package, Part, SnapshotPackage, malformed};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An image in the making. Its record says what it boots, so it appears when its first disk begins.
pub(super) struct PendingImage<'a> {
    store: &'a Store,
    package: &'a Package,
    new: &'a NewImage,
    boot: BootFiles,
    image: Option<Locked<Image>>,
    /// By the package's order of disks.
    disks: Vec<Locked<Snapshot>>,
}

impl<'a> PendingImage<'a> {
    /// Begin, or go on with what an earlier copy of the same image under the same name left.
    ///
    /// # Errors
    /// The name is malformed or taken, or the earlier copy is still running (`IncorrectState`).
    pub(super) fn begin(store: &'a Store, package: &'a Package, new: &'a NewImage) -> Result<Self> {
        if package.disks.is_empty() {
            return Err(malformed("it is deregistered"));
        }
        let left = unfinished(store, package, new, &store.lock()?)?;
        if left.is_none() {
            catalog::check_name(store, &new.name)?;
        }
        // Before anything is fetched. What an archive or a store has is seen when it comes.
        let left = left.map(|image| image.record.clone());
        room::check(store.home(), needed(store, package, left.as_ref()))?;
        let boot = BootFiles::default();
        Ok(Self { store, package, new, boot, image: None, disks: Vec::new() })
    }

    /// Let the image and its snapshots appear, as pending.
    fn show(&mut self) -> Result<()> {
        let lock = self.store.lock()?;
        let image = match unfinished(self.store, self.package, self.new, &lock)? {
            Some(mut image) => {
                (image.record.state, image.record.state_reason) = (ImageState::Pending, None);
                image.record.client_token.clone_from(&self.new.client_token);
                image.save(Durability::Durable)?;
                image
            }
            None => {
                drop(lock);
                pending(self.store, self.package, self.new, &self.boot)?
            }
        };
        let image = &*self.image.insert(image);
        for disk in &self.package.disks {
            self.disks.push(slot(self.store, &image.record, self.package, disk)?);
        }
        Ok(())
    }

    /// Take all of it away again.
    fn remove(self) {
        if let Some(image) = self.image {
            let ids: Vec<SnapshotId> = image.record.snapshots().cloned().collect();
            // The image first: it keeps its snapshots from being deleted.
            let _ = image.remove();
            drop(self.disks);
            for id in ids {
                let _ = self.store.snapshots().remove(&id);
            }
        }
        // What it boots goes, too, when it is dropped.
    }
}

/// Bytes that the image takes at most, besides what an earlier copy `left`.
fn needed(store: &Store, package: &Package, left: Option<&Image>) -> u64 {
    let there = |id: &SnapshotId| {
        let data = Dir::open(&store.snapshots().dir(id)).and_then(|dir| dir.stat(DATA));
        data.map_or(0, |data| data.st_blocks.cast_unsigned() * 512)
    };
    let ours = |disk: &Content| {
        let theirs = package.image.snapshots().position(|id| id.as_str() == disk.name)?;
        left?.snapshots().nth(theirs)
    };
    let disk = |disk: &Content| disk.stored().saturating_sub(ours(disk).map_or(0, there));
    package.disks.iter().map(disk).fold(package.boot_bytes(), u64::saturating_add)
}

/// The snapshot for a disk: as an earlier copy left it, or new.
fn slot(
    store: &Store,
    image: &Image,
    package: &Package,
    disk: &Content,
) -> Result<Locked<Snapshot>> {
    let mut pairs = package.image.snapshots().zip(image.snapshots());
    let ours = pairs.find(|(theirs, _)| theirs.as_str() == disk.name);
    // What no mapping refers to is brought along by nobody who means well.
    let (_, id) =
        ours.ok_or_else(|| malformed("it has a disk that none of its devices begins as"))?;
    if !store.snapshots().exists(id) {
        let source = &package.image.image_id;
        let description = format!(
            "Copied for DestinationAmi {} from SourceAmi {source} for SourceSnapshot {}",
            image.image_id, disk.name
        );
        let (snapshot_id, tags) = (id.clone(), Vec::new());
        return pending_snapshot(store, disk.size_bytes, Wanted { snapshot_id, description, tags });
    }
    let mut found = store.snapshots().lock(id)?;
    if found.record.state != SnapshotState::Completed {
        (found.record.state, found.record.state_message) = (SnapshotState::Pending, None);
        found.save(Durability::Durable)?;
    }
    Ok(found)
}

impl Pending for PendingImage<'_> {
    type Made = Image;

    fn appear(&mut self, part: Part) -> Result<Option<String>> {
        if self.image.is_some() || !matches!(part, Part::Disk(_)) {
            return Ok(None);
        }
        self.show()?;
        Ok(self.image.as_ref().map(|image| image.record.image_id.to_string()))
    }

    fn open<'a>(
        &'a mut self,
        part: Part,
        content: &'a Content,
        source: &dyn Source,
    ) -> Result<Option<Box<dyn Writer + 'a>>> {
        match part {
            Part::Kernel => open_boot(self.store, &mut self.boot.kernel, (part, content), source),
            Part::Ramdisk => open_boot(self.store, &mut self.boot.ramdisk, (part, content), source),
            Part::Disk(n) => {
                let lacks = || Error::failure(format!("the image in the making has no disk {n}"));
                let snapshot = self.disks.get_mut(n).ok_or_else(lacks)?;
                open_disk(snapshot, (part, content), source)
            }
        }
    }

    fn complete(&mut self) -> Result<Image> {
        let none = || Error::failure("the image in the making has no disk");
        let image = self.image.as_mut().ok_or_else(none)?;
        image.record.state = ImageState::Available;
        image.save(Durability::Durable)?;
        Ok(image.record.clone())
    }

    /// A user who cancelled wants nothing of it, a full disk has no room for it, and a stream can't
    /// be gone on with; else the image has failed, and what is there stays for the next attempt.
    fn failed(mut self: Box<Self>, error: Error) -> Error {
        let full = error.code() == Some(Code::InsufficientVolumeCapacity);
        let unwanted = self.store.context().cancelled() || full;
        let again = |image: &Locked<Image>| image.record.source_image_region.is_some();
        let Some(image) = self.image.as_mut().filter(|image| !unwanted && again(image)) else {
            self.remove();
            return error;
        };
        let unfinished = |s: &&mut Locked<Snapshot>| s.record.state == SnapshotState::Pending;
        for snapshot in self.disks.iter_mut().filter(unfinished) {
            let record = &mut snapshot.record;
            record.state = SnapshotState::Error;
            record.state_message = Some("its copy failed; run the same copy again".to_owned());
            let _ = snapshot.save(Durability::Durable);
        }
        image.record.state = ImageState::Failed;
        let reason = StateReason::new(
            error.code().map_or("Server.InternalError", Code::as_str),
            &format!("{}; run the same copy again to go on with it", error.message()),
        );
        image.record.state_reason = Some(reason);
        // If even that can't be written, the next command finds it pending and without a holder.
        let _ = image.save(Durability::Durable);
        error.remedy("run the same copy again to go on with it")
    }
}

/// A snapshot in the making. Nothing stays of one that fails.
pub(super) struct PendingSnapshot<'a> {
    store: &'a Store,
    snapshot: Locked<Snapshot>,
}

impl<'a> PendingSnapshot<'a> {
    /// # Errors
    /// What it is to be said to be is malformed; it has no content.
    pub(super) fn begin(
        store: &'a Store,
        package: &SnapshotPackage,
        wanted: Wanted,
    ) -> Result<Self> {
        snapshot::check(&wanted)?;
        let disk = package.disk.as_ref().ok_or_else(|| malformed("it has no content"))?;
        room::check(store.home(), disk.stored())?;
        let snapshot = pending_snapshot(store, disk.size_bytes, wanted)?;
        Ok(Self { store, snapshot })
    }
}

impl Pending for PendingSnapshot<'_> {
    type Made = Snapshot;

    fn appear(&mut self, _part: Part) -> Result<Option<String>> {
        Ok(Some(self.snapshot.record.snapshot_id.to_string()))
    }

    fn open<'a>(
        &'a mut self,
        part: Part,
        content: &'a Content,
        source: &dyn Source,
    ) -> Result<Option<Box<dyn Writer + 'a>>> {
        open_disk(&mut self.snapshot, (part, content), source)
    }

    fn complete(&mut self) -> Result<Snapshot> {
        Ok(self.snapshot.record.clone())
    }

    fn failed(self: Box<Self>, error: Error) -> Error {
        let id = self.snapshot.record.snapshot_id.clone();
        drop(self.snapshot);
        let _ = self.store.snapshots().remove(&id);
        error
    }
}

/// Begin to write a kernel or ramdisk; one that is in a store here is registered as it is.
fn open_boot<'a, R: BootFile + Send + Sync>(
    store: &'a Store,
    registered: &'a mut Option<Registered<R>>,
    (part, content): (Part, &'a Content),
    source: &dyn Source,
) -> Result<Option<Box<dyn Writer + 'a>>> {
    if let Some(Files::Boot(file)) = source.files(part, content)? {
        // Whoever opens it by number sees the file that was checked, whatever the name leads to by
        // now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        *registered = register(store, &path, content)?;
        return Ok(None);
    }
    Ok(Some(Box::new(BootWriter::open(store, content, registered)?)))
}

/// Begin to write a disk, unless it is complete or can share the source's files.
fn open_disk<'a>(
    snapshot: &'a mut Locked<Snapshot>,
    (part, content): (Part, &'a Content),
    source: &dyn Source,
) -> Result<Option<Box<dyn Writer + 'a>>> {
    if snapshot.record.state == SnapshotState::Completed {
        return Ok(None);
    }
    let raw = match source.files(part, content)? {
        Some(Files::Disk { home, snapshot: theirs, raw }) => {
            if let Some((format, layers)) = share(&home, &theirs, snapshot) {
                return seal(snapshot, format, layers, &theirs.digest).map(|()| None);
            }
            see_room(snapshot.store(), &home, raw.as_ref())?;
            raw
        }
        _ => None,
    };
    Ok(Some(Box::new(DiskWriter::open(snapshot, content, raw.as_ref())?)))
}

/// See that there is room for what the store at `home` has in one file, unless its blocks may be
/// shared.
///
/// # Errors
/// `InsufficientVolumeCapacity`.
fn see_room(to: &Store, home: &Path, raw: Option<&File>) -> Result<()> {
    let device = |home: &Path| home.metadata().map(|home| home.dev()).ok();
    let blocks = raw.and_then(|raw| raw.metadata().ok()).map_or(0, |raw| raw.blocks() * 512);
    if device(home) == device(to.home()) { Ok(()) } else { room::check(to.home(), blocks) }
}

/// Share one's own content within a store: it never changes, so a copy of it would only cost space.
/// Another's could change it, and is copied.
fn share(
    home: &Path,
    source: &Snapshot,
    to: &Locked<Snapshot>,
) -> Option<(DiskFormat, Vec<Layer>)> {
    let store = to.store();
    if home != store.home() || source.owner_id != store.owner_id() {
        return None;
    }
    let data = Layer { file: LayerName::data(), format: source.format };
    let chain: Vec<Layer> = std::iter::once(data).chain(source.layers.iter().cloned()).collect();
    let (from, dir) = (store.snapshots().dir(&source.snapshot_id), to.dir());
    match crate::volume::link_chain(&from, &chain, &dir) {
        Ok(()) => Some((source.format, source.layers.clone())),
        Err(_) => {
            if let Ok(dir) = Owned::open(&dir) {
                chain.iter().for_each(|layer| drop(dir.remove(&layer.file)));
            }
            None
        }
    }
}

/// A new pending snapshot without content.
fn pending_snapshot(store: &Store, size_bytes: u64, wanted: Wanted) -> Result<Locked<Snapshot>> {
    store.snapshots().create_locked(Durability::Durable, |_| {
        let (made, content) = ((store.owner_id(), now()), (DiskFormat::Raw, String::new()));
        let mut snapshot = Snapshot::flat(wanted.snapshot_id, made, size_bytes, content);
        snapshot.state = SnapshotState::Pending;
        (snapshot.description, snapshot.tags) = (wanted.description, wanted.tags);
        Ok(snapshot)
    })
}

/// What an earlier copy left: of the same source, under the same name.
///
/// # Errors
/// It is still running (`IncorrectState`), or the name, which was free since it failed, has been
/// taken.
fn unfinished(
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
        return Err(malformed("it has too many block devices"));
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
    image.client_token.clone_from(&new.client_token);
    image.product_codes = package.image.product_codes.clone();
    image.hourly_rate = package.image.hourly_rate.clone();
    catalog::begin(store, image)
}
