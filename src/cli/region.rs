//! `spore region …`.

use super::output::{self, Table};
use super::select;
use super::ui::Ui;
use crate::error::Result;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::store::{Record, Store};
use crate::transfer::endpoint;
use crate::transfer::region::{self, Location};
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

/// Verbs on regions.
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// Name a region: another store that images are copied to and from
    ///
    /// LOCATION is a directory (made if it is not there), a bucket of an S3-compatible service
    /// (s3://bucket/prefix?endpoint=https://host&region=NAME; credentials are in AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY) or a repository of an OCI registry (oci://host/repository; credentials are those of
    /// 'docker login'; a registry on this machine is spoken to in plain HTTP). The name is yours alone.
    #[command(after_long_help = "Examples:\n  \
        spore region add usb /media/usb/spore\n  \
        spore region add bucket \\\n    's3://images/spore?endpoint=https://minio.example.org'\n  \
        spore region add hub oci://ghcr.io/team/images\n  \
        spore image copy debian --to usb --name debian\n  \
        SPORE_HOME=/media/usb/spore spore image ls")]
    Add {
        /// 1 to 64 lower-case letters, digits and dashes
        name: String,
        /// Where it is
        #[arg(value_parser = |text: &str| text.parse::<Location>())]
        location: Location,
    },
    /// List regions
    #[command(visible_alias = "list")]
    Ls,
    /// Show a region, the images in it and the snapshots that are not an image's
    Show {
        /// Its name
        region: String,
    },
    /// Forget regions; what is in them stays
    #[command(visible_alias = "remove")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "REGION")]
        regions: Vec<String>,
    },
}

/// Do a region command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &RegionCommand, ui: &Ui) -> Result<ExitCode> {
    let store = ui.store()?;
    match command {
        RegionCommand::Add { name, location } => {
            endpoint::probe(&store, name, location)?;
            let region = region::add(&store, name, location.clone())?;
            select::made(ui, "RegionName", &region.region_name)?;
            Ok(ExitCode::SUCCESS)
        }
        RegionCommand::Ls => {
            let regions = region::list(&store)?;
            let row = |r: &region::Region| vec![r.region_name.clone(), r.endpoint.to_string()];
            let table = Table {
                columns: vec!["REGION", "LOCATION"],
                rows: regions.iter().map(row).collect(),
                ids: regions.iter().map(|r| r.region_name.clone()).collect(),
                json: json!({ "Regions": regions }),
            };
            output::emit(ui.output, &table)?;
            Ok(ExitCode::SUCCESS)
        }
        RegionCommand::Show { region } => {
            show(&store, region, ui)?;
            Ok(ExitCode::SUCCESS)
        }
        RegionCommand::Rm { regions } => {
            Ok(select::each(regions, |name| region::remove(&store, name)))
        }
    }
}

fn show(store: &Store, name: &str, ui: &Ui) -> Result<()> {
    let region = region::find(store, name)?;
    let place = endpoint::find(store, Some(name))?;
    let (mut images, snapshots) = (endpoint::images(&place)?, endpoint::snapshots(&place)?);
    images.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |image: &Image| {
        let (id, name) = (image.image_id.to_string(), image.name.clone());
        vec![id, name, image.owner_id.clone(), image.creation_date.clone()]
    };
    let snapshot = |snapshot: &Snapshot| {
        let (id, name) = (snapshot.snapshot_id.to_string(), snapshot.name().unwrap_or("-"));
        vec![id, name.to_owned(), snapshot.owner_id.clone(), snapshot.start_time.clone()]
    };
    let rows: Vec<_> = images.iter().map(row).chain(snapshots.iter().map(snapshot)).collect();
    let table = Table {
        columns: vec!["ID", "NAME", "OWNER", "CREATED"],
        ids: rows.iter().map(|row| row[0].clone()).collect(),
        rows,
        json: json!({ "Regions": [{
            "RegionName": region.region_name, "Endpoint": region.endpoint, "Images": images,
            "Snapshots": snapshots,
        }] }),
    };
    output::emit(ui.output, &table)
}
