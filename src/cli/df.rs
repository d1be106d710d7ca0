//! `spore df`: what objects take on the disk.

use super::output::{self, Table, human_bytes};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::account::DiskUsage;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Print each object's size, what of it is shared and what is its own.
///
/// # Errors
/// The store can't be read.
pub fn df(service: &Service, ui: &Ui) -> Result<ExitCode> {
    let usages = service.describe_disk_usage()?;
    let mut rows: Vec<Vec<String>> = usages.objects.iter().map(row).collect();
    rows.push(vec![
        "total".into(),
        "-".into(),
        "-".into(),
        "-".into(),
        "-".into(),
        human_bytes(usages.total),
    ]);
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
    let table = Table {
        columns: vec!["KIND", "ID", "NAME", "SIZE", "SHARED", "OWN"],
        rows,
        ids: usages.objects.iter().map(|usage| usage.id.clone()).collect(),
        json: json!({
            "DiskUsage": usages.objects.iter().map(json).collect::<Vec<_>>(),
            "TotalBytes": usages.total,
        }),
    };
    output::emit(ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}

fn row(usage: &DiskUsage) -> Vec<String> {
    vec![
        usage.kind.to_owned(),
        usage.id.clone(),
        usage.name.clone().unwrap_or_else(|| "-".to_owned()),
        human_bytes(usage.size),
        human_bytes(usage.shared),
        human_bytes(usage.own),
    ]
}
