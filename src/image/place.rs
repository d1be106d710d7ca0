//! Where an image is, or goes to: what the name of a region means.

use super::package::NewImage;
use super::record::{Image, Snapshot};
use super::region::{self, Location};
use super::snapshot::{self, Wanted};
use super::{catalog, copy};
use crate::error::{Error, Result};
use crate::store::Store;

/// Where an image is, or goes to.
#[derive(Debug)]
pub enum Place {
    /// A store in a directory.
    Store(Store),
}

/// The region of that name; the store at hand without one.
///
/// # Errors
/// `InvalidRegion`: it is unknown, or has gone.
pub fn find(store: &Store, name: Option<&str>) -> Result<Place> {
    let Some(name) = name.filter(|name| *name != region::LOCAL) else {
        return Ok(Place::Store(store.clone()));
    };
    let found = region::find(store, name)?;
    match &found.endpoint {
        Location::Directory(path) => found.open(store, path).map(Place::Store),
        _ => Err(Error::refused("InvalidRegion", "only a directory can be a region")),
    }
}

/// Copy an image (EC2 CopyImage).
///
/// # Errors
/// There is no such image in `from`; as [`copy::image`]'s.
pub fn copy_image(from: &Place, text: &str, to: &Place, new: &NewImage) -> Result<Image> {
    match (from, to) {
        (Place::Store(from), Place::Store(to)) => {
            copy::image(from, &catalog::resolve(from, text)?, to, new)
        }
    }
}

/// Copy a snapshot (EC2 CopySnapshot).
///
/// # Errors
/// There is no such snapshot in `from`; as [`copy::snapshot`]'s.
pub fn copy_snapshot(from: &Place, text: &str, to: &Place, wanted: Wanted) -> Result<Snapshot> {
    let (Place::Store(from), Place::Store(to)) = (from, to);
    let found = snapshot::resolve(from, text)?;
    // One's own content is shared: it never changes.
    if from.home() == to.home() && catalog::check_owner(&found).is_ok() {
        return snapshot::copy(from, &found, wanted);
    }
    copy::snapshot(from, &found, to, wanted)
}
