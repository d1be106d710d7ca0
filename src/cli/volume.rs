//! `spore volume …`.

use super::answer;
use super::args::{ListFilters, tag};
use super::complete;
use super::output::{self, Cell, Column, Table};
use super::parse::parse_size;
use super::ui::Ui;
use crate::error::Result;
use crate::record::Record;
use crate::record::tag::Tag;
use crate::service::volumes::{
    AttachVolume, CreateVolume, DescribeVolumes, DescribedVolume, DetachVolume, VOLUME_TYPES,
    VolumeAttachment,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// Verbs on volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume from a snapshot, or an empty one; prints its id
    Create(CreateArgs),
    /// List volumes
    ///
    /// EC2's filters: attachment.attach-time, .delete-on-termination, .device, .instance-id,
    /// .status, availability-zone, create-time, encrypted, owner-id, size, snapshot-id, status,
    /// volume-id, volume-type, tag:KEY, tag-key.
    #[command(visible_alias = "list")]
    Ls {
        /// Ids, unique prefixes, names or patterns of names [default: all]
        #[arg(add = complete::volume())]
        targets: Vec<String>,
        /// Which.
        #[command(flatten)]
        filters: ListFilters,
    },
    /// Show volumes in full
    #[command(visible_alias = "inspect")]
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME", add = complete::volume())]
        volumes: Vec<String>,
    },
    /// Attach a volume to an instance; it stays when the instance is terminated
    ///
    /// A running instance's guest is told, and the command waits until it has taken the volume.
    /// That takes a PCI bus, which instances have unless their image lacks the drivers ('spore
    /// show'), and a kernel with ACPI hot-plug, as distributions' have.
    Attach {
        /// The volume: an id, a unique prefix of one, or a name
        #[arg(add = complete::volume())]
        volume: String,
        /// The instance
        #[arg(add = complete::instance())]
        instance: String,
        /// What the volume is called in the instance's block device mapping, e.g. /dev/vdb. The
        /// guest numbers its disks in the order of the mapping
        #[arg(long, value_name = "NAME")]
        device: String,
        /// Seconds in which a running instance's guest takes it
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        timeout: u64,
    },
    /// Take volumes off their instances
    ///
    /// A running instance's guest is asked to let go, and the command waits until it has. Unmount
    /// the volume there first.
    Detach {
        /// Take it away from a running instance though its guest does not let go; what the guest
        /// has not written is lost
        #[arg(long)]
        force: bool,
        /// Seconds in which a running instance's guest lets go
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        timeout: u64,
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME", add = complete::volume())]
        volumes: Vec<String>,
    },
    /// Make a volume larger; the guest of an instance that runs on it is told
    Resize {
        /// The volume: an id, a unique prefix of one, or a name
        #[arg(add = complete::volume())]
        volume: String,
        /// The new size: 20G, 512M (a plain number counts GiB)
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        size: u64,
    },
    /// Delete volumes that are attached to no instance, with their content
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME", add = complete::volume())]
        volumes: Vec<String>,
    },
}

/// Arguments of `volume create`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("content").args(["snapshot", "size"]).required(true).multiple(true))]
pub struct CreateArgs {
    /// The snapshot that it begins as
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Its size: 20G, 512M (a plain number counts GiB) [default: the snapshot's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// EC2's volume type, which is recorded
    #[arg(long = "volume-type", value_name = "TYPE", default_value = "gp3", value_parser = VOLUME_TYPES)]
    volume_type: String,
    /// A tag (may be repeated); Name=… gives it a name
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// Do a volume command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &VolumeCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        VolumeCommand::Create(args) => {
            let volume = service.create_volume(&CreateVolume {
                snapshot_id: args.snapshot.clone(),
                size: args.size,
                volume_type: Some(args.volume_type.clone()),
                tags: args.tags.clone(),
                client_token: None,
            })?;
            answer::whole(ui, "VolumeId", volume.volume.volume_id.as_str(), &volume)?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Ls { targets, filters } => {
            let (volume_ids, filters) = (targets.clone(), filters.all());
            let request = DescribeVolumes { volume_ids, filters };
            list(ui, &service.describe_volumes(&request)?)?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Show { volumes } => {
            let id = |described: &DescribedVolume| described.volume.volume_id.to_string();
            answer::show(ui, "Volumes", volumes, id, |volume_ids| {
                service.describe_volumes(&DescribeVolumes { volume_ids, ..Default::default() })
            })
        }
        VolumeCommand::Attach { volume, instance, device, timeout } => {
            let (volume_id, instance_id) = (volume.clone(), instance.clone());
            let request = AttachVolume { volume_id, instance_id, device: device.clone() };
            let attachment = service.attach_volume(&request)?;
            let timeout = Duration::from_secs(*timeout);
            reported(ui, &service.await_attachment(&attachment, "attached", timeout)?)?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Detach { force, timeout, volumes } => {
            let timeout = Duration::from_secs(*timeout);
            Ok(answer::each(ui, volumes, |text| {
                let request = DetachVolume { volume_id: text.to_owned(), force: *force };
                let attachment = service.detach_volume(&request)?;
                reported(ui, &service.await_attachment(&attachment, "detached", timeout)?)
            }))
        }
        VolumeCommand::Resize { volume, size } => {
            let resized = service.modify_volume(volume, *size)?;
            let answer = json!({ "VolumeModification": resized });
            answer::whole(ui, "VolumeId", resized.volume_id.as_str(), answer)?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Delete { volumes } => {
            answer::delete(ui, volumes, |text| service.delete_volume(text))
        }
    }
}

/// EC2's answer to AttachVolume and DetachVolume.
fn reported(ui: &Ui, attachment: &VolumeAttachment) -> Result<()> {
    let (volume, instance) = (attachment.volume_id.to_string(), attachment.instance_id.to_string());
    let state = attachment.state.to_owned();
    let table = Table {
        columns: vec![
            Column::new("VolumeId", "VOLUME"),
            Column::new("InstanceId", "INSTANCE"),
            Column::new("Device", "DEVICE"),
            Column::new("State", "STATE"),
        ],
        ids: vec![volume.clone()],
        rows: vec![vec![
            volume.into(),
            instance.into(),
            attachment.device.as_str().into(),
            state.into(),
        ]],
        json: json!(attachment),
    };
    output::emit(&ui.output, &table)
}

fn list(ui: &Ui, volumes: &[DescribedVolume]) -> Result<()> {
    let row = |described: &DescribedVolume| {
        let DescribedVolume { volume, instance_id, used_bytes, .. } = described;
        vec![
            volume.volume_id.to_string().into(),
            volume.name().into(),
            described.state().into(),
            Cell::Bytes(volume.size_bytes),
            used_bytes.map_or(Cell::None, Cell::Bytes),
            instance_id.as_ref().map(ToString::to_string).into(),
            Cell::Time(volume.create_time.clone()),
            volume.snapshot_id.as_ref().map(ToString::to_string).into(),
        ]
    };
    let table = Table {
        columns: vec![
            Column::new("VolumeId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("State", "STATE"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("UsedBytes", "USED"),
            Column::new("InstanceId", "INSTANCE"),
            Column::new("CreateTime", "CREATED"),
            Column::new("SnapshotId", "SNAPSHOT"),
        ],
        rows: volumes.iter().map(row).collect(),
        ids: volumes.iter().map(|v| v.volume.volume_id.to_string()).collect(),
        json: json!({ "Volumes": volumes }),
    };
    output::emit(&ui.output, &table)
}
