//! `status`.

use super::args::ListFilters;
use super::complete;
use super::output::{Column, Table, emit};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::instances::DescribeInstances;
use crate::service::shape::status::InstanceStatus;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
SYSTEM is whether the instance's VMM answers, GUEST whether its guest can be
reached, in EC2's words: ok, impaired, initializing (it has five minutes),
insufficient-data (it has no driver for vsock and is on no network: nothing
can be known), not-applicable (it does not run).

READY is how far the guest is: boot (its kernel is up), network (it answers
there), login (a prompt on its console), ssh (its sshd answers), systemd (it
has started everything). 'spore wait --for' waits for these.

Examples:
  spore status
  spore status web -o json | jq '.InstanceStatuses[].InstanceStatus.Status'")]
pub struct Status {
    /// Instances: ids, unique prefixes, names, NAME-INDEX or patterns ('web*') [default: all]
    #[arg(add = complete::instance())]
    targets: Vec<String>,
    /// Which.
    #[command(flatten)]
    filters: ListFilters,
    /// Those that do not run, too (EC2's IncludeAllInstances)
    #[arg(short, long)]
    all: bool,
}

/// `status`.
pub fn status(service: &Service, ui: &Ui, args: &Status) -> Result<ExitCode> {
    let request =
        DescribeInstances { instance_ids: args.targets.clone(), filters: args.filters.all() };
    // Who names one wants to know.
    let all = args.all || !args.targets.is_empty();
    emit(&ui.output, &table(&service.describe_instance_status(&request, all)?))?;
    Ok(ExitCode::SUCCESS)
}

fn table(statuses: &[InstanceStatus]) -> Table {
    let row = |status: &InstanceStatus| {
        let instance = &status.record.instance;
        vec![
            instance.instance_id.to_string().into(),
            instance.name().into(),
            instance.state.name().into(),
            status.system.summary().into(),
            status.instance.summary().into(),
            status.stage.map_or("-", |stage| stage.word()).into(),
        ]
    };
    Table {
        columns: vec![
            Column::new("InstanceId", "INSTANCE"),
            Column::text("Name", "NAME"),
            Column::new("InstanceState", "STATE"),
            Column::new("SystemStatus", "SYSTEM"),
            Column::new("InstanceStatus", "GUEST"),
            Column::new("Ready", "READY"),
        ],
        rows: statuses.iter().map(row).collect(),
        ids: statuses.iter().map(|s| s.record.instance.instance_id.to_string()).collect(),
        json: json!({ "InstanceStatuses": statuses }),
    }
}
