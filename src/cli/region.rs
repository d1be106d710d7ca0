//! `spore region …`.

use super::answer;
use super::output::{self, Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::record::Record;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::service::regions::{DescribedRegion, Location, Region};
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

/// Verbs on regions.
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// Name a region: another store that images are copied to and from
    ///
    /// LOCATION is a directory (made if it is not there), a bucket of an S3-compatible service
    /// (s3://bucket/prefix?endpoint=https://host&region=NAME; credentials are in AWS_ACCESS_KEY_ID
    /// and AWS_SECRET_ACCESS_KEY) or a repository of an OCI registry (oci://host/repository;
    /// credentials are those of 'docker login'; a registry on this machine is spoken to in plain
    /// HTTP). The name is yours alone.
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
    #[command(visible_alias = "inspect")]
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
    let service = ui.service()?;
    match command {
        RegionCommand::Add { name, location } => {
            let region = service.add_region(name, location)?;
            answer::made(ui, "RegionName", &region.region_name)?;
        }
        RegionCommand::Ls => list(ui, &service.describe_regions()?)?,
        RegionCommand::Show { region } => show(ui, &service.describe_region(region)?)?,
        RegionCommand::Rm { regions } => {
            return Ok(answer::each(ui, regions, |name| service.remove_region(name)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(ui: &Ui, regions: &[Region]) -> Result<()> {
    let row = |r: &Region| vec![r.region_name.clone(), r.endpoint.to_string()];
    let table = Table::of_texts(
        vec!["REGION", "LOCATION"],
        regions.iter().map(row).collect(),
        regions.iter().map(|r| r.region_name.clone()).collect(),
        json!({ "Regions": regions }),
    );
    output::emit(&ui.output, &table)
}

fn show(ui: &Ui, region: &DescribedRegion) -> Result<()> {
    let row = |image: &Image| {
        let (id, name) = (image.image_id.to_string(), image.name.clone());
        let created = Cell::Time(image.creation_date.clone());
        vec![id.into(), name.into(), image.owner_id.clone().into(), created]
    };
    let snapshot = |snapshot: &Snapshot| {
        let (id, created) = (&snapshot.snapshot_id, Cell::Time(snapshot.start_time.clone()));
        let owner = snapshot.owner_id.clone().into();
        vec![id.to_string().into(), snapshot.name().into(), owner, created]
    };
    let rows = region.images.iter().map(row).chain(region.snapshots.iter().map(snapshot));
    let images = region.images.iter().map(|image| image.image_id.to_string());
    let snapshots = region.snapshots.iter().map(|snapshot| snapshot.snapshot_id.to_string());
    let table = Table {
        columns: vec![
            Column::new("ResourceId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("OwnerId", "OWNER"),
            Column::new("CreationDate", "CREATED"),
        ],
        ids: images.chain(snapshots).collect(),
        rows: rows.collect(),
        json: json!({ "Regions": [region] }),
    };
    output::emit(&ui.output, &table)
}
