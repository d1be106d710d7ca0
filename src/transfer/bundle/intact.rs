//! Whether a registered bundle is still what it was: looked at before each launch.
//!
//! The image's directory has what each file's size and time were, and its SHA-1. Content is read
//! only of a file that has been written or moved since.

use super::manifest::Part;
use super::request::{MAX_MANIFEST, MAX_PART};
use super::storage::Storage;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{FileName, hex};
use crate::record::image::Image;
use crate::store::Store;
use crate::store::beneath::{Dir, Owned};
use crate::transfer::region::{self, Location, S3Location};
use crate::transfer::remote::helper::is_missing;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
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
    name: FileName,
    size: u64,
    stamp: String,
    sha1: String,
}

impl Seal {
    /// What it is now.
    pub(super) fn new(
        storage: &Storage,
        manifest: &str,
        text: &[u8],
        parts: &[Part],
    ) -> Result<Self> {
        let seal = |name: &str, sha1: &[u8]| -> Result<Sealed> {
            let (size, stamp) = storage.stamp(name)?;
            Ok(Sealed { name: name.to_owned().try_into()?, size, stamp, sha1: hex(sha1) })
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
        let write = || -> std::io::Result<()> {
            Owned::open(dir)?.replace(FILE, &serde_json::to_vec(self)?, true)
        };
        write().or_fail(|| format!("write {}", dir.join(FILE).display()))
    }
}

/// Another's record must not send this user's credentials anywhere: a bucket is asked only if the
/// user has named it.
///
/// # Errors
/// `AuthFailure`: none of the user's regions is in that bucket of that service.
fn refuse_strange(store: &Store, image: &Image, location: &str) -> Result<()> {
    if !Storage::takes_credentials(location) {
        return Ok(());
    }
    let place: S3Location = location.parse()?;
    let same = |s3: &S3Location| (&s3.bucket, &s3.endpoint) == (&place.bucket, &place.endpoint);
    let named = region::list(store)?;
    if named.iter().any(|region| matches!(&region.endpoint, Location::S3(s3) if same(s3))) {
        return Ok(());
    }
    let place = S3Location { prefix: String::new(), ..place };
    Err(Error::refused(
        Code::AuthFailure,
        format!(
            "{} of account {} has its bundle at {place}, which would get your credentials; if you trust it, say so with 'spore region add NAME {place}'",
            image.image_id, image.owner_id
        ),
    ))
}

/// See that an image's bundle, if it was registered from one, is as it was.
///
/// # Errors
/// `InvalidManifest`: a file of it is missing or has changed. Its place can't be reached.
/// `AuthFailure`: it is another's, in a bucket that this user has not named.
pub fn check(store: &Store, image: &Image) -> Result<()> {
    let Some(location) = &image.image_location else { return Ok(()) };
    let ours = image.owner_id == store.owner_id();
    if !ours {
        refuse_strange(store, image, location)?;
    }
    let dir = store.images().dir(&image.image_id);
    let text = Dir::open(&dir).and_then(|dir| dir.read(FILE, MAX_MANIFEST * 4));
    let text = text.or_fail(|| format!("read {}", dir.join(FILE).display()))?;
    let mut seal: Seal = serde_json::from_slice(&text)
        .map_err(|e| Error::failure(format!("{FILE} of {} is damaged: {e}", image.image_id)))?;
    let gone = |error: Error| {
        let id = &image.image_id;
        let remedy = format!("put the bundle of {id} back, or deregister {id}");
        if error.code() == Some(Code::InvalidManifest) { error.remedy(remedy) } else { error }
    };
    let (storage, _) = Storage::of_manifest(location, store.context()).map_err(|error| {
        if is_missing(&error) {
            return error;
        }
        gone(super::refusal::invalid(format!(
            "its place is not there any more ({})",
            error.message()
        )))
    })?;
    let mut renewed = false;
    for file in &mut seal.files {
        let now = storage.stamp(&file.name).map_err(gone)?;
        if now == (file.size, file.stamp.clone()) {
            continue;
        }
        // Another could have any amount read.
        if !ours {
            let why = format!("{} has changed; its owner has to launch it once", &*file.name);
            return Err(gone(super::refusal::invalid(why)));
        }
        let bytes = storage.read(&file.name, MAX_PART).map_err(gone)?;
        if hex(&Sha1::digest(&bytes)) != file.sha1 {
            return Err(gone(super::refusal::invalid(format!("{} has changed", &*file.name))));
        }
        (file.size, file.stamp) = now;
        renewed = true;
    }
    if renewed {
        // If it can't be kept, it is found out again.
        let _ = seal.write(&dir);
    }
    Ok(())
}
