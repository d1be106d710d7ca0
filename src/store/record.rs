//! What a directory needs to be an object: a record that says what it is.

use crate::error::{Error, OrFail, Result};
use crate::id::Id;
use crate::image::record::{Image, Kernel, Ramdisk, Snapshot};
use crate::volume::record::Volume;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Durability;

/// The record's file name in an object's directory.
pub const RECORD: &str = "record.json";
/// Longer records than this (bytes) are refused: ours have a few KiB.
const MAX_RECORD: u64 = 1 << 20;

/// A kind of object in the store.
pub trait Record: Serialize + DeserializeOwned + Clone {
    /// Its id.
    type Id: Id;
    /// The directory under the store that holds this kind.
    const DIRECTORY: &'static str;
    /// What it is called in messages.
    const KIND: &'static str;
    /// EC2's error code for an unknown one.
    const NOT_FOUND: &'static str;
    /// Its id.
    fn id(&self) -> &Self::Id;
    /// What else it may be addressed by.
    fn name(&self) -> Option<&str>;
}

/// The value of the tag `Name`.
fn name_tag(tags: &[crate::image::record::Tag]) -> Option<&str> {
    tags.iter().find(|tag| tag.key == "Name").map(|tag| tag.value.as_str())
}

macro_rules! record {
    ($record:ty, $id:ident: $type:ty, $directory:literal, $kind:literal, $not_found:literal, $name:expr) => {
        impl Record for $record {
            type Id = $type;
            const DIRECTORY: &'static str = $directory;
            const KIND: &'static str = $kind;
            const NOT_FOUND: &'static str = $not_found;
            fn id(&self) -> &Self::Id {
                &self.$id
            }
            fn name(&self) -> Option<&str> {
                let name: fn(&$record) -> Option<&str> = $name;
                name(self)
            }
        }
    };
}

record!(Image, image_id: crate::id::ImageId, "images", "image", "InvalidAMIID.NotFound",
    |image| Some(&image.name));
record!(Kernel, kernel_id: crate::id::KernelId, "kernels", "kernel", "InvalidAKIID.NotFound",
    |kernel| Some(&kernel.name));
record!(Ramdisk, ramdisk_id: crate::id::RamdiskId, "ramdisks", "ramdisk", "InvalidARIID.NotFound",
    |ramdisk| Some(&ramdisk.name));
record!(Snapshot, snapshot_id: crate::id::SnapshotId, "snapshots", "snapshot", "InvalidSnapshot.NotFound",
    |snapshot| name_tag(&snapshot.tags));
record!(Volume, volume_id: crate::id::VolumeId, "volumes", "volume", "InvalidVolume.NotFound",
    |volume| name_tag(&volume.tags));

/// Read the record in `dir`. `None` if there is none: the object went meanwhile, or a power failure took it
/// before anything of it was on the medium.
///
/// # Errors
/// It can't be read or is not a record of this kind; one line naming the file.
pub(super) fn read<R: Record>(dir: &Path) -> Result<Option<R>> {
    let path = dir.join(RECORD);
    let mut text = Vec::new();
    match File::open(&path).and_then(|f| f.take(MAX_RECORD + 1).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
    }
    if is_void(&text) {
        return Ok(None);
    }
    let corrupt = |why: String| {
        Error::failure(format!(
            "the record {} is not one of {} {}: {why}; repair it or remove its directory",
            path.display(),
            if R::KIND.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" },
            R::KIND
        ))
    };
    if text.len() as u64 > MAX_RECORD {
        return Err(corrupt(format!("it is longer than {MAX_RECORD} bytes")));
    }
    serde_json::from_slice(&text).map(Some).map_err(|e| corrupt(e.to_string()))
}

/// What an unsynced file may be after a power failure: without data, or zeros.
pub(super) fn is_void(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == 0)
}

/// Replace the record in `dir`, whole or not at all. The caller holds the object's lock, or made `dir` itself.
pub(super) fn write<R: Record>(dir: &Path, record: &R, durability: Durability) -> Result<()> {
    let (path, new) = (dir.join(RECORD), dir.join("record.json.new"));
    let mut text =
        serde_json::to_vec_pretty(record).or_fail(|| format!("write {}", path.display()))?;
    text.push(b'\n');
    let replace = || -> std::io::Result<()> {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        if durability == Durability::Durable {
            file.sync_all()?;
        }
        std::fs::rename(&new, &path)
    };
    replace().or_fail(|| format!("write {}", path.display()))?;
    if durability == Durability::Durable {
        super::sync_dir(dir)?;
    }
    Ok(())
}

/// The time as EC2 writes it: RFC 3339, UTC, milliseconds.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    rfc3339(since.unwrap_or(Duration::ZERO))
}

/// Time since the epoch as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(since: Duration) -> String {
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: eras of 400 years that begin on 1 March.
    let z = day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let date = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_704_067_199, "2023-12-31T23:59:59.007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_millis(seconds * 1000 + 7)), text);
        }
    }
}
