//! `spore image copy` and `spore snapshot copy`.

use super::args::tag;
use super::ui::Ui;
use crate::error::Result;
use crate::record::image::Image;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::transfer::CopyImage;
use clap::Args;

/// Arguments of `image copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The image: an id, a unique prefix of one, or a name
    image: String,
    #[command(flatten)]
    pub regions: RegionArgs,
    /// The copy's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken in its region
    #[arg(long)]
    name: String,
    /// The copy's description [default: the image's]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Copy the image's tags, too
    #[arg(long)]
    copy_tags: bool,
    /// A tag of the copy (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// Between which regions.
#[derive(Debug, Args)]
pub struct RegionArgs {
    /// The region that it is in [default: the store at hand]
    #[arg(long, visible_alias = "source-region", value_name = "REGION")]
    pub from: Option<String>,
    /// The region that the copy goes to [default: the store at hand]
    #[arg(long, value_name = "REGION")]
    pub to: Option<String>,
}

/// Copy an image. `None` if ^C ended that.
///
/// # Errors
/// As [`Service::copy_image`]'s.
pub fn image(service: &Service, ui: &Ui, args: &CopyArgs) -> Result<Option<Image>> {
    let request = CopyImage {
        source_image_id: args.image.clone(),
        source_region: args.regions.from.clone(),
        destination_region: args.regions.to.clone(),
        name: args.name.clone(),
        description: args.description.clone(),
        copy_image_tags: args.copy_tags,
        tags: args.tags.clone(),
        client_token: None,
    };
    ui.cancellable(|| service.copy_image(&request, &mut |_| ()))
}
