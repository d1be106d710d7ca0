//! `spore autostart …`.

use super::output::{self, Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::autostart::Autostart;
use crate::service::power::StopInstances;
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// How long guests have to power off when the host goes down.
const STOP: Duration = Duration::from_secs(45);

/// Instances that start with the host.
#[derive(Debug, Subcommand)]
pub enum AutostartCommand {
    /// Start instances with the host that are to be started again ('spore run --restart'): those
    /// of always, and those of on-failure that were running when it went down
    ///
    /// It writes a systemd unit of this user's. That the unit starts with the host, and not with
    /// the first login, takes 'loginctl enable-linger', which is said where it is missing. Without
    /// systemd, have 'spore autostart start' run when the host has started.
    Enable,
    /// Start none with the host any more; what runs goes on
    Disable,
    /// Show whether instances start with the host, and which would
    Status,
    /// Start now what starts with the host
    Start,
    /// Stop what was started so, politely
    #[command(hide = true)]
    Stop,
}

/// `autostart`.
///
/// # Errors
/// The unit can't be written or read; an instance can't be started.
pub fn run(command: &AutostartCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        AutostartCommand::Enable => {
            let autostart = service.enable_autostart()?;
            if !autostart.systemd {
                ui.context.warn(
                    "this host has no systemd: have 'spore autostart start' run as it starts",
                );
            } else if !autostart.lingers {
                ui.context.warn("it starts when this user logs in; 'loginctl enable-linger' has it start with the host");
            }
            show(&service, ui, &autostart)?;
        }
        AutostartCommand::Disable => show(&service, ui, &service.disable_autostart()?)?,
        AutostartCommand::Status => show(&service, ui, &service.autostart()?)?,
        AutostartCommand::Start => {
            let mut failed = None;
            for started in service.start_with_the_host()? {
                match started {
                    Ok(record) => output::write_stdout(
                        format!("{}\n", record.instance.instance_id).as_bytes(),
                    )?,
                    Err(error) => {
                        ui.context.warn(&error);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        AutostartCommand::Stop => {
            let instance_ids = service.held_instances()?;
            let request = StopInstances { instance_ids, timeout: STOP, ..Default::default() };
            service.stop_instances(&request)?.into_iter().collect::<Result<Vec<_>>>()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(service: &Service, ui: &Ui, autostart: &Autostart) -> Result<()> {
    let enabled = autostart.home.as_deref() == Some(service.home());
    let next = service.wanted_with_the_host()?;
    let next: Vec<String> = next.iter().map(|r| r.instance.instance_id.to_string()).collect();
    let starts = match (enabled, autostart.systemd && autostart.lingers) {
        (false, _) => "no",
        (true, true) => "with the host",
        (true, false) => "with the first login",
    };
    let table = Table {
        columns: vec![
            Column::new("Starts", "STARTS"),
            Column::new("Unit", "UNIT"),
            Column::new("Instances", "STOPPED AND WOULD START"),
        ],
        ids: next.clone(),
        rows: vec![vec![
            starts.into(),
            autostart.unit.display().to_string().into(),
            Cell::from(next.join(" ")),
        ]],
        json: json!({
            "Spore": {
                "Enabled": enabled,
                "Starts": starts,
                "Unit": autostart.unit,
                "Home": autostart.home,
                "InstanceIds": next,
            }
        }),
    };
    output::emit(&ui.output, &table)
}
