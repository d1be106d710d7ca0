//! CreateTags and DeleteTags, for every kind of object.

use super::Service;
use super::kinds::{self, Resource};
use super::launch_templates::templates;
use crate::error::{Code, Error, Result};
use crate::id::InstanceId;
use crate::instance::dir::{InstanceDir, durability, instances};
use crate::instance::vpc;
use crate::record::tag::{GROUP_TAG, Tag, check_tags, is_reserved, set_tags};
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
        let tag = |text: &String| change(&self.store, text, &|old| set_tags(old, tags));
        Ok(resources.iter().map(tag).collect())
    }

    /// EC2 DeleteTags. A tag that is not there is no error, as on EC2.
    ///
    /// # Errors
    /// The object is unknown or another's.
    pub fn delete_tags(&self, resource: &str, tags: &[TagToDelete]) -> Result<()> {
        if let Some(tag) = tags.iter().find(|tag| is_reserved(&tag.key)) {
            let shown: String = tag.key.escape_debug().take(40).collect();
            let why = format!("the tag '{shown}' is reserved: no key may begin with aws:");
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
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

/// Says on an instance that it is a group's, or nobody's any more.
///
/// # Errors
/// The instance is another's, or its record can't be written.
pub(super) fn set_group(store: &Store, id: &InstanceId, group: Option<&str>) -> Result<()> {
    on(&instances(store), id, durability, |record| {
        let tags = &mut record.instance.tags;
        tags.retain(|tag| tag.key != GROUP_TAG);
        tags.extend(group.map(|name| Tag { key: GROUP_TAG.into(), value: name.into() }));
        Ok(())
    })
}

/// Change the tags of the object that `text` addresses: the prefix of an id says what it is, a name
/// is one of whatever kind has it. Instances may share one.
fn change(store: &Store, text: &str, change: Tags) -> Result<()> {
    for id in kinds::addressed(store, text)? {
        match id {
            Resource::Image(id) => {
                on(&store.images(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::Snapshot(id) => {
                on(&store.snapshots(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::Volume(id) => {
                on(&store.volumes(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::Kernel(id) => {
                on(&store.kernels(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::Ramdisk(id) => {
                on(&store.ramdisks(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::KeyPair(id) => {
                on(&store.key_pairs(), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::LaunchTemplate(id) => {
                on(&templates(store), &id, |_| Durability::Durable, |r| change(&mut r.tags))
            }
            Resource::Instance(id) => {
                on(&instances(store), &id, durability, |r| {
                    change(&mut r.instance.tags)?;
                    r.instance.metadata_options.check_tags(&r.instance.tags)
                })?;
                // Its guest may read them, and others find it by its name.
                let dir = InstanceDir::new(store, &id);
                dir.record()?.map_or(Ok(()), |record| vpc::update(&dir, &record))
            }
        }?;
    }
    Ok(())
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
