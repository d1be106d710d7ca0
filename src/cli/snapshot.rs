//! `spore snapshot …`.

use super::answer;
use super::args::{FormatArg, ListFilters, tag};
use super::complete;
use super::copy::RegionArgs;
use super::output::{self, Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::id::InstanceId;
use crate::record::Record;
use crate::record::snapshot::Snapshot;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::snapshots::{
    CopySnapshot, CreateSnapshot, DescribeSnapshots, DescribedSnapshot, ImportSnapshot,
    SnapshotInfo,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Verbs on snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot of a volume as it is now; prints its id
    ///
    /// Nothing is copied: what the volume has becomes the snapshot, and the volume goes on in a new
    /// overlay. It may be attached and its instance may run; then what was written last counts only
    /// as far as the guest's own file system has it on disk (as after a power failure).
    Create {
        /// The volume: an id, a unique prefix of one, or a name; or an instance's id for all its
        /// volumes at one instant
        volume: String,
        #[command(flatten)]
        wanted: WantedArgs,
    },
    /// Copy a snapshot within its region, where the content is shared, or to or from another;
    /// prints the copy's id
    Copy {
        /// The snapshot: an id, a unique prefix of one, or a name
        snapshot: String,
        #[command(flatten)]
        regions: RegionArgs,
        #[command(flatten)]
        wanted: WantedArgs,
    },
    /// Import a disk as a snapshot, without an image; prints its id
    ///
    /// As 'spore image import' does it. ^C cancels and leaves nothing behind.
    Import {
        /// The disk; '-' is standard input
        #[arg(value_name = "FILE")]
        disk: PathBuf,
        #[command(flatten)]
        format: FormatArg,
        /// Free text
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// A tag (may be repeated); Name=… gives it a name
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
        tags: Vec<Tag>,
    },
    /// List snapshots
    ///
    /// EC2's filters: description, encrypted, owner-id, progress, snapshot-id, start-time, status,
    /// volume-id, volume-size, tag:KEY, tag-key.
    #[command(visible_alias = "list")]
    Ls {
        /// Ids, unique prefixes, names or patterns of names [default: all]
        #[arg(add = complete::snapshot())]
        targets: Vec<String>,
        /// Which.
        #[command(flatten)]
        filters: ListFilters,
    },
    /// Show snapshots in full
    #[command(visible_alias = "inspect")]
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "SNAPSHOT", add = complete::snapshot())]
        snapshots: Vec<String>,
    },
    /// Compare the content of snapshots with their recorded digests
    Verify {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "SNAPSHOT", add = complete::snapshot())]
        snapshots: Vec<String>,
    },
    /// Delete snapshots that no image refers to; volumes made from them keep their content
    ///
    /// In a shared store that holds for other accounts' volumes, too: what they begin as stays on
    /// the disk until the last of them is deleted, though the snapshot is there for nobody any
    /// more.
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "SNAPSHOT", add = complete::snapshot())]
        snapshots: Vec<String>,
        /// The region that they are in; in a bucket or a registry by their whole ids [default: the
        /// store at hand]
        #[arg(long, value_name = "REGION")]
        region: Option<String>,
        /// Take the content from other accounts' volumes, too: they can't be used any more
        #[arg(long, conflicts_with = "region")]
        force: bool,
    },
}

/// What is said of a new snapshot.
#[derive(Debug, Args)]
pub struct WantedArgs {
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// A tag (may be repeated); Name=… gives it a name
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// Do a snapshot command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &SnapshotCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        SnapshotCommand::Import { disk, format, description, tags } => {
            let request = ImportSnapshot {
                disk: disk.clone(),
                format: format.format,
                snapshot_id: None,
                description: description.clone(),
                tags: tags.clone(),
            };
            reported(ui, ui.cancellable(|| service.import_snapshot(&request))?)
        }
        SnapshotCommand::Create { volume, wanted } => create(&service, ui, volume, wanted),
        SnapshotCommand::Copy { snapshot, regions, wanted } => {
            let request = CopySnapshot {
                source_snapshot_id: snapshot.clone(),
                source_region: regions.from.clone(),
                destination_region: regions.to.clone(),
                description: wanted.description.clone(),
                tags: wanted.tags.clone(),
            };
            let copy = ui.cancellable(|| service.copy_snapshot(&request, &mut |_| ()))?;
            let Some(copy) = copy else { return Ok(ui.cancelled()) };
            let answer = json!({ "SnapshotId": copy.snapshot_id, "Tags": copy.tags });
            answer::whole(ui, "SnapshotId", copy.snapshot_id.as_str(), answer)?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Ls { targets, filters } => {
            let (snapshot_ids, filters) = (targets.clone(), filters.all());
            let request = DescribeSnapshots { snapshot_ids, filters };
            let described = service.describe_snapshots(&request)?;
            let json = json!({ "Snapshots": described });
            list(ui, described.iter().map(|described| &described.snapshot), json)?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Show { snapshots } => {
            let id = |described: &DescribedSnapshot| described.snapshot.snapshot_id.to_string();
            answer::show(ui, "Snapshots", snapshots, id, |snapshot_ids| {
                service
                    .describe_snapshots(&DescribeSnapshots { snapshot_ids, ..Default::default() })
            })
        }
        SnapshotCommand::Verify { snapshots } => Ok(answer::each(ui, snapshots, |text| {
            let id = service.verify_snapshot(text)?;
            output::write_stdout(format!("{id}: OK\n").as_bytes())
        })),
        SnapshotCommand::Delete { snapshots, region, force } => {
            let results = service.delete_snapshots(snapshots, region.as_deref(), *force)?;
            answer::deleted(ui, snapshots, results)
        }
    }
}

fn create(service: &Service, ui: &Ui, volume: &str, wanted: &WantedArgs) -> Result<ExitCode> {
    let request = CreateSnapshot {
        volume_id: volume.to_owned(),
        description: wanted.description.clone(),
        tags: wanted.tags.clone(),
    };
    if !volume.starts_with(InstanceId::PREFIX) {
        return reported(ui, ui.cancellable(|| service.create_snapshot(&request))?);
    }
    let made = ui.cancellable(|| service.create_snapshots(&request))?;
    let Some(made) = made else { return Ok(ui.cancelled()) };
    let infos: Vec<SnapshotInfo<'_>> = made.iter().map(SnapshotInfo::of).collect();
    list(ui, made.iter(), json!({ "Snapshots": infos }))?;
    Ok(ExitCode::SUCCESS)
}

/// Print a new snapshot's id, or it.
fn reported(ui: &Ui, snapshot: Option<Snapshot>) -> Result<ExitCode> {
    let Some(snapshot) = snapshot else { return Ok(ui.cancelled()) };
    let id = snapshot.snapshot_id.clone();
    answer::whole(ui, "SnapshotId", id.as_str(), DescribedSnapshot::of(snapshot))?;
    Ok(ExitCode::SUCCESS)
}

fn list<'a>(
    ui: &Ui,
    snapshots: impl Iterator<Item = &'a Snapshot> + Clone,
    json: Value,
) -> Result<()> {
    let row = |snapshot: &Snapshot| {
        vec![
            snapshot.snapshot_id.to_string().into(),
            snapshot.name().into(),
            output::name(snapshot.state).into(),
            Cell::Bytes(snapshot.size_bytes),
            Cell::Time(snapshot.start_time.clone()),
            snapshot.volume_id.as_ref().map(ToString::to_string).into(),
            Some(snapshot.description.as_str()).filter(|text| !text.is_empty()).into(),
        ]
    };
    let table = Table {
        columns: vec![
            Column::new("SnapshotId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("State", "STATE"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("StartTime", "STARTED"),
            Column::new("VolumeId", "VOLUME"),
            Column::text("Description", "DESCRIPTION"),
        ],
        rows: snapshots.clone().map(row).collect(),
        ids: snapshots.map(|s| s.snapshot_id.to_string()).collect(),
        json,
    };
    output::emit(&ui.output, &table)
}
