//! Regions that are not directories: content by its digest in a bucket or in a registry, and a
//! package for each image.
//!
//! Content goes first, the package last: an image is there whole or not at all, and what an
//! interrupted copy has sent is not sent again. Only [`net`] knows of asynchronous code, and only
//! [`helper`]'s program has that.

pub(crate) mod backend;
pub(crate) mod chunks;
mod client;
mod collect;
pub mod helper;
pub(super) mod net;
mod pending;
mod source;

pub use client::Remote;

use super::copy::{Pending, Region, Source};
use super::package::{NewImage, Package, SnapshotPackage};
use crate::context::Context;
use crate::error::Result;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::snapshot::Wanted;
use pending::PendingCopy;
use source::Listed;

impl Region for Remote {
    fn context(&self) -> &Context {
        Self::context(self)
    }

    fn image(&self, text: &str) -> Result<(Package, Box<dyn Source + '_>)> {
        Ok((self.resolve(text)?, Box::new(Listed(self))))
    }

    fn snapshot(&self, text: &str) -> Result<(SnapshotPackage, Box<dyn Source + '_>)> {
        Ok((self.snapshot(&text.parse()?)?, Box::new(Listed(self))))
    }

    fn begin<'a>(
        &'a self,
        package: &'a Package,
        new: &'a NewImage,
    ) -> Result<Box<dyn Pending<Made = Image> + 'a>> {
        Ok(Box::new(PendingCopy::image(self, package, new)?))
    }

    fn begin_snapshot<'a>(
        &'a self,
        package: &SnapshotPackage,
        wanted: Wanted,
    ) -> Result<Box<dyn Pending<Made = Snapshot> + 'a>> {
        Ok(Box::new(PendingCopy::snapshot(self, package, wanted)?))
    }
}
