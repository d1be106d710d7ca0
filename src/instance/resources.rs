//! What instances take from kernels and volumes, and give back.

use super::launch::LaunchPlan;
use crate::error::{Code, Result};
use crate::id::{KernelId, RamdiskId, VolumeId};
use crate::instance::mapping::VolumePlan;
use crate::kernel::{KERNEL, RAMDISK};
use crate::record::image::RootDeviceType;
use crate::record::instance::{Instance, InstanceRecord, Mapping};
use crate::record::volume::{Attachment, Volume};
use crate::store::shared::open_file;
use crate::store::{Durability, Store, now};
use crate::volume::{self, NewVolume, Opened};
use std::fs::File;
use std::time::{Duration, Instant};

/// Bytes of a GiB.
const GIB: u64 = 1 << 30;

/// Make one of an instance's volumes, with the id that its record maps.
///
/// # Errors
/// Its snapshot is gone; no space.
pub fn create_volume(
    store: &Store,
    id: &VolumeId,
    wanted: &VolumePlan,
    plan: &LaunchPlan,
) -> Result<()> {
    let mut new = NewVolume {
        volume_id: Some(id.clone()),
        size_bytes: None,
        volume_type: Some(wanted.volume_type.clone()),
        attachment: Some(Attachment {
            instance_id: plan.instance_id.clone(),
            device: wanted.device_name.clone(),
            delete_on_termination: wanted.delete_on_termination,
            attach_time: Some(now()),
        }),
        tags: Vec::new(),
        client_token: None,
    };
    let root = plan.volumes.first().is_some_and(|root| root.device_name == wanted.device_name);
    let durability = match plan.root_device_type {
        RootDeviceType::InstanceStore if root => Durability::Volatile,
        _ => Durability::Durable,
    };
    let size = wanted.size.saturating_mul(GIB);
    let made = match &wanted.snapshot_id {
        Some(id) => {
            let snapshot = store.snapshots().get(id)?;
            // The mapping counts in whole GiB: the snapshot's exact size unless more is asked for.
            new.size_bytes = (wanted.size > snapshot.volume_size).then_some(size);
            volume::create_from_snapshot(store, &snapshot, new, durability)
        }
        None => {
            new.size_bytes = Some(size);
            volume::create_empty(store, new, durability)
        }
    };
    made.map(|_| ())
}

/// How long a volume may stay in use after the VMM that had it is gone.
pub(super) const LINGER: Duration = Duration::from_secs(10);
/// How much of that a command waits that only looks at what became of an instance.
const REPAIR_LINGER: Duration = Duration::from_millis(500);

/// Open a volume's files for a VMM, top first.
///
/// The kernel takes an io_uring apart some time after its process has ended, and the ring's files
/// with it, so a volume that is in use just after its last VMM is waited for.
///
/// # Errors
/// Another VMM writes it; it is gone.
pub fn open_volume(store: &Store, id: &VolumeId, read_only: bool) -> Result<Opened> {
    let volume = store.volumes().get(id)?;
    while_in_use(LINGER, || volume::open_layers(store, &volume, read_only))
}

/// Leave the overlays of an instance whose VMM was killed or crashed as a clean end would have.
/// What can't be repaired now, because the kernel is slow to let go of it, is when it is next
/// opened.
pub fn repair_volumes(store: &Store, record: &InstanceRecord) {
    for mapping in &record.instance.block_device_mappings {
        let Ok(volume) = store.volumes().get(&mapping.ebs.volume_id) else { continue };
        match while_in_use(REPAIR_LINGER, || volume::repair(store, &volume)) {
            Err(e) if e.code() != Some(Code::VolumeInUse) => store.context().warn(e),
            _ => {}
        }
    }
}

pub(super) fn while_in_use<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Err(e) if e.code() == Some(Code::VolumeInUse) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Take an instance-store root off its names once the VMM's descriptors of it are open. They are
/// all that keeps it then: it leaves no trace however the VMM ends.
///
/// # Errors
/// It can't be removed.
pub fn release_instance_store(store: &Store, instance: &mut Instance) -> Result<()> {
    let is_root = |m: &Mapping| instance.is_instance_store(&m.device_name);
    let Some(at) = instance.block_device_mappings.iter().position(is_root) else { return Ok(()) };
    store.volumes().remove(&instance.block_device_mappings[at].ebs.volume_id)?;
    instance.block_device_mappings.remove(at);
    Ok(())
}

/// Delete the volumes that go with the instance, detach those that stay. Done twice, it does
/// nothing more.
///
/// # Errors
/// One can't be removed.
pub fn release_volumes(store: &Store, record: &InstanceRecord) -> Result<()> {
    let goes = |attachment: &Attachment| {
        attachment.delete_on_termination || record.instance.is_instance_store(&attachment.device)
    };
    give_back(store, record, goes)
}

/// Delete all volumes of an instance that never came up, or whose launch is undone: nobody has used
/// them.
///
/// # Errors
/// One can't be removed.
pub fn remove_volumes(store: &Store, record: &InstanceRecord) -> Result<()> {
    give_back(store, record, |_| true)
}

fn give_back(
    store: &Store,
    record: &InstanceRecord,
    goes: impl Fn(&Attachment) -> bool,
) -> Result<()> {
    let id = &record.instance.instance_id;
    for volume in volumes_of(store, record)? {
        let Some(attachment) = volume.attachment.filter(|a| a.instance_id == *id) else { continue };
        let result = if goes(&attachment) {
            // Not `delete`: our own VMM may still have it open.
            store.volumes().remove(&volume.volume_id)
        } else {
            let detach = |volume: &mut Volume| {
                volume.attachment = None;
                Ok(())
            };
            store.volumes().update(&volume.volume_id, Durability::Durable, detach)
        };
        match result {
            Err(e) if e.code() != Some(<Volume as crate::store::Record>::NOT_FOUND) => {
                return Err(e);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The instance's volumes, which are its owner's. The record of one that never came up does not
/// name an instance-store root.
fn volumes_of(store: &Store, record: &InstanceRecord) -> Result<Vec<Volume>> {
    let instance = &record.instance;
    if instance.spore.starts == 0 {
        let mut volumes = store.volumes().list()?.or_warn();
        volumes.retain(|volume| volume.owner_id == record.owner_id);
        return Ok(volumes);
    }
    let volumes = store.volumes();
    let mapped = instance.block_device_mappings.iter().map(|m| volumes.get(&m.ebs.volume_id));
    Ok(mapped.filter_map(Result::ok).collect())
}

/// Open a registered kernel.
///
/// # Errors
/// It is not registered any more.
pub fn open_kernel(store: &Store, id: &KernelId) -> Result<File> {
    store.kernels().get(id)?;
    open_file(&store.kernels().dir(id), KERNEL)
}

/// Open a registered ramdisk.
///
/// # Errors
/// It is not registered any more.
pub fn open_ramdisk(store: &Store, id: &RamdiskId) -> Result<File> {
    store.ramdisks().get(id)?;
    open_file(&store.ramdisks().dir(id), RAMDISK)
}
