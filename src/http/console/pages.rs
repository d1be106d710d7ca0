//! The dashboard, the instances, and the page of one.

use super::mappings::VolumeRow;
use super::view::{Cell, Confirm, Dashboard, Instance, List, Row, Tab, Table, at, tag};
use super::visit::{Answer, Visit, nowhere, page};
use crate::error::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Most rows of a list; a search finds the rest.
const MAX_ROWS: usize = 500;
/// What may be done to instances.
const POWER: &[(&str, &str)] =
    &[("start", "Start"), ("stop", "Stop"), ("reboot", "Reboot"), ("terminate", "Terminate")];

/// The rows in which a search's words are.
pub fn found(rows: impl Iterator<Item = Row>, search: &str) -> Vec<Row> {
    let words: Vec<String> = search.split_whitespace().map(str::to_lowercase).collect();
    let matches = |row: &Row| {
        let all: Vec<&str> = row.cells.iter().map(|cell| cell.text.as_str()).collect();
        let all = all.join(" ").to_lowercase();
        words.iter().all(|word| all.contains(word))
    };
    rows.filter(matches).take(MAX_ROWS).collect()
}

fn instance_table(instances: &[Value], search: &str, choose: bool) -> Table {
    let rows = instances.iter().map(|instance| {
        let id = at(instance, "/InstanceId");
        Row {
            cells: vec![
                Cell::of(tag(instance, "Name")),
                Cell::link(id.clone(), format!("/console/instances/{id}")),
                Cell::state(at(instance, "/State/Name")),
                Cell::at(instance, "/InstanceType"),
                Cell::at(instance, "/ImageId"),
                Cell::at(instance, "/PrivateIpAddress"),
                Cell::at(instance, "/LaunchTime"),
            ],
            id,
        }
    });
    let columns = vec!["Name", "Instance", "State", "Type", "Image", "Address", "Launched"];
    Table { caption: "Instances", columns, rows: found(rows, search), choose }
}

/// The dashboard.
///
/// # Errors
/// The store can't be read.
pub fn dashboard(visit: &Visit<'_>) -> Result<Answer> {
    let instances = visit.instances(None)?;
    let running = instances.iter().filter(|i| i["State"]["Name"] == "running").count();
    let own = json!({ "Owners": ["self"] });
    let count = |action, member, request| visit.listed(action, member, request).map(|l| l.len());
    let counts = vec![
        (running, "running instances", "instances?q=running"),
        (instances.len(), "instances", "instances"),
        (count("DescribeImages", "Images", own)?, "own AMIs", "images"),
        (count("DescribeVolumes", "Volumes", json!({}))?, "volumes", "volumes"),
        (count("DescribeSnapshots", "Snapshots", json!({}))?, "snapshots", "snapshots"),
    ];
    let mut table = instance_table(&instances, "", false);
    table.rows.truncate(10);
    page(&Dashboard { frame: visit.frame("", "Dashboard"), counts, table })
}

/// The instances.
///
/// # Errors
/// They can't be read.
pub fn instances(visit: &Visit<'_>) -> Result<Answer> {
    let search = visit.query.text("q").to_owned();
    let table = instance_table(&visit.instances(None)?, &search, true);
    let frame = visit.frame("instances", "Instances");
    let (tabs, keep) = (Vec::<Tab>::new(), Vec::new());
    page(&List {
        frame,
        tabs,
        search,
        keep,
        actions: POWER.to_vec(),
        table,
        forms: Vec::new(),
        hint: "",
    })
}

/// What is done to the instances that were chosen.
///
/// # Errors
/// None was; the action's.
pub fn power(visit: &Visit<'_>) -> Result<Answer> {
    let asked = visit.form.text("action");
    let action = match asked {
        "start" => "StartInstances",
        "stop" => "StopInstances",
        "reboot" => "RebootInstances",
        "terminate" => "TerminateInstances",
        _ => return Err(nowhere()),
    };
    let ids = visit.form.all("id");
    if asked == "terminate" && !ids.is_empty() && !visit.form.is_set("sure") {
        let field = |id: &String| ("id".to_owned(), id.clone());
        let more = [("action", "terminate"), ("sure", "yes")];
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        return page(&Confirm {
            frame: visit.frame("instances", "Terminate these instances?"),
            to: "/console/instances/action".to_owned(),
            note: "Their machines end at once, and the volumes that are deleted with them are lost. \
                   This can't be undone.",
            fields: ids.iter().map(field).chain(more).collect(),
            what: ids,
            button: "Terminate",
        });
    }
    visit.perform(action, json!({ "InstanceIds": ids }))?;
    Ok(Answer::SeeOther(format!("/console/instances?done={asked}")))
}

/// One instance.
///
/// # Errors
/// It is not there.
pub fn instance(visit: &Visit<'_>, id: &str) -> Result<Answer> {
    let record = visit.instances(Some(id))?.into_iter().next().ok_or_else(nowhere)?;
    let id = at(&record, "/InstanceId");
    let output = visit.perform("GetConsoleOutput", json!({ "InstanceId": id }));
    let output = output.ok().and_then(|o| STANDARD.decode(o["Output"].as_str()?).ok());
    let of = json!({ "Filters": [{ "Name": "attachment.instance-id", "Values": [id] }] });
    let volumes = visit.listed("DescribeVolumes", "Volumes", of)?;
    let columns: &[(&str, &str)] = &[
        ("Device", "/Attachments/0/Device"),
        ("Volume", "/VolumeId"),
        ("GiB", "/Size"),
        ("State", "/State"),
        ("Deleted with it", "/Attachments/0/DeleteOnTermination"),
    ];
    let image = at(&record, "/ImageId");
    let details = vec![
        ("State", Cell::state(at(&record, "/State/Name"))),
        ("Name", Cell::of(tag(&record, "Name"))),
        ("Type", Cell::at(&record, "/InstanceType")),
        ("Image", Cell::link(image.clone(), format!("/console/images/{image}"))),
        ("Private address", Cell::at(&record, "/PrivateIpAddress")),
        ("Subnet", Cell::at(&record, "/SubnetId")),
        ("Key pair", Cell::at(&record, "/KeyName")),
        ("Launched", Cell::at(&record, "/LaunchTime")),
        ("Launch index", Cell::at(&record, "/AmiLaunchIndex")),
        ("Architecture", Cell::at(&record, "/Architecture")),
        ("Root device", Cell::at(&record, "/RootDeviceName")),
        ("Why", Cell::at(&record, "/StateReason/Message")),
    ];
    let root = at(&record, "/RootDeviceName");
    let mut rows: Vec<VolumeRow> = volumes.iter().map(|one| VolumeRow::of(one, &root)).collect();
    rows.extend(VolumeRow::more(&rows));
    page(&Instance {
        frame: visit.frame("instances", format!("Instance {id}")),
        details,
        volumes: table_of("Volumes", columns, &volumes),
        tags: tags(&record),
        rows,
        drawn: visit.monitor.charts(&id),
        running: record["State"]["Name"] == "running",
        console: printable(&output.unwrap_or_default()),
        actions: POWER.to_vec(),
        id,
    })
}

/// A table of records' members.
pub fn table_of(
    caption: &'static str,
    columns: &[(&'static str, &str)],
    records: &[Value],
) -> Table {
    let rows = records.iter().map(|record| Row {
        id: String::new(),
        cells: columns.iter().map(|(_, pointer)| Cell::shown(record, pointer)).collect(),
    });
    Table {
        caption,
        columns: columns.iter().map(|(heading, _)| *heading).collect(),
        rows: rows.collect(),
        choose: false,
    }
}

/// A record's tags.
pub fn tags(record: &Value) -> Table {
    let tags = record["Tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |tag| Row {
        id: String::new(),
        cells: vec![Cell::at(tag, "/Key"), Cell::at(tag, "/Value")],
    };
    let rows = tags.iter().map(row).collect();
    Table { caption: "Tags", columns: vec!["Key", "Value"], rows, choose: false }
}

/// What a terminal would show of a guest's output, as text.
fn printable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.peek() == Some(&'[') => {
                rest.next();
                // A control sequence ends with its first letter. (ECMA-48, 5.4)
                rest.by_ref().take(64).find(|c| ('\x40'..='\x7e').contains(c));
            }
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_output_is_text() {
        let output = b"\x1b[1;32mok\x1b[0m\r\n<script>\x07\xff\x1b[";
        assert_eq!(printable(output), "ok\n<script>\u{fffd}");
    }

    #[test]
    fn a_search_finds_all_its_words() {
        let row = |text: &str| Row { id: text.to_owned(), cells: vec![Cell::of(text)] };
        let rows = [row("Web one"), row("web two"), row("db")];
        let found = found(rows.into_iter(), "two WEB");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, "web two");
    }
}
