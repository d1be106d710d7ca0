//! Snapshots: content that never changes.

pub mod blocks;
pub mod copy;
pub mod digest;
pub mod direct;
pub mod retained;

use crate::disk::Disk;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::SnapshotId;
use crate::image::references;
use crate::plan::DiskFormat;
use crate::record::snapshot::{DATA, Snapshot, SnapshotState, WRITTEN};
use crate::record::tag::{Tag, check_tags};
use crate::record::volume::{Layer, LayerName};
use crate::store::beneath::names::accounts as accounts_in_words;
use crate::store::beneath::{self, Dir, Owned};
use crate::store::{Collection, Durability, Locked, Store, check_owner, now, time};
use crate::sys::fault;
use crate::volume::{self, MAX_LAYERS};
use std::fs::File;
use std::time::Duration;

impl Store {
    /// Snapshots; their content is [`DATA`] beside the record.
    pub fn snapshots(&self) -> Collection<Snapshot> {
        self.collection()
    }
}

/// Let nobody write a snapshot's file, by whichever of its hard links. Who may read it by another
/// link still may: the directories are the gates.
///
/// # Errors
/// It is not there, or another's.
pub(crate) fn protect(dir: &Owned, name: &str) -> Result<()> {
    let protect = || dir.set_mode(name, dir.stat(name)?.st_mode & 0o444 | 0o400);
    protect().or_fail(|| format!("protect {}", dir.path().join(name).display()))
}

/// What a new snapshot is said to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its id, if others refer to it already.
    pub snapshot_id: SnapshotId,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// The content of a volume at one moment: files that nobody writes any more.
#[derive(Debug)]
pub struct Frozen {
    /// The volume, as it was then.
    pub volume: crate::record::volume::Volume,
    /// Its files, top first, as they are called in its directory.
    pub layers: Vec<Layer>,
    /// The same, open for reading.
    pub files: Vec<(File, DiskFormat)>,
}

/// A snapshot in the making: it is in the store as pending while this is held.
#[derive(Debug)]
pub struct Pending {
    locked: Locked<Snapshot>,
    files: Vec<(File, DiskFormat)>,
    /// The content must be copied: it is too deep, or has no hard links.
    flatten: bool,
}

/// Make the frozen content of a volume a pending snapshot. Constant time. The caller holds the
/// volume's lock.
///
/// # Errors
/// No space; the description or a tag is malformed.
pub fn begin(store: &Store, frozen: Frozen, wanted: Wanted) -> Result<Pending> {
    check(&wanted)?;
    let volume = &frozen.volume;
    let from = store.volumes().dir(&volume.volume_id);
    let mut linked = false;
    let locked = store.snapshots().create_locked(Durability::Durable, |dir| {
        let (top, below) = frozen.layers.split_first().ok_or_else(|| {
            Error::failure(format!("the record of {} names no file", volume.volume_id))
        })?;
        linked = volume::link_chain(&from, &frozen.layers, dir).is_ok();
        let content = (top.format, String::new());
        let made = (store.owner_id(), now());
        let mut snapshot = Snapshot::flat(wanted.snapshot_id, made, volume.size_bytes, content);
        snapshot.state = SnapshotState::Pending;
        snapshot.volume_id = Some(volume.volume_id.clone());
        snapshot.layers = below.to_vec();
        snapshot.description = wanted.description;
        snapshot.tags = wanted.tags;
        Ok(snapshot)
    })?;
    let flatten = !linked || frozen.layers.len() > MAX_LAYERS;
    Ok(Pending { locked, files: frozen.files, flatten })
}

/// # Errors
/// The description is longer than EC2's 255 characters, or a tag malformed.
pub fn check(wanted: &Wanted) -> Result<()> {
    check_tags(&wanted.tags)?;
    if wanted.description.chars().count() > 255 {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            "the description is longer than 255 characters; shorten it",
        ));
    }
    Ok(())
}

impl Drop for Pending {
    /// What nobody completes is in error.
    fn drop(&mut self) {
        if self.locked.record.state == SnapshotState::Pending {
            self.fail("it was not finished; make it again");
        }
    }
}

impl Pending {
    /// The record so far.
    pub fn record(&self) -> &Snapshot {
        &self.locked.record
    }

    /// Whether [`Pending::complete`] copies the content.
    pub fn is_copied(&self) -> bool {
        self.flatten
    }

    /// Seal it: the digest is computed, and a chain that is too deep is copied into one file. Its
    /// files are durable and nobody writes them. If that fails the snapshot is in error, and
    /// nothing else has changed.
    ///
    /// # Errors
    /// I/O errors, no space, or cancelled.
    pub fn complete(mut self) -> Result<Snapshot> {
        match self.seal() {
            Ok(()) => Ok(self.locked.record.clone()),
            Err(error) => {
                self.fail(error.message());
                Err(error)
            }
        }
    }

    /// It will never be whole.
    pub fn fail(&mut self, why: &str) {
        let record = &mut self.locked.record;
        (record.state, record.state_message) = (SnapshotState::Error, Some(why.to_owned()));
        // If even that can't be written, the next command finds it pending and without a holder.
        let _ = self.locked.save(Durability::Durable);
    }

    fn seal(&mut self) -> Result<()> {
        let id = self.locked.record.snapshot_id.clone();
        let below = self.locked.record.layers.clone();
        let files = std::mem::take(&mut self.files);
        if let Some((top, _)) = files.first() {
            // What a killed VMM wrote may be in the page cache alone.
            top.sync_all().or_fail(|| format!("sync the content of {id}"))?;
        }
        let disk = Disk::open(files);
        let disk = disk.or_fail(|| format!("read the content of {id}"))?;
        let progress = self.locked.store().context().progress(Some(disk.size()));
        if self.flatten {
            let doing = || format!("write the content of {id}");
            let new = self.locked.owned().begin("data.new").or_fail(doing)?;
            let out = new.file.try_clone().or_fail(doing)?;
            let digest = copy::copy_extents(&disk, out, &progress)?;
            new.set_mode(0o400).or_fail(doing)?;
            fault::point("the flat content of a snapshot");
            new.place(DATA).or_fail(doing)?;
            self.locked.record.digest = digest;
            self.locked.record.format = DiskFormat::Raw;
            self.locked.record.layers.clear();
        } else {
            self.locked.record.digest = digest::disk(&disk, &mut |at| {
                progress.at(at);
                progress.check()
            })?;
            protect(self.locked.owned(), DATA)?;
        }
        fault::point("completion of a snapshot");
        self.locked.record.state = SnapshotState::Completed;
        self.locked.save(Durability::Durable)?;
        for layer in below.iter().filter(|_| self.flatten) {
            // What stays only costs space.
            let _ = self.locked.owned().remove(&layer.file);
        }
        Ok(())
    }
}

/// A snapshot as it truly is: one whose maker died before it was whole is in error, and so is one
/// whose blocks nobody writes any more.
pub fn settled(store: &Store, mut snapshot: Snapshot) -> Snapshot {
    if snapshot.state == SnapshotState::Pending
        && let Some(write) = &snapshot.direct_write
        && !write.completing
    {
        if written(store, &snapshot)
            .is_some_and(|ago| ago > Duration::from_secs(write.timeout * 60))
        {
            let why = format!("no block of it was written for {} minutes", write.timeout);
            (snapshot.state, snapshot.state_message) = (SnapshotState::Error, Some(why));
        }
        return snapshot;
    }
    let pending = |snapshot: &Snapshot| snapshot.state == SnapshotState::Pending;
    store.snapshots().settled(snapshot, pending, |snapshot| {
        snapshot.state = SnapshotState::Error;
        let why = "the command that made it was killed; delete it and make it again";
        snapshot.state_message = Some(why.to_owned());
    })
}

/// Bytes of a pending snapshot's content that are there: what is zeros takes none. 0 of one that is
/// not pending, or of which nobody can say.
pub fn bytes_there(store: &Store, snapshot: &Snapshot) -> u64 {
    if snapshot.state != SnapshotState::Pending {
        return 0;
    }
    let dir = Dir::open(&store.snapshots().dir(&snapshot.snapshot_id));
    let data = dir.and_then(|dir| dir.stat(DATA));
    data.map_or(0, |data| data.st_blocks.cast_unsigned().saturating_mul(512))
}

/// How long ago a block was last written, of one's own snapshot.
fn written(store: &Store, snapshot: &Snapshot) -> Option<Duration> {
    let dir = Owned::open(&store.snapshots().dir(&snapshot.snapshot_id)).ok()?;
    let at = Duration::from_secs(u64::try_from(dir.stat(WRITTEN).ok()?.st_mtime).ok()?);
    Some(time::since_epoch().saturating_sub(at))
}

/// The snapshot that `text` addresses, as it truly is.
///
/// # Errors
/// `InvalidSnapshot.NotFound`; several match.
pub fn resolve(store: &Store, text: &str) -> Result<Snapshot> {
    Ok(settled(store, store.snapshots().resolve(text)?))
}

/// Open a snapshot's files, top first, for [`Disk::open`].
///
/// # Errors
/// One can't be opened.
pub fn open_layers(store: &Store, snapshot: &Snapshot) -> Result<Vec<(File, DiskFormat)>> {
    let data = Layer { file: LayerName::data(), format: snapshot.format };
    let layers: Vec<Layer> = std::iter::once(data).chain(snapshot.layers.iter().cloned()).collect();
    volume::open_chain(&store.snapshots().dir(&snapshot.snapshot_id), &layers, false)
}

/// Opens a snapshot's content.
///
/// # Errors
/// It can't be read.
pub fn open(store: &Store, snapshot: &Snapshot) -> Result<Disk> {
    let doing = || format!("read {}", snapshot.snapshot_id);
    Disk::open(open_layers(store, snapshot)?).or_fail(doing)
}

/// Make another snapshot of the same content (EC2 CopySnapshot). The content is shared.
///
/// # Errors
/// It is not completed (`IncorrectState`), has gone, or the copy is malformed.
pub fn copy(store: &Store, snapshot: &Snapshot, wanted: Wanted) -> Result<Snapshot> {
    check(&wanted)?;
    let id = &snapshot.snapshot_id;
    if snapshot.state != SnapshotState::Completed {
        return Err(Error::refused(Code::IncorrectState, format!("{id} is not completed")));
    }
    let mut copy = snapshot.clone();
    copy.snapshot_id = wanted.snapshot_id;
    copy.owner_id = store.owner_id();
    copy.start_time = now();
    copy.description = wanted.description;
    copy.tags = wanted.tags;
    copy.direct_write = None;
    store.snapshots().create(Durability::Durable, |dir| {
        share(store, snapshot, &beneath::owned(dir)?)?;
        Ok(copy)
    })
}

/// Put a snapshot's files into the directory `to` by the same names: hard links where there can be
/// some.
fn share(store: &Store, snapshot: &Snapshot, to: &Owned) -> Result<()> {
    let id = &snapshot.snapshot_id;
    let dir = || Dir::open(&store.snapshots().dir(id)).or_fail(|| format!("open {id}"));
    let from = dir()?;
    // Another's content is not linked: it would be here what it is not there.
    let own = dir()?.owned().ok();
    for name in std::iter::once(DATA).chain(snapshot.layers.iter().map(|l| &*l.file)) {
        fault::point("copy of a layer");
        if own.as_ref().is_none_or(|own| own.link(name, to, name).is_err()) {
            let copy = || {
                let mut to = to.create(name, 0o400)?;
                std::io::copy(&mut from.file(name)?, &mut to)?;
                to.sync_all()
            };
            copy().or_fail(|| format!("copy {name} of {id}"))?;
        }
    }
    Ok(())
}

/// Delete a snapshot. Volumes made from it keep its content; with `force` those of other accounts
/// do not.
///
/// # Errors
/// An image refers to it, or a volume of the user's that has no hard link to its content
/// (`InvalidSnapshot.InUse`, naming them), or it does not exist.
pub fn delete(store: &Store, id: &SnapshotId, force: bool) -> Result<()> {
    if force && retained::discard(store, id)? {
        return Ok(());
    }
    let record = store.snapshots().get(id)?;
    check_owner(store, &record)?;
    let _lock = store.lock()?;
    if record.state == SnapshotState::Pending && store.snapshots().is_locked(id)? {
        return Err(Error::refused(
            Code::IncorrectState,
            format!("{id} is being made; delete it once it is completed"),
        ));
    }
    references::refuse_in_use(store, Code::InvalidSnapshotInUse, id.as_str(), |image| {
        image.snapshots().any(|snapshot| snapshot == id)
    })?;
    let volumes = volume::needing(store, id)?;
    if !volumes.is_empty() {
        let ids: Vec<&str> = volumes.iter().map(|v| v.as_str()).collect();
        return Err(Error::refused(
            Code::InvalidSnapshotInUse,
            format!("{id} is the base of {}; delete that first", ids.join(", ")),
        ));
    }
    let _held = volume::users::forget_gone(store, id);
    let accounts = volume::users::accounts(store, id);
    if force || accounts.is_empty() {
        return store.snapshots().remove(id);
    }
    let whose = accounts_in_words(&accounts).unwrap_or_default();
    retained::retain(store, id, accounts)?;
    store.context().note(format_args!(
        "{id} is deleted; its content stays while volumes of {whose} begin as it: 'spore snapshot delete --force {id}' takes it \
         from them"
    ));
    Ok(())
}

/// Compare a snapshot's content with its recorded digest.
///
/// # Errors
/// They differ, or the content can't be read.
pub fn verify(store: &Store, snapshot: &Snapshot) -> Result<()> {
    let disk = open(store, snapshot)?;
    let found = digest::disk(&disk, &mut |_| store.context().check())?;
    if found == snapshot.digest {
        return Ok(());
    }
    Err(Error::failure(format!(
        "{} has changed: its digest is {found}, recorded was {}; import it again",
        snapshot.snapshot_id, snapshot.digest
    )))
}
