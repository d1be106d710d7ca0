//! `spore image pull`, and what `run` brings here.

use super::answer;
use super::args::{FormatArg, tag};
use super::complete;
use super::output::{Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::images::DescribedImage;
use crate::service::pull::{Checksum, PullImage, PullPolicy, QuickStartImage};
use crate::service::register::Boot;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Arguments of `image pull`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore image pull debian:12
  spore image pull https://example.org/disk.qcow2 --name disk \\
    --checksum sha256:0123…
  spore image pull hub/web@sha256:0123…
  spore run ubuntu:24.04 -n 3     pulls what is not here yet")]
pub struct PullArgs {
    /// What is published: NAME:VERSION ('spore image ls --quick-start'), NAME for its newest
    /// version; an address: https://…, http://…, s3://bucket/key?endpoint=…, file:///…; or an image
    /// of a region: REGION/NAME, oci://host/repository:NAME, also NAME@sha256:HEX by the digest of
    /// its manifest in a registry
    #[arg(value_name = "NAME[:VERSION]|URL|REGION/NAME", add = complete::published())]
    source: String,
    /// The image's name [default: what it is pulled as, and the beginning of its checksum]
    #[arg(long)]
    name: Option<String>,
    /// What the file has to be: sha256:HEX or sha512:HEX [default: what its publisher says]
    #[arg(long, value_name = "CHECKSUM", value_parser = |text: &str| text.parse::<Checksum>())]
    checksum: Option<Checksum>,
    #[command(flatten)]
    format: FormatArg,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A tag (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// `image pull`.
///
/// # Errors
/// As [`Service::pull_image`]'s.
pub fn pull(service: &Service, ui: &Ui, args: &PullArgs) -> Result<ExitCode> {
    let (description, tags) = (args.description.clone(), args.tags.clone());
    let request = PullImage {
        source: args.source.clone(),
        name: args.name.clone(),
        checksum: args.checksum.clone(),
        format: args.format.format,
        boot: Boot { description, tags, ..Boot::default() },
    };
    let Some(image) = ui.cancellable(|| service.pull_image(&request))? else {
        return Ok(ui.cancelled());
    };
    answer::made(ui, "ImageId", image.image_id.as_str())?;
    Ok(ExitCode::SUCCESS)
}

/// When `run` pulls.
#[derive(Debug, Args)]
pub struct PullArg {
    /// When an image that is called NAME:VERSION or by an address is pulled: missing, where it is
    /// not here; always, also where there is a newer one; never
    #[arg(
        long = "pull",
        value_name = "missing|always|never",
        default_value = "missing",
        hide_default_value = true,
        value_parser = |text: &str| text.parse::<PullPolicy>()
    )]
    policy: PullPolicy,
}

/// Sees that this program can pull what a launch may need.
///
/// # Errors
/// As [`Service::check_obtainable`]'s.
pub fn check(service: &Service, image: Option<&str>, pull: &PullArg) -> Result<()> {
    image.map_or(Ok(()), |image| service.check_obtainable(image, pull.policy))
}

/// The image that a launch means, once it is there; empty if its template says which.
///
/// # Errors
/// As [`Service::obtain_image`]'s.
pub fn image(service: &Service, image: Option<&str>, pull: &PullArg) -> Result<String> {
    image.map_or(Ok(String::new()), |image| service.obtain_image(image, pull.policy))
}

/// [`image`], for who can't be interrupted later: one that is pending is waited for.
///
/// # Errors
/// As [`Service::await_image`]'s.
pub fn settled(service: &Service, image: Option<&str>, pull: &PullArg) -> Result<String> {
    image.map_or(Ok(String::new()), |image| service.await_image(image, pull.policy))
}

/// `image ls --quick-start`: the images that come with the store, and what is published and may
/// be here already.
pub fn quick_start(images: &[DescribedImage], published: &[QuickStartImage]) -> Table {
    let text = |text: Option<&String>| text.map_or(Cell::None, |text| text.as_str().into());
    let provided = |described: &DescribedImage| {
        let image = &described.image;
        let (name, id) = (image.name.as_str().into(), image.image_id.to_string());
        vec![name, text(image.description.as_ref()), Cell::None, id.into()]
    };
    let public = |one: &QuickStartImage| {
        let (reference, title) = (one.reference.as_str().into(), one.title.as_str().into());
        vec![reference, title, text(one.user.as_ref()), text(one.image_id.as_ref())]
    };
    Table {
        columns: vec![
            Column::text("Name", "NAME"),
            Column::text("Title", "TITLE"),
            Column::new("User", "USER"),
            Column::new("ImageId", "HERE"),
        ],
        rows: images.iter().map(provided).chain(published.iter().map(public)).collect(),
        ids: images.iter().map(|described| described.image.image_id.to_string()).collect(),
        json: json!({ "Images": images, "QuickStart": published }),
    }
}
