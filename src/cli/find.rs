//! `spore image ls`: finding images, as EC2's DescribeImages does.

use super::filter::Filter;
use super::output::{self, Table, human_bytes};
use super::select::{self, Filters};
use super::ui::Ui;
use crate::account;
use crate::error::{Code, Error, Result};
use crate::image::permission::is_explicit;
use crate::image::{attribute, builtin, catalog};
use crate::record::image::{Image, ImageState};
use crate::store::{Store, now};
use clap::Args;
use serde_json::{Value, json};

/// Arguments of `image ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters (EC2's; values may hold * and ?, \\ takes the next character
literally; several values are alternatives):
  architecture, block-device-mapping.delete-on-termination, .device-name,
  .snapshot-id, .volume-size, .volume-type, boot-mode, creation-date,
  description, hypervisor, image-id, image-type, is-public, kernel-id,
  manifest-location, name, owner-alias, owner-id, platform,
  platform-details, product-code, product-code.type, ramdisk-id,
  root-device-name, root-device-type, source-image-id, source-instance-id,
  state, state-reason-code, state-reason-message, virtualization-type,
  tag:KEY, tag-key

Examples:
  spore image ls --mine
  spore image ls --executable-by self       what others share with you
  spore image ls --owner amazon --filter root-device-type=ebs -o json")]
pub struct FindArgs {
    /// Only those of these owners: self, amazon, aws-marketplace or a uid (may be repeated; any of them)
    #[arg(long, visible_alias = "owners", value_name = "OWNER", value_delimiter = ',')]
    owner: Vec<String>,
    /// Only those that self (shared with you by name), all (public) or a uid may launch
    #[arg(
        long,
        visible_alias = "executable-users",
        value_name = "self|all|UID",
        value_delimiter = ','
    )]
    executable_by: Vec<String>,
    /// Only those that match, e.g. name='debian*' or tag:Env=test (may be repeated; all must hold)
    #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]")]
    filters: Vec<Filter>,
    /// Those that come with this store: the built-in one, and its administrator's
    #[arg(long, group = "view")]
    quick_start: bool,
    /// Your own
    #[arg(long, group = "view")]
    mine: bool,
    /// Those that carry a product code
    #[arg(long, group = "view")]
    marketplace: bool,
    /// Other people's public ones
    #[arg(long, group = "view")]
    community: bool,
    /// Others' deprecated ones too
    #[arg(long)]
    include_deprecated: bool,
}

/// EC2's filters of DescribeImages.
const FILTERS: Filters = &[
    ("architecture", "Architecture"),
    ("block-device-mapping.delete-on-termination", "BlockDeviceMappings.Ebs.DeleteOnTermination"),
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
];

/// Who the caller is, and whose store it is.
struct Caller {
    me: String,
    uid: u32,
    groups: Vec<u32>,
    administrator: Option<String>,
}

impl Caller {
    fn new(store: &Store) -> Self {
        Self {
            me: store.owner_id(),
            uid: store.context().caller(),
            groups: account::own_groups(),
            administrator: store.administrator().map(|uid| uid.to_string()),
        }
    }

    /// EC2's ImageOwnerAlias: a marketplace image carries a product code; what comes with the store is `amazon`.
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
}

/// DescribeImages.
///
/// # Errors
/// An unknown filter or owner; the store can't be read.
pub fn ls(store: &Store, ui: &Ui, args: &FindArgs) -> Result<()> {
    if store.administrator().is_none() {
        builtin::ensure(store, builtin::DEMO)?;
    }
    let caller = Caller::new(store);
    check(args)?;
    let (by_state, now) = (args.filters.iter().any(|f| f.name == "state"), now());
    let images = store.images().list()?.or_warn().into_iter();
    let mut images: Vec<Image> = images.map(|image| catalog::settled(store, image)).collect();
    images.retain(|image| {
        let mine = image.owner_id == caller.me;
        let listed = by_state || image.state != ImageState::Deregistered;
        let current = args.include_deprecated || mine || !attribute::is_deprecated(image, &now);
        let any = |list: &[String], is: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|item| is(item))
        };
        let alias = caller.alias(image);
        let view = match () {
            () if args.quick_start => alias == Some("amazon"),
            () if args.mine => mine,
            () if args.marketplace => alias == Some("aws-marketplace"),
            () if args.community => image.public && alias.is_none() && !mine,
            () => true,
        };
        listed
            && current
            && view
            && any(&args.owner, &|owner| caller.owns(image, owner))
            && any(&args.executable_by, &|who| caller.may_launch(image, who))
    });
    images.sort_by(|a, b| a.name.cmp(&b.name));
    let views: Vec<Value> = images.iter().map(|image| view_of(store, &caller, image)).collect();
    let views = select::select(views, &args.filters, FILTERS)?;
    output::emit(ui.output, &table(store, views))
}

fn check(args: &FindArgs) -> Result<()> {
    let uid = |text: &str| text.parse::<u32>().is_ok();
    let owner =
        |text: &&String| !matches!(&***text, "self" | "amazon" | "aws-marketplace") && !uid(text);
    if let Some(bad) = args.owner.iter().find(owner) {
        return Err(Error::refused(
            Code::InvalidUserIDMalformed,
            format!(
                "'{}' is no owner: give self, amazon, aws-marketplace or a uid",
                bad.escape_debug()
            ),
        ));
    }
    let who = |text: &&String| !matches!(&***text, "self" | "all") && !uid(text);
    if let Some(bad) = args.executable_by.iter().find(who) {
        return Err(Error::refused(
            Code::InvalidUserIDMalformed,
            format!("'{}' is nobody: give self, all or a uid", bad.escape_debug()),
        ));
    }
    Ok(())
}

/// The image as DescribeImages shows it: with what follows from its place, without its launch permissions.
pub fn view(store: &Store, image: &Image) -> Value {
    view_of(store, &Caller::new(store), image)
}

fn view_of(store: &Store, caller: &Caller, image: &Image) -> Value {
    let mut value = serde_json::to_value(image).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("LaunchPermissions");
        let location = format!("{}/{}", image.owner_id, image.name);
        fields.entry("ImageLocation").or_insert(location.into());
        fields.insert("ImageType".into(), "machine".into());
        fields.insert("Hypervisor".into(), "kvm".into());
        if let Some(alias) = caller.alias(image) {
            fields.insert("ImageOwnerAlias".into(), alias.into());
        }
        if let Some(time) = attribute::last_launched(store, &image.image_id) {
            fields.insert("LastLaunchedTime".into(), time.into());
        }
    }
    value
}

/// The exact size of an image's root volume, if its snapshot is there.
fn root_size(store: &Store, image: &Value) -> Option<u64> {
    let mut mappings = image["BlockDeviceMappings"].as_array()?.iter();
    let root = mappings.find(|m| m["DeviceName"] == image["RootDeviceName"])?;
    let id = root["Ebs"]["SnapshotId"].as_str()?.parse().ok()?;
    Some(store.snapshots().get(&id).ok()?.size_bytes)
}

fn table(store: &Store, views: Vec<Value>) -> Table {
    let text = |view: &Value, field: &str| view[field].as_str().unwrap_or_default().to_owned();
    let row = |view: &Value| {
        vec![
            text(view, "ImageId"),
            text(view, "Name"),
            text(view, "State"),
            text(view, "RootDeviceType"),
            view["KernelId"].as_str().unwrap_or("firmware").to_owned(),
            root_size(store, view).map_or("-".to_owned(), human_bytes),
            text(view, "CreationDate"),
        ]
    };
    Table {
        columns: vec!["ID", "NAME", "STATE", "ROOT", "BOOTS", "SIZE", "CREATED"],
        rows: views.iter().map(row).collect(),
        ids: views.iter().map(|view| text(view, "ImageId")).collect(),
        json: json!({ "Images": views }),
    }
}
