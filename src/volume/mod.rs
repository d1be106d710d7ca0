//! Writable disks: qcow2 overlays over snapshots.
//!
//! A volume's directory has its record, `overlay.qcow2` and, unless it began empty, `base`: a hard link to
//! the snapshot's content, so that deleting the snapshot's name takes nothing from under a volume. Where the
//! file system has no hard links `base` is a symbolic link, and the snapshot can't be deleted before the volume.
//! The overlay names its base as `base`, so qemu-img can read a volume in its directory at any time.

pub mod record;

use crate::block::overlay::{self, Backing, Repaired};
use crate::error::{Error, OrFail, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::image::DATA;
use crate::image::record::{Snapshot, Tag};
use crate::plan::DiskFormat;
use crate::store::{Durability, Store, StoreLock, now};
use record::{Attachment, Volume};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The overlay's file name in a volume's directory.
pub const OVERLAY: &str = "overlay.qcow2";
/// The base's file name in a volume's directory.
pub const BASE: &str = "base";
/// Bytes of a GiB, EC2's unit of volume sizes.
const GIB: u64 = 1 << 30;

/// What a new volume is to be.
#[derive(Clone, Debug, Default)]
pub struct NewVolume {
    /// Bytes, rounded up to a multiple of 512; `None` for the snapshot's.
    pub size_bytes: Option<u64>,
    /// What it is attached to.
    pub attachment: Option<Attachment>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// Make a volume that begins as `snapshot`. Constant time: a link, an overlay of a few KiB, a record.
///
/// # Errors
/// The snapshot has gone (`InvalidSnapshot.NotFound`), `new` asks for less than its size
/// (`InvalidParameterValue`), or there is no space.
pub fn create_from_snapshot(
    store: &Store,
    snapshot: &Snapshot,
    new: NewVolume,
    durability: Durability,
) -> Result<Volume> {
    let size = new.size_bytes.unwrap_or(snapshot.size_bytes);
    if size < snapshot.size_bytes {
        return Err(Error::refused(
            "InvalidParameterValue",
            format!(
                "a volume of {size} bytes can't hold {} of {} bytes",
                snapshot.snapshot_id, snapshot.size_bytes
            ),
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

fn create(
    store: &Store,
    snapshot: Option<&Snapshot>,
    size: u64,
    new: NewVolume,
    durability: Durability,
) -> Result<Volume> {
    if size == 0 || size > crate::image::import::MAX_SIZE {
        return Err(Error::refused(
            "InvalidParameterValue",
            format!("a volume of {size} bytes can't be made: it may have 1 byte to 16 TiB"),
        ));
    }
    let size_bytes = size.next_multiple_of(512);
    let volume = Volume {
        volume_id: VolumeId::generate()?,
        owner_id: owner_id(),
        create_time: now(),
        size: size_bytes.div_ceil(GIB),
        size_bytes,
        snapshot_id: snapshot.map(|s| s.snapshot_id.clone()),
        base_format: snapshot.map(|s| s.format),
        attachment: new.attachment,
        tags: new.tags,
    };
    let mut _until_made = None;
    store.volumes().create(durability, |dir| {
        if let Some(snapshot) = snapshot {
            _until_made = link_base(store, &snapshot.snapshot_id, dir)?;
        }
        let backing = snapshot.map(|s| Backing { name: BASE, format: s.format });
        let path = dir.join(OVERLAY);
        let make = || -> io::Result<()> {
            let file =
                File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            overlay::create(&file, size_bytes, backing)?;
            if durability == Durability::Durable { file.sync_all() } else { Ok(()) }
        };
        make().or_fail(|| format!("make the overlay of {}", volume.volume_id))?;
        Ok(volume)
    })
}

/// Link `base`. What it gives must be held until the volume is in the store.
fn link_base(store: &Store, snapshot: &SnapshotId, dir: &Path) -> Result<Option<StoreLock>> {
    let data = store.snapshots().dir(snapshot).join(DATA);
    let base = dir.join(BASE);
    let gone = || {
        let message = format!("the snapshot {snapshot} has no content any more");
        Error::refused("InvalidSnapshot.NotFound", message)
    };
    match fs::hard_link(&data, &base) {
        Ok(()) => Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(gone()),
        // EMLINK, EXDEV, EPERM, EOPNOTSUPP: link(2). A snapshot is deleted under the store's lock, if no volume needs it.
        Err(_) => {
            let lock = store.lock()?;
            if !data.is_file() {
                return Err(gone());
            }
            std::os::unix::fs::symlink(&data, &base)
                .or_fail(|| format!("link {}", base.display()))?;
            Ok(Some(lock))
        }
    }
}

/// The volumes that need `snapshot` to stay, because they have no hard link to its content.
///
/// # Errors
/// The volumes can't be listed.
pub fn needing(store: &Store, snapshot: &SnapshotId) -> Result<Vec<VolumeId>> {
    let volumes = store.volumes();
    let needs = |volume: &Volume| {
        volume.snapshot_id.as_ref() == Some(snapshot)
            && volumes.dir(&volume.volume_id).join(BASE).is_symlink()
    };
    Ok(volumes.list()?.records.into_iter().filter(needs).map(|v| v.volume_id).collect())
}

/// Delete a volume with its content.
///
/// # Errors
/// An instance uses it (`VolumeInUse`), or it does not exist.
pub fn delete(store: &Store, id: &VolumeId) -> Result<()> {
    let locked = store.volumes().lock(id)?;
    let path = locked.dir().join(OVERLAY);
    // Without an overlay there is nothing that anybody could use.
    if let Ok(overlay) = File::open(&path) {
        hold(&overlay, &locked.record, false)?;
    }
    locked.remove()
}

/// The user's id as EC2's account id.
pub fn owner_id() -> String {
    rustix::process::geteuid().as_raw().to_string()
}

/// Open a volume's files for a VMM, top first, each with its recorded format.
///
/// The first one carries a flock: shared if `read_only`, else exclusive. It lasts as long as any
/// duplicate of that descriptor, so a VMM that has it in hand keeps everybody else out until it is gone.
///
/// # Errors
/// An instance uses the volume (`VolumeInUse`), it has gone, or a file can't be opened.
pub fn open_layers(
    store: &Store,
    volume: &Volume,
    read_only: bool,
) -> Result<Vec<(File, DiskFormat)>> {
    let dir = store.volumes().dir(&volume.volume_id);
    let open = |name: &str, write: bool| {
        let path = dir.join(name);
        let opened = File::options().read(true).write(write).open(&path);
        opened.or_fail(|| format!("open {}", path.display()))
    };
    let top = open(OVERLAY, !read_only)?;
    hold(&top, volume, read_only)?;
    let mut layers = vec![(top, DiskFormat::Qcow2)];
    if volume.snapshot_id.is_some() {
        layers.push((open(BASE, false)?, volume.base_format.unwrap_or(DiskFormat::Raw)));
    }
    Ok(layers)
}

/// Give back the clusters that a killed VMM left counted and unused in the volume's overlay.
///
/// # Errors
/// An instance uses the volume (`VolumeInUse`), it has gone, or its overlay is worse than leaking.
pub fn repair(store: &Store, volume: &Volume) -> Result<Repaired> {
    let layers = open_layers(store, volume, false)?;
    let Some((overlay, _)) = layers.first() else { return Ok(Repaired::default()) };
    overlay::repair(overlay).or_fail(|| format!("repair the overlay of {}", volume.volume_id))
}

fn hold(overlay: &File, volume: &Volume, shared: bool) -> Result<()> {
    let operation = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    flock(overlay, operation).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => {
            let user = match &volume.attachment {
                Some(attachment) => format!("instance {}", attachment.instance_id),
                None => "another instance".to_owned(),
            };
            Error::refused(
                "VolumeInUse",
                format!("{} is in use by {user}; stop it first", volume.volume_id),
            )
        }
        errno => Error::io(format!("lock {}", volume.volume_id), errno),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("s"), &dir.path().join("r")).unwrap();
        (dir, store)
    }

    fn snapshot(store: &Store) -> Snapshot {
        let id = SnapshotId::generate().unwrap();
        let make = |dir: &Path| {
            fs::write(dir.join(DATA), vec![7; 1 << 20]).unwrap();
            Ok(Snapshot {
                snapshot_id: id,
                owner_id: owner_id(),
                start_time: now(),
                volume_size: 1,
                size_bytes: 1 << 20,
                format: DiskFormat::Raw,
                digest: String::new(),
                description: String::new(),
                tags: Vec::new(),
            })
        };
        store.snapshots().create(Durability::Volatile, make).unwrap()
    }

    #[test]
    fn a_volume_is_small_and_outlives_its_snapshot() {
        let (_dir, store) = store();
        let snapshot = snapshot(&store);
        let volume =
            create_from_snapshot(&store, &snapshot, NewVolume::default(), Durability::Durable)
                .unwrap();
        assert_eq!(volume.size_bytes, 1 << 20);
        let overlay = store.volumes().dir(&volume.volume_id).join(OVERLAY).metadata().unwrap();
        assert!(overlay.blocks() * 512 <= 256 << 10, "{} blocks", overlay.blocks());
        store.snapshots().remove(&snapshot.snapshot_id).unwrap();
        let layers = open_layers(&store, &volume, false).unwrap();
        let disk = crate::block::Reader::open(layers).unwrap();
        let mut bytes = [0; 512];
        disk.read_exact_at(&mut bytes, 512).unwrap();
        assert_eq!(bytes, [7; 512]);
        let error =
            create_from_snapshot(&store, &snapshot, NewVolume::default(), Durability::Volatile)
                .unwrap_err();
        assert_eq!(error.code(), Some("InvalidSnapshot.NotFound"));
    }

    #[test]
    fn one_writer_or_many_readers() {
        let (_dir, store) = store();
        let new = NewVolume { size_bytes: Some(1000), ..NewVolume::default() };
        let volume = create_empty(&store, new, Durability::Volatile).unwrap();
        assert_eq!(volume.size_bytes, 1024);
        let writer = open_layers(&store, &volume, false).unwrap();
        for read_only in [false, true] {
            let error = open_layers(&store, &volume, read_only).unwrap_err();
            assert_eq!(error.code(), Some("VolumeInUse"));
        }
        assert_eq!(delete(&store, &volume.volume_id).unwrap_err().code(), Some("VolumeInUse"));
        assert_eq!(repair(&store, &volume).unwrap_err().code(), Some("VolumeInUse"));
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
        let (_dir, store) = store();
        let snapshot = snapshot(&store);
        for (size, from) in [(None, None), (Some(1 << 63), None), (Some(512), Some(&snapshot))] {
            let new = NewVolume { size_bytes: size, ..NewVolume::default() };
            let made = match from {
                Some(snapshot) => create_from_snapshot(&store, snapshot, new, Durability::Volatile),
                None => create_empty(&store, new, Durability::Volatile),
            };
            assert_eq!(made.unwrap_err().code(), Some("InvalidParameterValue"));
        }
    }
}
