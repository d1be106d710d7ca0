//! `spore snapshot …`.

use super::filter::Filter;
use super::image::{FormatArg, cancellable, tag};
use super::output::{self, Output, Table, human_bytes};
use super::select::{self, Filters};
use crate::error::Result;
use crate::image::import::{Options, Source};
use crate::image::record::{Snapshot, Tag};
use crate::image::snapshot;
use crate::store::Store;
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verbs on snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
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
    },
}

/// EC2's filters of DescribeSnapshots.
const FILTERS: Filters = &[
    ("description", "Description"),
    ("owner-id", "OwnerId"),
    ("snapshot-id", "SnapshotId"),
    ("start-time", "StartTime"),
    ("volume-size", "VolumeSize"),
];

/// Do a snapshot command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &SnapshotCommand, output: Output) -> Result<ExitCode> {
    let store = Store::open()?;
    match command {
        SnapshotCommand::Import { disk, format, description, tags } => {
            let source = Source::from_argument(disk.clone());
            let options = Options { format: format.format, progress: true };
            let work = || snapshot::import(&store, &source, &options, description, tags.clone());
            let Some(snapshot) = cancellable(work)? else { return Ok(ExitCode::from(130)) };
            select::made(output, "SnapshotId", snapshot.snapshot_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Ls { filters } => {
            let snapshots = store.snapshots().list()?.or_warn();
            list(output, select::select(snapshots, filters, FILTERS)?)?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Show { snapshots } => {
            select::show(output, "Snapshots", snapshots, |text| store.snapshots().resolve(text))
        }
        SnapshotCommand::Verify { snapshots } => Ok(select::each(snapshots, |text| {
            let found = store.snapshots().resolve(text)?;
            snapshot::verify(&store, &found)?;
            output::write_stdout(format!("{}: OK\n", found.snapshot_id).as_bytes())
        })),
        SnapshotCommand::Delete { snapshots } => Ok(select::each(snapshots, |text| {
            snapshot::delete(&store, &store.snapshots().resolve(text)?.snapshot_id)
        })),
    }
}

fn list(output: Output, snapshots: Vec<Snapshot>) -> Result<()> {
    let row = |snapshot: &Snapshot| {
        vec![
            snapshot.snapshot_id.to_string(),
            human_bytes(snapshot.size_bytes),
            snapshot.start_time.clone(),
            snapshot.description.clone(),
        ]
    };
    let table = Table {
        columns: vec!["ID", "SIZE", "STARTED", "DESCRIPTION"],
        rows: snapshots.iter().map(row).collect(),
        ids: snapshots.iter().map(|s| s.snapshot_id.to_string()).collect(),
        json: json!({ "Snapshots": snapshots }),
    };
    output::emit(output, &table)
}
