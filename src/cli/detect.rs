//! `spore image register --dry-run`: how a disk would boot, and why.

use super::output::{self, Table};
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::record::image::BootMode;
use crate::service::Service;
use crate::service::register::{Proposal, Root};
use serde_json::json;
use std::process::ExitCode;

/// Look at a disk or a snapshot and print what is proposed.
///
/// # Errors
/// None is given, or it can't be read.
pub fn propose(service: &Service, ui: &Ui, root: Option<&Root>) -> Result<ExitCode> {
    let root = root.ok_or_else(|| Error::usage("--dry-run looks at a --disk or a --snapshot"))?;
    output::emit(&ui.output, &table(&service.propose_boot_method(root)?))?;
    Ok(ExitCode::SUCCESS)
}

fn table(proposal: &Proposal) -> Table {
    let (method, options) = match (proposal.virtualization_type, proposal.kernel_id) {
        (Some(kind), Some(kernel)) => (format!("{kind}, {kernel}"), format!("--kernel {kernel}")),
        (Some(kind), None) if proposal.boot_mode == Some(BootMode::Uefi) => {
            (format!("{kind}, by UEFI firmware"), "--boot-mode uefi".to_owned())
        }
        (Some(kind), None) => (format!("{kind}, by firmware"), "no --kernel".to_owned()),
        (None, _) => ("nothing boots from it".into(), "--kernel FILE --initrd FILE".to_owned()),
    };
    let mut rows = vec![row("boot method", method), row("register with", options)];
    rows.extend(proposal.reasons.iter().map(|why| row("because", why.clone())));
    rows.push(row("partition table", proposal.disk.partition_table.clone()));
    rows.extend(proposal.disk.file_systems.iter().map(|found| row("file system", found.clone())));
    rows.extend(proposal.alternatives.iter().map(|other| row("or", other.clone())));
    let ids = proposal.kernel_id.iter().map(ToString::to_string).collect();
    Table::of_texts(vec!["WHAT", "FOUND"], rows, ids, json!(proposal))
}

fn row(what: &str, found: String) -> Vec<String> {
    vec![what.to_owned(), found]
}
