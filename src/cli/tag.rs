//! `spore tag` and `spore untag`, for every kind of object.

use super::answer;
use super::args::tag;
use crate::error::{Error, Result};
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::tags::TagToDelete;
use clap::Args;
use std::process::ExitCode;

/// Arguments of `tag`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  spore tag ami-0123 i-0456 Env=test Owner=alice")]
pub struct TagArgs {
    /// Ids (or unique prefixes of ids) of images, instances, volumes, snapshots, kernels and
    /// ramdisks, and the tags: what has a '=' is a tag
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

/// `tag`.
///
/// # Errors
/// A tag is malformed, or none or nothing to tag is given.
pub fn add(service: &Service, args: &TagArgs) -> Result<ExitCode> {
    let (tags, ids): (Vec<String>, Vec<String>) =
        args.words.iter().cloned().partition(|word| word.contains('='));
    let tags = tags.iter().map(|text| tag(text)).collect::<Result<Vec<Tag>>>()?;
    if tags.is_empty() || ids.is_empty() {
        return Err(Error::usage("give at least one id and one KEY=VALUE"));
    }
    Ok(answer::told(service.create_tags(&ids, &tags)?))
}

/// `untag`.
///
/// # Errors
/// The object is unknown or another's.
pub fn remove(service: &Service, args: &UntagArgs) -> Result<ExitCode> {
    let tag = |word: &String| {
        let (key, value) = word.split_once('=').map_or((&**word, None), |(k, v)| (k, Some(v)));
        TagToDelete { key: key.to_owned(), value: value.map(str::to_owned) }
    };
    let tags: Vec<_> = args.keys.iter().map(tag).collect();
    service.delete_tags(&args.id, &tags)?;
    Ok(ExitCode::SUCCESS)
}
