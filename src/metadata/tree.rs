//! The metadata of an instance, made of its records. (EC2 User Guide, "Instance metadata
//! categories")
//!
//! What an instance has none of is absent, as on EC2: there are no iam/, spot/ and public-*.

use super::Metadata;
use crate::record::image::VirtualizationType;
use crate::record::instance::{Disk, Instance, InstanceRecord};
use crate::record::metadata::TagsState;
use crate::record::network::NetworkInterface;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;

/// EC2 region of everything at hand. Its zone is not of the form of AWS's: in one that is,
/// cloud-init looks for AWS's mirrors.
pub const REGION: &str = "local-1";
/// EC2 AvailabilityZone of everything: there is one host.
pub const AVAILABILITY_ZONE: &str = "local-1a";
/// What the names of a network's instances end in.
pub const DOMAIN: &str = "internal";

/// What the record of an instance does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// As `run` was given it.
    pub user_data: Option<&'a [u8]>,
    /// What its interfaces' networks are, as far as they are Spore's own.
    pub subnets: &'a [Subnet],
}

/// The subnet of the interface of that index.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// EC2's device index.
    pub device_index: u8,
    /// e.g. `10.0.0.0/20`.
    pub ipv4_cidr: String,
    /// e.g. `fd00:1::/64`.
    pub ipv6_cidr: Option<String>,
    /// The guest gets its IPv6 address by DHCPv6: cloud-init asks for one where it is told of one.
    pub dhcp6: bool,
}

/// The name that an address has on its network.
pub fn host_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}")
}

/// The host name that a guest is to have: that of its first address on a network of Spore's, or
/// else its instance's id.
pub fn guest_name(instance: &Instance) -> String {
    address(instance).map_or_else(|| instance.instance_id.to_string(), host_name)
}

/// The address of its first interface that has one.
fn address(instance: &Instance) -> Option<Ipv4Addr> {
    instance.network_interfaces.iter().find_map(|interface| interface.private_ip_address)
}

/// All of it.
pub fn of(record: &InstanceRecord, given: Given<'_>) -> Metadata {
    let instance = &record.instance;
    let mut tree = Tree::default();
    describe(&mut tree, record);
    place(&mut tree);
    for disk in instance.disks() {
        block_device(&mut tree, instance, disk);
    }
    for interface in &instance.network_interfaces {
        let index = interface.attachment.device_index;
        let subnet = given.subnets.iter().find(|subnet| subnet.device_index == index);
        network(&mut tree, &record.owner_id, interface, subnet);
    }
    if let (Some(name), Some(key)) = (&instance.key_name, &instance.spore.public_key) {
        tree.0.insert("meta-data/public-keys/".into(), format!("0={name}").into());
        tree.add("public-keys/0/openssh-key", key);
    }
    if instance.metadata_options.instance_metadata_tags == TagsState::Enabled {
        for tag in &instance.tags {
            tree.add(&format!("tags/instance/{}", tag.key), &tag.value);
        }
    }
    let document = "dynamic/instance-identity/document";
    tree.0.insert(document.into(), identity(record).into_bytes());
    if let Some(data) = given.user_data {
        tree.0.insert("user-data".into(), data.to_vec());
    }
    Metadata { options: instance.metadata_options, leaves: tree.0 }
}

/// The leaves, by their paths below a version.
#[derive(Default)]
struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    /// A leaf below meta-data.
    fn add(&mut self, path: &str, value: impl Display) {
        self.0.insert(format!("meta-data/{path}"), value.to_string().into_bytes());
    }

    /// The same, of what there may be none of.
    fn maybe(&mut self, path: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(path, value);
        }
    }

    /// The same, of several values, a line each.
    fn lines<T: Display>(&mut self, path: &str, values: impl Iterator<Item = T>) {
        let lines: Vec<String> = values.map(|value| value.to_string()).collect();
        if !lines.is_empty() {
            self.add(path, lines.join("\n"));
        }
    }
}

fn describe(tree: &mut Tree, record: &InstanceRecord) {
    let instance = &record.instance;
    tree.add("ami-id", &instance.image_id);
    tree.add("ami-launch-index", instance.ami_launch_index);
    // What EC2 says of an image that is no bundle.
    tree.add("ami-manifest-path", "(unknown)");
    tree.add("autoscaling/target-lifecycle-state", "InService");
    tree.add("events/maintenance/history", "[]");
    tree.add("events/maintenance/scheduled", "[]");
    tree.add("hibernation/configured", instance.hibernation_options.configured);
    tree.add("instance-action", "none");
    tree.add("instance-id", &instance.instance_id);
    tree.add("instance-life-cycle", "on-demand");
    tree.add("instance-type", &instance.instance_type);
    tree.maybe("kernel-id", instance.kernel_id.as_ref());
    tree.maybe("ramdisk-id", instance.ramdisk_id.as_ref());
    tree.lines("product-codes", instance.product_codes.iter().map(|c| &c.product_code_id));
    tree.add(
        "profile",
        match instance.virtualization_type {
            VirtualizationType::Hvm => "default-hvm",
            VirtualizationType::Paravirtual => "default-paravirtual",
        },
    );
    tree.add("reservation-id", &record.reservation_id);
    let name = format!("{}.{DOMAIN}", guest_name(instance));
    tree.add("hostname", &name);
    tree.add("local-hostname", &name);
    tree.maybe("local-ipv4", address(instance));
    let mut six =
        instance.network_interfaces.iter().flat_map(|interface| &interface.ipv6_addresses);
    tree.maybe("ipv6", six.next().map(|address| address.ipv6_address));
    if let Some(first) = instance.network_interfaces.first() {
        tree.add("mac", first.mac_address);
        tree.lines("security-groups", first.groups.iter().map(|group| &group.group_name));
    }
    tree.add("services/domain", DOMAIN);
    tree.add("services/partition", "aws");
}

fn place(tree: &mut Tree) {
    tree.add("placement/availability-zone", AVAILABILITY_ZONE);
    tree.add("placement/availability-zone-id", format!("{REGION}-az1"));
    tree.add("placement/region", REGION);
}

/// `ami` and `root` are the root device; the others are named by what they are, and counted.
fn block_device(tree: &mut Tree, instance: &Instance, disk: Disk<'_>) {
    let at = |name: &str| format!("block-device-mapping/{name}");
    let short = |device: &str| device.trim_start_matches("/dev/").to_owned();
    let root = &instance.root_device_name;
    match disk {
        Disk::InstanceStore => root_device(tree, root),
        Disk::Volume(mapping) if mapping.device_name == *root => root_device(tree, root),
        Disk::Volume(mapping) => {
            let used =
                |n: &u32| !tree.0.contains_key(&format!("meta-data/{}", at(&format!("ebs{n}"))));
            let n = (1u32..).find(used).unwrap_or_default();
            tree.add(&at(&format!("ebs{n}")), short(&mapping.device_name));
        }
        Disk::Ephemeral(ephemeral) => {
            tree.add(&at(&ephemeral.virtual_name), short(&ephemeral.device_name));
        }
    }
}

fn root_device(tree: &mut Tree, device: &str) {
    tree.add("block-device-mapping/ami", device);
    tree.add("block-device-mapping/root", device);
}

/// What there is of an interface, by its MAC address. One on a tap of the host's has no subnet and
/// no address that Spore knows of.
fn network(tree: &mut Tree, owner: &str, interface: &NetworkInterface, subnet: Option<&Subnet>) {
    let mac = interface.mac_address;
    let at = |name: &str| format!("network/interfaces/macs/{mac}/{name}");
    tree.add(&at("device-number"), interface.attachment.device_index);
    tree.add(&at("interface-id"), &interface.network_interface_id);
    tree.add(&at("mac"), mac);
    tree.add(&at("owner-id"), owner);
    if let Some(address) = interface.private_ip_address {
        tree.add(&at("local-hostname"), format!("{}.{DOMAIN}", host_name(address)));
        tree.add(&at("local-ipv4s"), address);
    }
    tree.lines(&at("security-group-ids"), interface.groups.iter().map(|group| &group.group_id));
    tree.lines(&at("security-groups"), interface.groups.iter().map(|group| &group.group_name));
    tree.maybe(&at("subnet-id"), interface.subnet_id.as_ref());
    tree.maybe(&at("vpc-id"), interface.vpc_id.as_ref());
    let Some(subnet) = subnet else { return };
    for name in ["subnet-ipv4-cidr-block", "vpc-ipv4-cidr-block", "vpc-ipv4-cidr-blocks"] {
        tree.add(&at(name), &subnet.ipv4_cidr);
    }
    let addresses = interface.ipv6_addresses.iter().map(|address| address.ipv6_address);
    if subnet.dhcp6 {
        tree.lines(&at("ipv6s"), addresses);
    }
    for name in ["subnet-ipv6-cidr-blocks", "vpc-ipv6-cidr-blocks"] {
        tree.maybe(&at(name), subnet.ipv6_cidr.as_ref());
    }
}

/// The instance identity document. It is not signed: nobody outside vouches for an instance.
fn identity(record: &InstanceRecord) -> String {
    let instance = &record.instance;
    let codes: Vec<&String> = instance.product_codes.iter().map(|c| &c.product_code_id).collect();
    let document = json!({
        "accountId": record.owner_id,
        "architecture": instance.architecture,
        "availabilityZone": AVAILABILITY_ZONE,
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": (!codes.is_empty()).then_some(codes),
        "imageId": instance.image_id,
        "instanceId": instance.instance_id,
        "instanceType": instance.instance_type,
        "kernelId": instance.kernel_id,
        "pendingTime": instance.launch_time,
        "privateIp": address(instance),
        "ramdiskId": instance.ramdisk_id,
        "region": REGION,
        "version": "2017-09-30",
    });
    // A value of strings has a text.
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
