//! An object's record in its directory: read, written, replaced.

use super::beneath::{Dir, Owned};
use super::reserve;
use crate::error::{Error, OrFail, Result};
use crate::record::{Durability, Record};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The record's file name in an object's directory.
pub const RECORD: &str = "record.json";
/// The next record, until it is whole.
pub(super) const NEW: &str = "record.json.new";
/// Longer records than this (bytes) are refused: ours have a few KiB.
const MAX_RECORD: u64 = 1 << 20;
/// Likewise another's, of which there may be any number.
const MAX_OTHERS: u64 = 256 << 10;

/// The text of the record in `dir`, which is another's, unless it is too long or can't be read.
pub(super) fn others(dir: &Dir) -> Option<Vec<u8>> {
    dir.read(RECORD, MAX_OTHERS).ok()
}

/// Read the record in `dir`. `None` if there is none: the object went meanwhile, or a power failure
/// took it before anything of it was on the medium; or if it is another's and can't be read as one,
/// which is for them to mend.
///
/// # Errors
/// It can't be read or is not a record of this kind; one line naming the file.
pub(super) fn read<R: Record>(dir: &Dir) -> Result<Option<R>> {
    if !dir.is_ours() {
        return Ok(others(dir).and_then(|text| serde_json::from_slice(&text).ok()));
    }
    let path = dir.path().join(RECORD);
    let text = match dir.read(RECORD, MAX_RECORD) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        text => text.or_fail(|| format!("read {}", path.display()))?,
    };
    if is_blank(&text) {
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

/// The error for a record that has what this Spore does not know: a newer one wrote it, and knows
/// what it means.
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
pub(super) fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == 0)
}

/// Whether the record in `dir` has no content.
pub(super) fn has_blank_record(dir: &Owned) -> bool {
    dir.read(RECORD, MAX_RECORD).is_ok_and(|text| is_blank(&text))
}

/// Replace the record in `dir`, whole or not at all. The caller holds the object's lock, or made
/// `dir` itself.
pub(super) fn write<R: Record>(dir: &Owned, record: &R, durability: Durability) -> Result<()> {
    let text = text(dir, record)?;
    finish(dir, dir.replace(RECORD, &text, durability == Durability::Durable), durability)
}

/// As [`write()`] of a record that is there already: where there is no space it gets the reserve's
/// in `account`.
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
