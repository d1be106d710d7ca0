//! The verbs of instances.

use super::answer::{finish, whole};
use super::args::{ListFilters, Targets};
use super::complete;
use super::instance_table;
use super::output::{Format, emit, write_stdout};
use super::parse::parse_duration;
use super::progress::Progress;
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::record::instance::State;
use crate::service::Service;
use crate::service::instances::{DescribeInstances, chooses_state};
use crate::service::power::{Changes, RebootInstances, StartInstances, StopInstances};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters (values may hold * and ?; several values of one filter are
alternatives, several filters must all hold):
  architecture, availability-zone, block-device-mapping.attach-time,
  .delete-on-termination, .device-name, .status, .volume-id, client-token,
  hibernation-options.configured, hypervisor, image-id, instance-id,
  instance-state-code, instance-state-name (or state), instance-type,
  kernel-id, launch-index, launch-time, network-interface.group-id,
  .group-name, .mac-address, .network-interface-id, .private-ip-address,
  .subnet-id, .vpc-id, owner-id, platform, platform-details,
  private-ip-address, product-code, ramdisk-id, reservation-id,
  root-device-name, root-device-type, state-reason-code,
  state-reason-message, subnet-id, virtualization-type, vpc-id,
  tag:KEY, tag-key

Examples:
  spore ls --filter instance-state-name=running,pending
  spore ls -q --filter tag:Name='web*'
  spore ls -o json | jq -r '.Reservations[].Instances[].InstanceId'")]
pub struct Ls {
    /// Instances: ids, unique prefixes, names, NAME-INDEX or patterns ('web*') [default: all]
    #[arg(add = complete::instance())]
    pub targets: Vec<String>,
    /// Which.
    #[command(flatten)]
    pub filters: ListFilters,
    /// Terminated ones too, which can be seen for an hour
    #[arg(short, long)]
    pub all: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// Print only the user data, byte for byte; with -o json as EC2's DescribeInstanceAttribute
    #[arg(long)]
    pub user_data: bool,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore stop web
  spore stop --timeout 10 web db
  spore stop --force --all
  spore stop --filter tag:Env=test

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
    /// Start none unless all fit into the memory that running instances leave of the host's;
    /// without this it is a warning
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
  spore reboot web                all that are called web
  spore reboot --force web-0      the first of them

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
pub fn ls(service: &Service, ui: &Ui, args: &Ls) -> Result<ExitCode> {
    let filters = args.filters.all();
    // Who asks for an instance, or for a state, gets it.
    let all = args.all || !args.targets.is_empty() || chooses_state(&filters);
    let request = DescribeInstances { instance_ids: args.targets.clone(), filters };
    let mut records = service.describe_instances(&request)?;
    records.retain(|record| all || record.instance.state != State::Terminated);
    emit(&ui.output, &instance_table::list(service, ui, &records))?;
    Ok(ExitCode::SUCCESS)
}

/// `show`.
pub fn show(service: &Service, ui: &Ui, args: &Show) -> Result<ExitCode> {
    let instance_ids = args.targets.ids(service)?;
    if args.user_data {
        return show_user_data(service, ui, &instance_ids);
    }
    let records = match instance_ids.is_empty() {
        true => Vec::new(),
        false => {
            let named = DescribeInstances { instance_ids, ..Default::default() };
            service.describe_instances(&named)?
        }
    };
    // Only the table tells; a VMM that does not answer is not worth an error here.
    let ask = ui.output.is_table();
    let status = |record| if ask { service.instance_status(record) } else { None };
    let statuses: Vec<_> = records.iter().map(status).collect();
    emit(&ui.output, &instance_table::full(&records, &statuses))?;
    Ok(ExitCode::SUCCESS)
}

/// `show --user-data`, of one instance: of several nobody could tell which is whose.
fn show_user_data(service: &Service, ui: &Ui, instances: &[String]) -> Result<ExitCode> {
    let [instance] = instances else {
        return Err(Error::usage("--user-data is for one instance; name one"));
    };
    let (id, data) = service.instance_user_data(instance)?;
    let data = data.unwrap_or_default();
    if ui.output.quiet || ui.output.format == Format::Table {
        write_stdout(&data)?;
        return Ok(ExitCode::SUCCESS);
    }
    // EC2 has an object with nothing in it where there is none.
    let attribute = match data.is_empty() {
        true => json!({}),
        false => json!({ "Value": STANDARD.encode(&data) }),
    };
    let answer = json!({ "InstanceId": id, "UserData": attribute });
    whole(ui, "InstanceId", id.as_str(), answer)?;
    Ok(ExitCode::SUCCESS)
}

/// `stop`.
pub fn stop(service: &Service, ui: &Ui, args: &Stop) -> Result<ExitCode> {
    let request = StopInstances {
        instance_ids: args.targets.ids(service)?,
        force: args.force,
        hibernate: args.hibernate,
        timeout: args.timeout,
        no_wait: args.no_wait,
    };
    let stopped = Progress::during("stopping", || service.stop_instances(&request))?;
    print_changes(ui, "StoppingInstances", stopped)
}

/// `start`.
pub fn start(service: &Service, ui: &Ui, args: &Start) -> Result<ExitCode> {
    let started = service.start_instances(&StartInstances {
        instance_ids: args.targets.ids(service)?,
        boot_entry: args.boot_entry.clone(),
        cold: args.cold,
        no_overcommit: args.no_overcommit,
        no_wait: args.no_wait,
    })?;
    print_changes(ui, "StartingInstances", started)
}

/// `reboot`.
pub fn reboot(service: &Service, ui: &Ui, args: &Reboot) -> Result<ExitCode> {
    let request = RebootInstances {
        instance_ids: args.targets.ids(service)?,
        force: args.force,
        timeout: args.timeout,
    };
    let rebooted = Progress::during("rebooting", || service.reboot_instances(&request))?;
    print_changes(ui, "RebootingInstances", rebooted)
}

/// `terminate`.
pub fn terminate(service: &Service, ui: &Ui, args: &Targets) -> Result<ExitCode> {
    let ids = args.ids(service)?;
    print_changes(ui, "TerminatingInstances", service.terminate_instances(&ids)?)
}

/// Print what was done under EC2's `key`, then what was not; the last error decides the exit code.
fn print_changes(ui: &Ui, key: &str, results: Changes) -> Result<ExitCode> {
    let mut changes = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(change) => changes.push(change),
            Err(error) => errors.push(error),
        }
    }
    if !changes.is_empty() || errors.is_empty() && ui.output.format != Format::Table {
        emit(&ui.output, &instance_table::changes(key, &changes))?;
    }
    finish(ui, errors)
}
