//! What a directory needs to be an object: a record that says what it is.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::Id;
use crate::record::image::{Image, ImageState, Kernel, Ramdisk, Snapshot};
use crate::record::volume::Volume;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::Path;

use super::Durability;
use super::beneath::{Dir, Owned};
use super::reserve;

/// The record's file name in an object's directory.
pub const RECORD: &str = "record.json";
/// The next record, until it is whole.
pub(super) const NEW: &str = "record.json.new";
/// Longer records than this (bytes) are refused: ours have a few KiB.
const MAX_RECORD: u64 = 1 << 20;
/// Likewise another's, of which there may be any number.
const MAX_OTHERS: u64 = 256 << 10;

/// A kind of object in the store.
pub trait Record: Serialize + DeserializeOwned + Clone {
    /// Its id.
    type Id: Id;
    /// The directory under the store that holds this kind.
    const DIRECTORY: &'static str;
    /// What it is called in messages.
    const KIND: &'static str;
    /// EC2's error code for an unknown one.
    const NOT_FOUND: Code;
    /// What every store has without a directory for it.
    fn built_in() -> Vec<Self> {
        Vec::new()
    }
    /// How lasting the journal's word of its removal is when that is done. An instance's volumes go with it, in one
    /// transition that is noted when it ends.
    const REMOVAL: Durability = Durability::Volatile;
    /// Its id.
    fn id(&self) -> &Self::Id;
    /// What else it may be addressed by.
    fn name(&self) -> Option<&str>;
    /// Whether nobody else of its owner may have its name. `made` is whether its maker is at work.
    fn holds_name(&self, made: bool) -> bool {
        let _ = made;
        true
    }
    /// The uid in decimal of whom it belongs to.
    fn owner(&self) -> &str;
    /// What the journal says of it; a change of anything else is not worth a line.
    fn essence(&self) -> Value;
}

/// The value of the tag `Name`.
fn name_tag(tags: &[crate::record::image::Tag]) -> Option<&str> {
    tags.iter().find(|tag| tag.key == "Name").map(|tag| tag.value.as_str())
}

macro_rules! record {
    ($record:ty, $id:ident: $type:ty, $directory:literal, $kind:literal, $not_found:expr, $removal:expr,
     $name:expr, $essence:expr $(, $holds:expr)? $(; $built_in:expr)?) => {
        impl Record for $record {
            type Id = $type;
            $(fn built_in() -> Vec<Self> {
                let built_in: fn() -> Vec<Self> = $built_in;
                built_in()
            })?
            const DIRECTORY: &'static str = $directory;
            const KIND: &'static str = $kind;
            const NOT_FOUND: Code = $not_found;
            const REMOVAL: Durability = $removal;
            fn id(&self) -> &Self::Id {
                &self.$id
            }
            fn name(&self) -> Option<&str> {
                let name: fn(&$record) -> Option<&str> = $name;
                name(self)
            }
            $(fn holds_name(&self, made: bool) -> bool {
                let holds: fn(&$record, bool) -> bool = $holds;
                holds(self, made)
            })?
            fn owner(&self) -> &str {
                &self.owner_id
            }
            fn essence(&self) -> Value {
                let essence: fn(&$record) -> Value = $essence;
                essence(self)
            }
        }
    };
}

record!(Image, image_id: crate::id::ImageId, "images", "image", Code::InvalidAMIIDNotFound, Durability::Durable,
// Whoever comes next may have a deregistered one's name.
|image| Some(image.name.as_str()).filter(|_| image.state != ImageState::Deregistered),
|image| json!({
    "Name": image.name,
    "State": image.state,
    "Description": image.description,
    "Public": image.public,
    "LaunchPermissions": image.launch_permissions,
    "ProductCodes": image.product_codes,
    "HourlyRate": image.hourly_rate,
    "DeprecationTime": image.deprecation_time,
    "Snapshots": image.snapshots().collect::<Vec<_>>(),
    "Tags": image.tags,
}),
// EC2: the name of one that failed can be given again.
|image, made| match image.state {
    ImageState::Available => true,
    ImageState::Pending => made,
    ImageState::Failed | ImageState::Deregistered => false,
});
record!(Kernel, kernel_id: crate::id::KernelId, "kernels", "kernel", Code::InvalidAKIIDNotFound, Durability::Durable,
    |kernel| Some(&kernel.name), |kernel| json!({ "Name": kernel.name, "Tags": kernel.tags });
    Kernel::pv_grub);
record!(Ramdisk, ramdisk_id: crate::id::RamdiskId, "ramdisks", "ramdisk", Code::InvalidARIIDNotFound, Durability::Durable,
    |ramdisk| Some(&ramdisk.name), |ramdisk| json!({ "Name": ramdisk.name, "Tags": ramdisk.tags }));
record!(Snapshot, snapshot_id: crate::id::SnapshotId, "snapshots", "snapshot", Code::InvalidSnapshotNotFound, Durability::Durable,
    |snapshot| name_tag(&snapshot.tags),
    |snapshot| json!({ "VolumeSize": snapshot.volume_size, "State": snapshot.state, "Tags": snapshot.tags }));
record!(Volume, volume_id: crate::id::VolumeId, "volumes", "volume", Code::InvalidVolumeNotFound, Durability::Volatile,
|volume| name_tag(&volume.tags),
|volume| json!({
    "Size": volume.size,
    "SnapshotId": volume.snapshot_id,
    "InstanceId": volume.attachment.as_ref().map(|a| &a.instance_id),
    "Tags": volume.tags,
}));

/// Read the record in `dir`. `None` if there is none: the object went meanwhile, or a power failure took it
/// before anything of it was on the medium; or if it is another's and can't be read as one, which is for them to mend.
///
/// # Errors
/// It can't be read or is not a record of this kind; one line naming the file.
pub(super) fn read<R: Record>(dir: &Dir) -> Result<Option<R>> {
    if !dir.is_ours() {
        let text = dir.read(RECORD, MAX_OTHERS).ok();
        return Ok(text.and_then(|text| serde_json::from_slice(&text).ok()));
    }
    let path = dir.path().join(RECORD);
    let text = match dir.read(RECORD, MAX_RECORD) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        text => text.or_fail(|| format!("read {}", path.display()))?,
    };
    if is_void(&text) {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        newer::<R>(dir.path(), &text, &error).unwrap_or_else(|| {
            Error::failure(format!(
                "the record {} is not one of {} {}: {error}; repair it, or put its directory aside",
                path.display(),
                if R::KIND.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" },
                R::KIND
            ))
        })
    })
}

/// The error for a record that has what this Spore does not know: a newer one wrote it, and knows what it means.
fn newer<R: Record>(dir: &Path, text: &[u8], error: &serde_json::Error) -> Option<Error> {
    let why = error.to_string();
    let what = why.split_once(", expected").map_or(&*why, |(what, _)| what);
    if !["unknown field", "unknown variant"].iter().any(|unknown| why.starts_with(unknown)) {
        return None;
    }
    let record: Value = serde_json::from_slice(text).ok()?;
    let name = record["Name"].as_str().map(|name| format!(" ('{}')", name.escape_debug()));
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    Some(Error::failure(format!(
        "the {} {id}{} was written by a newer Spore (its record {} has the {what}): it is left as it is; use \
         that Spore for it",
        R::KIND,
        name.unwrap_or_default(),
        dir.join(RECORD).display()
    )))
}

/// What an unsynced file may be after a power failure: without data, or zeros.
pub(super) fn is_void(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == 0)
}

/// Whether the record in `dir` has no content.
pub(super) fn is_left_void(dir: &Owned) -> bool {
    dir.read(RECORD, MAX_RECORD).is_ok_and(|text| is_void(&text))
}

/// Replace the record in `dir`, whole or not at all. The caller holds the object's lock, or made `dir` itself.
pub(super) fn write<R: Record>(dir: &Owned, record: &R, durability: Durability) -> Result<()> {
    let text = text(dir, record)?;
    finish(dir, dir.replace(RECORD, &text, durability == Durability::Durable), durability)
}

/// As [`write()`] of a record that is there already: where there is no space it gets the reserve's in `account`.
pub(super) fn rewrite<R: Record>(
    account: &Path,
    dir: &Owned,
    record: &R,
    durability: Durability,
) -> Result<()> {
    let text = text(dir, record)?;
    let written = match dir.replace(RECORD, &text, durability == Durability::Durable) {
        Err(full) if reserve::is_full(&full) => {
            // The cause, if there is no reserve either.
            reserve::replace(account, dir, RECORD, &text, durability).map_err(|_| full)
        }
        written => written,
    };
    finish(dir, written, durability)
}

fn text<R: Record>(dir: &Owned, record: &R) -> Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(record);
    let mut text = text.or_fail(|| format!("write {}", dir.path().join(RECORD).display()))?;
    text.push(b'\n');
    Ok(text)
}

fn finish(dir: &Owned, written: std::io::Result<()>, durability: Durability) -> Result<()> {
    let durable = durability == Durability::Durable;
    let written = written.and_then(|()| if durable { dir.sync() } else { Ok(()) });
    written.or_fail(|| format!("write {}", dir.path().join(RECORD).display()))
}
