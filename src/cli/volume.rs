//! `spore volume …`.

use super::filter::Filter;
use super::output::{self, Output, Table, human_bytes};
use super::select::{self, Filters};
use crate::error::{Error, Result};
use crate::instance::dir::instances;
use crate::store::Store;
use crate::volume::record::Volume;
use crate::volume::{self, OVERLAY};
use clap::Subcommand;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

/// Verbs on volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
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
    /// Delete volumes that are attached to no instance, with their content
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
}

/// EC2's filters of DescribeVolumes.
const FILTERS: Filters = &[
    ("attachment.delete-on-termination", "Attachment.DeleteOnTermination"),
    ("attachment.device", "Attachment.Device"),
    ("attachment.instance-id", "Attachment.InstanceId"),
    ("create-time", "CreateTime"),
    ("size", "Size"),
    ("snapshot-id", "SnapshotId"),
    ("volume-id", "VolumeId"),
];

/// Do a volume command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &VolumeCommand, output: Output) -> Result<ExitCode> {
    let store = Store::open()?;
    match command {
        VolumeCommand::Ls { filters } => {
            let volumes = store.volumes().list()?.or_warn();
            list(&store, output, select::select(volumes, filters, FILTERS)?)?;
            Ok(ExitCode::SUCCESS)
        }
        VolumeCommand::Show { volumes } => {
            select::show(output, "Volumes", volumes, |text| store.volumes().resolve(text))
        }
        VolumeCommand::Delete { volumes } => Ok(select::each(volumes, |text| {
            let found = store.volumes().resolve(text)?;
            refuse_attached(&store, &found)?;
            volume::delete(&store, &found.volume_id)
        })),
    }
}

/// A stopped instance needs its volumes too. One whose instance is gone altogether may go.
fn refuse_attached(store: &Store, volume: &Volume) -> Result<()> {
    match &volume.attachment {
        Some(attachment) if instances(store).exists(&attachment.instance_id) => {
            Err(Error::refused(
                "VolumeInUse",
                format!(
                    "{} is attached to {}; terminate that first",
                    volume.volume_id, attachment.instance_id
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn list(store: &Store, output: Output, volumes: Vec<Volume>) -> Result<()> {
    let row = |volume: &Volume| {
        // What the overlay takes on the disk, which is what the volume costs.
        let overlay = store.volumes().dir(&volume.volume_id).join(OVERLAY);
        let used = overlay.metadata().map_or("-".into(), |m| human_bytes(m.blocks() * 512));
        vec![
            volume.volume_id.to_string(),
            human_bytes(volume.size_bytes),
            used,
            volume.snapshot_id.as_ref().map_or("-".into(), ToString::to_string),
            volume.attachment.as_ref().map_or("-".into(), |a| a.instance_id.to_string()),
            volume.create_time.clone(),
        ]
    };
    let table = Table {
        columns: vec!["ID", "SIZE", "USED", "SNAPSHOT", "INSTANCE", "CREATED"],
        rows: volumes.iter().map(row).collect(),
        ids: volumes.iter().map(|v| v.volume_id.to_string()).collect(),
        json: json!({ "Volumes": volumes }),
    };
    output::emit(output, &table)
}
