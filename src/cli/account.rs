//! `spore product`, `usage`, `events` and `store`: what concerns an account rather than an object.

use super::answer;
use super::output::{self, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::account::Entry;
use crate::service::usage::Usage;
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

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
    /// Only those about these objects: ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// Do a product command.
///
/// # Errors
/// A code is malformed or not accepted.
pub fn product(service: &Service, ui: &Ui, command: &ProductCommand) -> Result<ExitCode> {
    match command {
        ProductCommand::Accept { codes } => {
            Ok(answer::each(codes, |code| service.accept_product(code)))
        }
        ProductCommand::Cancel { codes } => {
            Ok(answer::each(codes, |code| service.cancel_product(code)))
        }
        ProductCommand::Ls => {
            let codes = service.accepted_products();
            let table = Table {
                columns: vec!["PRODUCT"],
                rows: codes.iter().map(|code| vec![code.clone()]).collect(),
                json: json!({ "ProductCodes": codes }),
                ids: codes,
            };
            output::emit(ui.output, &table)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Do a store command.
///
/// # Errors
/// As [`Service::share_store`]'s and [`Service::admit_user`]'s.
pub fn store(service: &Service, command: &StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Share => service.share_store().map(|()| ExitCode::SUCCESS),
        StoreCommand::Admit { users } => Ok(answer::each(users, |user| service.admit_user(user))),
    }
}

/// What happened to objects, in the order of time.
///
/// # Errors
/// A journal can't be read.
pub fn events(service: &Service, ui: &Ui, args: &EventsArgs) -> Result<ExitCode> {
    let entries = service.describe_events(&args.ids)?;
    let event = |entry: &Entry| json!(entry.event).as_str().map(str::to_owned).unwrap_or_default();
    let detail = |entry: &Entry| {
        let text = |field: &str| entry.record[field].as_str().unwrap_or_default().to_owned();
        [text("State"), text("Name")].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>()
    };
    let row = |entry: &Entry| {
        vec![
            entry.event_time.clone(),
            entry.account_id.clone(),
            entry.cause.as_ref().unwrap_or(&entry.command).clone(),
            event(entry),
            entry.kind.clone(),
            entry.id.clone(),
            detail(entry).join(" "),
        ]
    };
    let table = Table {
        columns: vec!["TIME", "ACCOUNT", "BY", "EVENT", "KIND", "ID", "DETAIL"],
        rows: entries.iter().map(row).collect(),
        ids: entries.iter().map(|entry| entry.id.clone()).collect(),
        json: json!({ "Events": entries }),
    };
    output::emit(ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}

/// What was used, and what the owners of images charge for it. A report, not a bill.
///
/// # Errors
/// The journal or the store can't be read.
pub fn usage(service: &Service, ui: &Ui) -> Result<ExitCode> {
    let rows = service.describe_usage()?;
    let row = |usage: &Usage| {
        vec![
            usage.account_id.clone(),
            usage.image_id.clone().unwrap_or("-".into()),
            usage.product_codes.join(","),
            format!("{:.3}", usage.instance_seconds()),
            usage.charge().unwrap_or("-".into()),
            format!("{:.6}", usage.volume_gib_hours()),
            format!("{:.6}", usage.snapshot_gib_hours()),
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
            "ACCOUNT",
            "IMAGE",
            "PRODUCTS",
            "INSTANCE-SECONDS",
            "CHARGE",
            "VOLUME-GIB-HOURS",
            "SNAPSHOT-GIB-HOURS",
        ],
        rows: rows.iter().map(row).collect(),
        ids: rows.iter().filter_map(|usage| usage.image_id.clone()).collect(),
        json: json!({ "Usage": rows.iter().map(object).collect::<Vec<_>>() }),
    };
    output::emit(ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}
