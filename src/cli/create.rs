//! `spore image create`.

use super::answer;
use super::args::tag;
use super::generalize;
use super::parse::parse_duration;
use super::ui::{Ui, say};
use crate::error::{Error, OrFail, Result};
use crate::id::ImageId;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::create_image::{CreateImage, DeviceChange};
use crate::service::programs::launcher;
use crate::sys::process::not_started;
use clap::Args;
use std::fs::File;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
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
    /// Do not shut a running guest down: the image has what was on all of its disks at one instant,
    /// as after a power failure. Its file systems are not frozen first: there is no agent in the
    /// guest that could be asked. Have it run 'sync' before, or fsfreeze(8) around it, where that
    /// is not enough
    #[arg(long)]
    no_reboot: bool,
    /// Have the running guest forget first what makes it this machine: SSH host keys, machine id,
    /// cloud-init's state, random seed, leases, users' authorized keys and shell histories, logs.
    /// The instance itself begins anew, too. Passwords, and what else is secret, stay
    #[arg(long, conflicts_with = "no_reboot")]
    generalize: bool,
    /// Return once the image is pending, and go on in the background; 'spore image show' tells when
    /// it is available
    #[arg(long)]
    no_wait: bool,
    /// What goes on in the background.
    #[arg(long, hide = true, conflicts_with = "no_wait")]
    in_background: bool,
    /// How long the guest may take to shut down before it is cut off (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    timeout: Duration,
    /// A tag of the image (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
    /// A tag of the image's snapshots (may be repeated)
    #[arg(long = "snapshot-tag", value_name = "KEY=VALUE", value_parser = tag)]
    snapshot_tags: Vec<Tag>,
    /// Differ from the instance's devices (may be repeated): an EC2 BlockDeviceMapping as JSON.
    /// Ebs.VolumeSize, VolumeType and DeleteOnTermination change a volume, NoDevice leaves it out,
    /// other names add devices
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
/// As [`Service::create_image`]'s.
pub fn create(service: &Service, ui: &Ui, args: &CreateArgs) -> Result<ExitCode> {
    if args.no_wait {
        return in_background();
    }
    if args.in_background {
        // Whatever becomes of the terminal and of the directory that it was asked from.
        let _ = rustix::process::setsid();
        rustix::process::chdir("/").or_fail(|| "leave the working directory")?;
    }
    let forgets = args.generalize.then(|| generalize::find(service, &args.instance));
    let forgets = forgets.transpose()?;
    let request = CreateImage {
        name: args.name.clone(),
        description: args.description.clone(),
        no_reboot: args.no_reboot,
        timeout: args.timeout,
        tags: args.tags.clone(),
        snapshot_tags: args.snapshot_tags.clone(),
        changes: args.changes.clone(),
    };
    let begun = |id: &ImageId| {
        // Not before all else is known to be right: the guest does not get back what it forgets.
        if let Some(found) = &forgets {
            generalize::generalize(service, found, args.timeout)?;
        }
        match args.in_background {
            true => answer::made(ui, "ImageId", id.as_str()).and_then(|()| fall_silent()),
            false => Ok(()),
        }
    };
    let Some(created) = ui.cancellable(|| service.create_image(&args.instance, request, begun))?
    else {
        return Ok(ui.cancelled());
    };
    if args.in_background {
        return Ok(ExitCode::SUCCESS);
    }
    if created.forced {
        let instance = created.image.source_instance_id.as_ref();
        eprintln!(
            "spore: warning: {} did not shut down in time and was cut off: the image is as after a power failure",
            instance.map_or(args.instance.as_str(), |id| id.as_str())
        );
    }
    if let Some(us) = created.pause_us {
        eprintln!(
            "spore: note: the guest went on, its disks stood still for {us} us: the image is as after a power \
             failure (crash-consistent)"
        );
    }
    if !args.generalize {
        say(
            "note: what is launched from it begins with this guest's /etc/machine-id, SSH host keys, shell histories and \
             leases; --generalize has the guest forget them first",
        );
    }
    answer::made(ui, "ImageId", created.image.image_id.as_str())?;
    Ok(ExitCode::SUCCESS)
}

/// Have another process do it, one that a terminal does not end, and tell what it says until the
/// image is pending.
fn in_background() -> Result<ExitCode> {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| if word == "--no-wait" { "--in-background".into() } else { word });
    let mut command = Command::new(launcher()?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child =
        command.spawn().map_err(|cause| not_started("go on in the background", cause))?;
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).or_fail(|| "hear from the background")?;
    }
    if said.is_empty() {
        // It has said why.
        let status = child.wait().or_fail(|| "hear from the background")?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(1)));
    }
    super::output::write_stdout(&said)?;
    Ok(ExitCode::SUCCESS)
}

/// Let go of whoever was told: from now on the image's state says how it goes.
fn fall_silent() -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.or_fail(|| "open /dev/null")?;
    let done = rustix::stdio::dup2_stdout(&null).and_then(|()| rustix::stdio::dup2_stderr(&null));
    done.or_fail(|| "go on in the background")
}
