//! `spore image boot-entries`.

use super::output::{self, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::image_attributes::Listed;
use serde_json::json;
use std::process::ExitCode;

/// List the entries of an image's boot menu.
///
/// # Errors
/// As [`Service::describe_boot_menu`]'s.
pub fn run(service: &Service, ui: &Ui, image: &str) -> Result<ExitCode> {
    let menu = service.describe_boot_menu(image)?;
    let row = |entry: &Listed| {
        vec![
            if entry.default { "*" } else { "" }.into(),
            entry.index.clone().into(),
            entry.title.clone().into(),
            entry.kernel.clone().into(),
            entry.problem.clone().into(),
        ]
    };
    let table = Table {
        columns: vec![
            Column::new("Default", ""),
            Column::new("Index", "INDEX"),
            Column::new("Title", "TITLE"),
            Column::new("Kernel", "KERNEL"),
            Column::new("Problem", "PROBLEM"),
        ],
        rows: menu.boot_entries.iter().map(row).collect(),
        ids: menu.boot_entries.iter().map(|entry| entry.index.clone()).collect(),
        json: json!(menu),
    };
    output::emit(&ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}
