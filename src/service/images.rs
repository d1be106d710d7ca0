//! Images as EC2's DescribeImages gives them.

use super::Service;
use super::filter::{Filter, Filters, found, select};
pub use super::shape::image::{DescribedImage, LaunchPermissions};
use crate::account;
use crate::error::{Code, Error, Result};
use crate::image::permission::is_explicit;
use crate::image::{attribute, builtin, catalog};
use crate::record::image::{Image, ImageState};
use crate::store::{Store, now};

/// EC2 DescribeImages.
#[derive(Clone, Debug, Default)]
pub struct DescribeImages {
    /// Which, whoever has them; all that match if there is none.
    pub image_ids: Vec<String>,
    /// Only those of these owners: `self`, `amazon`, `aws-marketplace` or a uid.
    pub owners: Vec<String>,
    /// Only those that `self` (by name), `all` (public) or a uid may launch.
    pub executable_users: Vec<String>,
    /// Only those for which all of these hold.
    pub filters: Vec<Filter>,
    /// Only those that EC2's console has under this heading.
    pub catalog: Option<Catalog>,
    /// Others' deprecated ones, too.
    pub include_deprecated: bool,
    /// The caller's own disabled ones, too.
    pub include_disabled: bool,
}

/// A heading of EC2's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catalog {
    /// What comes with the store: the built-in image, and its administrator's.
    QuickStart,
    /// The caller's own.
    Mine,
    /// Those with a product code.
    Marketplace,
    /// Others' public ones.
    Community,
}

/// EC2's filters of DescribeImages, and where its answer has their values.
const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("architecture", "Architecture"),
        (
            "block-device-mapping.delete-on-termination",
            "BlockDeviceMappings.Ebs.DeleteOnTermination",
        ),
        ("block-device-mapping.device-name", "BlockDeviceMappings.DeviceName"),
        ("block-device-mapping.snapshot-id", "BlockDeviceMappings.Ebs.SnapshotId"),
        ("block-device-mapping.volume-size", "BlockDeviceMappings.Ebs.VolumeSize"),
        ("block-device-mapping.volume-type", "BlockDeviceMappings.Ebs.VolumeType"),
        ("boot-mode", "BootMode"),
        ("creation-date", "CreationDate"),
        ("description", "Description"),
        ("hypervisor", "Hypervisor"),
        ("image-id", "ImageId"),
        ("image-type", "ImageType"),
        ("is-public", "Public"),
        ("kernel-id", "KernelId"),
        ("manifest-location", "ImageLocation"),
        ("name", "Name"),
        ("owner-alias", "ImageOwnerAlias"),
        ("owner-id", "OwnerId"),
        ("platform", "Platform"),
        ("platform-details", "PlatformDetails"),
        ("product-code", "ProductCodes.ProductCodeId"),
        ("product-code.type", "ProductCodes.ProductCodeType"),
        ("ramdisk-id", "RamdiskId"),
        ("root-device-name", "RootDeviceName"),
        ("root-device-type", "RootDeviceType"),
        ("source-image-id", "SourceImageId"),
        ("source-instance-id", "SourceInstanceId"),
        ("state", "State"),
        ("state-reason-code", "StateReason.Code"),
        ("state-reason-message", "StateReason.Message"),
        ("virtualization-type", "VirtualizationType"),
    ],
};

/// Who the caller is, and whose store it is.
struct Caller<'a> {
    store: &'a Store,
    me: String,
    uid: u32,
    groups: Vec<u32>,
    administrator: Option<String>,
}

impl<'a> Caller<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            me: store.owner_id(),
            uid: store.context().caller(),
            groups: account::own_groups(),
            administrator: store.administrator().map(|uid| uid.to_string()),
        }
    }

    /// EC2's ImageOwnerAlias: a marketplace image carries a product code; what comes with the store
    /// is `amazon`.
    fn alias(&self, image: &Image) -> Option<&'static str> {
        if !image.product_codes.is_empty() {
            return Some("aws-marketplace");
        }
        let provided = builtin::is(&image.image_id)
            || self.administrator.as_deref() == Some(image.owner_id.as_str());
        provided.then_some("amazon")
    }

    fn owns(&self, image: &Image, owner: &str) -> bool {
        match owner {
            "self" => image.owner_id == self.me,
            "amazon" | "aws-marketplace" => self.alias(image) == Some(owner),
            id => image.owner_id == id,
        }
    }

    fn may_launch(&self, image: &Image, who: &str) -> bool {
        match who {
            "all" => image.public,
            "self" => is_explicit(image, self.uid, &self.groups),
            id => id.parse().is_ok_and(|uid| is_explicit(image, uid, &[])),
        }
    }

    /// Whether the image is one of those that the request is about, its filters aside.
    fn finds(&self, image: &Image, request: &DescribeImages, now: &str) -> bool {
        let mine = image.owner_id == self.me;
        let by_state = request.filters.iter().any(|filter| filter.name == "state");
        let listed = by_state || image.state != ImageState::Deregistered;
        let disabled = image.state == ImageState::Disabled;
        let listed = listed && (!disabled || mine && (by_state || request.include_disabled));
        let current = request.include_deprecated || mine || !attribute::is_deprecated(image, now);
        let any = |list: &[String], is: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|item| is(item))
        };
        let alias = self.alias(image);
        let in_catalog = match request.catalog {
            Some(Catalog::QuickStart) => alias == Some("amazon"),
            Some(Catalog::Mine) => mine,
            Some(Catalog::Marketplace) => alias == Some("aws-marketplace"),
            Some(Catalog::Community) => image.public && alias.is_none() && !mine,
            None => true,
        };
        listed
            && current
            && in_catalog
            && any(&request.owners, &|owner| self.owns(image, owner))
            && any(&request.executable_users, &|who| self.may_launch(image, who))
    }

    fn describe(&self, mut image: Image) -> DescribedImage {
        image.launch_permissions.clear();
        let location = image.image_location.take();
        let root = image.root_snapshot().and_then(|id| self.store.snapshots().get(id).ok());
        DescribedImage {
            image_location: location
                .unwrap_or_else(|| format!("{}/{}", image.owner_id, image.name)),
            image_owner_alias: self.alias(&image),
            last_launched_time: attribute::last_launched(self.store, &image.image_id),
            root_size: root.map(|snapshot| snapshot.size_bytes),
            image,
        }
    }
}

/// The names of the filters that there are.
pub fn filter_names() -> Vec<&'static str> {
    FILTERS.names.iter().map(|(name, _)| *name).collect()
}

impl Service {
    /// EC2 DescribeImages: those named in that order, or all that match by name.
    ///
    /// # Errors
    /// One of those named is not there; an unknown filter or owner; the store can't be read.
    pub fn describe_images(&self, request: &DescribeImages) -> Result<Vec<DescribedImage>> {
        let store = self.swept();
        check(request)?;
        let caller = Caller::new(store);
        let images = match request.image_ids.as_slice() {
            [] => matching(&caller, request)?,
            ids => found(ids, |id| catalog::find(store, id))?,
        };
        let images = images.into_iter().map(|image| caller.describe(image)).collect();
        select(images, &request.filters, FILTERS)
    }
}

fn matching(caller: &Caller<'_>, request: &DescribeImages) -> Result<Vec<Image>> {
    let store = caller.store;
    if store.administrator().is_none() {
        builtin::ensure(store, builtin::DEMO)?;
    }
    let now = now();
    let images = store.images().list()?.or_warn().into_iter();
    let images = images.map(|image| catalog::settled(store, image));
    let mut images: Vec<_> = images.filter(|image| caller.finds(image, request, &now)).collect();
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

fn check(request: &DescribeImages) -> Result<()> {
    let uid = |text: &str| text.parse::<u32>().is_ok();
    let owner =
        |text: &&String| !matches!(&***text, "self" | "amazon" | "aws-marketplace") && !uid(text);
    if let Some(bad) = request.owners.iter().find(owner) {
        return Err(Error::refused(
            Code::InvalidUserIDMalformed,
            format!(
                "'{}' is no owner: give self, amazon, aws-marketplace or a uid",
                bad.escape_debug()
            ),
        ));
    }
    let who = |text: &&String| !matches!(&***text, "self" | "all") && !uid(text);
    if let Some(bad) = request.executable_users.iter().find(who) {
        return Err(Error::refused(
            Code::InvalidUserIDMalformed,
            format!("'{}' is nobody: give self, all or a uid", bad.escape_debug()),
        ));
    }
    Ok(())
}
