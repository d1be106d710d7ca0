//! Usage and events: what concerns the store rather than an object.

use super::monitor::bytes;
use super::pages::found;
use super::view::{Cell, List, Object, Row, Table};
use super::visit::{Answer, Visit, page};
use crate::error::Result;
use crate::service::account::{DiskUsage, Entry};
use serde_json::json;
use std::collections::BTreeMap;

/// Most events that are searched.
const MAX_EVENTS: usize = 10_000;

/// What objects take on the disk, and what was used by whom.
///
/// # Errors
/// The store can't be read.
pub fn usage(visit: &Visit<'_>) -> Result<Answer> {
    let service = visit.front.open("")?;
    let disk = service.describe_disk_usage()?;
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in &disk.objects {
        let (count, own) = kinds.entry(one.kind).or_default();
        *count += u64::from(!one.id.is_empty());
        *own += one.own;
    }
    let row = |cells: Vec<Cell>| Row { id: String::new(), cells };
    let by_kind = kinds.iter().map(|(kind, (count, own))| {
        row(vec![Cell::of(*kind), Cell::of(count.to_string()), Cell::of(bytes(*own))])
    });
    let object = |one: &DiskUsage| {
        row(vec![
            Cell::of(one.kind),
            Cell::known(one.id.clone()),
            Cell::of(one.name.clone().unwrap_or_else(|| "-".to_owned())),
            Cell::of(bytes(one.size)),
            Cell::of(bytes(one.shared)),
            Cell::of(bytes(one.own)),
        ])
    };
    let mut objects: Vec<&DiskUsage> =
        disk.objects.iter().filter(|one| !one.id.is_empty()).collect();
    objects.sort_by_key(|one| std::cmp::Reverse(one.own));
    let used = service.describe_usage()?.into_iter().map(|one| {
        row(vec![
            Cell::of(one.account_id.clone()),
            Cell::known(one.image_id.clone().unwrap_or_else(|| "-".to_owned())),
            Cell::of(format!("{:.2}", one.instance_seconds() / 3600.0)),
            Cell::of(format!("{:.2}", one.volume_gib_hours())),
            Cell::of(format!("{:.2}", one.snapshot_gib_hours())),
            Cell::of(one.charge().unwrap_or_else(|| "-".to_owned())),
        ])
    });
    let table = |caption, columns: &[&'static str], rows| Table {
        caption,
        columns: columns.to_vec(),
        rows,
        choose: false,
    };
    let own = ["Kind", "Id", "Name", "Size", "Shared", "Own"];
    let hours =
        ["Account", "Image", "Instance hours", "Volume GiB hours", "Snapshot GiB hours", "Charge"];
    page(&Object {
        frame: visit.frame("usage", "Usage"),
        details: vec![("On the disk, each file once", Cell::of(bytes(disk.total)))],
        tables: vec![
            table("By kind", &["Kind", "Objects", "Own"], by_kind.collect()),
            table("Used since the journal begins", &hours, used.collect()),
            table("On the disk", &own, objects.into_iter().take(500).map(object).collect()),
        ],
        forms: Vec::new(),
        hint: "'spore prune' removes what is left over; 'spore usage' has the same to work with.",
    })
}

/// What happened, the youngest first.
///
/// # Errors
/// A journal can't be read.
pub fn events(visit: &Visit<'_>) -> Result<Answer> {
    let entries = visit.front.open("")?.describe_events(&[])?;
    let search = visit.query.text("q").to_owned();
    let rows = found(entries.iter().rev().take(MAX_EVENTS).map(event), &search);
    let columns = vec!["Time", "Event", "Kind", "Object", "By", "State", "Account"];
    page(&List {
        frame: visit.frame("events", "Events"),
        tabs: Vec::new(),
        search,
        keep: Vec::new(),
        actions: Vec::new(),
        table: Table { caption: "Events, the youngest first", columns, rows, choose: false },
        forms: Vec::new(),
        hint: "'spore events' has all of them.",
    })
}

fn event(entry: &Entry) -> Row {
    let text = |field: &str| entry.record[field].as_str().filter(|text| !text.is_empty());
    let state: Vec<&str> = ["State", "Name"].into_iter().filter_map(text).collect();
    let gone = json!(entry.event) == "removed";
    let id = if gone { Cell::of(entry.id.clone()) } else { Cell::known(entry.id.clone()) };
    Row {
        id: entry.id.clone(),
        cells: vec![
            Cell::of(entry.event_time.clone()),
            Cell::of(json!(entry.event).as_str().unwrap_or("-")),
            Cell::of(entry.kind.clone()),
            id,
            Cell::of(entry.cause.as_ref().unwrap_or(&entry.command).clone()),
            Cell::of(state.join(" ")),
            Cell::of(entry.account_id.clone()),
        ],
    }
}
