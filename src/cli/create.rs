//! `spore image create`.

use super::image::{CANCELLED, cancellable, tag};
use super::output::Output;
use super::select;
use crate::action::parse_duration;
use crate::error::{Error, Result};
use crate::image::record::Tag;
use crate::instance::imaging::{self, CreateImage, DeviceChange};
use crate::service;
use crate::store::Store;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `image create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The instance, running or stopped: an id, a unique prefix or a name
    instance: String,
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken
    #[arg(long)]
    name: String,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Do not shut a running guest down: the image has what was on its disks at one instant
    #[arg(long)]
    no_reboot: bool,
    /// How long the guest may take to shut down before it is cut off (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    timeout: Duration,
    /// A tag of the image (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
    /// A tag of the image's snapshots (may be repeated)
    #[arg(long = "snapshot-tag", value_name = "KEY=VALUE", value_parser = tag)]
    snapshot_tags: Vec<Tag>,
    /// Differ from the instance's devices (may be repeated): an EC2 BlockDeviceMapping as JSON. Ebs.VolumeSize,
    /// VolumeType and DeleteOnTermination change a volume, NoDevice leaves it out, other names add devices
    #[arg(long = "block-device", value_name = "JSON", value_parser = device_change)]
    changes: Vec<DeviceChange>,
}

fn device_change(text: &str) -> Result<DeviceChange> {
    serde_json::from_str(text)
        .map_err(|e| Error::usage(format!("it is no BlockDeviceMapping as JSON: {e}")))
}

/// Make an image of an instance.
///
/// # Errors
/// As [`imaging::create`]'s.
pub fn create(store: &Store, output: Output, args: &CreateArgs) -> Result<ExitCode> {
    let dir = service::resolve(store, std::slice::from_ref(&args.instance))?.remove(0);
    let request = CreateImage {
        name: args.name.clone(),
        description: args.description.clone(),
        no_reboot: args.no_reboot,
        timeout: args.timeout,
        tags: args.tags.clone(),
        snapshot_tags: args.snapshot_tags.clone(),
        changes: args.changes.clone(),
    };
    let Some(created) = cancellable(|| imaging::create(store, &dir, request))? else {
        return Ok(ExitCode::from(CANCELLED));
    };
    if created.forced {
        eprintln!(
            "spore: warning: {} did not shut down in time and was cut off: the image is as after a power failure",
            dir.id()
        );
    }
    if let Some(us) = created.pause_us {
        eprintln!(
            "spore: note: the guest went on, its disks stood still for {us} us: the image is as after a power \
             failure (crash-consistent)"
        );
    }
    select::made(output, "ImageId", created.image.image_id.as_str())?;
    Ok(ExitCode::SUCCESS)
}
