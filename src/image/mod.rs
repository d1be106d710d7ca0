//! Images: how they are registered, found, named, changed and shared.

pub mod attribute;
pub mod availability;
pub mod builtin;
pub mod catalog;
pub mod checksum;
pub mod manifest;
pub mod permission;
pub mod product;
pub mod pulled;
pub mod quick_start;
pub(crate) mod references;

use crate::record::image::Image;
use crate::store::{Collection, Store};

impl Store {
    /// Images.
    pub fn images(&self) -> Collection<Image> {
        self.collection()
    }
}
