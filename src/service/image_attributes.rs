//! What may be changed of an image and asked of one: ModifyImageAttribute and what belongs to it,
//! DescribeImageReferences, and the entries of its boot menu.

use super::Service;
use super::shape::REGION;
use crate::error::{Code, Error, Result};
use crate::id::ImageId;
use crate::image::attribute::{self, Modification};
use crate::image::availability;
use crate::image::catalog;
use crate::image::permission;
pub use crate::image::permission::{Change, Who};
use crate::inspect::boot_entries;
pub use crate::inspect::boot_entries::Listed;
use crate::inspect::secrets;
pub use crate::inspect::secrets::Secret;
use crate::instance::dir::instances;
use crate::record::image::{Image, ImageState, ImdsSupport};
use crate::record::instance::State;
use crate::store::{Store, now};
use serde::Serialize;

/// EC2 ModifyImageAttribute. What is `None` or empty stays.
#[derive(Clone, Debug, Default)]
pub struct ModifyImageAttribute {
    /// The image, which is the caller's own.
    pub image_id: String,
    /// New text; empty for none.
    pub description: Option<String>,
    /// Further product codes. EC2 has no way to take one away.
    pub product_codes: Vec<String>,
    /// What its owner charges for an hour of an instance: a decimal number.
    pub hourly_rate: Option<String>,
    /// What its guest reads metadata by. EC2 has no way to take that back.
    pub imds_support: Option<ImdsSupport>,
    /// Who may launch it.
    pub launch_permission: Option<Change>,
}

/// What everybody would find in an image that is to become public.
#[derive(Clone, Debug, Default)]
pub struct Exposure {
    /// The image's name.
    pub name: String,
    /// What looks like secrets.
    pub secrets: Vec<Secret>,
    /// Why some of it was not looked into.
    pub unknown: Vec<String>,
}

impl Exposure {
    /// Lets nothing become public that may have a secret in it.
    ///
    /// # Errors
    /// `OperationNotPermitted`.
    pub fn refuse(&self) -> Result<()> {
        let refused = |why: String| Error::refused(Code::OperationNotPermitted, why);
        let anyway = "`Exposed` makes the image public all the same";
        Err(match (self.unknown.first(), self.secrets.len()) {
            (Some(why), _) => refused(why.clone()).remedy(anyway),
            (None, 0) => return Ok(()),
            (None, count) => refused(match count {
                1 => "a file in it looks like a secret".to_owned(),
                many => format!("{many} files in it look like secrets"),
            })
            .remedy(format_args!("remove them, or {anyway}")),
        })
    }
}

/// EC2 ImageReference: what was made of an image, or shares its snapshots.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageReference {
    /// The image.
    pub image_id: ImageId,
    /// `ec2:Instance`; `ec2:Volume` or `ec2:Image`, which EC2 does not tell of.
    pub resource_type: &'static str,
    /// Its name in all of EC2.
    pub arn: String,
    /// What is Spore's own.
    pub spore: Reference,
}

/// What EC2 does not say of a reference.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reference {
    /// `instance`, `volume` or `image`.
    pub kind: &'static str,
    /// Its id.
    pub resource_id: String,
    /// What it has to do with the image.
    pub why: &'static str,
}

/// The boot menu on an image's root.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BootMenu {
    /// The image.
    pub image_id: ImageId,
    /// The path of its file.
    pub menu: String,
    /// Its entries.
    pub boot_entries: Vec<Listed>,
}

impl Service {
    /// EC2 ModifyImageAttribute. For `confirm` see [`Service::modify_launch_permission`].
    ///
    /// # Errors
    /// As [`attribute::modify`]'s and [`Service::modify_launch_permission`]'s.
    pub fn modify_image_attribute(
        &self,
        request: &ModifyImageAttribute,
        confirm: impl FnOnce(&Exposure) -> Result<()>,
    ) -> Result<()> {
        let store = self.swept();
        let image = catalog::resolve_own(store, &request.image_id)?;
        let change = Modification {
            description: request.description.clone(),
            product_codes: request.product_codes.clone(),
            hourly_rate: request.hourly_rate.clone(),
            imds_support: request.imds_support,
        };
        attribute::modify(store, &image.image_id, &change)?;
        if let Some(change) = &request.launch_permission {
            share(store, &image, change, confirm)?;
        }
        Ok(())
    }

    /// EC2 ModifyImageAttribute and ResetImageAttribute of launchPermission. Before the image
    /// becomes public, `confirm` is told what everybody would find in it, and may refuse.
    ///
    /// # Errors
    /// As [`permission::change`]'s and those of `confirm`.
    pub fn modify_launch_permission(
        &self,
        image_id: &str,
        change: &Change,
        confirm: impl FnOnce(&Exposure) -> Result<()>,
    ) -> Result<Image> {
        let store = self.swept();
        share(store, &catalog::resolve_own(store, image_id)?, change, confirm)
    }

    /// EC2 DescribeImageAttribute: the record of an image of one's own, with its launch
    /// permissions.
    ///
    /// # Errors
    /// It is unknown, deregistered or another's.
    pub fn describe_image_attribute(&self, image_id: &str) -> Result<Image> {
        catalog::resolve_own(self.swept(), image_id)
    }

    /// EC2 EnableImageDeprecation from `at` on, e.g. `2030-01-31T12:00Z`; DisableImageDeprecation
    /// without.
    ///
    /// # Errors
    /// As [`attribute::deprecate`]'s.
    pub fn deprecate_image(&self, image_id: &str, at: Option<&str>) -> Result<Image> {
        let store = self.swept();
        attribute::deprecate(store, &catalog::resolve_own(store, image_id)?.image_id, at)
    }

    /// EC2 DisableImage, and EnableImage.
    ///
    /// # Errors
    /// As [`availability::disable`]'s and [`availability::enable`]'s.
    pub fn set_image_enabled(&self, image_id: &str, enabled: bool) -> Result<Image> {
        let store = self.swept();
        let id = catalog::resolve_own(store, image_id)?.image_id;
        match enabled {
            true => availability::enable(store, &id),
            false => availability::disable(store, &id),
        }
    }

    /// EC2 EnableImageDeregistrationProtection: EC2's word for how it is protected.
    ///
    /// # Errors
    /// As [`availability::protect`]'s.
    pub fn protect_image(&self, image_id: &str, with_cooldown: bool) -> Result<String> {
        let store = self.swept();
        let id = catalog::resolve_own(store, image_id)?.image_id;
        Ok(protection(&availability::protect(store, &id, with_cooldown)?))
    }

    /// EC2 DisableImageDeregistrationProtection: EC2's word for how it is protected now.
    ///
    /// # Errors
    /// As [`availability::unprotect`]'s.
    pub fn unprotect_image(&self, image_id: &str) -> Result<String> {
        let store = self.swept();
        let id = catalog::resolve_own(store, image_id)?.image_id;
        Ok(protection(&availability::unprotect(store, &id)?))
    }

    /// EC2 DescribeImageReferences, of a deregistered image too: that is when its owner wants to
    /// know.
    ///
    /// # Errors
    /// The image is unknown; the store can't be read.
    pub fn describe_image_references(&self, image_id: &str) -> Result<Vec<ImageReference>> {
        let store = self.swept();
        references(store, &store.images().resolve(image_id)?)
    }

    /// The boot menu on an image's root.
    ///
    /// # Errors
    /// The image is unknown, or has no menu that can be read.
    pub fn describe_boot_menu(&self, image_id: &str) -> Result<BootMenu> {
        let store = self.swept();
        let image = catalog::resolve(store, image_id)?;
        let (menu, boot_entries) = boot_entries::list(store, &image)?;
        Ok(BootMenu { image_id: image.image_id, menu, boot_entries })
    }
}

/// EC2's word for how an image is protected from being deregistered.
pub fn protection(image: &Image) -> String {
    let protection = image.deregistration_protection.as_ref();
    protection.and_then(|it| it.word(&now())).unwrap_or_else(|| "disabled".to_owned())
}

fn share(
    store: &Store,
    image: &Image,
    change: &Change,
    confirm: impl FnOnce(&Exposure) -> Result<()>,
) -> Result<Image> {
    if change.add.contains(&Who::All) && !image.public {
        confirm(&exposure(store, image)?)?;
    }
    if store.administrator().is_none() {
        store.context().note(format_args!(
            "{} is yours alone, so nobody else can reach the image; 'spore store share' shares a store",
            store.home().display()
        ));
    }
    permission::change(store, &image.image_id, change)
}

fn exposure(store: &Store, image: &Image) -> Result<Exposure> {
    let mut exposure = Exposure { name: image.name.clone(), ..Exposure::default() };
    for id in image.snapshots() {
        let report = secrets::look(store, &store.snapshots().get(id)?);
        exposure.secrets.extend(report.found);
        let why = report
            .unknown
            .map(|why| format!("{id} was not looked into for secrets, or not all of it: {why}"));
        exposure.unknown.extend(why);
    }
    Ok(exposure)
}

fn references(store: &Store, image: &Image) -> Result<Vec<ImageReference>> {
    let mut found = Vec::new();
    let mut add = |kind, id: &str, why| {
        let resource_type = match kind {
            "instance" => "ec2:Instance",
            "volume" => "ec2:Volume",
            _ => "ec2:Image",
        };
        found.push(ImageReference {
            image_id: image.image_id.clone(),
            resource_type,
            arn: format!("arn:spore:ec2:{REGION}:{}:{kind}/{id}", store.owner_id()),
            spore: Reference { kind, resource_id: id.to_owned(), why },
        });
    };
    for record in instances(store).list()?.or_warn() {
        let instance = record.instance;
        if instance.image_id == image.image_id && instance.state != State::Terminated {
            add("instance", instance.instance_id.as_str(), "launched from it");
        }
    }
    for volume in store.volumes().list()?.or_warn() {
        if image.snapshots().any(|id| volume.snapshot_id.as_ref() == Some(id)) {
            add("volume", volume.volume_id.as_str(), "made from its snapshot");
        }
    }
    for other in store.images().list()?.or_warn() {
        if other.image_id == image.image_id || other.state == ImageState::Deregistered {
            continue;
        }
        if other.source_image_id.as_ref() == Some(&image.image_id) {
            add("image", other.image_id.as_str(), "made from it");
        } else if other.snapshots().any(|id| image.snapshots().any(|own| own == id)) {
            add("image", other.image_id.as_str(), "has a snapshot in common");
        }
    }
    Ok(found)
}
