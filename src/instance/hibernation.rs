//! The memory file of a hibernated instance, and whether its volumes are still as its memory knows
//! them.
//!
//! The record says that an instance is hibernated; the file without the record is debris. What says
//! that a machine went on is its VMM's report, which has the line before the first of its vCPUs
//! runs. So whoever is killed when, there is one of: a record that knows of the memory and a volume
//! that has not moved on, or a record that does not know of it.

use super::dir::InstanceDir;
use super::ephemeral;
use crate::error::{Code, Error, OrFail, Result};
use crate::plan::{EndReason, VmReport};
use crate::record::instance::{
    Hibernated, Instance, InstanceRecord, Mapping, State, StateReason, VolumeMark,
};
use crate::store::time;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// RAM and the state of every device.
pub const MEMORY: &str = "memory";

/// The reason of a stop that kept the memory.
pub fn reason() -> StateReason {
    StateReason::new("Client.UserInitiatedHibernate", "User initiated hibernate")
}

/// Whether the instance is being hibernated, or is.
pub fn is_reason(reason: Option<&StateReason>) -> bool {
    reason.is_some_and(|given| given.code == self::reason().code)
}

/// Why an instance with this record can't be hibernated, if it can't.
///
/// # Errors
/// `UnsupportedHibernationConfiguration`, with what the instance has that can't be kept.
pub fn check_supported(record: &InstanceRecord) -> Result<()> {
    let instance = &record.instance;
    let refuse = |what: &str| {
        let message = format!("{} {what}; stop it instead", instance.instance_id);
        Err(Error::refused(Code::UnsupportedHibernationConfiguration, message))
    };
    if instance.is_instance_store(&instance.root_device_name) {
        return refuse("has an instance-store root, which ends with its VM");
    }
    if instance.cpu_options.nested_virtualization.is_enabled() {
        return refuse("may run virtual machines of its own, which its memory alone does not keep");
    }
    if !instance.spore.shares.is_empty() {
        return refuse("has shared directories, whose open files would not be those of its memory");
    }
    Ok(())
}

/// Refuses what would take the volumes away under an instance's memory, as EC2 does: it could never
/// go on.
///
/// # Errors
/// `IncorrectInstanceState`: it is hibernated.
pub fn check_none(record: &InstanceRecord, what: &str) -> Result<()> {
    if record.instance.spore.hibernated.is_none() {
        return Ok(());
    }
    let id = &record.instance.instance_id;
    Err(Error::refused(
        Code::IncorrectInstanceState,
        format!(
            "{id} is hibernated, and its memory needs its volumes as they are: {what} would lose it; start {id} first, or \
             drop its memory by 'spore start --cold {id}'"
        ),
    ))
}

/// Refuses another machine than the one that an instance's memory is of, as EC2 does: it could
/// never go on.
///
/// # Errors
/// `IncorrectInstanceState`: it is hibernated, and what a machine is made of differs.
pub fn check_same_machine(before: &Instance, after: &Instance) -> Result<()> {
    let size = |i: &Instance| (i.cpu_options.core_count, i.spore.memory);
    let boot = |i: &Instance| {
        let files = (i.kernel_id.clone(), i.ramdisk_id.clone(), i.spore.firmware.clone());
        (files, i.spore.transport)
    };
    let what = match () {
        () if after.spore.hibernated.is_none() => return Ok(()),
        () if size(before) != size(after) => "another number of vCPUs or size of memory",
        () if before.processor() != after.processor() => "another processor",
        () if boot(before) != boot(after) => "another kernel, ramdisk or firmware",
        () if before.network_interfaces != after.network_interfaces => "other networks",
        () if before.spore.cdroms != after.spore.cdroms => "other CD-ROM drives",
        () if before.spore.no_cloud != after.spore.no_cloud => "another set of volumes",
        () => return Ok(()),
    };
    let id = &after.instance_id;
    Err(Error::refused(
        Code::IncorrectInstanceState,
        format!(
            "{id} is hibernated, and its memory needs its machine as it is: {what} would lose it; start {id} first, or drop \
             its memory by 'spore start --cold {id}'"
        ),
    ))
}

/// What tells that the instance's volumes have changed since.
fn marks(dir: &InstanceDir, record: &InstanceRecord) -> Result<Vec<VolumeMark>> {
    let mark = |mapping: &Mapping| {
        let volume = dir.store().volumes().get(&mapping.ebs.volume_id)?;
        let path = dir.store().volumes().dir(&volume.volume_id);
        let layers: Vec<_> = volume.layers.into_iter().map(|layer| layer.file).collect();
        let top = layers.first().ok_or("it has no files").or_fail(|| "look at a volume")?;
        let meta = path.join(top).metadata().or_fail(|| format!("look at {}", volume.volume_id))?;
        Ok(VolumeMark {
            volume_id: volume.volume_id,
            layers,
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    };
    let volumes = record.instance.block_device_mappings.iter().map(mark);
    let ephemeral = record.instance.spore.ephemeral.iter().map(|disk| ephemeral::mark(dir, disk));
    volumes.chain(ephemeral).collect()
}

/// Open the memory file of a hibernated instance, if it is and its volumes are as they were.
///
/// # Errors
/// `IncorrectInstanceState`: a volume has changed, or there is no such file.
pub fn open(dir: &InstanceDir, record: &InstanceRecord) -> Result<Option<File>> {
    let Some(hibernated) = &record.instance.spore.hibernated else { return Ok(None) };
    let refuse =
        |what: String| with_remedy(dir, &Error::refused(Code::IncorrectInstanceState, what));
    let now = marks(dir, record).map_err(|error| with_remedy(dir, &error))?;
    let changed = now.iter().find(|mark| !hibernated.volumes.contains(mark));
    if let Some(mark) = changed {
        return Err(refuse(format!("{} has changed since", mark.volume_id)));
    }
    if now.len() != hibernated.volumes.len() {
        return Err(refuse("it has other volumes now".to_owned()));
    }
    match dir.open_file(MEMORY)? {
        Some(file) => Ok(Some(file)),
        None => Err(refuse("its memory file is gone".to_owned())),
    }
}

/// Why a hibernated instance can't go on, and what can be done.
pub fn with_remedy(dir: &InstanceDir, error: &Error) -> Error {
    let (id, why) = (dir.id(), error.message());
    let message = format!(
        "{id} can't go on where it was hibernated: {why}; 'spore start --cold {id}' drops its memory and boots it"
    );
    Error::reported(error.kind(), error.code().map(Code::as_str), message)
}

/// The instance's VMM is about to go on from the memory file.
pub fn begin_resuming(record: &mut InstanceRecord) {
    if let Some(hibernated) = &mut record.instance.spore.hibernated {
        hibernated.resuming = Some(time::boot_id().to_owned());
    }
}

/// Bring what the record says of the memory up to date, now that the VMM is gone: `state` is what
/// it was before.
pub fn settle(dir: &InstanceDir, record: &mut InstanceRecord, state: State, reports: &[VmReport]) {
    let ended = reports.iter().rev().find_map(|report| match report {
        VmReport::Ended { reason, .. } => Some(*reason),
        _ => None,
    });
    let before = record.instance.spore.hibernated.take();
    record.instance.spore.hibernated = match before {
        // The report is an earlier VMM's where none was started.
        None if state == State::Pending || ended != Some(EndReason::Hibernated) => None,
        None => {
            let volumes = marks(dir, record);
            volumes.ok().map(|volumes| Hibernated { volumes, resuming: None })
        }
        Some(_) if reports.iter().any(|r| matches!(r, VmReport::Resumed { .. })) => None,
        // The host itself went down meanwhile, and what the report said may be lost.
        Some(Hibernated { resuming: Some(boot), .. }) if boot != time::boot_id() => None,
        Some(kept) => Some(Hibernated { resuming: None, ..kept }),
    };
}

/// Remove a memory file that the record, which is saved, does not know of.
///
/// # Errors
/// The file system is read-only.
pub fn sweep(dir: &InstanceDir, record: &InstanceRecord) -> Result<()> {
    if record.instance.spore.hibernated.is_some() {
        return Ok(());
    }
    let removed = dir.owned()?.remove_if_there(MEMORY);
    removed.or_fail(|| format!("remove {}", dir.file(MEMORY).display()))
}
