//! Images that go elsewhere: CopyImage, ExportImage, bundles.

use super::{Service, idempotent};
use crate::error::Result;
use crate::image::catalog;
use crate::record::image::{Image, ImageState};
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
pub use crate::transfer::bundle::KeyFiles;
use crate::transfer::bundle::{self, Bundle};
pub use crate::transfer::copy::Announce;
use crate::transfer::package::NewImage;
use crate::transfer::{endpoint, export};
use std::path::Path;

/// EC2 CopyImage.
#[derive(Clone, Debug, Default)]
pub struct CopyImage {
    /// The image.
    pub source_image_id: String,
    /// The region that it is in; the store at hand without one.
    pub source_region: Option<String>,
    /// The region that the copy goes to; the store at hand without one.
    pub destination_region: Option<String>,
    /// The copy's name: 3 to 128 characters, not taken there.
    pub name: String,
    /// The image's if absent.
    pub description: Option<String>,
    /// Take over the image's tags.
    pub copy_image_tags: bool,
    /// Tags, over those taken over.
    pub tags: Vec<Tag>,
    /// What tells this request from others: the same under it is done once.
    pub client_token: Option<ClientToken>,
}

/// A bundle to make, as EC2's tools do.
#[derive(Clone, Debug, Default)]
pub struct BundleImage {
    /// The image, or a snapshot.
    pub image_id: String,
    /// A directory, or `s3://bucket/prefix?…`.
    pub to: String,
    /// What the files' names begin with; the image's name if absent.
    pub prefix: Option<String>,
    /// Do not encrypt the parts.
    pub unencrypted: bool,
    /// With which keys.
    pub keys: KeyFiles,
}

impl Service {
    /// EC2 CopyImage. `announce` hears the copy's id once it is there, pending, where it can be
    /// seen.
    ///
    /// # Errors
    /// A region is unknown or has gone, the image is not there; as [`endpoint::copy_image`]'s.
    /// `IdempotentParameterMismatch`.
    pub fn copy_image(&self, request: &CopyImage, announce: Announce<'_>) -> Result<Image> {
        let store = self.swept();
        let given = request.client_token.as_ref();
        // Held until the record says it.
        let mut turn = given.map(|given| idempotent::copys_turn(store, given)).transpose()?;
        if let Some(given) = given {
            let images = store.images().list()?.or_warn();
            let token = |image: &Image| image.client_token.clone();
            let made = idempotent::made(store, images, token, given)?;
            let made = made.map(|image| catalog::settled(store, image));
            // One that failed is gone on with.
            if let Some(made) = made.filter(|made| made.state != ImageState::Failed) {
                return Ok(made);
            }
        }
        let from = endpoint::find(store, request.source_region.as_deref())?;
        let to = endpoint::find(store, request.destination_region.as_deref())?;
        let here = || store.home().display().to_string();
        let new = NewImage {
            name: request.name.clone(),
            description: request.description.clone(),
            copy_tags: request.copy_image_tags,
            tags: request.tags.clone(),
            source_region: request.source_region.clone().unwrap_or_else(here),
            client_token: request.client_token.clone(),
        };
        endpoint::copy_image(&from, &request.source_image_id, &to, &new, &mut |id| {
            turn.take();
            announce(id);
        })
    }

    /// EC2 ExportImage: into a file, which is there whole or not at all; `-` is standard output.
    ///
    /// # Errors
    /// The image is unknown; as [`export::to`]'s.
    pub fn export_image(&self, image_id: &str, file: &Path) -> Result<()> {
        let store = self.swept();
        export::to(store, &catalog::resolve(store, image_id)?, file)
    }

    /// EC2 ExportImage of the format RAW: the root disk's bytes into a file, which is there whole
    /// or not at all.
    ///
    /// # Errors
    /// The image is unknown; as [`export::disk::to`]'s.
    pub fn export_disk(&self, image_id: &str, file: &Path) -> Result<()> {
        let store = self.swept();
        export::disk::to(store, &catalog::resolve(store, image_id)?, file)
    }

    /// Bundles an image or a snapshot; gives the manifest's location.
    ///
    /// # Errors
    /// As [`bundle::make`]'s.
    pub fn bundle_image(&self, request: &BundleImage) -> Result<String> {
        let bundle = Bundle {
            what: request.image_id.clone(),
            prefix: request.prefix.clone(),
            unencrypted: request.unencrypted,
            keys: request.keys.clone(),
        };
        bundle::make(self.swept(), &bundle, &request.to)
    }
}
