//! Instances in EC2's shapes and as tables.

use super::filter::Filter;
use super::limit::{self, Limits};
use super::output::{Table, human_bytes};
use crate::control::{DiskStatus, NetStatus, Status};
use crate::error::Result;
use crate::instance::lifecycle::Change;
use crate::record::instance::{Disk, Instance, InstanceRecord, Mapping, State};
use crate::record::network::NetworkInterface;
use serde_json::{Value, json};
use std::time::Duration;

/// Filter names of `ls`, tags aside.
const FILTERS: [&str; 18] = [
    "instance-id",
    "instance-state-name",
    "instance-state-code",
    "instance-type",
    "image-id",
    "reservation-id",
    "owner-id",
    "launch-index",
    "kernel-id",
    "ramdisk-id",
    "root-device-type",
    "root-device-name",
    "architecture",
    "virtualization-type",
    "state-reason-code",
    "block-device-mapping.volume-id",
    "tag-key",
    "tag:KEY",
];

/// True if every filter holds.
///
/// # Errors
/// A filter's name is unknown.
pub fn matches(record: &InstanceRecord, filters: &[Filter]) -> Result<bool> {
    for filter in filters {
        if !filter.matches(values(record, filter)?.iter().map(String::as_str)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuse unknown filters even where there is no instance to look at.
///
/// # Errors
/// A filter's name is unknown.
pub fn check(filters: &[Filter]) -> Result<()> {
    let known = |name: &str| FILTERS.contains(&name) || name.starts_with("tag:");
    match filters.iter().find(|filter| !known(&filter.name)) {
        Some(filter) => Err(filter.unknown(&FILTERS)),
        None => Ok(()),
    }
}

fn values(record: &InstanceRecord, filter: &Filter) -> Result<Vec<String>> {
    let instance = &record.instance;
    let tags = || instance.tags.iter();
    if let Some(key) = filter.name.strip_prefix("tag:") {
        return Ok(tags().filter(|t| t.key == key).map(|t| t.value.clone()).collect());
    }
    // The names of enumerations are those of the JSON.
    let name = |value: Value| value.as_str().map(str::to_owned).into_iter().collect();
    Ok(match filter.name.as_str() {
        "instance-id" => vec![instance.instance_id.to_string()],
        "instance-state-name" => vec![instance.state.name().to_owned()],
        "instance-state-code" => vec![instance.state.code().to_string()],
        "instance-type" => vec![instance.instance_type.clone()],
        "image-id" => vec![instance.image_id.to_string()],
        "reservation-id" => vec![record.reservation_id.to_string()],
        "owner-id" => vec![record.owner_id.clone()],
        "launch-index" => vec![instance.ami_launch_index.to_string()],
        "kernel-id" => instance.kernel_id.iter().map(ToString::to_string).collect(),
        "ramdisk-id" => instance.ramdisk_id.iter().map(ToString::to_string).collect(),
        "root-device-type" => name(json!(instance.root_device_type)),
        "root-device-name" => vec![instance.root_device_name.clone()],
        "architecture" => name(json!(instance.architecture)),
        "virtualization-type" => name(json!(instance.virtualization_type)),
        "state-reason-code" => instance.state_reason.iter().map(|r| r.code.clone()).collect(),
        "block-device-mapping.volume-id" => {
            instance.block_device_mappings.iter().map(|m| m.ebs.volume_id.to_string()).collect()
        }
        "tag-key" => tags().map(|t| t.key.clone()).collect(),
        _ => return Err(filter.unknown(&FILTERS)),
    })
}

/// `{"Reservations": [{"ReservationId", "OwnerId", "Instances": […]}]}`: DescribeInstances.
pub fn reservations(records: &[InstanceRecord]) -> Value {
    let mut reservations: Vec<(&InstanceRecord, Vec<&Instance>)> = Vec::new();
    for record in records {
        match reservations.iter_mut().find(|(r, _)| r.reservation_id == record.reservation_id) {
            Some((_, instances)) => instances.push(&record.instance),
            None => reservations.push((record, vec![&record.instance])),
        }
    }
    let reservations: Vec<Value> = reservations
        .into_iter()
        .map(|(record, instances)| {
            json!({
                "ReservationId": record.reservation_id,
                "OwnerId": record.owner_id,
                "Instances": instances,
            })
        })
        .collect();
    json!({ "Reservations": reservations })
}

/// One line an instance.
pub fn list(records: &[InstanceRecord]) -> Table {
    let row = |record: &InstanceRecord| {
        let instance = &record.instance;
        vec![
            instance.instance_id.to_string(),
            instance.name().unwrap_or("-").to_owned(),
            instance.ami_launch_index.to_string(),
            instance.image_id.to_string(),
            instance.instance_type.clone(),
            instance.cpu_options.core_count.to_string(),
            human_bytes(instance.spore.memory),
            instance.state.name().to_owned(),
            instance.launch_time.clone(),
        ]
    };
    Table {
        columns: vec![
            "INSTANCE", "NAME", "INDEX", "IMAGE", "TYPE", "CPUS", "MEMORY", "STATE", "LAUNCHED",
        ],
        rows: records.iter().map(row).collect(),
        ids: records.iter().map(|r| r.instance.instance_id.to_string()).collect(),
        json: reservations(records),
    }
}

/// Everything about a few instances and what their VMMs say of themselves, a line each field.
pub fn full(records: &[InstanceRecord], statuses: &[Option<Status>]) -> Table {
    let mut rows = Vec::new();
    for (record, status) in records.iter().zip(statuses) {
        if !rows.is_empty() {
            rows.push(vec![String::new(), String::new()]);
        }
        let disks = disks(&record.instance, status.as_ref());
        let interfaces = interfaces(&record.instance, status.as_ref());
        let live = status.iter().flat_map(live);
        let fields = fields(record).into_iter().chain(disks).chain(interfaces).chain(live);
        rows.extend(fields.map(|(key, value)| vec![key.to_owned(), value]));
    }
    Table { columns: vec!["FIELD", "VALUE"], rows, ..list(records) }
}

/// What a running VMM says.
fn live(status: &Status) -> Vec<(&'static str, String)> {
    vec![
        ("Uptime", format!("{:.1} s", Duration::from_millis(status.uptime_ms).as_secs_f64())),
        ("Resets", status.resets.to_string()),
        ("CpusOnline", status.cpus_online.to_string()),
    ]
}

/// A line each disk: what it is, how the host does its I/O, and how much there was of that.
fn disks(instance: &Instance, status: Option<&Status>) -> Vec<(&'static str, String)> {
    let root = |device: &str| if device == instance.root_device_name { " (root)" } else { "" };
    let line = |(n, disk): (usize, Disk)| {
        let mut line = match disk {
            Disk::InstanceStore => format!("{} (root) instance store", instance.root_device_name),
            Disk::Volume(Mapping { device_name, ebs }) => {
                let read_only = if ebs.read_only { ", read-only" } else { "" };
                format!("{device_name}{} {}{read_only}", root(device_name), ebs.volume_id)
            }
            Disk::Ephemeral(disk) => format!("{} {}", disk.device_name, disk.virtual_name),
        };
        let id = instance.device_of(disk).ok();
        let live = id.and_then(|id| status?.disks.get(&id));
        let engine = live.map(|disk| disk.engine).or(instance.spore.engines.get(n).copied());
        line.extend(engine.map(|engine| format!(", {}", text(json!(engine)))));
        line.extend(live.map(io));
        ("Disk", line)
    };
    let limits = Limits { disk: instance.spore.disk_limits, ..Limits::default() };
    let limits = (!limits.disk.are_none()).then(|| ("DiskLimits", limit::text(&limits)));
    let any = instance.state != State::Terminated;
    let limits = limits.filter(|_| any);
    instance.disks().enumerate().filter(|_| any).map(line).chain(limits).collect()
}

/// A line each network interface: what it is and hangs on, and what it has carried.
fn interfaces(instance: &Instance, status: Option<&Status>) -> Vec<(&'static str, String)> {
    let line = |interface: &NetworkInterface| {
        let NetworkInterface { network_interface_id: id, mac_address, spore, .. } = interface;
        let mut line = format!("{id} {mac_address} {}", spore.network);
        let live = status.zip(id.as_str().parse().ok());
        line.extend(live.and_then(|(status, id)| status.interfaces.get(&id)).map(carried));
        ("Interface", line)
    };
    let limits = Limits { net: instance.spore.net_limits, ..Limits::default() };
    let limits = (!limits.net.are_none()).then(|| ("NetLimits", limit::text(&limits)));
    let any = instance.state != State::Terminated;
    instance.network_interfaces.iter().map(line).chain(limits).filter(|_| any).collect()
}

fn carried(interface: &NetStatus) -> String {
    let link = if interface.up { "up" } else { "down" };
    let (received, sent) =
        (human_bytes(interface.received_bytes), human_bytes(interface.sent_bytes));
    let dropped = interface.receive_dropped + interface.send_dropped;
    format!(", link {link}, {received} received, {sent} sent, {dropped} packets dropped")
}

fn io(disk: &DiskStatus) -> String {
    let (read, written) = (human_bytes(disk.read_bytes), human_bytes(disk.write_bytes));
    let (flushes, errors) = (disk.flushes, disk.errors);
    format!(", {read} read, {written} written, {flushes} flushes, {errors} errors")
}

/// The name that an enumeration has in JSON.
fn text(value: Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn fields(record: &InstanceRecord) -> Vec<(&'static str, String)> {
    let instance = &record.instance;
    let mut fields = vec![
        ("InstanceId", instance.instance_id.to_string()),
        ("Name", instance.name().unwrap_or("-").to_owned()),
        ("State", instance.state.name().to_owned()),
    ];
    if let Some(reason) = &instance.state_reason {
        fields.push(("StateReason", reason.message.clone()));
    }
    fields.extend([
        ("ReservationId", record.reservation_id.to_string()),
        ("AmiLaunchIndex", instance.ami_launch_index.to_string()),
        ("ImageId", instance.image_id.to_string()),
        ("InstanceType", instance.instance_type.clone()),
        ("Cpus", instance.cpu_options.core_count.to_string()),
        ("Memory", human_bytes(instance.spore.memory)),
        ("LaunchTime", instance.launch_time.clone()),
        ("RootDeviceType", text(json!(instance.root_device_type))),
        ("Transport", text(json!(instance.spore.transport))),
    ]);
    let firmware = || {
        let given = instance.spore.firmware.as_ref().map(|path| path.display().to_string());
        ("Firmware", given.unwrap_or_else(|| "SeaBIOS".to_owned()))
    };
    fields
        .push(instance.kernel_id.as_ref().map_or_else(firmware, |id| ("KernelId", id.to_string())));
    fields.extend(instance.ramdisk_id.iter().map(|id| ("RamdiskId", id.to_string())));
    if instance.kernel_id.is_some() {
        fields.push(("CommandLine", instance.spore.command_line.clone()));
    }
    fields.push(("Uuid", instance.spore.uuid.clone()));
    let limits = &instance.spore.cgroup_limits;
    fields.extend(limits.cpu_quota.iter().map(|percent| ("CpuQuota", format!("{percent}%"))));
    fields.extend(limits.memory_max.iter().map(|bytes| ("MemoryMax", human_bytes(*bytes))));
    let group = instance.spore.control_group.iter();
    fields.extend(group.map(|group| ("ControlGroup", group.display().to_string())));
    fields.extend(instance.spore.pid.iter().map(|pid| ("Pid", pid.to_string())));
    let tags = instance.tags.iter().filter(|tag| tag.key != "Name");
    fields.extend(tags.map(|tag| ("Tag", format!("{}={}", tag.key, tag.value))));
    fields
}

/// State changes under EC2's `key`, e.g. `StoppingInstances`.
pub fn changes(key: &str, changes: &[Change]) -> Table {
    let state = |state: crate::record::instance::State| json!(state);
    let json = |change: &Change| {
        json!({
            "InstanceId": change.record.instance.instance_id,
            "CurrentState": state(change.record.instance.state),
            "PreviousState": state(change.previous),
        })
    };
    let row = |change: &Change| {
        vec![
            change.record.instance.instance_id.to_string(),
            change.previous.name().to_owned(),
            change.record.instance.state.name().to_owned(),
        ]
    };
    Table {
        columns: vec!["INSTANCE", "PREVIOUS", "CURRENT"],
        rows: changes.iter().map(row).collect(),
        ids: changes.iter().map(|c| c.record.instance.instance_id.to_string()).collect(),
        json: json!({ key: changes.iter().map(json).collect::<Vec<_>>() }),
    }
}
