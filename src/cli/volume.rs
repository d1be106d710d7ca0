//! `spore volume …`.

use super::args::tag;
use super::filter::Filter;
use super::output::{self, Table, human_bytes};
use super::select::{self, Filters};
use super::ui::Ui;
use crate::action::parse_size;
use crate::error::Result;
use crate::instance::attach;
use crate::record::tag::Tag;
use crate::record::volume::{Attachment, Volume};
use crate::store::{Durability, Store};
use crate::volume::{self, NewVolume};
use crate::{service, snapshot};
use clap::{Args, Subcommand};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

/// Verbs on volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume from a snapshot, or an empty one; prints its id
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: volume-id, snapshot-id, attachment.instance-id … (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]")]
        filters: Vec<Filter>,
    },
    /// Show volumes in full
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Attach a volume to a stopped instance; it stays when the instance is terminated
    Attach {
        /// The volume: an id, a unique prefix of one, or a name
        volume: String,
        /// The instance, which must be stopped
        instance: String,
        /// What the volume is called in the instance's block device mapping, e.g. /dev/vdb. The guest numbers its
        /// disks in the order of the mapping
        #[arg(long, value_name = "NAME")]
        device: String,
    },
    /// Take a volume off its instance, which must be stopped
    Detach {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Make a volume larger, while no instance runs on it
    Resize {
        /// The volume: an id, a unique prefix of one, or a name
        volume: String,
        /// The new size: 20G, 512M (a plain number counts GiB)
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        size: u64,
    },
    /// Delete volumes that are attached to no instance, with their content
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME")]
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

/// EC2's volume types.
pub const VOLUME_TYPES: [&str; 7] = ["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"];

/// EC2's filters of DescribeVolumes.
const FILTERS: Filters = &[
    ("attachment.delete-on-termination", "Attachment.DeleteOnTermination"),
    ("attachment.device", "Attachment.Device"),
    ("attachment.instance-id", "Attachment.InstanceId"),
    ("create-time", "CreateTime"),
    ("size", "Size"),
    ("snapshot-id", "SnapshotId"),
    ("volume-id", "VolumeId"),
    ("volume-type", "VolumeType"),
];

/// Do a volume command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &VolumeCommand, ui: &Ui) -> Result<ExitCode> {
    let store = ui.store()?;
    let volumes = store.volumes();
    match command {
        VolumeCommand::Create(args) => {
            let volume = create(&store, args)?;
            select::made(ui, "VolumeId", volume.volume_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Ls { filters } => {
            let listed = volumes.list()?.or_warn();
            list(&store, ui, select::select(listed, filters, FILTERS)?)?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Show { volumes: targets } => {
            select::show(ui, "Volumes", targets, |text| volumes.resolve(text))
        }
        VolumeCommand::Attach { volume, instance, device } => {
            let volume = volumes.resolve(volume)?.volume_id;
            let dir = service::resolve(&store, std::slice::from_ref(instance))?.remove(0);
            let attachment = attach::attach(&store, &volume, &dir, device)?;
            told(ui, volume.as_str(), &attachment, "attached")
        }
        VolumeCommand::Detach { volumes: targets } => Ok(select::each(targets, |text| {
            let volume = volumes.resolve(text)?.volume_id;
            let attachment = attach::detach(&store, &volume)?;
            told(ui, volume.as_str(), &attachment, "detached").map(|_| ())
        })),
        VolumeCommand::Resize { volume, size } => {
            let volume = volumes.resolve(volume)?.volume_id;
            let resized = attach::resize(&store, &volume, *size)?;
            select::made(ui, "VolumeId", resized.volume_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Delete { volumes: targets } => {
            Ok(select::each(targets, |text| attach::delete(&store, &volumes.resolve(text)?)))
        }
    }
}

fn create(store: &Store, args: &CreateArgs) -> Result<Volume> {
    crate::record::tag::check_tags(&args.tags)?;
    let new = NewVolume {
        volume_id: None,
        size_bytes: args.size,
        volume_type: Some(args.volume_type.clone()),
        attachment: None,
        tags: args.tags.clone(),
    };
    match &args.snapshot {
        Some(text) => {
            let snapshot = snapshot::resolve(store, text)?;
            volume::create_from_snapshot(store, &snapshot, new, Durability::Durable)
        }
        None => volume::create_empty(store, new, Durability::Durable),
    }
}

/// EC2's answer to AttachVolume and DetachVolume.
fn told(ui: &Ui, volume: &str, attachment: &Attachment, state: &str) -> Result<ExitCode> {
    let instance = attachment.instance_id.to_string();
    let table = Table {
        columns: vec!["VOLUME", "INSTANCE", "DEVICE", "STATE"],
        rows: vec![vec![volume.to_owned(), instance, attachment.device.clone(), state.to_owned()]],
        ids: vec![volume.to_owned()],
        json: json!({
            "VolumeId": volume,
            "InstanceId": attachment.instance_id,
            "Device": attachment.device,
            "DeleteOnTermination": attachment.delete_on_termination,
            "State": state,
        }),
    };
    output::emit(ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, ui: &Ui, volumes: Vec<Volume>) -> Result<()> {
    let row = |volume: &Volume| {
        // What the overlay takes on the disk, which is what the volume costs.
        let top = volume.layers.first().map_or("", |layer| &layer.file);
        let overlay = store.volumes().dir(&volume.volume_id).join(top);
        let used = overlay.metadata().map_or("-".into(), |m| human_bytes(m.blocks() * 512));
        let user = attach::attached_to(store, volume);
        vec![
            volume.volume_id.to_string(),
            human_bytes(volume.size_bytes),
            used,
            if user.is_some() { "in-use" } else { "available" }.to_owned(),
            volume.snapshot_id.as_ref().map_or("-".into(), ToString::to_string),
            user.map_or("-".into(), |id| id.to_string()),
            volume.create_time.clone(),
        ]
    };
    let table = Table {
        columns: vec!["ID", "SIZE", "USED", "STATE", "SNAPSHOT", "INSTANCE", "CREATED"],
        rows: volumes.iter().map(row).collect(),
        ids: volumes.iter().map(|v| v.volume_id.to_string()).collect(),
        json: json!({ "Volumes": volumes }),
    };
    output::emit(ui.output, &table)
}
