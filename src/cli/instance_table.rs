//! Instances in EC2's shapes and as tables.

use super::limit::{self, Limits};
use super::output::{Cell, Column, Table, human_bytes, name};
use super::ui::Ui;
use crate::control::{DiskStatus, NetStatus, Status};
use crate::record::image::BootMode;
use crate::record::instance::{Disk, Instance, InstanceRecord, Mapping, State};
use crate::record::network::NetworkInterface;
use crate::record::share::Share;
use crate::service::Service;
use crate::service::instances::{StateChange, reservations};
use crate::service::power::Change;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// One line an instance. Only a table tells how far guests are.
pub fn list(service: &Service, ui: &Ui, records: &[InstanceRecord]) -> Table {
    let images = service.image_names(records);
    let tells = ui.output.is_table();
    let degraded = if tells { service.degraded(records) } else { BTreeSet::new() };
    let ready = |record: &InstanceRecord| match tells {
        true if degraded.contains(&record.instance.instance_id) => "degraded",
        true => service.ready(record),
        false => "-",
    };
    let row = |record: &InstanceRecord| {
        let instance = &record.instance;
        let id = instance.image_id.to_string();
        let image = images.get(&instance.image_id).cloned();
        vec![
            instance.instance_id.to_string().into(),
            instance.name().into(),
            instance.ami_launch_index.to_string().into(),
            instance.state.name().into(),
            ready(record).into(),
            Cell::Named { name: image.unwrap_or_else(|| id.clone()), id },
            instance.instance_type.as_str().into(),
            Cell::Time(instance.launch_time.clone()),
            instance.cpu_options.core_count.to_string().into(),
            Cell::Bytes(instance.spore.memory),
        ]
    };
    Table {
        columns: vec![
            Column::new("InstanceId", "INSTANCE"),
            Column::text("Name", "NAME"),
            Column::new("AmiLaunchIndex", "INDEX"),
            Column::new("State", "STATE"),
            Column::new("Ready", "READY"),
            Column::text("ImageId", "IMAGE"),
            Column::new("InstanceType", "TYPE"),
            Column::new("LaunchTime", "LAUNCHED"),
            Column::new("CoreCount", "CPUS"),
            Column::new("Memory", "MEMORY"),
        ],
        rows: records.iter().map(row).collect(),
        ids: records.iter().map(|r| r.instance.instance_id.to_string()).collect(),
        json: json!({ "Reservations": reservations(records) }),
    }
}

/// The same of instances that were launched together, as RunInstances answers.
pub fn launched(service: &Service, ui: &Ui, records: &[InstanceRecord]) -> Table {
    let reservation = reservations(records).into_iter().next();
    Table { json: json!(reservation), ..list(service, ui, records) }
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
        let shares = shares(&record.instance, status.as_ref());
        let live = status.iter().flat_map(live);
        let fields = fields(record).into_iter().chain(disks).chain(interfaces);
        let fields =
            fields.chain(cdroms(&record.instance, status.as_ref())).chain(shares).chain(live);
        rows.extend(fields.map(|(key, value)| vec![key.to_owned(), value]));
    }
    let ids = records.iter().map(|r| r.instance.instance_id.to_string()).collect();
    let json = json!({ "Reservations": reservations(records) });
    Table::of_texts(vec!["FIELD", "VALUE"], rows, ids, json)
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
        line.extend(engine.map(|engine| format!(", {}", name(engine))));
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
        if spore.queues > 1 {
            line += &format!(", {} pairs of queues", spore.queues);
        }
        let live = status.zip(id.as_str().parse().ok());
        line.extend(live.and_then(|(status, id)| status.interfaces.get(&id)).map(carried));
        ("Interface", line)
    };
    let limits = Limits { net: instance.spore.net_limits, ..Limits::default() };
    let limits = (!limits.net.are_none()).then(|| ("NetLimits", limit::text(&limits)));
    let any = instance.state != State::Terminated && !instance.network_interfaces.is_empty();
    instance.network_interfaces.iter().map(line).chain(limits).filter(|_| any).collect()
}

/// A line each CD-ROM drive: what is in it, and how much was read of that.
fn cdroms(instance: &Instance, status: Option<&Status>) -> Vec<(&'static str, String)> {
    let line = |(n, disc): (usize, &PathBuf)| {
        let live = Instance::cdrom(n).parse().ok().and_then(|id| status?.disks.get(&id));
        let mut line = disc.display().to_string();
        let read = |disk: &DiskStatus| format!(", {} read", human_bytes(disk.read_bytes));
        line.extend(live.map(read));
        ("CdRom", line)
    };
    instance.spore.cdroms.iter().enumerate().map(line).collect()
}

/// A line each shared directory, with what the guest knows it by, and whether it has it no more.
fn shares(instance: &Instance, status: Option<&Status>) -> Vec<(&'static str, String)> {
    let line = |(n, share): (usize, &Share)| {
        let tag = Share::tag(n);
        let why = tag.parse().ok().and_then(|id| status?.lost_shares.get(&id));
        let lost = why.map(|why| {
            format!(
                "; its server is gone ({why}): the guest has I/O errors there until its next start"
            )
        });
        ("Share", format!("{share}, {tag}{}", lost.unwrap_or_default()))
    };
    instance.spore.shares.iter().enumerate().map(line).collect()
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
        ("RootDeviceType", name(instance.root_device_type)),
        ("Transport", name(instance.spore.transport)),
    ]);
    let firmware = || {
        let given = instance.spore.firmware.as_ref().map(|path| path.display().to_string());
        let own = match instance.boot_mode() {
            Some(BootMode::Uefi) => "UEFI",
            _ => "SeaBIOS",
        };
        ("Firmware", given.unwrap_or_else(|| own.to_owned()))
    };
    fields
        .push(instance.kernel_id.as_ref().map_or_else(firmware, |id| ("KernelId", id.to_string())));
    fields.extend(instance.ramdisk_id.iter().map(|id| ("RamdiskId", id.to_string())));
    if instance.kernel_id.is_some() {
        fields.push(("CommandLine", instance.spore.command_line.clone()));
    }
    fields.push(("Uuid", instance.spore.uuid.clone()));
    let processor = instance.processor();
    if !processor.model.is_host() {
        fields.push(("CpuModel", processor.model.name().to_owned()));
    }
    if !instance.spore.disk_bus.is_virtio() {
        fields.push(("DiskBus", name(instance.spore.disk_bus)));
    }
    if processor.nested {
        fields.push(("NestedVirtualization", "enabled".to_owned()));
    }
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
    let shape = |change| -> StateChange<'_> {
        let Change { record, previous }: &Change = change;
        StateChange::of(record, *previous)
    };
    let row = |change: &Change| {
        vec![
            change.record.instance.instance_id.to_string().into(),
            change.previous.name().into(),
            change.record.instance.state.name().into(),
        ]
    };
    Table {
        columns: vec![
            Column::new("InstanceId", "INSTANCE"),
            Column::new("PreviousState", "PREVIOUS"),
            Column::new("CurrentState", "CURRENT"),
        ],
        rows: changes.iter().map(row).collect(),
        ids: changes.iter().map(|c| c.record.instance.instance_id.to_string()).collect(),
        json: json!({ key: changes.iter().map(shape).collect::<Vec<_>>() }),
    }
}
