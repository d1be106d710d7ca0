//! Whether a volume is attached.
//!
//! Two records tell: the volume's names the instance, the instance's maps the volume. Both must,
//! for the volume to be attached; a command that was killed between the two leaves a volume that is
//! free.

use super::dir;
use crate::id::{InstanceId, VolumeId};
use crate::record::instance::{Instance, Mapping, State};
use crate::record::volume::Volume;
use crate::store::Store;

/// The instance that a volume is attached to.
pub fn attached_to(store: &Store, volume: &Volume) -> Option<InstanceId> {
    let id = &volume.attachment.as_ref()?.instance_id;
    let record = dir::instances(store).get(id).ok()?;
    let instance = &record.instance;
    // One that never came up may not map its volumes yet.
    let maps = match mapping(instance, &volume.volume_id) {
        Some(mapping) => !mapping.ebs.detaching || holds(instance),
        None => instance.state == State::Pending,
    };
    (instance.state != State::Terminated && maps).then(|| id.clone())
}

/// Whether a guest may hold on to a volume that it was asked to let go of.
fn holds(instance: &Instance) -> bool {
    instance.state.is_active() || instance.spore.hibernated.is_some()
}

/// The instance's mapping of a volume.
pub(super) fn mapping<'a>(instance: &'a Instance, volume: &VolumeId) -> Option<&'a Mapping> {
    instance.block_device_mappings.iter().find(|m| m.ebs.volume_id == *volume)
}
