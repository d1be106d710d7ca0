//! `spore tag` and `spore untag`, for every kind of object.

use super::answer;
use super::args::{Filters, tag};
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::instances::Selection;
use crate::service::tags::TagToDelete;
use clap::Args;
use std::process::ExitCode;

/// Arguments of `tag`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore tag web Env=test          all that are called web
  spore tag ami-0123 i-0456 Env=test Owner=alice
  spore tag --filter instance-state-name=running Env=test")]
pub struct TagArgs {
    /// Images, instances, volumes, snapshots, kernels, ramdisks and key pairs by id, unique prefix
    /// or name, and the tags: what has a '=' is a tag
    #[arg(required = true, value_name = "OBJECT|KEY=VALUE")]
    words: Vec<String>,
    /// Instances.
    #[command(flatten)]
    instances: ByFilter,
}

/// Arguments of `untag`.
#[derive(Debug, Args)]
pub struct UntagArgs {
    /// An object by id, unique prefix or name (unless instances are chosen by --filter or --all),
    /// then keys of the tags to remove; with =VALUE only if they have that value
    #[arg(required = true, value_name = "OBJECT|KEY[=VALUE]")]
    words: Vec<String>,
    /// Instances.
    #[command(flatten)]
    instances: ByFilter,
}

/// Instances that are chosen by what they are.
#[derive(Debug, Args)]
struct ByFilter {
    /// Which.
    #[command(flatten)]
    filters: Filters,
    /// All of your instances that are not terminated
    #[arg(short, long)]
    all: bool,
}

impl ByFilter {
    /// Their ids; `None` if nothing was asked for.
    fn ids(&self, service: &Service) -> Result<Option<Vec<String>>> {
        let filters = self.filters.all();
        if filters.is_empty() && !self.all {
            return Ok(None);
        }
        service.select_instances(&Selection { filters, ..Selection::default() }).map(Some)
    }
}

/// `tag`.
///
/// # Errors
/// A tag is malformed, or none or nothing to tag is given.
pub fn add(service: &Service, ui: &Ui, args: &TagArgs) -> Result<ExitCode> {
    let (tags, mut objects): (Vec<String>, Vec<String>) =
        args.words.iter().cloned().partition(|word| word.contains('='));
    let tags = tags.iter().map(|text| tag(text)).collect::<Result<Vec<Tag>>>()?;
    let chosen = args.instances.ids(service)?;
    if tags.is_empty() || (objects.is_empty() && chosen.is_none()) {
        return Err(Error::usage("give at least one id or name and one KEY=VALUE"));
    }
    objects.extend(chosen.into_iter().flatten());
    Ok(answer::reported(ui, service.create_tags(&objects, &tags)?))
}

/// `untag`.
///
/// # Errors
/// The object is unknown or another's.
pub fn remove(service: &Service, ui: &Ui, args: &UntagArgs) -> Result<ExitCode> {
    let chosen = args.instances.ids(service)?;
    let (objects, keys) = match (chosen, args.words.split_first()) {
        (Some(ids), _) => (ids, args.words.as_slice()),
        (None, Some((object, keys))) if !keys.is_empty() => (vec![object.clone()], keys),
        _ => return Err(Error::usage("give an id or a name and at least one key")),
    };
    let tag = |word: &String| {
        let (key, value) = word.split_once('=').map_or((&**word, None), |(k, v)| (k, Some(v)));
        TagToDelete { key: key.to_owned(), value: value.map(str::to_owned) }
    };
    let tags: Vec<_> = keys.iter().map(tag).collect();
    Ok(answer::each(ui, &objects, |object| service.delete_tags(object, &tags)))
}
