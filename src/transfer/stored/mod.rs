//! A store as a region: its directories of images and snapshots.

mod pending;
mod source;
mod writer;

pub use source::{Stored, disk};

use super::copy::{Pending, Region, Source};
use super::package::{Content, NewImage, Package, SNAPSHOT_FORMAT, SnapshotPackage, available};
use crate::context::Context;
use crate::error::Result;
use crate::image::catalog;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::snapshot::{self, Wanted};
use crate::store::Store;
use pending::{PendingImage, PendingSnapshot};

impl Region for Store {
    fn context(&self) -> &Context {
        Self::context(self)
    }

    fn image(&self, text: &str) -> Result<(Package, Box<dyn Source + '_>)> {
        let image = catalog::resolve(self, text)?;
        Ok((Package::of(self, &image)?, Box::new(Stored::new(self, Some(image)))))
    }

    fn snapshot(&self, text: &str) -> Result<(SnapshotPackage, Box<dyn Source + '_>)> {
        let id = snapshot::resolve(self, text)?.snapshot_id;
        let snapshot = available(self, &id)?;
        let (format, disk) = (SNAPSHOT_FORMAT.to_owned(), Some(Content::of(&snapshot)));
        Ok((SnapshotPackage { format, snapshot, disk }, Box::new(Stored::new(self, None))))
    }

    fn begin<'a>(
        &'a self,
        package: &'a Package,
        new: &'a NewImage,
    ) -> Result<Box<dyn Pending<Made = Image> + 'a>> {
        Ok(Box::new(PendingImage::begin(self, package, new)?))
    }

    fn begin_snapshot<'a>(
        &'a self,
        package: &SnapshotPackage,
        wanted: Wanted,
    ) -> Result<Box<dyn Pending<Made = Snapshot> + 'a>> {
        Ok(Box::new(PendingSnapshot::begin(self, package, wanted)?))
    }
}

#[cfg(test)]
mod tests;
