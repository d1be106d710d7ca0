//! Regions: other stores, buckets and registries that images are copied to and from.

use super::Service;
use crate::error::Result;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::transfer::endpoint;
use crate::transfer::region;
pub use crate::transfer::region::{Location, Region};
use serde::Serialize;

/// A region and what is in it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedRegion {
    /// The region.
    #[serde(flatten)]
    pub region: Region,
    /// Its images, by name.
    pub images: Vec<Image>,
    /// Its snapshots that are not an image's.
    pub snapshots: Vec<Snapshot>,
}

impl Service {
    /// Names a region.
    ///
    /// # Errors
    /// It does not answer; the name is malformed or taken.
    pub fn add_region(&self, name: &str, location: &Location) -> Result<Region> {
        endpoint::probe(&self.store, name, location)?;
        region::add(&self.store, name, location.clone())
    }

    /// EC2 DescribeRegions.
    ///
    /// # Errors
    /// The list can't be read.
    pub fn describe_regions(&self) -> Result<Vec<Region>> {
        region::list(&self.store)
    }

    /// One region, and what is in it.
    ///
    /// # Errors
    /// It is unknown, or has gone.
    pub fn describe_region(&self, name: &str) -> Result<DescribedRegion> {
        let region = region::find(&self.store, name)?;
        let place = endpoint::find(&self.store, Some(name))?;
        let (mut images, snapshots) = (endpoint::images(&place)?, endpoint::snapshots(&place)?);
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(DescribedRegion { region, images, snapshots })
    }

    /// Forgets a region; what is in it stays.
    ///
    /// # Errors
    /// It is unknown.
    pub fn remove_region(&self, name: &str) -> Result<()> {
        region::remove(&self.store, name)
    }
}
