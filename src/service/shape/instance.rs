//! EC2 Reservation and Instance, as RunInstances and DescribeInstances answer.

use super::{HYPERVISOR, Placement, USAGE_OPERATION, is_empty};
use crate::id::{
    ImageId, InstanceId, KernelId, RamdiskId, ReservationId, SubnetId, VolumeId, VpcId,
};
use crate::record::image::{
    Architecture, BootMode, ProductCode, RootDeviceType, StateReason, VirtualizationType,
};
use crate::record::instance::{
    self as record, CpuOptions, HibernationOptions, InstanceRecord, ShutdownBehavior, State,
};
use crate::record::metadata::MetadataOptions;
use crate::record::network::{GroupIdentifier, NetworkInterface};
use crate::record::tag::Tag;
use crate::store::rfc3339;
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// EC2 Reservation: instances that were launched together.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reservation<'a> {
    reservation_id: &'a ReservationId,
    owner_id: &'a str,
    /// Groups of EC2-Classic, of which there are none.
    groups: [(); 0],
    instances: Vec<Instance<'a>>,
}

/// The instances by reservation, as EC2 answers.
pub fn reservations(records: &[InstanceRecord]) -> Vec<Reservation<'_>> {
    let mut reservations: Vec<Reservation> = Vec::new();
    for record in records {
        let InstanceRecord { reservation_id, owner_id, instance } = record;
        let instance = Instance::of(instance);
        match reservations.iter_mut().find(|other| other.reservation_id == reservation_id) {
            Some(reservation) => reservation.instances.push(instance),
            None => reservations.push(Reservation {
                reservation_id,
                owner_id,
                groups: [],
                instances: vec![instance],
            }),
        }
    }
    reservations
}

/// EC2 Instance.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance<'a> {
    instance_id: &'a InstanceId,
    image_id: &'a ImageId,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<&'a StateReason>,
    state_transition_reason: String,
    ami_launch_index: u32,
    instance_type: &'a str,
    launch_time: &'a str,
    placement: Placement,
    monitoring: Monitoring,
    architecture: Architecture,
    virtualization_type: VirtualizationType,
    hypervisor: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'static str>,
    platform_details: &'a str,
    usage_operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_id: Option<&'a KernelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramdisk_id: Option<&'a RamdiskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_instance_boot_mode: Option<BootMode>,
    root_device_name: &'a str,
    root_device_type: RootDeviceType,
    block_device_mappings: Vec<Mapping<'a>>,
    network_interfaces: Vec<Interface<'a>>,
    #[serde(flatten)]
    first: First<'a>,
    cpu_options: CpuOptions,
    hibernation_options: HibernationOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_name: Option<&'a str>,
    metadata_options: MetadataOptions,
    client_token: &'a str,
    ebs_optimized: bool,
    ena_support: bool,
    product_codes: &'a [ProductCode],
    tags: &'a [Tag],
    spore: Own<'a>,
}

/// EC2 Monitoring.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Monitoring {
    state: &'static str,
}

/// EC2 InstanceBlockDeviceMapping.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping<'a> {
    device_name: &'a str,
    ebs: Ebs<'a>,
}

/// EC2 EbsInstanceBlockDevice.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs<'a> {
    volume_id: &'a VolumeId,
    status: &'static str,
    attach_time: &'a str,
    delete_on_termination: bool,
    #[serde(skip_serializing_if = "is_empty")]
    spore: EbsOwn,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EbsOwn {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

/// EC2 InstanceNetworkInterface: the record, and what is the same of all.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Interface<'a> {
    #[serde(flatten)]
    record: &'a NetworkInterface,
    status: &'static str,
    interface_type: &'static str,
    source_dest_check: bool,
}

/// What EC2 says of the first interface once more.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct First<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    private_ip_address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6_address: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_id: Option<&'a SubnetId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vpc_id: Option<&'a VpcId>,
    security_groups: &'a [GroupIdentifier],
}

impl<'a> First<'a> {
    fn of(instance: &'a record::Instance) -> Self {
        let Some(first) = instance.network_interfaces.first() else { return Self::default() };
        Self {
            private_ip_address: first.private_ip_address,
            ipv6_address: first.ipv6_addresses.first().map(|address| address.ipv6_address),
            subnet_id: first.subnet_id.as_ref(),
            vpc_id: first.vpc_id.as_ref(),
            security_groups: &first.groups,
        }
    }
}

/// What is Spore's own of an instance.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Own<'a> {
    /// EC2 has it as an attribute only.
    instance_initiated_shutdown_behavior: ShutdownBehavior,
    #[serde(flatten)]
    record: &'a record::Spore,
}

impl<'a> Instance<'a> {
    /// Of a record.
    pub fn of(instance: &'a record::Instance) -> Self {
        let platform_details = instance.platform_details.as_str();
        Self {
            instance_id: &instance.instance_id,
            image_id: &instance.image_id,
            state: instance.state,
            state_reason: instance.state_reason.as_ref(),
            state_transition_reason: transition_reason(instance),
            ami_launch_index: instance.ami_launch_index,
            instance_type: &instance.instance_type,
            launch_time: &instance.launch_time,
            placement: Placement::HERE,
            monitoring: Monitoring { state: "disabled" },
            architecture: instance.architecture,
            virtualization_type: instance.virtualization_type,
            hypervisor: HYPERVISOR,
            platform: platform_details.starts_with("Windows").then_some("windows"),
            platform_details,
            usage_operation: USAGE_OPERATION,
            kernel_id: instance.kernel_id.as_ref(),
            ramdisk_id: instance.ramdisk_id.as_ref(),
            current_instance_boot_mode: instance.boot_mode(),
            root_device_name: &instance.root_device_name,
            root_device_type: instance.root_device_type,
            block_device_mappings: mappings(instance),
            network_interfaces: interfaces(instance),
            first: First::of(instance),
            cpu_options: instance.cpu_options,
            hibernation_options: instance.hibernation_options,
            key_name: instance.key_name.as_deref(),
            metadata_options: instance.metadata_options,
            client_token: instance.client_token.as_ref().map_or("", |given| &given.token),
            ebs_optimized: false,
            ena_support: false,
            product_codes: &instance.product_codes,
            tags: &instance.tags,
            spore: Own {
                instance_initiated_shutdown_behavior: instance.instance_initiated_shutdown_behavior,
                record: &instance.spore,
            },
        }
    }
}

/// EC2's words: `User initiated (2026-01-31 12:00:00 GMT)`, and nothing of one that runs.
fn transition_reason(instance: &record::Instance) -> String {
    if instance.state.is_active() {
        return String::new();
    }
    let Some(reason) = &instance.state_reason else { return String::new() };
    let what = match reason.code.as_str() {
        "Client.UserInitiatedShutdown" | "Client.UserInitiatedHibernate" => "User initiated",
        _ => &reason.message,
    };
    let at = match instance.state {
        State::Terminated => instance.spore.terminated_at,
        _ => instance.spore.ended_at,
    };
    let Some(at) = at else { return what.to_owned() };
    let time = rfc3339(Duration::from_millis(at));
    // 2026-01-31T12:00:00.000Z
    let (date, time) = (time.get(..10), time.get(11..19));
    format!("{what} ({} {} GMT)", date.unwrap_or_default(), time.unwrap_or_default())
}

fn mappings(instance: &record::Instance) -> Vec<Mapping<'_>> {
    let mappings = instance.block_device_mappings.iter().map(|mapping| Mapping {
        device_name: &mapping.device_name,
        ebs: Ebs {
            volume_id: &mapping.ebs.volume_id,
            status: if mapping.ebs.detaching { "detaching" } else { "attached" },
            // Records of an older Spore don't say it.
            attach_time: mapping.ebs.attach_time.as_ref().unwrap_or(&instance.launch_time),
            delete_on_termination: mapping.ebs.delete_on_termination,
            spore: EbsOwn { read_only: mapping.ebs.read_only },
        },
    });
    mappings.collect()
}

fn interfaces(instance: &record::Instance) -> Vec<Interface<'_>> {
    let interfaces = instance.network_interfaces.iter().map(|record| Interface {
        record,
        status: "in-use",
        interface_type: "interface",
        source_dest_check: true,
    });
    interfaces.collect()
}

/// EC2 InstanceStateChange.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateChange<'a> {
    instance_id: &'a InstanceId,
    current_state: State,
    previous_state: State,
}

impl<'a> StateChange<'a> {
    /// That of an instance, which was in another state before.
    pub fn of(record: &'a InstanceRecord, previous_state: State) -> Self {
        let instance = &record.instance;
        let (instance_id, current_state) = (&instance.instance_id, instance.state);
        Self { instance_id, current_state, previous_state }
    }
}
