//! Images of regions by name: `REGION/NAME`, and `oci://host/repository:NAME` of a registry that
//! has no name here.

use super::register::Boot;
use crate::error::{Code, Error, Result};
use crate::image::pulled;
use crate::record::image::{Image, ImageState};
use crate::record::tag::Tag;
use crate::store::Store;
use crate::transfer::copy;
use crate::transfer::download;
use crate::transfer::endpoint::{self, Endpoint};
use crate::transfer::package::{NewImage, Package};
use crate::transfer::region::{self, Location};

/// What goes before the digest of a manifest.
const DIGEST: &str = "@sha256:";

/// An image of a region.
pub(super) struct Regional {
    region: Place,
    /// What addresses it there.
    image: String,
}

enum Place {
    Named(String),
    At(Location),
}

impl Regional {
    /// What a text names in a region; `None` if it names nothing of that kind.
    ///
    /// # Errors
    /// It is no location, or names no image there.
    pub(super) fn parse(store: &Store, text: &str) -> Result<Option<Self>> {
        if text.starts_with("oci://") {
            let (location, image) = match text.find(DIGEST) {
                Some(at) => text.split_at(at),
                None => {
                    let slash = text.rfind('/').unwrap_or(0);
                    let colon = text[slash..].find(':').map(|at| slash + at);
                    let (location, tag) = text.split_at(colon.unwrap_or(text.len()));
                    (location, tag.trim_start_matches(':'))
                }
            };
            if image.is_empty() {
                let why = format!("{text} is a place and no image in it");
                return Err(Error::refused(Code::InvalidParameterValue, why)
                    .remedy("say which: oci://host/repository:NAME"));
            }
            let region = Place::At(location.parse()?);
            return Ok(Some(Self { region, image: image.to_owned() }));
        }
        let Some((name, image)) = text.split_once('/').filter(|_| !text.contains("://")) else {
            return Ok(None);
        };
        let known = region::list(store)?.iter().any(|region| region.region_name == name);
        let regional = || Self { region: Place::Named(name.to_owned()), image: image.to_owned() };
        Ok((known && !image.is_empty()).then(regional))
    }

    fn open(&self, store: &Store) -> Result<Endpoint> {
        match &self.region {
            Place::Named(name) => endpoint::find(store, Some(name)),
            Place::At(location) => endpoint::at(store, location),
        }
    }

    /// What the region is called where its images are recorded.
    fn label(&self) -> String {
        match &self.region {
            Place::Named(name) => name.clone(),
            Place::At(location) => location.to_string(),
        }
    }

    /// Brings it here, unless it is.
    ///
    /// # Errors
    /// It is not there, or can't be had; its name is taken here.
    pub(super) fn pull(
        &self,
        store: &Store,
        source: &str,
        name: Option<&str>,
        boot: &Boot,
    ) -> Result<Image> {
        let place = self.open(store)?;
        let (package, content) = place.region().image(&self.image)?;
        let _turn = download::take(store, source)?;
        let label = self.label();
        if let Some(image) = self.present(store, &package, (&label, source), name)? {
            return Ok(image);
        }
        let tag = Tag { key: pulled::SOURCE.into(), value: source.to_owned() };
        let new = NewImage {
            name: name.map_or_else(|| package.image.name.clone(), str::to_owned),
            description: boot.description.clone(),
            copy_tags: true,
            tags: boot.tags.iter().cloned().chain([tag]).collect(),
            source_region: label,
            client_token: None,
        };
        let store: &dyn copy::Region = store;
        let pending = store.begin(&package, &new)?;
        copy::run(&package.parts(), &*content, pending, store.context())
    }

    /// The caller's copy of an image, under this name if one is given. The region says which image
    /// it is: where the content is named, it has to have been that.
    fn present(
        &self,
        store: &Store,
        package: &Package,
        (label, source): (&str, &str),
        name: Option<&str>,
    ) -> Result<Option<Image>> {
        let id = &package.image.image_id;
        let pinned = self.image.contains(DIGEST);
        let is = |image: &Image| {
            image.state == ImageState::Available
                && image.owner_id == store.owner_id()
                && image.source_image_id.as_ref() == Some(id)
                && image.source_image_region.as_deref() == Some(label)
                && name.is_none_or(|name| image.name == name)
                && (!pinned || pulled::is_from(image, source))
        };
        Ok(store.images().list()?.or_warn().into_iter().find(is))
    }
}
