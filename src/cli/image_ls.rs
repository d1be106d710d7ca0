//! `spore image ls`: finding images.

use super::args::filter;
use super::output::{self, Table, human_bytes};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::filter::Filter;
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
  spore image ls --executable-by self       what others share with you
  spore image ls --owner amazon --filter root-device-type=ebs -o json")]
pub struct LsArgs {
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
    /// Only those that match, e.g. name='debian*' or tag:Env=test (may be repeated; all must hold)
    #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]", value_parser = filter)]
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

impl LsArgs {
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
        image_ids: Vec::new(),
        owners: args.owner.clone(),
        executable_users: args.executable_by.clone(),
        filters: args.filters.clone(),
        catalog: args.catalog(),
        include_deprecated: args.include_deprecated,
    })?;
    output::emit(ui.output, &table(&images))?;
    Ok(ExitCode::SUCCESS)
}

fn table(images: &[DescribedImage]) -> Table {
    let row = |DescribedImage { image, root_size, .. }: &DescribedImage| {
        vec![
            image.image_id.to_string(),
            image.name.clone(),
            output::name(image.state),
            output::name(image.root_device_type),
            image.kernel_id.as_ref().map_or("firmware".to_owned(), ToString::to_string),
            root_size.map_or("-".to_owned(), human_bytes),
            image.creation_date.clone(),
        ]
    };
    Table {
        columns: vec!["ID", "NAME", "STATE", "ROOT", "BOOTS", "SIZE", "CREATED"],
        rows: images.iter().map(row).collect(),
        ids: images.iter().map(|described| described.image.image_id.to_string()).collect(),
        json: json!({ "Images": images }),
    }
}
