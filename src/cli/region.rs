//! `spore region …`.

use super::output::{self, Output, Table};
use super::select;
use crate::error::Result;
use crate::image::region::{self, Location};
use crate::store::Store;
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

/// Verbs on regions.
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// Name a region: another store that images are copied to and from
    ///
    /// LOCATION is a directory (made if it is not there). The name is yours alone.
    #[command(after_long_help = "Examples:\n  \
        spore region add usb /media/usb/spore\n  \
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
pub fn run(command: &RegionCommand, output: Output) -> Result<ExitCode> {
    let store = Store::open()?;
    match command {
        RegionCommand::Add { name, location } => {
            let region = region::add(&store, name, location.clone())?;
            select::made(output, "RegionName", &region.region_name)?;
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
            output::emit(output, &table)?;
            Ok(ExitCode::SUCCESS)
        }
        RegionCommand::Rm { regions } => {
            Ok(select::each(regions, |name| region::remove(&store, name)))
        }
    }
}
