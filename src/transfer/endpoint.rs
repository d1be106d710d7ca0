//! Where an image is, or goes to: what the name of a region means.

use super::copy::{self, Announce};
use super::package::NewImage;
use super::region::{self, Location, Region};
use crate::error::Result;
use crate::image::catalog;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::snapshot::{self, Wanted};
use crate::store::{Store, check_owner};
use crate::transfer::remote::Remote;
use std::collections::HashSet;

/// Where an image is, or goes to.
pub enum Endpoint {
    /// A store in a directory.
    Store(Store),
    /// A bucket or a registry.
    Remote(Box<Remote>),
}

impl Endpoint {
    /// What images and snapshots are copied from and to.
    pub fn region(&self) -> &dyn copy::Region {
        match self {
            Self::Store(store) => store,
            Self::Remote(remote) => &**remote,
        }
    }
}

/// The region of that name; the store at hand without one.
///
/// # Errors
/// `InvalidRegion`: it is unknown, or has gone.
pub fn find(store: &Store, name: Option<&str>) -> Result<Endpoint> {
    let Some(name) = name.filter(|name| *name != region::LOCAL) else {
        return Ok(Endpoint::Store(store.clone()));
    };
    let found = region::find(store, name)?;
    match &found.endpoint {
        Location::Directory(path) => found.open(path, store.context()).map(Endpoint::Store),
        _ => Remote::open(store.context(), &found).map(|remote| Endpoint::Remote(Box::new(remote))),
    }
}

/// A place that has no name: a repository of a registry or a bucket.
///
/// # Errors
/// It can't be set up; it is a directory.
pub fn at(store: &Store, location: &Location) -> Result<Endpoint> {
    let region = Region { region_name: location.to_string(), endpoint: location.clone() };
    Remote::open(store.context(), &region).map(|remote| Endpoint::Remote(Box::new(remote)))
}

/// See that a remote region answers, before it gets a name.
///
/// # Errors
/// It does not.
pub fn probe(store: &Store, name: &str, location: &Location) -> Result<()> {
    if matches!(location, Location::Directory(_)) {
        return Ok(());
    }
    let region = Region { region_name: name.to_owned(), endpoint: location.clone() };
    Remote::open(store.context(), &region)?.probe()
}

/// The images in a region that the user can see.
///
/// # Errors
/// It can't be read.
pub fn images(endpoint: &Endpoint) -> Result<Vec<Image>> {
    match endpoint {
        Endpoint::Store(store) => {
            let images = store.images().list()?.or_warn().into_iter();
            Ok(images.map(|image| catalog::settled(store, image)).collect())
        }
        Endpoint::Remote(remote) => Ok(remote.images()?.into_iter().map(|p| p.image).collect()),
    }
}

/// The snapshots in a region that are not an image's.
///
/// # Errors
/// It can't be read.
pub fn snapshots(endpoint: &Endpoint) -> Result<Vec<Snapshot>> {
    match endpoint {
        Endpoint::Store(store) => {
            let images = images(endpoint)?;
            let mapped: HashSet<_> = images.iter().flat_map(Image::snapshots).collect();
            let snapshots = store.snapshots().list()?.or_warn().into_iter();
            let alone = snapshots.filter(|found| !mapped.contains(&found.snapshot_id));
            Ok(alone.map(|found| snapshot::settled(store, found)).collect())
        }
        Endpoint::Remote(remote) => remote.snapshots(),
    }
}

/// Copy an image (EC2 CopyImage).
///
/// # Errors
/// There is no such image in `from`; as [`copy::image`]'s.
pub fn copy_image(
    from: &Endpoint,
    text: &str,
    to: &Endpoint,
    new: &NewImage,
    announce: Announce<'_>,
) -> Result<Image> {
    copy::image(from.region(), text, to.region(), new, announce)
}

/// Copy a snapshot (EC2 CopySnapshot).
///
/// # Errors
/// There is no such snapshot in `from`; as [`copy::snapshot`]'s.
pub fn copy_snapshot(
    from: &Endpoint,
    text: &str,
    to: &Endpoint,
    wanted: Wanted,
    announce: Announce<'_>,
) -> Result<Snapshot> {
    if let (Endpoint::Store(from), Endpoint::Store(to)) = (from, to)
        && from.home() == to.home()
    {
        let found = snapshot::resolve(from, text)?;
        // One's own content is shared, and there at once: it never changes.
        if check_owner(from, &found).is_ok() {
            return snapshot::copy(from, &found, wanted);
        }
    }
    copy::snapshot(from.region(), text, to.region(), wanted, announce)
}
