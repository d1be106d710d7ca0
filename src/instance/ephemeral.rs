//! An instance's disks `ephemeralN`: empty at each boot, and gone with the VM that had them, unless
//! it is hibernated.
//!
//! Each is a file of that name beside the record. Who finds the VMM gone removes it, before the
//! record says that the instance is stopped: so none is left that no record tells of.

use super::dir::InstanceDir;
use crate::block::overlay;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{VolumeId, hex};
use crate::record::instance::{Ephemeral, InstanceRecord, VolumeMark};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// Bytes of a GiB.
pub(super) const GIB: u64 = 1 << 30;

/// What the guest sees as the disk's serial number; no volume has it. It is the same at each start,
/// so that a guest that goes on finds what it knows.
///
/// # Errors
/// None: a digest has digits enough.
pub fn serial(dir: &InstanceDir, disk: &Ephemeral) -> Result<VolumeId> {
    let text = format!("{} {}", dir.id(), disk.virtual_name);
    VolumeId::from_digest(&hex(&Sha256::digest(text)))
}

/// An empty disk, in the place of what an earlier VM had.
///
/// # Errors
/// No space.
pub fn create(dir: &InstanceDir, disk: &Ephemeral) -> Result<File> {
    let doing = || format!("make the disk {} of {}", disk.virtual_name, dir.id());
    let file = dir.owned()?.create_anew(&disk.virtual_name, 0o600).or_fail(doing)?;
    overlay::create(&file, disk.size.saturating_mul(GIB), None).or_fail(doing)?;
    Ok(file)
}

/// The disk as a hibernated instance left it.
///
/// # Errors
/// `IncorrectInstanceState`: it is gone.
pub fn open(dir: &InstanceDir, disk: &Ephemeral) -> Result<File> {
    let file = dir.owned()?.writable(&disk.virtual_name);
    file.map_err(|_| {
        let why = format!("its disk {} is gone", disk.virtual_name);
        Error::refused(Code::IncorrectInstanceState, why)
    })
}

/// What tells that a disk has changed.
///
/// # Errors
/// It is gone.
pub fn mark(dir: &InstanceDir, disk: &Ephemeral) -> Result<VolumeMark> {
    let meta = open(dir, disk)?.metadata().or_fail(|| format!("look at {}", disk.virtual_name))?;
    Ok(VolumeMark {
        volume_id: serial(dir, disk)?,
        layers: Vec::new(),
        size: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// Remove the disks of an instance whose VM is gone and not hibernated.
///
/// # Errors
/// The file system is read-only.
pub fn remove(dir: &InstanceDir, record: &InstanceRecord) -> Result<()> {
    record.instance.spore.ephemeral.iter().try_for_each(|disk| {
        let removed = dir.owned()?.remove_if_there(&disk.virtual_name);
        removed.or_fail(|| format!("remove {}", dir.file(&disk.virtual_name).display()))
    })
}
