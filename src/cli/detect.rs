//! `spore image register --dry-run`: how a disk would boot, and why.

use super::output::{self, Table};
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::import::SourceFormat;
use crate::inspect::boot_method::{self, Proposal};
use crate::record::image::Image;
use crate::snapshot;
use crate::store::Store;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Look at a disk or a snapshot and print what is proposed.
///
/// # Errors
/// Neither is given, or it can't be read.
pub fn propose(
    store: &Store,
    ui: &Ui,
    root: (Option<&Path>, Option<&str>),
    format: Option<SourceFormat>,
) -> Result<ExitCode> {
    let proposal = match root {
        (Some(disk), _) => boot_method::of_file(disk, format)?,
        (None, Some(text)) => boot_method::of_snapshot(store, &snapshot::resolve(store, text)?)?,
        (None, None) => return Err(Error::usage("--dry-run looks at a --disk or a --snapshot")),
    };
    output::emit(ui.output, &table(&proposal))?;
    Ok(ExitCode::SUCCESS)
}

/// Warn of an image that firmware is to boot and can't.
pub fn warn(store: &Store, image: &Image) {
    if image.kernel_id.is_some() {
        return;
    }
    let look = |id| boot_method::of_snapshot(store, &store.snapshots().get(id)?);
    // The image is registered; a disk that can't be looked at is no reason to say otherwise.
    let Some(Ok(proposal)) = image.root_snapshot().map(look) else { return };
    let why = proposal.reasons.join("; ");
    match (proposal.virtualization_type, proposal.kernel_id) {
        (Some("hvm"), _) => {}
        (_, Some(kernel)) => eprintln!(
            "spore: warning: firmware may not boot {}: {why}; --kernel {kernel} would",
            image.image_id
        ),
        _ => eprintln!(
            "spore: warning: nothing was found on {} that boots: {why}; give --kernel FILE and --initrd FILE",
            image.image_id
        ),
    }
}

fn table(proposal: &Proposal) -> Table {
    let (method, options) = match (proposal.virtualization_type, proposal.kernel_id) {
        (Some(kind), Some(kernel)) => (format!("{kind}, {kernel}"), format!("--kernel {kernel}")),
        (Some(kind), None) => (format!("{kind}, by firmware"), "no --kernel".to_owned()),
        (None, _) => ("nothing boots from it".into(), "--kernel FILE --initrd FILE".to_owned()),
    };
    let mut rows = vec![row("boot method", method), row("register with", options)];
    rows.extend(proposal.reasons.iter().map(|why| row("because", why.clone())));
    rows.push(row("partition table", proposal.disk.partition_table.clone()));
    rows.extend(proposal.disk.file_systems.iter().map(|found| row("file system", found.clone())));
    rows.extend(proposal.alternatives.iter().map(|other| row("or", other.clone())));
    Table {
        columns: vec!["WHAT", "FOUND"],
        rows,
        ids: proposal.kernel_id.iter().map(ToString::to_string).collect(),
        json: json!(proposal),
    }
}

fn row(what: &str, found: String) -> Vec<String> {
    vec![what.to_owned(), found]
}
