//! Which disks an instance gets: the image's block device mapping, changed by the request's.

use crate::error::{Code, Error, Result};
use crate::id::SnapshotId;
use crate::image::manifest::check_virtual_name;
use crate::record::image::{BlockDeviceMapping, EbsBlockDevice, Image};
use crate::record::instance::Ephemeral;
use crate::record::limits::MAX_SIZE;
use serde::Serialize;

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumePlan {
    /// e.g. `/dev/vda`.
    pub device_name: String,
    /// What it begins as.
    pub snapshot_id: Option<SnapshotId>,
    /// GiB, at least the snapshot's size.
    pub size: u64,
    /// The volume goes with the instance.
    pub delete_on_termination: bool,
    /// EC2's volume type.
    pub volume_type: String,
    /// The guest may only read it.
    pub read_only: bool,
}

/// GiB of an `ephemeralN` disk. It takes only what the guest writes.
const EPHEMERAL_GIB: u64 = 8;
/// Largest volume in GiB: EC2's.
const MAX_GIB: u64 = MAX_SIZE >> 30;
/// Most disks of an instance; each takes a device slot of the machine.
const MAX_DISKS: usize = 16;

/// The image's mapping with `changes` over it, device by device (EC2 RunInstances,
/// BlockDeviceMapping.N): another volume or size, `ephemeralN`, `NoDevice`, or one more device.
///
/// # Errors
/// `InvalidBlockDeviceMapping`: the root is taken away, a volume is smaller than what it begins as,
/// or a device is nothing that can be made.
pub fn merged(image: &Image, changes: &[BlockDeviceMapping]) -> Result<Vec<BlockDeviceMapping>> {
    let mut mappings = image.block_device_mappings.clone();
    for (index, change) in changes.iter().enumerate() {
        let device = change.device_name.escape_debug();
        if changes[..index].iter().any(|other| other.device_name == change.device_name) {
            return Err(invalid(format!("the device {device} is mapped twice; map it once")));
        }
        let old = mappings.iter().position(|m| m.device_name == change.device_name);
        let ebs = old.and_then(|at| mappings[at].ebs.as_ref());
        let new = changed(ebs, change).map_err(|e| e.context(format!("device {device}")))?;
        match old {
            Some(at) => mappings[at] = new,
            None => mappings.push(new),
        }
    }
    Ok(mappings)
}

/// What one device becomes.
fn changed(
    old: Option<&EbsBlockDevice>,
    change: &BlockDeviceMapping,
) -> Result<BlockDeviceMapping> {
    let mut new = change.clone();
    match (&mut new.ebs, &change.virtual_name, &change.no_device) {
        (None, None, Some(text)) if text.is_empty() => {}
        (None, Some(name), None) => check_virtual_name(name)?,
        (Some(ebs), None, None) => {
            let deleted = old.and_then(|old| old.delete_on_termination);
            ebs.delete_on_termination = ebs.delete_on_termination.or(deleted);
            if let Some(old) = old.filter(|_| ebs.snapshot_id.is_none()) {
                ebs.snapshot_id.clone_from(&old.snapshot_id);
                if ebs.volume_size == 0 {
                    ebs.volume_size = old.volume_size;
                }
                if ebs.volume_size < old.volume_size && ebs.snapshot_id.is_some() {
                    return Err(invalid(format!(
                        "a volume of {} GiB is smaller than the image's, which has {}",
                        ebs.volume_size, old.volume_size
                    )));
                }
            }
            // With a snapshot, 0 means the snapshot's size.
            let least = u64::from(ebs.snapshot_id.is_none());
            if !(least..=MAX_GIB).contains(&ebs.volume_size) {
                return Err(invalid(format!(
                    "a volume of {} GiB can't be made: it may have 1 to {MAX_GIB}",
                    ebs.volume_size
                )));
            }
        }
        _ => return Err(invalid("it is Ebs, VirtualName or an empty NoDevice; give one of them")),
    }
    Ok(new)
}

/// The volumes to make, the root first, and the ephemeral disks.
///
/// # Errors
/// `InvalidBlockDeviceMapping`: nothing is mapped to the root device, or there are too many disks.
pub fn disks(
    image: &Image,
    mappings: &[BlockDeviceMapping],
) -> Result<(Vec<VolumePlan>, Vec<Ephemeral>)> {
    let mut volumes: Vec<VolumePlan> = mappings
        .iter()
        .filter_map(|mapping| mapping.ebs.as_ref().map(|ebs| (mapping, ebs)))
        .map(|(mapping, ebs)| VolumePlan {
            device_name: mapping.device_name.clone(),
            snapshot_id: ebs.snapshot_id.clone(),
            size: ebs.volume_size,
            delete_on_termination: ebs
                .delete_on_termination
                .unwrap_or(mapping.device_name == image.root_device_name),
            volume_type: ebs.volume_type.clone(),
            read_only: ebs.read_only,
        })
        .collect();
    let ephemeral: Vec<Ephemeral> = mappings
        .iter()
        .filter_map(|mapping| mapping.virtual_name.as_ref().map(|name| (mapping, name)))
        .map(|(mapping, name)| Ephemeral {
            device_name: mapping.device_name.clone(),
            virtual_name: name.clone(),
            size: EPHEMERAL_GIB,
        })
        .collect();
    if volumes.len() + ephemeral.len() > MAX_DISKS {
        return Err(invalid(format!(
            "there are {} disks; an instance has at most {MAX_DISKS}",
            volumes.len() + ephemeral.len()
        )));
    }
    let root = volumes
        .iter()
        .position(|v| v.device_name == image.root_device_name && v.snapshot_id.is_some());
    let Some(root) = root else {
        return Err(invalid(format!(
            "image '{}' maps no volume to its root device {}",
            image.name, image.root_device_name
        )));
    };
    // The guest numbers its disks in our order: the root must be /dev/vda.
    volumes[..=root].rotate_right(1);
    Ok((volumes, ephemeral))
}

fn invalid(why: impl Into<String>) -> Error {
    Error::refused(Code::InvalidBlockDeviceMapping, why)
}
