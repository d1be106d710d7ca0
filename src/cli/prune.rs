//! `spore prune`: remove what nothing refers to.

use super::answer;
use super::output::{self, Cell, Column, Table, human_bytes};
use super::ui::{Ui, say};
use crate::error::{Code, Error, OrFail, Result};
use crate::service::Service;
use crate::service::prune::{Prune, Unused};
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Arguments of `prune`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore prune --dry-run           what would go, and how much that gives back
  spore prune -y                  without asking
  spore prune --volumes --cache

Exit codes: 0 all of it is gone, or there was nothing; 1 one could not be
removed (the others are), or nobody said yes; 2 the command line is wrong; 125
failure.")]
pub struct PruneArgs {
    /// Volumes too that are attached to nothing, with their content
    #[arg(long)]
    volumes: bool,
    /// Snapshots too that no image refers to: those that 'spore snapshot create' made are backups
    #[arg(long)]
    snapshots: bool,
    /// What is in the cache too, and can be made again
    #[arg(long)]
    cache: bool,
    /// All of these
    #[arg(short, long)]
    all: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,
}

/// `prune`.
///
/// # Errors
/// The store can't be read; nobody said yes.
pub fn prune(service: &Service, ui: &Ui, args: &PruneArgs) -> Result<ExitCode> {
    let request = Prune {
        volumes: args.volumes || args.all,
        snapshots: args.snapshots || args.all,
        cache: args.cache || args.all,
    };
    let unused = service.find_unused(request)?;
    let freed: u64 = unused.iter().map(|unused| unused.size_bytes).sum();
    if unused.is_empty() && ui.output.is_table() {
        say("nothing is unused");
        return Ok(ExitCode::SUCCESS);
    }
    output::emit(&ui.output, &table(&unused, freed))?;
    let (count, freed) = (unused.len(), human_bytes(freed));
    if args.dry_run || unused.is_empty() {
        say(format_args!("{count} would go, which gives back {freed}"));
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirmed(count, &freed)? {
        return Err(Error::refused(Code::OperationNotPermitted, "all of it stays"));
    }
    let code = answer::reported(ui, service.prune(&unused));
    if code == ExitCode::SUCCESS {
        say(format_args!("{count} are gone, which gives back {freed}"));
    }
    Ok(code)
}

/// Whether somebody says yes.
fn confirmed(count: usize, freed: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let why = "nobody can be asked whether these are to be removed";
        return Err(Error::refused(Code::OperationNotPermitted, why)
            .remedy("-y removes them, --dry-run only tells them"));
    }
    eprint!("Remove these {count} for good, which gives back {freed}? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).or_fail(|| "read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn table(unused: &[Unused], freed: u64) -> Table {
    let row = |unused: &Unused| {
        vec![
            unused.resource_type.into(),
            unused.resource_id.as_str().into(),
            unused.name.clone().into(),
            Cell::Bytes(unused.size_bytes),
            unused.why.into(),
        ]
    };
    Table {
        columns: vec![
            Column::new("ResourceType", "KIND"),
            Column::new("ResourceId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("Why", "WHY"),
        ],
        rows: unused.iter().map(row).collect(),
        ids: unused.iter().map(|unused| unused.resource_id.clone()).collect(),
        json: json!({ "Unused": unused, "ReclaimableBytes": freed }),
    }
}
