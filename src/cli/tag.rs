//! `spore tag` and `spore untag`, for every kind of object.

use super::args::tag;
use super::select;
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, InstanceId, KernelId, RamdiskId, SnapshotId, VolumeId};
use crate::image::catalog;
use crate::instance::dir::{durability, instances};
use crate::record::tag::{Tag, set_tags};
use crate::snapshot;
use crate::store::{Collection, Durability, Record, Store, check_owner};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `tag`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  spore tag ami-0123 i-0456 Env=test Owner=alice")]
pub struct TagArgs {
    /// Ids (or unique prefixes of ids) of images, instances, volumes, snapshots, kernels and ramdisks, and the tags:
    /// what has a '=' is a tag
    #[arg(required = true, num_args = 2.., value_name = "ID|KEY=VALUE")]
    words: Vec<String>,
}

/// Arguments of `untag`.
#[derive(Debug, Args)]
pub struct UntagArgs {
    /// An id or a unique prefix of one
    id: String,
    /// Keys of the tags to remove; with =VALUE only if they have that value
    #[arg(required = true, value_name = "KEY[=VALUE]")]
    keys: Vec<String>,
}

/// CreateTags.
///
/// # Errors
/// A tag is malformed, or none or nothing to tag is given.
pub fn add(store: &Store, args: &TagArgs) -> Result<ExitCode> {
    let (tags, ids): (Vec<String>, Vec<String>) =
        args.words.iter().cloned().partition(|word| word.contains('='));
    let tags = tags.iter().map(|text| tag(text)).collect::<Result<Vec<Tag>>>()?;
    if tags.is_empty() || ids.is_empty() {
        return Err(Error::usage("give at least one id and one KEY=VALUE"));
    }
    crate::record::tag::check_tags(&tags)?;
    Ok(select::each(&ids, |id| change(store, id, &|old| set_tags(old, &tags))))
}

/// DeleteTags. A tag that is not there is no error, as on EC2.
///
/// # Errors
/// The object is unknown or another's.
pub fn remove(store: &Store, args: &UntagArgs) -> Result<ExitCode> {
    let gone = |tag: &Tag| {
        args.keys.iter().any(|word| match word.split_once('=') {
            Some((key, value)) => tag.key == key && tag.value == value,
            None => tag.key == *word,
        })
    };
    change(store, &args.id, &|tags| {
        tags.retain(|tag| !gone(tag));
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
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
