//! Instances: what there is, how they are, and their power.

use super::super::call::{Action, Call, json_of};
use crate::error::{Error, Result};
use crate::record::instance::InstanceRecord;
use crate::service::console::Part;
use crate::service::instances::{DescribeInstances, StateChange, chooses_state, reservations};
use crate::service::power::{Changes, RebootInstances, StartInstances, StopInstances};
use crate::service::time::now;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DescribeInstanceStatus", describe_instance_status),
    ("DescribeInstances", describe_instances),
    ("GetConsoleOutput", get_console_output),
    ("RebootInstances", reboot_instances),
    ("StartInstances", start_instances),
    ("StopInstances", stop_instances),
    ("TerminateInstances", terminate_instances),
];

/// How long a guest may take to shut down before it is cut off, about as on EC2.
const SHUTDOWN: Duration = Duration::from_secs(240);
/// Most bytes of a console's output that are told. (EC2 API Reference, GetConsoleOutput)
const CONSOLE: usize = 64 << 10;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    instance_ids: Vec<String>,
    include_all_instances: bool,
}

fn found(call: &Call<'_>, instance_ids: &[String]) -> Result<Vec<InstanceRecord>> {
    let request =
        DescribeInstances { instance_ids: instance_ids.to_vec(), filters: call.filters()? };
    call.service.describe_instances(&request)
}

fn describe_instances(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let records = found(call, &asked.instance_ids)?;
    let key = |record: &InstanceRecord| record.instance.instance_id.to_string();
    let described = |page: Vec<InstanceRecord>| json_of(reservations(&page));
    call.paged("Reservations", &asked.instance_ids, records, key, described)
}

fn describe_instance_status(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let filters = call.filters()?;
    let all = asked.include_all_instances || chooses_state(&filters);
    let instance_ids = asked.instance_ids.clone();
    let request = DescribeInstances { instance_ids, filters };
    let statuses = call.service.describe_instance_status(&request, all)?;
    let statuses = statuses.iter().map(json_of).collect::<Result<_>>()?;
    call.listed("InstanceStatuses", &asked.instance_ids, statuses, "InstanceId")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Console {
    instance_id: String,
    #[serde(default, rename = "Latest")]
    _latest: bool,
}

fn get_console_output(call: &Call<'_>) -> Result<Value> {
    let asked: Console = call.input()?;
    let mut output = Last(Vec::new());
    call.service.get_console_output(&asked.instance_id, Part::default(), &mut output)?;
    let record = call.service.describe_instance(&asked.instance_id)?;
    let from = output.0.len().saturating_sub(CONSOLE);
    Ok(json!({
        "InstanceId": record.instance.instance_id,
        "Timestamp": now(),
        "Output": STANDARD.encode(output.0.get(from..).unwrap_or_default()),
    }))
}

/// Keeps the end of what is written.
struct Last(Vec<u8>);

impl std::io::Write for Last {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * CONSOLE {
            self.0.drain(..self.0.len() - CONSOLE);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Power {
    instance_ids: Vec<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    hibernate: bool,
}

/// # Errors
/// The first of those of the instances.
fn changed(member: &str, changes: Changes) -> Result<Value> {
    let changes = changes.into_iter().collect::<Result<Vec<_>>>()?;
    let described = changes.iter().map(|c| json_of(StateChange::of(&c.record, c.previous)));
    Ok(json!({ member: described.collect::<Result<Vec<_>>>()? }))
}

fn start_instances(call: &Call<'_>) -> Result<Value> {
    let asked: Power = call.input()?;
    let request = StartInstances {
        instance_ids: asked.instance_ids,
        no_wait: true,
        ..StartInstances::default()
    };
    changed("StartingInstances", call.service.start_instances(&request)?)
}

/// Presses the power buttons and answers; those that do not react are cut off later.
fn stop_instances(call: &Call<'_>) -> Result<Value> {
    let asked: Power = call.input()?;
    let request = StopInstances {
        instance_ids: asked.instance_ids,
        force: asked.force,
        hibernate: asked.hibernate,
        timeout: SHUTDOWN,
        no_wait: true,
    };
    let answer = changed("StoppingInstances", call.service.stop_instances(&request)?)?;
    if !request.force && !request.hibernate {
        call.background(move |service| {
            let request = StopInstances { no_wait: false, ..request };
            // What can't be stopped is still told as stopping.
            let _ = service.stop_instances(&request);
        });
    }
    Ok(answer)
}

fn reboot_instances(call: &Call<'_>) -> Result<Value> {
    let asked: Power = call.input()?;
    // Before it is answered that they will be.
    found(call, &asked.instance_ids)?;
    let request =
        RebootInstances { instance_ids: asked.instance_ids, force: false, timeout: SHUTDOWN };
    call.background(move |service| {
        let warn = |error: &Error| service.warn(format_args!("reboot: {}", error.message()));
        match service.reboot_instances(&request) {
            Ok(changes) => changes.iter().filter_map(|c| c.as_ref().err()).for_each(warn),
            Err(error) => warn(&error),
        }
    });
    Ok(json!({}))
}

fn terminate_instances(call: &Call<'_>) -> Result<Value> {
    let asked: Power = call.input()?;
    let changes = call.service.terminate_instances(&asked.instance_ids)?;
    changed("TerminatingInstances", changes)
}
