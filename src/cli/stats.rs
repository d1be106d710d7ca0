//! `stats` and `top`: what running instances use.

use super::args::ListFilters;
use super::complete;
use super::output::{self, Cell, Column, Format, Table};
use super::parse::parse_duration;
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::instances::DescribeInstances;
use crate::service::statistics::Statistics;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a look needs to be told from the next, where there is to be one answer only.
const MOMENT: Duration = Duration::from_millis(500);
/// How often it is seen whether the command is to end.
const TICK: Duration = Duration::from_millis(50);
/// The terminal's screen without anything, and the cursor in its corner. (ECMA-48, 8.3.39 and
/// 8.3.21)
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Which instances.
#[derive(Debug, Args)]
pub struct Which {
    /// Instances: ids, unique prefixes, names, NAME-INDEX or patterns ('web*') [default: all that
    /// run]
    #[arg(add = complete::instance())]
    pub targets: Vec<String>,
    /// Which.
    #[command(flatten)]
    pub filters: ListFilters,
    /// How long between two looks (1, 500ms, 2m)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub interval: Option<Duration>,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore stats
  spore stats web --follow
  spore stats -o json | jq '.InstanceStatistics[] | {InstanceId, CPUUtilization}'")]
pub struct Stats {
    /// Instances.
    #[command(flatten)]
    pub which: Which,
    /// Look again and again, until ^C
    #[arg(long)]
    pub follow: bool,
}

/// `stats`.
pub fn stats(service: &Service, ui: &Ui, args: &Stats) -> Result<ExitCode> {
    if args.follow {
        return follow(service, ui, &args.which, Order::AsListed);
    }
    let before = look(service, &args.which)?;
    std::thread::sleep(args.which.interval.unwrap_or(MOMENT));
    let now = look(service, &args.which)?;
    output::emit(&ui.output, &table(&now, &before))?;
    Ok(ExitCode::SUCCESS)
}

/// `top`: those that take the most processor time first.
pub fn top(service: &Service, ui: &Ui, which: &Which) -> Result<ExitCode> {
    follow(service, ui, which, Order::Busiest)
}

/// In which order instances are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AsListed,
    Busiest,
}

/// Looks until ^C, which is no failure: it is the only end.
fn follow(service: &Service, ui: &Ui, which: &Which, order: Order) -> Result<ExitCode> {
    let interval = which.interval.unwrap_or(Duration::from_secs(1));
    let screen = std::io::stdout().is_terminal() && ui.output.format == Format::Table;
    let watched = ui.cancellable(|| {
        let mut before = look(service, which)?;
        loop {
            let until = Instant::now() + interval;
            while Instant::now() < until {
                if ui.context.cancelled() {
                    return Ok(());
                }
                std::thread::sleep(TICK.min(interval));
            }
            let mut now = look(service, which)?;
            if order == Order::Busiest {
                now.sort_by(|a, b| percent(b, &before).total_cmp(&percent(a, &before)));
            }
            if screen {
                output::write_stdout(CLEAR.as_bytes())?;
            }
            output::emit(&ui.output, &table(&now, &before))?;
            before = now;
        }
    });
    watched.map(|_| ExitCode::SUCCESS)
}

fn look(service: &Service, which: &Which) -> Result<Vec<Statistics>> {
    let records = service.describe_instances(&DescribeInstances {
        instance_ids: which.targets.clone(),
        filters: which.filters.all(),
    })?;
    service.instance_statistics(&records)
}

/// Of one CPU, since the look before.
fn percent(now: &Statistics, before: &[Statistics]) -> f64 {
    now.processor_percent(before.iter().find(|one| one.instance_id == now.instance_id))
}

fn table(now: &[Statistics], before: &[Statistics]) -> Table {
    let row = |one: &Statistics| {
        vec![
            one.instance_id.to_string().into(),
            one.name.clone().into(),
            format!("{:.1}%", percent(one, before)).into(),
            Cell::Bytes(one.memory),
            Cell::Bytes(one.guest_memory),
            Cell::Bytes(one.disk_read),
            Cell::Bytes(one.disk_write),
            Cell::Bytes(one.network_in),
            Cell::Bytes(one.network_out),
            format!("{} s", one.uptime.as_secs()).into(),
        ]
    };
    let json = |one: &Statistics| {
        json!({
            "InstanceId": one.instance_id,
            // CloudWatch's is of all of the instance's vCPUs.
            "CPUUtilization": (10.0 * percent(one, before) / f64::from(one.cpus)).round() / 10.0,
            "MemoryBytes": one.memory,
            "GuestMemoryBytes": one.guest_memory,
            "DiskReadBytes": one.disk_read,
            "DiskWriteBytes": one.disk_write,
            "NetworkIn": one.network_in,
            "NetworkOut": one.network_out,
            "UptimeMs": u64::try_from(one.uptime.as_millis()).unwrap_or(u64::MAX),
        })
    };
    Table {
        columns: vec![
            Column::new("InstanceId", "INSTANCE"),
            Column::text("Name", "NAME"),
            Column::new("CPUPercent", "CPU"),
            Column::new("MemoryBytes", "MEMORY"),
            Column::new("GuestMemoryBytes", "OF"),
            Column::new("DiskReadBytes", "READ"),
            Column::new("DiskWriteBytes", "WRITTEN"),
            Column::new("NetworkIn", "NET IN"),
            Column::new("NetworkOut", "NET OUT"),
            Column::new("Uptime", "UPTIME"),
        ],
        rows: now.iter().map(row).collect(),
        ids: now.iter().map(|one| one.instance_id.to_string()).collect(),
        json: json!({ "InstanceStatistics": now.iter().map(json).collect::<Vec<_>>() }),
    }
}
