//! `spore image ls`: finding images.

use super::args::ListFilters;
use super::complete;
use super::output::{self, Cell, Column, Table};
use super::pull;
use super::ui::Ui;
use crate::error::Result;
use crate::record::image::Image;
use crate::service::Service;
use crate::service::images::{Catalog, DescribeImages, DescribedImage};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

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
  spore image ls --quick-start              what there is to pull
  spore image ls --executable-by self       what others share with you
  spore image ls --owner amazon --filter root-device-type=ebs -o json")]
pub struct LsArgs {
    /// Ids, unique prefixes, names or patterns of names [default: all]
    #[arg(add = complete::image())]
    targets: Vec<String>,
    /// Only those of these owners: self, amazon, aws-marketplace or a uid (may be repeated; any of
    /// them)
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
    /// Which.
    #[command(flatten)]
    filters: ListFilters,
    /// Those that come with this store: the built-in one, and its administrator's; and what
    /// distributions publish, which 'spore image pull' brings here
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
    /// Also those of yours that are disabled
    #[arg(long)]
    include_disabled: bool,
}

impl LsArgs {
    /// Whether all of the quick start is asked for, and nothing of it in particular.
    fn is_quick_start(&self) -> bool {
        let who = self.owner.is_empty() && self.executable_by.is_empty();
        self.quick_start && who && self.targets.is_empty() && self.filters.all().is_empty()
    }

    fn catalog(&self) -> Option<Catalog> {
        match () {
            () if self.quick_start => Some(Catalog::QuickStart),
            () if self.mine => Some(Catalog::Mine),
            () if self.marketplace => Some(Catalog::Marketplace),
            () if self.community => Some(Catalog::Community),
            () => None,
        }
    }
}

/// `image ls`.
///
/// # Errors
/// An unknown filter or owner; the store can't be read.
pub fn ls(service: &Service, ui: &Ui, args: &LsArgs) -> Result<ExitCode> {
    let images = service.describe_images(&DescribeImages {
        image_ids: args.targets.clone(),
        owners: args.owner.clone(),
        executable_users: args.executable_by.clone(),
        filters: args.filters.all(),
        catalog: args.catalog(),
        include_deprecated: args.include_deprecated,
        include_disabled: args.include_disabled,
    })?;
    let table = match args.is_quick_start() {
        true => pull::quick_start(&images, &service.describe_quick_start()?),
        false => table(&images),
    };
    output::emit(&ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}

fn table(images: &[DescribedImage]) -> Table {
    let row = |DescribedImage { image, root_size, .. }: &DescribedImage| {
        vec![
            image.image_id.to_string().into(),
            image.name.as_str().into(),
            output::name(image.state).into(),
            root_size.map_or(Cell::None, Cell::Bytes),
            Cell::Time(image.creation_date.clone()),
            output::name(image.root_device_type).into(),
            boot_method_cell(image),
        ]
    };
    Table {
        columns: vec![
            Column::new("ImageId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("State", "STATE"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("CreationDate", "CREATED"),
            Column::new("RootDeviceType", "ROOT"),
            Column::new("KernelId", "BOOTS"),
        ],
        rows: images.iter().map(row).collect(),
        ids: images.iter().map(|described| described.image.image_id.to_string()).collect(),
        json: json!({ "Images": images }),
    }
}

/// What boots it: its kernel, or the firmware if it has none.
fn boot_method_cell(image: &Image) -> Cell {
    match &image.kernel_id {
        Some(id) => id.to_string().into(),
        None => Cell::Named { id: String::new(), name: "firmware".to_owned() },
    }
}
