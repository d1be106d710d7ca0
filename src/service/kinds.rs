//! Objects of any kind, as those address them who may mean any.

use super::launch_templates::templates;
use crate::error::{Code, Error, Kind, Result};
use crate::id::{
    ImageId, InstanceId, KernelId, KeyPairId, LaunchTemplateId, RamdiskId, SnapshotId, VolumeId,
};
use crate::image::catalog;
use crate::instance::dir::instances;
use crate::key;
use crate::record::Record;
use crate::store::{Collection, Store};

/// An object of some kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An image.
    Image(ImageId),
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A volume.
    Volume(VolumeId),
    /// A kernel.
    Kernel(KernelId),
    /// An initial ramdisk.
    Ramdisk(RamdiskId),
    /// An instance.
    Instance(InstanceId),
    /// A key pair.
    KeyPair(KeyPairId),
    /// A launch template, by its id only.
    LaunchTemplate(LaunchTemplateId),
}

impl Resource {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Image(id) => id.as_str(),
            Self::Snapshot(id) => id.as_str(),
            Self::Volume(id) => id.as_str(),
            Self::Kernel(id) => id.as_str(),
            Self::Ramdisk(id) => id.as_str(),
            Self::Instance(id) => id.as_str(),
            Self::KeyPair(id) => id.as_str(),
            Self::LaunchTemplate(id) => id.as_str(),
        }
    }
}

/// What `text` addresses: the prefix of an id says what it is; a name is one of whatever kind has
/// it, a key pair only if nothing else has it. Several instances may share a name, and a pattern
/// may match several objects of one kind.
///
/// # Errors
/// Nothing has that id or that name, or objects of several kinds do.
pub fn addressed(store: &Store, text: &str) -> Result<Vec<Resource>> {
    let is = |prefix: &str| text.starts_with(prefix);
    if is(ImageId::PREFIX) {
        return images(store, text);
    } else if is(SnapshotId::PREFIX) {
        return of(&store.snapshots(), text, Resource::Snapshot);
    } else if is(VolumeId::PREFIX) {
        return of(&store.volumes(), text, Resource::Volume);
    } else if is(KernelId::PREFIX) {
        return of(&store.kernels(), text, Resource::Kernel);
    } else if is(RamdiskId::PREFIX) {
        return of(&store.ramdisks(), text, Resource::Ramdisk);
    } else if is(InstanceId::PREFIX) {
        return of(&instances(store), text, Resource::Instance);
    } else if is(KeyPairId::PREFIX) {
        return Ok(vec![key_pair(store, text)?]);
    } else if is(LaunchTemplateId::PREFIX) {
        return of(&templates(store), text, Resource::LaunchTemplate);
    }
    let mut found: Vec<Vec<Resource>> = Vec::new();
    for kind in [
        of(&instances(store), text, Resource::Instance),
        images(store, text),
        of(&store.volumes(), text, Resource::Volume),
        of(&store.snapshots(), text, Resource::Snapshot),
        of(&store.kernels(), text, Resource::Kernel),
        of(&store.ramdisks(), text, Resource::Ramdisk),
    ] {
        match kind {
            Ok(objects) => found.push(objects),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => match key_pair(store, text) {
            Err(error) if is_absent(&error) => Err(Error::refused(
                Code::InvalidID,
                format!("nothing has the id or the name '{}'", text.escape_debug()),
            )),
            found => Ok(vec![found?]),
        },
        _ => {
            let ids: Vec<&str> = found.iter().flatten().take(5).map(Resource::id).collect();
            Err(Error::refused(
                Code::InvalidParameterValue,
                format!(
                    "'{}' is the name of objects of several kinds: {}; give the id",
                    text.escape_debug(),
                    ids.join(", ")
                ),
            ))
        }
    }
}

/// Whether it says that there is no such object.
fn is_absent(error: &Error) -> bool {
    error.kind() == Kind::Refused
        && error.code().is_some_and(|code| code.as_str().ends_with(".NotFound"))
}

fn key_pair(store: &Store, text: &str) -> Result<Resource> {
    Ok(Resource::KeyPair(key::resolve(store, text)?.key_pair_id))
}

fn images(store: &Store, text: &str) -> Result<Vec<Resource>> {
    let found = catalog::find(store, text)?;
    Ok(found.into_iter().map(|image| Resource::Image(image.image_id)).collect())
}

fn of<R: Record>(
    collection: &Collection<R>,
    text: &str,
    kind: impl Fn(R::Id) -> Resource,
) -> Result<Vec<Resource>> {
    Ok(collection.find(text)?.iter().map(|record| kind(record.id().clone())).collect())
}
