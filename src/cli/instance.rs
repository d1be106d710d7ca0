//! The verbs of instances.

use super::args::Targets;
use super::describe;
use super::filter::Filter;
use super::output::{Format, emit};
use super::progress::Progress;
use super::select::finish;
use super::ui::Ui;
use crate::action::parse_duration;
use crate::error::Result;
use crate::instance::client;
use crate::instance::dir::InstanceDir;
use crate::instance::lifecycle::Change;
use crate::record::instance::{InstanceRecord, State};
use crate::service;
use crate::store::Store;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters (values may hold * and ?; several values of one filter are
alternatives, several filters must all hold):
  instance-id, instance-state-name, instance-state-code, instance-type,
  image-id, reservation-id, owner-id, launch-index, kernel-id, ramdisk-id,
  root-device-type, root-device-name, architecture, virtualization-type,
  state-reason-code, block-device-mapping.volume-id, tag:KEY, tag-key

Examples:
  spore ls --filter instance-state-name=running,pending
  spore ls -q --filter tag:Name='web*'
  spore ls -o json | jq -r '.Reservations[].Instances[].InstanceId'")]
pub struct Ls {
    /// Instances: ids, unique prefixes or names [default: all]
    pub targets: Vec<String>,
    /// Only those for which this holds (repeatable)
    #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]")]
    pub filters: Vec<Filter>,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore stop web
  spore stop --timeout 10 web db
  spore stop --force $(spore ls -q --filter instance-state-name=running)

Exit codes: 0 all are stopped (with --no-wait: asked); 1 one could not be
(the others are); 2 the command line is wrong; 125 failure.")]
pub struct Stop {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// How long the guest may take before it is cut off (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Do not ask the guest: end it at once, as pulling the plug does
    #[arg(short, long)]
    pub force: bool,
    /// Only press the button
    #[arg(long, conflicts_with = "force")]
    pub no_wait: bool,
    /// Keep memory and devices on disk: 'spore start' goes on where the guest is now
    #[arg(long, conflicts_with_all = ["force", "no_wait", "timeout"])]
    pub hibernate: bool,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// Boot this entry of the root volume's boot menu this time: its index, id or title (PV-GRUB)
    #[arg(long, value_name = "ENTRY")]
    pub boot_entry: Option<String>,
    /// Drop the memory of a hibernated instance and boot it
    #[arg(long)]
    pub cold: bool,
    /// Start none unless all fit into the memory that running instances leave of the host's; without this it is a warning
    #[arg(long)]
    pub no_overcommit: bool,
    /// Return as soon as the processes are started
    #[arg(long)]
    pub no_wait: bool,
}

/// Arguments of `reboot`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore reboot web
  spore reboot --force web

Exit codes: 0 all have begun anew; 1 one could not (the others have); 2 the
command line is wrong; 125 failure.")]
pub struct Reboot {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// How long the guest may take before it is reset (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Do not ask the guest: reset at once, as the reset button does
    #[arg(short, long)]
    pub force: bool,
}

/// `ls`.
pub fn ls(store: &Store, ui: &Ui, args: &Ls) -> Result<ExitCode> {
    describe::check(&args.filters)?;
    let records = if args.targets.is_empty() {
        service::describe(store)?
    } else {
        records(&service::resolve(store, &args.targets)?)?
    };
    let mut chosen = Vec::new();
    for record in records {
        if describe::matches(&record, &args.filters)? {
            chosen.push(record);
        }
    }
    emit(ui.output, &describe::list(&chosen))?;
    Ok(ExitCode::SUCCESS)
}

/// `show`.
pub fn show(store: &Store, ui: &Ui, args: &Targets) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets)?;
    let records = records(&dirs)?;
    // Only the table tells; a VMM that does not answer is not worth an error here.
    let ask = ui.output.format == Format::Table && !ui.output.quiet;
    let status = |(dir, record): (&InstanceDir, &InstanceRecord)| {
        let running = ask && record.instance.state == State::Running;
        running.then(|| client::status(dir).ok()).flatten()
    };
    let statuses: Vec<_> = dirs.iter().zip(&records).map(status).collect();
    emit(ui.output, &describe::full(&records, &statuses))?;
    Ok(ExitCode::SUCCESS)
}

fn records(dirs: &[InstanceDir]) -> Result<Vec<InstanceRecord>> {
    dirs.iter().map(service::record).collect()
}

/// `stop`.
pub fn stop(store: &Store, ui: &Ui, args: &Stop) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    let stop = || match args.hibernate {
        true => service::hibernate(&dirs),
        false => service::stop(&dirs, args.timeout, args.force, !args.no_wait),
    };
    print_changes(ui, "StoppingInstances", Progress::during("stopping", stop))
}

/// `start`.
pub fn start(store: &Store, ui: &Ui, args: &Start) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    service::check_memory(store, &dirs, args.no_overcommit)?;
    let started = service::start(&dirs, !args.no_wait, args.boot_entry.as_deref(), args.cold);
    print_changes(ui, "StartingInstances", started)
}

/// `reboot`.
pub fn reboot(store: &Store, ui: &Ui, args: &Reboot) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    let reboot = || service::reboot(&dirs, args.timeout, args.force);
    print_changes(ui, "RebootingInstances", Progress::during("rebooting", reboot))
}

/// `terminate`.
pub fn terminate(store: &Store, ui: &Ui, args: &Targets) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets)?;
    print_changes(ui, "TerminatingInstances", service::terminate(&dirs))
}

/// Print what was done, then what was not; the last error decides the exit code.
fn print_changes(ui: &Ui, key: &str, results: Vec<Result<Change>>) -> Result<ExitCode> {
    let mut changes = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(change) => changes.push(change),
            Err(error) => errors.push(error),
        }
    }
    if !changes.is_empty() {
        emit(ui.output, &describe::changes(key, &changes))?;
    }
    finish(errors)
}
