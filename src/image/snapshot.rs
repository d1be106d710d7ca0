//! Snapshots: content that never changes.

use super::import::{self, DATA, Options, Source};
use super::record::{Snapshot, Tag};
use super::{digest, kernel, names};
use crate::error::{Error, OrFail, Result};
use crate::id::SnapshotId;
use crate::store::{Durability, Staging, Store, now};
use crate::volume::{self, owner_id};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

/// Bytes of a GiB, EC2's unit of volume sizes.
const GIB: u64 = 1 << 30;

/// Bring the disk at `source` into the store. Whatever goes wrong, nothing stays.
///
/// # Errors
/// As [`import::import`]'s; a tag is malformed.
pub fn import(
    store: &Store,
    source: &Source,
    options: &Options,
    description: &str,
    tags: Vec<Tag>,
) -> Result<Snapshot> {
    names::check_tags(&tags)?;
    let staging = Staging::new(store)?;
    let imported = import::import(source, staging.path(), options)?;
    let data = staging.path().join(DATA);
    // Nobody writes a snapshot, by whichever of its hard links.
    fs::set_permissions(&data, Permissions::from_mode(0o400))
        .or_fail(|| format!("protect {}", data.display()))?;
    let snapshot = Snapshot {
        snapshot_id: SnapshotId::generate()?,
        owner_id: owner_id(),
        start_time: now(),
        volume_size: imported.size_bytes.div_ceil(GIB),
        size_bytes: imported.size_bytes,
        format: imported.format,
        digest: imported.digest,
        description: description.to_owned(),
        tags,
    };
    import::cancel::check()?;
    staging.publish(store, &snapshot, Durability::Durable)?;
    Ok(snapshot)
}

/// Delete a snapshot. Volumes made from it keep its content.
///
/// # Errors
/// An image refers to it, or a volume that has no hard link to its content (`InvalidSnapshot.InUse`, naming
/// them), or it does not exist.
pub fn delete(store: &Store, id: &SnapshotId) -> Result<()> {
    let _lock = store.lock()?;
    kernel::refuse_in_use(store, "InvalidSnapshot.InUse", id.as_str(), |image| {
        let mappings = image.block_device_mappings.iter();
        mappings.filter_map(|m| m.ebs.as_ref()).any(|ebs| ebs.snapshot_id.as_ref() == Some(id))
    })?;
    let volumes = volume::needing(store, id)?;
    if !volumes.is_empty() {
        let ids: Vec<&str> = volumes.iter().map(|v| v.as_str()).collect();
        return Err(Error::refused(
            "InvalidSnapshot.InUse",
            format!("{id} is the base of {}; delete that first", ids.join(", ")),
        ));
    }
    store.snapshots().remove(id)
}

/// Compare a snapshot's content with its recorded digest.
///
/// # Errors
/// They differ, or the content can't be read.
pub fn verify(store: &Store, snapshot: &Snapshot) -> Result<()> {
    let path = store.snapshots().dir(&snapshot.snapshot_id).join(DATA);
    let file = File::open(&path).or_fail(|| format!("open {}", path.display()))?;
    let found = digest::file(&file, snapshot.format)?;
    if found == snapshot.digest {
        return Ok(());
    }
    Err(Error::failure(format!(
        "{} has changed: its digest is {found}, recorded was {}; import it again",
        snapshot.snapshot_id, snapshot.digest
    )))
}
