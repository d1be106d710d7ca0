//! Whether a registered bundle is still what it was: looked at before each launch.
//!
//! The image's directory has what each file's size and time were, and its SHA-1. Content is read only of a file that
//! has been written or moved since.

use super::depot::Depot;
use super::manifest::Part;
use super::{MAX_MANIFEST, MAX_PART};
use crate::error::{Error, OrFail, Result};
use crate::id::hex;
use crate::image::record::Image;
use crate::store::Store;
use crate::store::shared::open_file;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file's name in the image's directory.
const FILE: &str = "bundle.json";

/// What a bundle was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Seal {
    files: Vec<Sealed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Sealed {
    name: String,
    size: u64,
    stamp: String,
    sha1: String,
}

impl Seal {
    /// What it is now.
    pub(super) fn new(depot: &Depot, manifest: &str, text: &[u8], parts: &[Part]) -> Result<Self> {
        let seal = |name: &str, sha1: &[u8]| -> Result<Sealed> {
            let (size, stamp) = depot.stamp(name)?;
            Ok(Sealed { name: name.to_owned(), size, stamp, sha1: hex(sha1) })
        };
        let mut files = vec![seal(manifest, &Sha1::digest(text))?];
        for part in parts {
            files.push(seal(&part.filename, &part.digest)?);
        }
        Ok(Self { files })
    }

    /// Keep it in an image's directory.
    ///
    /// # Errors
    /// No space.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let (path, new) = (dir.join(FILE), dir.join("bundle.json.new"));
        let write = || -> std::io::Result<()> {
            let mut options = File::options();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            if let Ok(old) = path.symlink_metadata() {
                file.set_permissions(old.permissions())?;
            }
            fs::rename(&new, &path)
        };
        write().or_fail(|| format!("write {}", path.display()))
    }
}

/// See that an image's bundle, if it was registered from one, is as it was.
///
/// # Errors
/// `InvalidManifest`: a file of it is missing or has changed. Its place can't be reached.
pub fn check(store: &Store, image: &Image) -> Result<()> {
    let Some(location) = &image.image_location else { return Ok(()) };
    let dir = store.images().dir(&image.image_id);
    let mut text = Vec::new();
    let file = open_file(&dir, FILE)?;
    file.take(MAX_MANIFEST * 4).read_to_end(&mut text).or_fail(|| format!("read {FILE}"))?;
    let mut seal: Seal = serde_json::from_slice(&text)
        .map_err(|e| Error::failure(format!("{FILE} of {} is damaged: {e}", image.image_id)))?;
    let gone = |error: Error| {
        let id = &image.image_id;
        let remedy = format!("put the bundle of {id} back, or deregister {id}");
        if error.code() == Some("InvalidManifest") { error.remedy(remedy) } else { error }
    };
    let (depot, _) = Depot::of_manifest(location).map_err(|error| {
        gone(super::invalid(format!("its place is not there any more ({})", error.message())))
    })?;
    let mut renewed = false;
    for file in &mut seal.files {
        let now = depot.stamp(&file.name).map_err(gone)?;
        if now == (file.size, file.stamp.clone()) {
            continue;
        }
        let bytes = depot.read(&file.name, MAX_PART).map_err(gone)?;
        if hex(&Sha1::digest(&bytes)) != file.sha1 {
            return Err(gone(super::invalid(format!("{} has changed", file.name))));
        }
        (file.size, file.stamp) = now;
        renewed = true;
    }
    if renewed && image.owner_id == crate::volume::owner_id() {
        // If it can't be kept, it is found out again.
        let _ = seal.write(&dir);
    }
    Ok(())
}
