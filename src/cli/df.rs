//! `spore df`: what objects take on the disk.

use super::output::{self, Cell, Column, Format, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::account::DiskUsage;
use crate::service::prune::Prune;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Print each object's size, what of it is shared and what is its own.
///
/// # Errors
/// The store can't be read.
pub fn df(service: &Service, ui: &Ui) -> Result<ExitCode> {
    let usages = service.describe_disk_usage()?;
    let unused = service.find_unused(Prune::default())?;
    let reclaimable: u64 = unused.iter().map(|unused| unused.size_bytes).sum();
    let mut rows: Vec<Vec<Cell>> = usages.objects.iter().map(row).collect();
    if ui.output.format == Format::Table {
        rows.push(sum("total", usages.total));
        rows.push(sum("prune gives back", reclaimable));
    }
    let json = |usage: &DiskUsage| -> Value {
        json!({
            "ResourceType": usage.kind,
            "ResourceId": usage.id,
            "Name": usage.name,
            "SizeBytes": usage.size,
            "SharedBytes": usage.shared,
            "OwnBytes": usage.own,
        })
    };
    let objects = usages.objects.iter().filter(|usage| !usage.id.is_empty());
    let table = Table {
        columns: vec![
            Column::new("ResourceType", "KIND"),
            Column::new("ResourceId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("SharedBytes", "SHARED"),
            Column::new("OwnBytes", "OWN"),
        ],
        rows,
        ids: objects.map(|usage| usage.id.clone()).collect(),
        json: json!({
            "DiskUsage": usages.objects.iter().map(json).collect::<Vec<_>>(),
            "TotalBytes": usages.total,
            "ReclaimableBytes": reclaimable,
        }),
    };
    output::emit(&ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}

fn row(usage: &DiskUsage) -> Vec<Cell> {
    let object = !usage.id.is_empty();
    let disk = |bytes| if object { Cell::Bytes(bytes) } else { Cell::None };
    vec![
        usage.kind.into(),
        Some(usage.id.as_str()).filter(|_| object).into(),
        usage.name.as_deref().into(),
        disk(usage.size),
        disk(usage.shared),
        Cell::Bytes(usage.own),
    ]
}

fn sum(what: &str, bytes: u64) -> Vec<Cell> {
    vec![what.into(), Cell::None, Cell::None, Cell::None, Cell::None, Cell::Bytes(bytes)]
}
