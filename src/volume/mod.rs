//! Writable disks: qcow2 overlays over snapshots.
//!
//! A volume's directory has its record and the files of its chain, which the record names, top
//! first. The top is the volume's own overlay; what is below is never written, and shared by hard
//! links with the snapshots and volumes that have it too, so that deleting a snapshot's name takes
//! nothing from under a volume. Where the file system has no hard links they are symbolic links,
//! and the snapshot can't be deleted before the volume.
//!
//! Taking a snapshot costs no copy: [`push_layer`] makes a new overlay over the one there is, and
//! what was the top is fixed. The one atomic step is the record's rename: before it the chain is
//! the old one, after it the new one, and both read the same, because the new top is empty until
//! somebody opens the new chain for writing.
//!
//! An overlay names what is below it by its file's name in this directory, so qemu-img can read a
//! volume at any time. `in-use` carries the flock of whoever has the volume open.

mod chain;
pub mod users;

use crate::block::overlay::{self, Backing, Repaired};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::plan::DiskFormat;
use crate::record::snapshot::{Snapshot, SnapshotState};
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
use crate::record::volume::{Attachment, Layer, LayerName, Volume, default_volume_type};
use crate::store::beneath::{self, Owned};
use crate::store::{Collection, Durability, Locked, Store, now};
use crate::sys::fault;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::Path;

pub use chain::{link_chain, open_chain, repair_held};

/// The file in a volume's directory whose flock its user holds.
const IN_USE: &str = "in-use";
/// Most files of a chain. A snapshot of a volume with more is flattened.
pub const MAX_LAYERS: usize = 16;
/// Bytes of a GiB, EC2's unit of volume sizes.
const GIB: u64 = 1 << 30;

impl Store {
    /// Volumes.
    pub fn volumes(&self) -> Collection<Volume> {
        self.collection()
    }
}

/// What a new volume is to be.
#[derive(Clone, Debug, Default)]
pub struct NewVolume {
    /// Its id, if others refer to it already.
    pub volume_id: Option<VolumeId>,
    /// Bytes, rounded up to a multiple of 512; `None` for the snapshot's.
    pub size_bytes: Option<u64>,
    /// EC2's volume type; `None` for its default.
    pub volume_type: Option<String>,
    /// What it is attached to.
    pub attachment: Option<Attachment>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The token that it is asked for under.
    pub client_token: Option<ClientToken>,
}

/// A volume's files, open for its one user.
#[derive(Debug)]
pub struct Opened {
    /// The chain, top first, each with its recorded format. The top is writable unless the volume
    /// was opened for reading.
    pub layers: Vec<(File, DiskFormat)>,
    /// Carries the flock. It lasts as long as any duplicate of this descriptor, so a VMM that has
    /// one in hand keeps everybody else out until it is gone.
    pub hold: File,
}

/// Make a volume that begins as `snapshot`. Constant time: links, an overlay of a few KiB, a
/// record.
///
/// # Errors
/// The snapshot has gone (`InvalidSnapshot.NotFound`) or is not completed (`IncorrectState`), `new`
/// asks for less than its size (`InvalidParameterValue`), or there is no space.
pub fn create_from_snapshot(
    store: &Store,
    snapshot: &Snapshot,
    new: NewVolume,
    durability: Durability,
) -> Result<Volume> {
    let id = &snapshot.snapshot_id;
    if snapshot.state != SnapshotState::Completed {
        let why = snapshot.state_message.as_deref().unwrap_or("it is pending");
        return Err(Error::refused(Code::IncorrectState, format!("{id} is not completed: {why}")));
    }
    let size = new.size_bytes.unwrap_or(snapshot.size_bytes);
    if size < snapshot.size_bytes {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("a volume of {size} bytes can't hold {id} of {} bytes", snapshot.size_bytes),
        ));
    }
    create(store, Some(snapshot), size, new, durability)
}

/// Make a volume of zeros.
///
/// # Errors
/// `new` gives no size, 0 or one beyond 16 TiB (`InvalidParameterValue`), or there is no space.
pub fn create_empty(store: &Store, new: NewVolume, durability: Durability) -> Result<Volume> {
    create(store, None, new.size_bytes.unwrap_or(0), new, durability)
}

fn check_size(size: u64) -> Result<u64> {
    if size == 0 || size > crate::record::limits::MAX_SIZE {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("a volume of {size} bytes can't be made: it may have 1 byte to 16 TiB"),
        ));
    }
    Ok(size.next_multiple_of(512))
}

fn create(
    store: &Store,
    snapshot: Option<&Snapshot>,
    size: u64,
    new: NewVolume,
    durability: Durability,
) -> Result<Volume> {
    let size_bytes = check_size(size)?;
    let mut volume = Volume {
        volume_id: new.volume_id.map_or_else(VolumeId::generate, Ok)?,
        owner_id: store.owner_id(),
        create_time: now(),
        size: size_bytes.div_ceil(GIB),
        size_bytes,
        snapshot_id: snapshot.map(|s| s.snapshot_id.clone()),
        volume_type: new.volume_type.unwrap_or_else(default_volume_type),
        layers: Vec::new(),
        attachment: new.attachment,
        modification: None,
        client_token: new.client_token,
        tags: new.tags,
    };
    let mut _until_made = None;
    store.volumes().create(durability, |dir| {
        if let Some(snapshot) = snapshot {
            volume.layers = chain::below(snapshot);
            _until_made = chain::link_snapshot(store, snapshot, &volume, dir)?;
        }
        let dir = &beneath::owned(dir)?;
        let (top, _) = new_overlay(dir, size_bytes, volume.layers.first(), durability)
            .map_err(|e| e.context(&volume.volume_id))?;
        volume.layers.insert(0, top);
        Ok(volume)
    })
}

/// Make an empty overlay in `dir` over `below`.
fn new_overlay(
    dir: &Owned,
    size: u64,
    below: Option<&Layer>,
    durability: Durability,
) -> Result<(Layer, File)> {
    // Never the name of another overlay: frozen, it may be linked beside any of them.
    let name = LayerName::try_from(format!("overlay-{}.qcow2", crate::id::random_hex(16)?))?;
    fault::point("making of an overlay");
    let make = || -> io::Result<File> {
        let file = dir.create(&name, 0o600)?;
        let backing = below.map(|below| Backing { name: &below.file, format: below.format });
        overlay::create(&file, size, backing)?;
        if durability == Durability::Durable {
            file.sync_all()?;
        }
        Ok(file)
    };
    let file =
        make().or_fail(|| format!("make the overlay {}", dir.path().join(&*name).display()))?;
    Ok((Layer { file: name, format: DiskFormat::Qcow2 }, file))
}

/// Put a new, empty overlay of `size` bytes on top of the volume's chain, durably: what was the top
/// is not to be written any more once the new chain is in use. Gives the new top, open for reading
/// and writing.
///
/// # Errors
/// No space; the chain stays as it was then. `IncorrectState`: it has far too many layers.
pub fn push_layer(locked: &mut Locked<Volume>, size: u64) -> Result<File> {
    let size = check_size(size)?;
    if locked.record.layers.len() >= 4 * MAX_LAYERS {
        return Err(Error::refused(
            Code::IncorrectState,
            format!(
                "{} has a chain of {} files, because no snapshot of it was ever finished; let one finish",
                locked.record.volume_id,
                locked.record.layers.len()
            ),
        ));
    }
    let dir = locked.owned();
    chain::sweep(dir, &locked.record);
    let (top, file) = new_overlay(dir, size, locked.record.layers.first(), Durability::Durable)?;
    let name = top.file.clone();
    let before = locked.record.clone();
    locked.record.layers.insert(0, top);
    locked.record.size_bytes = size;
    locked.record.size = size.div_ceil(GIB);
    if let Err(error) = locked.save(Durability::Durable) {
        locked.record = before;
        let _ = locked.owned().remove(&name);
        return Err(error);
    }
    Ok(file)
}

/// Make a volume that nobody uses larger. The guest sees it at its next start.
///
/// # Errors
/// As [`grown`]'s, `VolumeInUse`, or no space.
pub fn resize(locked: &mut Locked<Volume>, size: u64) -> Result<()> {
    let size = grown(&locked.record, size)?;
    let _hold = hold(locked.store(), &locked.dir(), &locked.record, false)?;
    if size > locked.record.size_bytes {
        push_layer(locked, size)?;
    }
    Ok(())
}

/// The bytes, a multiple of 512, that a volume has once it has grown to hold `size`.
///
/// # Errors
/// `InvalidParameterValue` if that is smaller than it is or too large.
pub fn grown(volume: &Volume, size: u64) -> Result<u64> {
    let (id, before) = (&volume.volume_id, volume.size_bytes);
    if size < before {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("{id} has {before} bytes and can't shrink to {size}; a volume only grows"),
        ));
    }
    check_size(size)
}

/// The volumes of this user that need `snapshot` to stay, because they have no hard links to its
/// content.
///
/// # Errors
/// The volumes can't be listed.
pub fn needing(store: &Store, snapshot: &SnapshotId) -> Result<Vec<VolumeId>> {
    let volumes = store.volumes();
    let needs = |volume: &Volume| {
        let dir = volumes.dir(&volume.volume_id);
        volume.snapshot_id.as_ref() == Some(snapshot)
            && volume.owner_id == store.owner_id()
            && Owned::open(&dir).is_ok_and(|dir| {
                volume.layers.iter().any(|layer| dir.read_link(&layer.file).is_ok())
            })
    };
    Ok(volumes.list()?.records.into_iter().filter(needs).map(|v| v.volume_id).collect())
}

/// Delete a volume with its content.
///
/// # Errors
/// An instance uses it (`VolumeInUse`), or it does not exist.
pub fn delete(store: &Store, id: &VolumeId) -> Result<()> {
    let locked = store.volumes().lock(id)?;
    let _hold = hold(locked.store(), &locked.dir(), &locked.record, false)?;
    locked.remove()
}

/// Open a volume's files for a VMM.
///
/// # Errors
/// An instance uses the volume (`VolumeInUse`), it has gone, or a file can't be opened.
pub fn open_layers(store: &Store, volume: &Volume, read_only: bool) -> Result<Opened> {
    let dir = store.volumes().dir(&volume.volume_id);
    let hold = hold(store, &dir, volume, read_only)?;
    Ok(Opened { layers: open_chain(&dir, &volume.layers, !read_only)?, hold })
}

/// Give back the clusters that a killed VMM left counted and unused in the volume's overlays.
///
/// # Errors
/// An instance uses the volume (`VolumeInUse`), it has gone, or an overlay is worse than leaking.
pub fn repair(store: &Store, volume: &Volume) -> Result<Repaired> {
    let dir = store.volumes().dir(&volume.volume_id);
    let _hold = hold(store, &dir, volume, false)?;
    repair_held(&dir, volume)
}

/// Keep everybody else from using the volume, until what this gives is dropped.
///
/// # Errors
/// `VolumeInUse`: somebody does.
pub fn hold(store: &Store, dir: &Path, volume: &Volume, shared: bool) -> Result<File> {
    let file = match Owned::open(dir) {
        // What is another's is not locked.
        Err(_) if volume.owner_id != store.owner_id() => {
            return Err(crate::store::not_owned(volume));
        }
        dir => dir.and_then(|dir| dir.open_or_create(IN_USE)),
    };
    let file = file.or_fail(|| format!("open {}", dir.join(IN_USE).display()))?;
    let operation = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let user = match &volume.attachment {
                Some(attachment) => format!("instance {}", attachment.instance_id),
                None => "another instance".to_owned(),
            };
            Err(Error::refused(
                Code::VolumeInUse,
                format!("{} is in use by {user}; stop it first", volume.volume_id),
            ))
        }
        Err(errno) => Err(Error::io(format!("lock {}", volume.volume_id), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::snapshot::DATA;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn snapshot(store: &Store) -> Snapshot {
        let id = SnapshotId::generate().unwrap();
        let make = |dir: &Path| {
            fs::write(dir.join(DATA), vec![7; 1 << 20]).unwrap();
            let content = (DiskFormat::Raw, String::new());
            Ok(Snapshot::flat(id, (store.owner_id(), now()), 1 << 20, content))
        };
        store.snapshots().create(Durability::Volatile, make).unwrap()
    }

    #[test]
    fn a_volume_is_small_and_outlives_its_snapshot() {
        let (_dir, store) = Store::scratch();
        let snapshot = snapshot(&store);
        let volume =
            create_from_snapshot(&store, &snapshot, NewVolume::default(), Durability::Durable)
                .unwrap();
        assert_eq!(volume.size_bytes, 1 << 20);
        let dir = store.volumes().dir(&volume.volume_id);
        let overlay = dir.join(&*volume.layers[0].file).metadata().unwrap();
        assert!(overlay.blocks() * 512 <= 256 << 10, "{} blocks", overlay.blocks());
        store.snapshots().remove(&snapshot.snapshot_id).unwrap();
        let layers = open_layers(&store, &volume, false).unwrap();
        let disk = crate::block::Reader::open(layers.layers).unwrap();
        let mut bytes = [0; 512];
        disk.read_exact_at(&mut bytes, 512).unwrap();
        assert_eq!(bytes, [7; 512]);
        let error =
            create_from_snapshot(&store, &snapshot, NewVolume::default(), Durability::Volatile)
                .unwrap_err();
        assert_eq!(error.code(), Some(Code::InvalidSnapshotNotFound));
    }

    #[test]
    fn one_writer_or_many_readers() {
        let (_dir, store) = Store::scratch();
        let new = NewVolume { size_bytes: Some(1000), ..NewVolume::default() };
        let volume = create_empty(&store, new, Durability::Volatile).unwrap();
        assert_eq!(volume.size_bytes, 1024);
        let writer = open_layers(&store, &volume, false).unwrap();
        for read_only in [false, true] {
            let error = open_layers(&store, &volume, read_only).unwrap_err();
            assert_eq!(error.code(), Some(Code::VolumeInUse));
        }
        assert_eq!(delete(&store, &volume.volume_id).unwrap_err().code(), Some(Code::VolumeInUse));
        assert_eq!(repair(&store, &volume).unwrap_err().code(), Some(Code::VolumeInUse));
        drop(writer);
        assert_eq!(repair(&store, &volume).unwrap().clusters, 0);
        let readers = [open_layers(&store, &volume, true), open_layers(&store, &volume, true)];
        assert!(readers.iter().all(Result::is_ok));
        assert!(open_layers(&store, &volume, false).is_err());
        drop(readers);
        delete(&store, &volume.volume_id).unwrap();
        assert!(store.volumes().ids().unwrap().is_empty());
    }

    #[test]
    fn sizes_are_checked() {
        let (_dir, store) = Store::scratch();
        let snapshot = snapshot(&store);
        for (size, from) in [(None, None), (Some(1 << 63), None), (Some(512), Some(&snapshot))] {
            let new = NewVolume { size_bytes: size, ..NewVolume::default() };
            let made = match from {
                Some(snapshot) => create_from_snapshot(&store, snapshot, new, Durability::Volatile),
                None => create_empty(&store, new, Durability::Volatile),
            };
            assert_eq!(made.unwrap_err().code(), Some(Code::InvalidParameterValue));
        }
    }
}
