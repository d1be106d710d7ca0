//! `spore product`, `usage`, `events` and `store`: what concerns an account rather than an object.

use super::answer;
use super::output::{self, Cell, Column, Format, Table};
use super::ui::Ui;
use crate::error::{Result, one_line};
use crate::service::Service;
use crate::service::account::Entry;
use crate::service::usage::Usage;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

/// Verbs on products.
#[derive(Debug, Subcommand)]
pub enum ProductCommand {
    /// Agree to the terms of products, so that images which carry their codes can be launched
    Accept {
        /// Product codes: 'spore image show' names an image's
        #[arg(required = true, value_name = "CODE")]
        codes: Vec<String>,
    },
    /// Take an acceptance back; instances go on
    Cancel {
        /// Product codes
        #[arg(required = true, value_name = "CODE")]
        codes: Vec<String>,
    },
    /// List accepted products
    #[command(visible_alias = "list")]
    Ls,
}

/// Verbs on the store itself.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Share the store with all users of this machine
    ///
    /// Everybody may then use it through SPORE_HOME, and sees what is shared with them: 'spore
    /// image share'. What belongs to whom is held by the kernel: sticky directories and access
    /// control lists. What is in the store already stays as private as it was; the built-in image
    /// is everybody's. Run it again after an update.
    #[command(
        after_long_help = "Examples:\n  sudo SPORE_HOME=/var/lib/spore spore store share\n  \
        SPORE_HOME=/var/lib/spore spore image ls --quick-start"
    )]
    Share,
    /// Make users' accounts in a shared store, before anybody else takes their names
    ///
    /// An account is made by its user's first command, unless it is there. Whoever was faster with
    /// a user's name only keeps that one from it: the account has another name then, until this
    /// gives it its own. Root may do this for everybody.
    #[command(
        after_long_help = "Examples:\n  sudo SPORE_HOME=/var/lib/spore spore store admit alice bob 1003"
    )]
    Admit {
        /// Users, by name or uid
        #[arg(required = true, value_name = "USER")]
        users: Vec<String>,
    },
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only those about these objects: ids, prefixes of ids, or names
    #[arg(value_name = "OBJECT")]
    objects: Vec<String>,
    /// Go on, and tell what happens from now on too, a line each; ^C ends it
    #[arg(short, long)]
    follow: bool,
}

/// Do a product command.
///
/// # Errors
/// A code is malformed or not accepted.
pub fn product(service: &Service, ui: &Ui, command: &ProductCommand) -> Result<ExitCode> {
    match command {
        ProductCommand::Accept { codes } => {
            Ok(answer::each(ui, codes, |code| service.accept_product(code)))
        }
        ProductCommand::Cancel { codes } => {
            Ok(answer::each(ui, codes, |code| service.cancel_product(code)))
        }
        ProductCommand::Ls => {
            let codes = service.accepted_products();
            let rows = codes.iter().map(|code| vec![code.clone()]).collect();
            let json = json!({ "ProductCodes": codes });
            let table = Table::of_texts(vec!["PRODUCT"], rows, codes, json);
            output::emit(&ui.output, &table)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Do a store command.
///
/// # Errors
/// As [`Service::share_store`]'s and [`Service::admit_user`]'s.
pub fn store(service: &Service, ui: &Ui, command: &StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Share => service.share_store().map(|()| ExitCode::SUCCESS),
        StoreCommand::Admit { users } => {
            Ok(answer::each(ui, users, |user| service.admit_user(user)))
        }
    }
}

/// What happened to objects, in the order of time.
///
/// # Errors
/// A journal can't be read.
pub fn events(service: &Service, ui: &Ui, args: &EventsArgs) -> Result<ExitCode> {
    let entries = service.describe_events(&args.objects)?;
    output::emit(&ui.output, &table(&entries, ui.output.format))?;
    if args.follow { follow(service, ui, args, &entries) } else { Ok(ExitCode::SUCCESS) }
}

/// Tells what has been added to the journals since, again and again.
fn follow(service: &Service, ui: &Ui, args: &EventsArgs, reported: &[Entry]) -> Result<ExitCode> {
    // An account's own stay in their order, whatever others add between them.
    let mut seen: HashMap<String, usize> = HashMap::new();
    let count = |seen: &mut HashMap<String, usize>, entry: &Entry| {
        *seen.entry(entry.account_id.clone()).or_default() += 1;
    };
    reported.iter().for_each(|entry| count(&mut seen, entry));
    loop {
        std::thread::sleep(LOOK_AGAIN);
        let mut now: HashMap<String, usize> = HashMap::new();
        for entry in service.describe_events(&args.objects)? {
            count(&mut now, &entry);
            if now.get(&entry.account_id) > seen.get(&entry.account_id) {
                tell(ui, &entry)?;
            }
        }
        seen = now;
    }
}

/// How long what happens may wait to be told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One event on a line of its own.
fn tell(ui: &Ui, entry: &Entry) -> Result<()> {
    let table = table(std::slice::from_ref(entry), ui.output.format);
    let line = match ui.output.format {
        _ if ui.output.quiet => entry.id.clone(),
        Format::Json | Format::Yaml => output::escaped(&json!(entry).to_string()),
        Format::Table | Format::Csv => {
            let separator = if ui.output.format == Format::Csv { "," } else { "  " };
            table.raw().next().unwrap_or_default().join(separator)
        }
    };
    output::write_stdout(format!("{}\n", one_line(&line)).as_bytes())
}

fn table(entries: &[Entry], format: Format) -> Table {
    let event = |entry: &Entry| json!(entry.event).as_str().map(str::to_owned).unwrap_or_default();
    let detail = |entry: &Entry| {
        let text = |field: &str| entry.record[field].as_str().unwrap_or_default().to_owned();
        let texts = [text("State"), text("Name")].into_iter().filter(|text| !text.is_empty());
        texts.reduce(|all, text| format!("{all} {text}"))
    };
    let row = |entry: &Entry| {
        vec![
            Cell::Time(entry.event_time.clone()),
            event(entry).into(),
            entry.kind.as_str().into(),
            entry.id.as_str().into(),
            entry.cause.as_ref().unwrap_or(&entry.command).as_str().into(),
            detail(entry).into(),
            entry.account_id.as_str().into(),
        ]
    };
    Table {
        columns: vec![
            Column::new("EventTime", "TIME"),
            Column::new("Event", "EVENT"),
            Column::new("Kind", "KIND"),
            Column::new("Id", "ID"),
            Column::text("Command", "BY"),
            Column::text("Detail", "DETAIL"),
            Column::new("AccountId", "ACCOUNT"),
        ],
        rows: entries.iter().map(row).collect(),
        ids: entries.iter().map(|entry| entry.id.clone()).collect(),
        // Journals are long: it is made where it is printed.
        json: match format {
            Format::Json | Format::Yaml => json!({ "Events": entries }),
            Format::Table | Format::Csv => Value::Null,
        },
    }
}

/// What was used, and what the owners of images charge for it. A report, not a bill.
///
/// # Errors
/// The journal or the store can't be read.
pub fn usage(service: &Service, ui: &Ui) -> Result<ExitCode> {
    let rows = service.describe_usage()?;
    let row = |usage: &Usage| {
        vec![
            usage.account_id.as_str().into(),
            usage.image_id.clone().into(),
            usage.product_codes.join(",").into(),
            format!("{:.3}", usage.instance_seconds()).into(),
            usage.charge().into(),
            format!("{:.6}", usage.volume_gib_hours()).into(),
            format!("{:.6}", usage.snapshot_gib_hours()).into(),
        ]
    };
    let object = |usage: &Usage| {
        json!({
            "AccountId": usage.account_id,
            "ImageId": usage.image_id,
            "ProductCodes": usage.product_codes,
            "InstanceSeconds": usage.instance_seconds(),
            "HourlyRate": usage.hourly_rate,
            "Charge": usage.charge(),
            "VolumeGibHours": usage.volume_gib_hours(),
            "SnapshotGibHours": usage.snapshot_gib_hours(),
        })
    };
    let table = Table {
        columns: vec![
            Column::new("AccountId", "ACCOUNT"),
            Column::new("ImageId", "IMAGE"),
            Column::new("ProductCodes", "PRODUCTS"),
            Column::new("InstanceSeconds", "INSTANCE-SECONDS"),
            Column::new("Charge", "CHARGE"),
            Column::new("VolumeGibHours", "VOLUME-GIB-HOURS"),
            Column::new("SnapshotGibHours", "SNAPSHOT-GIB-HOURS"),
        ],
        rows: rows.iter().map(row).collect(),
        ids: rows.iter().filter_map(|usage| usage.image_id.clone()).collect(),
        json: json!({ "Usage": rows.iter().map(object).collect::<Vec<_>>() }),
    };
    output::emit(&ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}
