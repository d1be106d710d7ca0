//! CreateTags and DeleteTags, for every kind of object.

use super::Service;
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, SnapshotId, VolumeId};
use crate::image::catalog;
use crate::instance::dir::{durability, instances};
use crate::record::tag::{Tag, check_tags, set_tags};
use crate::snapshot;
use crate::store::{Collection, Durability, Record, Store, check_owner};

/// A tag to remove (EC2 DeleteTags).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagToDelete {
    /// Its key.
    pub key: String,
    /// Only if it has this value.
    pub value: Option<String>,
}

impl Service {
    /// EC2 CreateTags. What became of each object, in their order.
    ///
    /// # Errors
    /// A tag is malformed: no object has been tagged.
    pub fn create_tags(&self, resources: &[String], tags: &[Tag]) -> Result<Vec<Result<()>>> {
        check_tags(tags)?;
        let tag = |id: &String| change(&self.store, id, &|old| set_tags(old, tags));
        Ok(resources.iter().map(tag).collect())
    }

    /// EC2 DeleteTags. A tag that is not there is no error, as on EC2.
    ///
    /// # Errors
    /// The object is unknown or another's.
    pub fn delete_tags(&self, resource: &str, tags: &[TagToDelete]) -> Result<()> {
        let gone = |tag: &Tag| {
            let is = |gone: &TagToDelete| {
                tag.key == gone.key && gone.value.as_ref().is_none_or(|value| tag.value == *value)
            };
            tags.iter().any(is)
        };
        change(&self.store, resource, &|tags| {
            tags.retain(|tag| !gone(tag));
            Ok(())
        })
    }
}

type Tags<'a> = &'a dyn Fn(&mut Vec<Tag>) -> Result<()>;

/// Change the tags of the object that `text` addresses; its prefix says what it is.
fn change(store: &Store, text: &str, change: Tags) -> Result<()> {
    let is = |prefix: &str| text.starts_with(prefix);
    if is(ImageId::PREFIX) {
        let id = catalog::resolve_own(store, text)?.image_id;
        on(&store.images(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
    } else if is(SnapshotId::PREFIX) {
        let id = snapshot::resolve(store, text)?.snapshot_id;
        on(&store.snapshots(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
    } else if is(VolumeId::PREFIX) {
        let id = store.volumes().resolve(text)?.volume_id;
        on(&store.volumes(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
    } else if is(KernelId::PREFIX) {
        let id = store.kernels().resolve(text)?.kernel_id;
        on(&store.kernels(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
    } else if is(RamdiskId::PREFIX) {
        let id = store.ramdisks().resolve(text)?.ramdisk_id;
        on(&store.ramdisks(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
    } else if is(InstanceId::PREFIX) {
        let id = instances(store).resolve(text)?.instance.instance_id;
        on(&instances(store), &id, durability, |r| change(&mut r.instance.tags))
    } else {
        Err(Error::refused(
            Code::InvalidID,
            format!(
                "'{}' is no id: give ami-…, i-…, vol-…, snap-…, aki-… or ari-…",
                text.escape_debug()
            ),
        ))
    }
}

fn on<R: Record>(
    collection: &Collection<R>,
    id: &R::Id,
    durability: impl Fn(&R) -> Durability,
    change: impl FnOnce(&mut R) -> Result<()>,
) -> Result<()> {
    let mut locked = collection.lock(id)?;
    check_owner(locked.store(), &locked.record)?;
    change(&mut locked.record)?;
    let durability = durability(&locked.record);
    locked.save(durability)
}
