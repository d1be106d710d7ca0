//! Registering, finding and deregistering images.

use super::{builtin, pulled, quick_start};
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, SnapshotId};
use crate::image::manifest::{Gib, Manifest};
use crate::image::manifest::{check_description, resolve_with, snapshot_gib};
use crate::kernel;
use crate::record::image::{Image, ImageState, StateReason};
use crate::record::name;
use crate::record::tag::check_tags;
use crate::store::{Durability, Locked, Store, check_owner, now, pattern};

/// Check that an image of this name could be registered now: before a long import, not after.
///
/// # Errors
/// The name is malformed or taken.
pub fn check_name(store: &Store, name: &str) -> Result<()> {
    name::check(name)?;
    builtin::refuse_name(name)?;
    store.images().check_free(&store.lock()?, name)
}

/// Register an image.
///
/// # Errors
/// The name is malformed or taken, or something else of the manifest is wrong or does not exist.
pub fn register(store: &Store, manifest: Manifest) -> Result<Image> {
    let gib = |id: &SnapshotId| snapshot_gib(store, id);
    Ok(publish(store, manifest, &gib, |_, _| Ok(()))?.record.clone())
}

/// As [`register`], of snapshots whose sizes `gib` tells; `finish` is given the record and the
/// directory before the image appears. Its lock is held.
///
/// # Errors
/// As [`register`]'s and as those of `finish`.
pub(crate) fn publish(
    store: &Store,
    mut manifest: Manifest,
    gib: Gib<'_>,
    finish: impl FnOnce(&mut Image, &std::path::Path) -> Result<()>,
) -> Result<Locked<Image>> {
    name::check(&manifest.name)?;
    builtin::refuse_name(&manifest.name)?;
    let boot = kernel::own(store, manifest.kernel_id.as_ref(), manifest.ramdisk_id.as_ref())?;
    (manifest.kernel_id, manifest.ramdisk_id) = (boot.kernel_id(), boot.ramdisk_id());
    // What the manifest refers to must stay until the image does.
    let lock = store.lock()?;
    store.images().check_free(&lock, &manifest.name)?;
    let mut image = resolve_with(store, manifest, ImageId::generate()?, gib)?;
    store.images().create_locked(Durability::Durable, |dir| {
        finish(&mut image, dir)?;
        Ok(image)
    })
}

/// Put an image into the store whose snapshots are yet to be made: it is pending while what this
/// gives is held.
///
/// # Errors
/// The name, the description or a tag is malformed, or the name is taken.
pub fn begin(store: &Store, image: Image) -> Result<Locked<Image>> {
    name::check(&image.name)?;
    builtin::refuse_name(&image.name)?;
    check_tags(&image.tags)?;
    check_description(image.description.as_deref())?;
    let lock = store.lock()?;
    store.images().check_free(&lock, &image.name)?;
    store.images().create_locked(Durability::Durable, |_| Ok(image))
}

/// An image as it truly is: one whose maker died before it was available has failed.
pub fn settled(store: &Store, image: Image) -> Image {
    let pending = |image: &Image| image.state == ImageState::Pending;
    store.images().settled(image, pending, |image| {
        image.state = ImageState::Failed;
        let why = match image.source_image_region {
            Some(_) => "its copy was killed; run the same copy again to go on with it",
            None => "the command that made it was killed; deregister it and make it again",
        };
        image.state_reason = Some(StateReason::new("Server.InternalError", why));
    })
}

/// The image that `text` addresses: built in, by id, by name, by a unique prefix of its id or by
/// what it was pulled as.
///
/// # Errors
/// `InvalidAMIID.NotFound`; `InvalidAMIID.Unavailable`: it is deregistered; several match; a
/// built-in image can't be put into the store.
pub fn resolve(store: &Store, text: &str) -> Result<Image> {
    let image = match builtin::ensure(store, text)? {
        Some(image) => image,
        None if pulled::is_reference(text) => pulled::resolve(store, text)?,
        None => settled(store, store.images().resolve(text).map_err(|e| published(e, text))?),
    };
    check_registered(&image)?;
    Ok(image)
}

/// Who has no image of a name that is published may mean that.
fn published(error: Error, text: &str) -> Error {
    match quick_start::find(text) {
        Ok(one) if error.code() == Some(Code::InvalidAMIIDNotFound) => {
            error.remedy(format!("'spore image pull {}' brings {}", one.reference(), one.title))
        }
        _ => error,
    }
}

/// The images that `text` addresses: as [`resolve`], or all of which the names match a pattern.
///
/// # Errors
/// As [`resolve`]'s.
pub fn find(store: &Store, text: &str) -> Result<Vec<Image>> {
    if !pattern::is_pattern(text) {
        return Ok(vec![resolve(store, text)?]);
    }
    if store.administrator().is_none() && pattern::matches(text, builtin::DEMO) {
        builtin::ensure(store, builtin::DEMO)?;
    }
    let found = store.images().find(text)?.into_iter().map(|image| settled(store, image));
    Ok(found.filter(|image| check_registered(image).is_ok()).collect())
}

/// As [`resolve`], for changing it.
///
/// # Errors
/// As [`resolve`]; `AuthFailure`: it is another's.
pub fn resolve_own(store: &Store, text: &str) -> Result<Image> {
    let image = resolve(store, text)?;
    check_owner(store, &image)?;
    Ok(image)
}

/// # Errors
/// `InvalidAMIID.Unavailable`: it is deregistered. `AuthFailure`: it is another's.
pub fn check_own(store: &Store, image: &Image) -> Result<()> {
    check_registered(image)?;
    check_owner(store, image)
}

/// # Errors
/// `InvalidAMIID.Unavailable`.
pub fn check_registered(image: &Image) -> Result<()> {
    if image.state != ImageState::Deregistered {
        return Ok(());
    }
    Err(Error::refused(
        Code::InvalidAMIIDUnavailable,
        format!("image {} ('{}') is deregistered", image.image_id, image.name),
    ))
}

/// # Errors
/// `OperationNotPermitted`: it is protected.
fn check_unprotected(image: &Image) -> Result<()> {
    let protection = image.deregistration_protection.as_ref();
    let Some(word) = protection.and_then(|protection| protection.word(&now())) else {
        return Ok(());
    };
    let (id, name) = (&image.image_id, &image.name);
    let why = format!("image {id} ('{name}') is protected from being deregistered: {word}");
    let refused = Error::refused(Code::OperationNotPermitted, why);
    Err(refused.remedy("'spore image unprotect' takes that away"))
}

/// Deregister an image: nothing new can be launched from it. Its snapshots, its kernel and its
/// instances stay, and so does its record, so that its instances can be told what they came from. A
/// built-in one comes back when it is next asked for.
///
/// # Errors
/// It does not exist, is deregistered or another's.
pub fn deregister(store: &Store, id: &ImageId) -> Result<Image> {
    let _lock = store.lock()?;
    if builtin::is(id) {
        let image = store.images().get(id)?;
        check_owner(store, &image)?;
        store.images().remove(id)?;
        return Ok(image);
    }
    store.images().update(id, Durability::Durable, |image| {
        check_own(store, image)?;
        check_unprotected(image)?;
        image.state = ImageState::Deregistered;
        Ok(image.clone())
    })
}
