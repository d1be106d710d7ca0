//! `spore snapshot …`.

use super::args::{FormatArg, tag};
use super::copy::RegionArgs;
use super::filter::Filter;
use super::output::{self, Table, human_bytes};
use super::select::{self, Filters};
use super::ui::Ui;
use crate::error::Result;
use crate::id::{InstanceId, SnapshotId};
use crate::import::{Options, Source, arrival};
use crate::instance::snapshots;
use crate::record::snapshot::{Snapshot, SnapshotState};
use crate::record::tag::Tag;
use crate::service;
use crate::snapshot::{self, Wanted};
use crate::transfer::endpoint::{self, Endpoint};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verbs on snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot of a volume as it is now; prints its id
    ///
    /// Nothing is copied: what the volume has becomes the snapshot, and the volume goes on in a new overlay. It may
    /// be attached and its instance may run; then what was written last counts only as far as the guest's own file
    /// system has it on disk (as after a power failure).
    Create {
        /// The volume: an id, a unique prefix of one, or a name; or an instance's id for all its volumes at one instant
        volume: String,
        #[command(flatten)]
        wanted: WantedArgs,
    },
    /// Copy a snapshot within its region, where the content is shared, or to or from another; prints the copy's id
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
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: snapshot-id, description, volume-size, tag:KEY … (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]")]
        filters: Vec<Filter>,
    },
    /// Show snapshots in full
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
    },
    /// Compare the content of snapshots with their recorded digests
    Verify {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
    },
    /// Delete snapshots that no image refers to; volumes made from them keep their content
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
        /// The region that they are in; in a bucket or a registry by their whole ids [default: the store at hand]
        #[arg(long, value_name = "REGION")]
        region: Option<String>,
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

impl WantedArgs {
    fn wanted(&self) -> Result<Wanted> {
        Ok(Wanted {
            snapshot_id: SnapshotId::generate()?,
            description: self.description.clone(),
            tags: self.tags.clone(),
        })
    }
}

/// EC2's filters of DescribeSnapshots.
const FILTERS: Filters = &[
    ("description", "Description"),
    ("owner-id", "OwnerId"),
    ("snapshot-id", "SnapshotId"),
    ("start-time", "StartTime"),
    ("status", "State"),
    ("volume-id", "VolumeId"),
    ("volume-size", "VolumeSize"),
];

/// Do a snapshot command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &SnapshotCommand, ui: &Ui) -> Result<ExitCode> {
    let store = ui.store()?;
    arrival::sweep(&store);
    match command {
        SnapshotCommand::Import { disk, format, description, tags } => {
            let source = Source::from_argument(disk.clone());
            let options = Options { format: format.format, context: store.context().clone() };
            let work = || arrival::snapshot(&store, &source, &options, description, tags.clone());
            told(ui, ui.cancellable(work)?)
        }
        SnapshotCommand::Create { volume, wanted } => {
            let wanted = wanted.wanted()?;
            if volume.starts_with(InstanceId::PREFIX) {
                let dir = service::resolve(&store, std::slice::from_ref(volume))?.remove(0);
                let made = ui.cancellable(|| snapshots::create_all(&store, &dir, &wanted))?;
                let Some(made) = made else { return Ok(ui.cancelled()) };
                list(ui, made)?;
                return Ok(ExitCode::SUCCESS);
            }
            let volume = store.volumes().resolve(volume)?.volume_id;
            told(ui, ui.cancellable(|| snapshots::create(&store, &volume, wanted))?)
        }
        SnapshotCommand::Copy { snapshot, regions, wanted } => {
            told(ui, super::copy::snapshot(&store, ui, regions, snapshot, wanted.wanted()?)?)
        }
        SnapshotCommand::Ls { filters } => {
            let snapshots = store.snapshots().list()?.or_warn().into_iter();
            let snapshots = snapshots.map(|found| snapshot::settled(&store, found)).collect();
            list(ui, select::select(snapshots, filters, FILTERS)?)?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Show { snapshots } => {
            select::show(ui, "Snapshots", snapshots, |text| snapshot::resolve(&store, text))
        }
        SnapshotCommand::Verify { snapshots } => Ok(select::each(snapshots, |text| {
            let found = snapshot::resolve(&store, text)?;
            snapshot::verify(&store, &found)?;
            output::write_stdout(format!("{}: OK\n", found.snapshot_id).as_bytes())
        })),
        SnapshotCommand::Delete { snapshots, region } => {
            let place = endpoint::find(&store, region.as_deref())?;
            Ok(select::each(snapshots, |text| match &place {
                Endpoint::Store(store) => {
                    snapshot::delete(store, &store.snapshots().resolve(text)?.snapshot_id)
                }
                Endpoint::Remote(remote) => remote.delete_snapshot(&text.parse()?),
            }))
        }
    }
}

/// Print a new snapshot's id.
fn told(ui: &Ui, snapshot: Option<Snapshot>) -> Result<ExitCode> {
    let Some(snapshot) = snapshot else { return Ok(ui.cancelled()) };
    select::made(ui, "SnapshotId", snapshot.snapshot_id.as_str())?;
    Ok(ExitCode::SUCCESS)
}

fn list(ui: &Ui, snapshots: Vec<Snapshot>) -> Result<()> {
    let row = |snapshot: &Snapshot| {
        vec![
            snapshot.snapshot_id.to_string(),
            human_bytes(snapshot.size_bytes),
            state(snapshot).to_owned(),
            snapshot.volume_id.as_ref().map_or("-".into(), ToString::to_string),
            snapshot.start_time.clone(),
            snapshot.description.clone(),
        ]
    };
    let table = Table {
        columns: vec!["ID", "SIZE", "STATE", "VOLUME", "STARTED", "DESCRIPTION"],
        rows: snapshots.iter().map(row).collect(),
        ids: snapshots.iter().map(|s| s.snapshot_id.to_string()).collect(),
        json: json!({ "Snapshots": snapshots }),
    };
    output::emit(ui.output, &table)
}

fn state(snapshot: &Snapshot) -> &'static str {
    match snapshot.state {
        SnapshotState::Pending => "pending",
        SnapshotState::Completed => "completed",
        SnapshotState::Error => "error",
    }
}
