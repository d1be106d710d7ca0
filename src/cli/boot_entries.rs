//! `spore image boot-entries`.

use super::output::{self, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::image::catalog;
use crate::inspect::boot_entries::{self, Listed};
use crate::store::Store;
use serde_json::json;
use std::process::ExitCode;

/// List the entries of an image's boot menu.
///
/// # Errors
/// The image is unknown, or has no menu that can be read.
pub fn run(store: &Store, ui: &Ui, image: &str) -> Result<ExitCode> {
    let image = catalog::resolve(store, image)?;
    let (menu, entries) = boot_entries::list(store, &image)?;
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let row = |entry: &Listed| {
        vec![
            if entry.default { "*" } else { "" }.to_owned(),
            entry.index.clone(),
            entry.title.clone(),
            dash(&entry.kernel),
            dash(&entry.problem),
        ]
    };
    let table = Table {
        columns: vec!["", "INDEX", "TITLE", "KERNEL", "PROBLEM"],
        rows: entries.iter().map(row).collect(),
        ids: entries.iter().map(|entry| entry.index.clone()).collect(),
        json: json!({ "ImageId": image.image_id, "Menu": menu, "BootEntries": entries }),
    };
    output::emit(ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}
