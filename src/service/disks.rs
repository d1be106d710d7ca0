//! The disks of a launch in few words: a larger root, one more volume. EC2's words for it are block
//! device mappings, which these become.

use crate::error::{Code, Error, Result};
use crate::record::image::{BlockDeviceMapping, EbsBlockDevice, Image};
use crate::record::volume::default_volume_type;
use crate::snapshot;
use crate::store::Store;

const GIB: u64 = 1 << 30;

/// One more volume of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// What it is called in the mapping; the next free name without.
    pub device: Option<String>,
    /// Bytes, whole GiB; the snapshot's size without.
    pub size: Option<u64>,
    /// What it begins as; empty without.
    pub snapshot_id: Option<String>,
    /// It goes with the instance. Of what is made for an instance that is the default.
    pub delete_on_termination: Option<bool>,
    /// The guest may only read it.
    pub read_only: bool,
}

/// What a root of `root_size` bytes and `volumes` are, beside what is `given`.
///
/// # Errors
/// `InvalidBlockDeviceMapping`: a size is not of whole GiB, nothing says how large a volume is, the
/// root is given twice, or there is no free name. The snapshot is unknown.
pub fn mappings(
    store: &Store,
    image: &Image,
    given: &[BlockDeviceMapping],
    root_size: Option<u64>,
    volumes: &[NewVolume],
) -> Result<Vec<BlockDeviceMapping>> {
    let mut found: Vec<BlockDeviceMapping> = Vec::new();
    if let Some(size) = root_size {
        let root = &image.root_device_name;
        if given.iter().any(|mapping| mapping.device_name == *root) {
            return Err(invalid(format!("--disk and the mapping of {root} contradict each other")));
        }
        let ebs = EbsBlockDevice { volume_size: gib(size)?, ..empty() };
        found.push(mapping(root.clone(), ebs));
    }
    let named = volumes.iter().filter_map(|volume| volume.device.clone());
    let mut taken: Vec<String> = named.collect();
    taken.extend(given.iter().chain(&image.block_device_mappings).map(|m| m.device_name.clone()));
    for volume in volumes {
        let snapshot = volume.snapshot_id.as_deref();
        let snapshot = snapshot.map(|text| snapshot::resolve(store, text)).transpose()?;
        let smallest = snapshot.as_ref().map(|snapshot| snapshot.volume_size);
        let Some(size) = volume.size.map(gib).transpose()?.or(smallest) else {
            return Err(invalid("a volume takes a size=, a snapshot=, or both".to_owned()));
        };
        let device = match &volume.device {
            Some(device) => device.clone(),
            None => free(&image.root_device_name, &taken)?,
        };
        taken.push(device.clone());
        found.push(mapping(
            device,
            EbsBlockDevice {
                snapshot_id: snapshot.map(|snapshot| snapshot.snapshot_id),
                volume_size: size,
                delete_on_termination: Some(volume.delete_on_termination.unwrap_or(true)),
                read_only: volume.read_only,
                ..empty()
            },
        ));
    }
    Ok(found)
}

fn empty() -> EbsBlockDevice {
    EbsBlockDevice {
        snapshot_id: None,
        volume_size: 0,
        delete_on_termination: None,
        volume_type: default_volume_type(),
        read_only: false,
    }
}

fn mapping(device_name: String, ebs: EbsBlockDevice) -> BlockDeviceMapping {
    BlockDeviceMapping { device_name, ebs: Some(ebs), virtual_name: None, no_device: None }
}

fn gib(bytes: u64) -> Result<u64> {
    match bytes % GIB {
        0 if bytes > 0 => Ok(bytes / GIB),
        _ => Err(invalid(format!("a volume has whole GiB, and not {bytes} bytes"))),
    }
}

/// The first free name of the root's kind: /dev/vdb after /dev/vda, /dev/sdb after /dev/sda1.
fn free(root: &str, taken: &[String]) -> Result<String> {
    let disk = root.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = disk.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or("/dev/vd");
    let names = ('b'..='z').map(|letter| format!("{stem}{letter}"));
    let mut free = names.filter(|name| taken.iter().all(|other| other != name));
    free.next().ok_or_else(|| invalid(format!("no name of {stem}b to {stem}z is free")))
}

fn invalid(why: String) -> Error {
    Error::refused(Code::InvalidBlockDeviceMapping, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_name_is_of_the_roots_kind() {
        let taken =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (root, names, expected) in [
            ("/dev/vda", &["/dev/vda"][..], "/dev/vdb"),
            ("/dev/sda1", &["/dev/sda1", "/dev/sdb"], "/dev/sdc"),
            ("/dev/vda", &["/dev/vdc", "/dev/vdb"], "/dev/vdd"),
        ] {
            assert_eq!(free(root, &taken(names)).unwrap(), expected);
        }
        let all: Vec<String> = ('b'..='z').map(|letter| format!("/dev/vd{letter}")).collect();
        assert!(free("/dev/vda", &all).is_err());
    }

    #[test]
    fn sizes_are_whole_gib() {
        assert_eq!(gib(20 << 30).unwrap(), 20);
        assert!(gib(0).is_err() && gib((1 << 30) + 1).is_err());
    }
}
