//! Instances as EC2's DescribeInstances gives them.

use super::Service;
use super::filter::{Filter, Filters, select_by};
pub use super::shape::instance::{StateChange, reservations};
use crate::control::Status;
use crate::error::Result;
use crate::id::{ImageId, InstanceId, ReservationId};
use crate::instance::client;
use crate::instance::dir::{self, InstanceDir};
use crate::instance::lifecycle;
use crate::instance::metadata;
use crate::instance::refresh::seen;
use crate::record::instance::{InstanceRecord, State};
use crate::store::Store;
use std::collections::{BTreeMap, HashMap};

/// The names of images.
pub type Names = BTreeMap<ImageId, String>;

/// EC2 DescribeInstances.
#[derive(Clone, Debug, Default)]
pub struct DescribeInstances {
    /// Which; all if there is none.
    pub instance_ids: Vec<String>,
    /// Only those for which all of these hold.
    pub filters: Vec<Filter>,
}

/// Instances as those choose them who act on several.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Ids, unique prefixes, names, `NAME-INDEX` or patterns of names; if there is none, the
    /// caller's own that are not terminated.
    pub instance_ids: Vec<String>,
    /// Only those for which all of these hold.
    pub filters: Vec<Filter>,
}

/// EC2's filters of DescribeInstances, and where its answer has their values. `state` is short for
/// `instance-state-name`.
const FILTERS: Filters = Filters {
    tags: "Instances.Tags",
    names: &[
        ("architecture", "Instances.Architecture"),
        ("availability-zone", "Instances.Placement.AvailabilityZone"),
        ("block-device-mapping.attach-time", "Instances.BlockDeviceMappings.Ebs.AttachTime"),
        (
            "block-device-mapping.delete-on-termination",
            "Instances.BlockDeviceMappings.Ebs.DeleteOnTermination",
        ),
        ("block-device-mapping.device-name", "Instances.BlockDeviceMappings.DeviceName"),
        ("block-device-mapping.status", "Instances.BlockDeviceMappings.Ebs.Status"),
        ("block-device-mapping.volume-id", "Instances.BlockDeviceMappings.Ebs.VolumeId"),
        ("client-token", "Instances.ClientToken"),
        ("hibernation-options.configured", "Instances.HibernationOptions.Configured"),
        ("hypervisor", "Instances.Hypervisor"),
        ("image-id", "Instances.ImageId"),
        ("instance-id", "Instances.InstanceId"),
        ("instance-state-code", "Instances.State.Code"),
        ("instance-state-name", "Instances.State.Name"),
        ("instance-type", "Instances.InstanceType"),
        ("kernel-id", "Instances.KernelId"),
        ("launch-index", "Instances.AmiLaunchIndex"),
        ("launch-time", "Instances.LaunchTime"),
        ("network-interface.group-id", "Instances.NetworkInterfaces.Groups.GroupId"),
        ("network-interface.group-name", "Instances.NetworkInterfaces.Groups.GroupName"),
        ("network-interface.mac-address", "Instances.NetworkInterfaces.MacAddress"),
        (
            "network-interface.network-interface-id",
            "Instances.NetworkInterfaces.NetworkInterfaceId",
        ),
        ("network-interface.private-ip-address", "Instances.NetworkInterfaces.PrivateIpAddress"),
        ("network-interface.subnet-id", "Instances.NetworkInterfaces.SubnetId"),
        ("network-interface.vpc-id", "Instances.NetworkInterfaces.VpcId"),
        ("owner-id", "OwnerId"),
        ("platform", "Instances.Platform"),
        ("platform-details", "Instances.PlatformDetails"),
        ("private-ip-address", "Instances.NetworkInterfaces.PrivateIpAddress"),
        ("product-code", "Instances.ProductCodes.ProductCodeId"),
        ("ramdisk-id", "Instances.RamdiskId"),
        ("reservation-id", "ReservationId"),
        ("root-device-name", "Instances.RootDeviceName"),
        ("root-device-type", "Instances.RootDeviceType"),
        ("state", "Instances.State.Name"),
        ("state-reason-code", "Instances.StateReason.Code"),
        ("state-reason-message", "Instances.StateReason.Message"),
        ("subnet-id", "Instances.NetworkInterfaces.SubnetId"),
        ("virtualization-type", "Instances.VirtualizationType"),
        ("vpc-id", "Instances.NetworkInterfaces.VpcId"),
    ],
};

/// The names of the filters that there are.
pub fn filter_names() -> Vec<&'static str> {
    FILTERS.names.iter().map(|(name, _)| *name).collect()
}

impl Service {
    /// EC2 DescribeInstances: those named in that order, or all by reservation and launch index.
    /// [`reservations`] makes EC2's answer of them.
    ///
    /// # Errors
    /// One of those named is unknown or ambiguous, a filter is unknown, the store can't be read.
    pub fn describe_instances(&self, request: &DescribeInstances) -> Result<Vec<InstanceRecord>> {
        self.revive_networks();
        let records = match request.instance_ids.as_slice() {
            [] => all(&self.store)?,
            ids => resolve(&self.store, ids)?.iter().map(record).collect::<Result<_>>()?,
        };
        select_by(records, &request.filters, FILTERS, answer)
    }

    /// The ids of the instances that are chosen, each once. There may be none.
    ///
    /// # Errors
    /// One of those named is unknown or ambiguous, a filter is unknown, the store can't be read.
    pub fn select_instances(&self, selection: &Selection) -> Result<Vec<String>> {
        let Selection { instance_ids, filters } = selection.clone();
        let all = instance_ids.is_empty();
        let by_state = chooses_state(&filters);
        let mut records = self.describe_instances(&DescribeInstances { instance_ids, filters })?;
        if all {
            records.retain(|record| record.owner_id == self.store.owner_id());
            records.retain(|r| by_state || r.instance.state != State::Terminated);
        }
        Ok(records.iter().map(|record| record.instance.instance_id.to_string()).collect())
    }

    /// The names of the images that instances were launched from, as far as they are there.
    pub fn image_names(&self, records: &[InstanceRecord]) -> Names {
        let mut names = Names::new();
        for id in records.iter().map(|record| &record.instance.image_id) {
            if let (false, Ok(image)) = (names.contains_key(id), self.store.images().get(id)) {
                names.insert(id.clone(), image.name);
            }
        }
        names
    }

    /// The one instance of that id or name.
    ///
    /// # Errors
    /// It is unknown or ambiguous, or can't be read.
    pub fn describe_instance(&self, instance_id: &str) -> Result<InstanceRecord> {
        record(&find(&self.store, instance_id)?)
    }

    /// EC2 DescribeInstanceAttribute, userData: as it was given, `None` if there is none.
    ///
    /// # Errors
    /// The instance is unknown, ambiguous or another's, or the data can't be read.
    pub fn instance_user_data(&self, instance_id: &str) -> Result<(InstanceId, Option<Vec<u8>>)> {
        let dir = find(&self.store, instance_id)?;
        Ok((dir.id().clone(), metadata::user_data(&dir)?))
    }

    /// What a running instance's VMM says of itself; `None` if it says nothing.
    pub fn instance_status(&self, record: &InstanceRecord) -> Option<Status> {
        let dir = InstanceDir::new(&self.store, &record.instance.instance_id);
        (record.instance.state == State::Running).then(|| client::status(&dir).ok()).flatten()
    }
}

/// Whether instances are chosen by their state: who doesn't ask for terminated ones gets none.
pub fn chooses_state(filters: &[Filter]) -> bool {
    filters.iter().any(|f| f.name == "state" || f.name.starts_with("instance-state-"))
}

/// EC2's answer of one instance, which filters look into.
fn answer(record: &InstanceRecord) -> serde_json::Value {
    let answer = reservations(std::slice::from_ref(record));
    serde_json::to_value(answer).unwrap_or_default()
}

/// Every instance as it truly is, by reservation and launch index. What can't be read is a warning.
///
/// # Errors
/// The store can't be read.
pub(super) fn all(store: &Store) -> Result<Vec<InstanceRecord>> {
    let listing = dir::instances(store).list_by(|id| seen(&InstanceDir::new(store, id)))?;
    let mut records = listing.or_warn();
    in_order(&mut records);
    Ok(records)
}

/// By reservation, the oldest first, and by launch index in it: clones come up in any order, and
/// are started again at any time.
fn in_order(records: &mut [InstanceRecord]) {
    let mut begun: HashMap<ReservationId, String> = HashMap::new();
    for record in records.iter() {
        let time = &record.instance.launch_time;
        let first = begun.entry(record.reservation_id.clone()).or_insert_with(|| time.clone());
        if time < first {
            first.clone_from(time);
        }
    }
    records.sort_by_cached_key(|r| {
        let begun = begun.get(&r.reservation_id).cloned();
        (begun, r.reservation_id.clone(), r.instance.ami_launch_index)
    });
}

/// The one instance that `target` addresses.
///
/// # Errors
/// It is unknown or ambiguous.
pub(super) fn find(store: &Store, target: &str) -> Result<InstanceDir> {
    let record = dir::instances(store).resolve(target)?;
    Ok(InstanceDir::new(store, &record.instance.instance_id))
}

/// The instances that `targets` (ids, unique prefixes, names, which several may share, `NAME-INDEX`
/// and patterns) address, each once, in that order and by their index.
///
/// # Errors
/// One is unknown or ambiguous; nothing has been done to the others then.
pub(super) fn resolve(store: &Store, targets: &[String]) -> Result<Vec<InstanceDir>> {
    let mut found: Vec<InstanceDir> = Vec::new();
    for target in targets {
        let mut records = dir::instances(store).find(target)?;
        in_order(&mut records);
        for id in records.iter().map(|record| &record.instance.instance_id) {
            if found.iter().all(|other| other.id() != id) {
                found.push(InstanceDir::new(store, id));
            }
        }
    }
    Ok(found)
}

/// The record as it truly is.
///
/// # Errors
/// `InvalidInstanceID.NotFound`, or it can't be read.
pub(super) fn record(dir: &InstanceDir) -> Result<InstanceRecord> {
    seen(dir)?.ok_or_else(|| lifecycle::not_found(dir.id().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::reap::tests::record;
    use crate::record::image::RootDeviceType;
    use crate::record::instance::ShutdownBehavior::Stop;
    use crate::record::tag::Tag;

    #[test]
    fn instances_are_told_by_reservation_and_launch_index() {
        let first = ReservationId::generate().unwrap();
        let clone = |index: u32, second: &str| {
            let mut clone = record(State::Running, RootDeviceType::Ebs, Stop, 1);
            clone.reservation_id = first.clone();
            clone.instance.ami_launch_index = index;
            clone.instance.launch_time = format!("2025-01-01T00:00:{second}.000Z");
            clone
        };
        let mut later = record(State::Running, RootDeviceType::Ebs, Stop, 1);
        later.instance.launch_time = "2025-01-01T00:00:05.000Z".into();
        // The second clone has been started again since, and the third was up before the first.
        let mut all = [later.clone(), clone(2, "01"), clone(0, "02"), clone(1, "09")];
        in_order(&mut all);
        let reported =
            all.each_ref().map(|r| (r.reservation_id.clone(), r.instance.ami_launch_index));
        let of = |n| (first.clone(), n);
        assert_eq!(reported, [of(0), of(1), of(2), (later.reservation_id, 0)]);
    }

    #[test]
    fn filters_find_what_is_nested() {
        let mut records = vec![record(State::Running, RootDeviceType::Ebs, Stop, 1)];
        records[0].instance.tags.push(Tag { key: "Env".into(), value: "a b".into() });
        for (name, value, found) in [
            ("instance-state-name", "running", true),
            ("instance-state-code", "16", true),
            ("instance-state-code", "1", false),
            ("owner-id", records[0].owner_id.as_str(), true),
            ("root-device-type", "ebs", true),
            ("tag:Env", "a*", true),
            ("tag:Name", "*", false),
            ("tag-key", "Env", true),
        ] {
            let filter = Filter { name: name.into(), values: vec![value.into()] };
            let chosen = select_by(records.clone(), &[filter], FILTERS, answer).unwrap();
            assert_eq!(!chosen.is_empty(), found, "{name}={value}");
        }
    }
}
