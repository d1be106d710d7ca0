//! What EC2's RunInstances and a launch template say of a launch, in the shape of EC2's service
//! model, and the launch that it asks for.

use super::Service;
use super::asked::{self, decoded};
use super::launch_request::{Request, RunInstances, check_user_data};
use crate::error::{Code, Error, Result};
use crate::network;
use crate::record::image::BlockDeviceMapping;
use crate::record::instance::NestedVirtualization;
use crate::record::metadata::{Endpoint, HopLimit, HttpTokens, MetadataOptionsRequest, TagsState};
use crate::record::network::{Network, NetworkName};
use crate::record::tag::{Tag, check_tags};
use serde::Deserialize;
use serde_json::Value;

/// EC2 RequestLaunchTemplateData, and what of RunInstancesRequest is not of the one request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(super) struct LaunchData {
    image_id: Option<String>,
    instance_type: Option<String>,
    key_name: Option<String>,
    kernel_id: Option<String>,
    // The two requests spell it in two ways.
    #[serde(alias = "RamDiskId")]
    ramdisk_id: Option<String>,
    user_data: Option<String>,
    subnet_id: Option<String>,
    security_group_ids: Vec<String>,
    security_groups: Vec<String>,
    network_interfaces: Vec<Interface>,
    block_device_mappings: Vec<Value>,
    instance_initiated_shutdown_behavior: Option<String>,
    metadata_options: MetadataOptions,
    cpu_options: Option<CpuOptions>,
    tag_specifications: Vec<TagSpecification>,
    #[serde(rename = "Placement")]
    _placement: Placement,
    #[serde(rename = "CreditSpecification")]
    _credit_specification: CreditSpecification,
    // Every instance whose root is a volume can be hibernated.
    #[serde(rename = "HibernationOptions")]
    _hibernation_options: HibernationOptions,
}

/// EC2 InstanceNetworkInterfaceSpecification.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Interface {
    device_index: u32,
    subnet_id: Option<String>,
    groups: Vec<String>,
    // There is no address but the private one, and the way out needs none.
    #[serde(rename = "AssociatePublicIpAddress")]
    _associate_public_ip_address: bool,
    #[serde(rename = "DeleteOnTermination")]
    _delete_on_termination: bool,
    #[serde(rename = "Description")]
    _description: String,
}

/// EC2 Placement: there is one zone.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Placement {
    #[serde(rename = "AvailabilityZone")]
    _availability_zone: Option<String>,
    #[serde(rename = "Tenancy")]
    _tenancy: Option<String>,
}

/// EC2 CreditSpecificationRequest: an instance is as fast as the host.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreditSpecification {
    #[serde(rename = "CpuCredits")]
    _cpu_credits: Option<String>,
}

/// EC2 HibernationOptionsRequest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HibernationOptions {
    #[serde(rename = "Configured")]
    _configured: bool,
}

/// EC2 CpuOptionsRequest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CpuOptions {
    #[serde(default)]
    core_count: Option<u8>,
    #[serde(default)]
    threads_per_core: Option<u8>,
    #[serde(default)]
    nested_virtualization: Option<NestedVirtualization>,
}

/// EC2 TagSpecification.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagSpecification {
    resource_type: String,
    #[serde(default)]
    tags: Vec<GivenTag>,
}

/// EC2 Tag, of which a value may be absent.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GivenTag {
    key: String,
    #[serde(default)]
    value: String,
}

/// EC2 InstanceMetadataOptionsRequest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MetadataOptions {
    http_tokens: Option<HttpTokens>,
    http_put_response_hop_limit: Option<HopLimit>,
    http_endpoint: Option<Endpoint>,
    http_protocol_ipv6: Option<Endpoint>,
    instance_metadata_tags: Option<TagsState>,
}

impl From<MetadataOptions> for MetadataOptionsRequest {
    fn from(options: MetadataOptions) -> Self {
        Self {
            http_tokens: options.http_tokens,
            http_put_response_hop_limit: options.http_put_response_hop_limit,
            http_endpoint: options.http_endpoint,
            http_protocol_ipv6: options.http_protocol_ipv6,
            instance_metadata_tags: options.instance_metadata_tags,
        }
    }
}

impl Service {
    /// The launch that EC2's words ask for. An interface for which no subnet is named hangs on
    /// `network`.
    ///
    /// # Errors
    /// They ask for what Spore has not; a subnet or a group is not there.
    pub fn launch_request(
        &self,
        data: &Value,
        network: Option<&NetworkName>,
    ) -> Result<RunInstances> {
        let asked: LaunchData = asked::read(data, &[])?;
        let (networks, groups) = self.placed(&asked, network)?;
        let mut request = asked.request()?;
        (request.request.networks, request.request.groups) = (networks, groups);
        request.default_network = network.cloned();
        Ok(request)
    }

    /// The networks of a launch, and the groups of its interfaces.
    fn placed(
        &self,
        asked: &LaunchData,
        network: Option<&NetworkName>,
    ) -> Result<(Vec<Network>, Vec<String>)> {
        let mut groups = [asked.security_group_ids.clone(), asked.security_groups.clone()].concat();
        let mut interfaces: Vec<&Interface> = asked.network_interfaces.iter().collect();
        interfaces.sort_by_key(|interface| interface.device_index);
        let mut subnets: Vec<Option<&str>> =
            interfaces.iter().map(|interface| interface.subnet_id.as_deref()).collect();
        if interfaces.is_empty() {
            // Which network it is may be said by a template, or be the usual one.
            if asked.subnet_id.is_none() && groups.is_empty() {
                return Ok((Vec::new(), groups));
            }
            subnets.push(asked.subnet_id.as_deref());
        } else if asked.subnet_id.is_some() || !groups.is_empty() {
            let why = "Network interfaces and an instance-level subnet ID or security groups may \
                       not be specified on the same request";
            return Err(Error::refused(Code::InvalidParameterCombination, why));
        }
        for interface in interfaces {
            if groups.is_empty() {
                groups.clone_from(&interface.groups);
            } else if !interface.groups.is_empty() && interface.groups != groups {
                let why = "all interfaces of an instance have the same security groups here";
                return Err(Error::refused(Code::UnsupportedOperation, why));
            }
        }
        let named = subnets.into_iter().map(|subnet| match subnet {
            Some(subnet) => self.network_of_subnet(subnet).map(Some),
            // A group says which network.
            None if !groups.is_empty() => self.network_of_group(&groups[0], network),
            None => Ok(network.cloned()),
        });
        let named = named.collect::<Result<Vec<_>>>()?;
        Ok((named.into_iter().flatten().map(Network::Named).collect(), groups))
    }

    /// The network whose subnet that is.
    ///
    /// # Errors
    /// `InvalidSubnetID.NotFound`.
    pub fn network_of_subnet(&self, subnet: &str) -> Result<NetworkName> {
        let mut own = network::own(&self.store)?.into_iter();
        let found = own.find(|vpc| vpc.spore.subnet_id.as_str() == subnet);
        found.map(|vpc| vpc.spore.name).ok_or_else(|| {
            let why = format!("The subnet ID '{}' does not exist", subnet.escape_debug());
            Error::refused(Code::InvalidSubnetIDNotFound, why)
        })
    }

    /// The network that a group is of, by the group's id; the usual one for a name.
    fn network_of_group(
        &self,
        group: &str,
        usual: Option<&NetworkName>,
    ) -> Result<Option<NetworkName>> {
        if !group.starts_with("sg-") {
            return Ok(usual.cloned());
        }
        let mut own = network::own(&self.store)?.into_iter();
        let found = own.find(|vpc| {
            vpc.spore.security_groups.iter().any(|other| other.group_id.as_str() == group)
        });
        found.map(|vpc| Some(vpc.spore.name)).ok_or_else(|| {
            let why = format!("The security group '{}' does not exist", group.escape_debug());
            Error::refused(Code::InvalidGroupNotFound, why)
        })
    }
}

impl LaunchData {
    /// A launch template's data, as far as it can be looked at before a launch.
    ///
    /// # Errors
    /// It asks for what Spore has not.
    pub fn check(data: &Value) -> Result<()> {
        let asked: Self = asked::read(data, &[])?;
        if asked.subnet_id.is_some() {
            let why = "a launch template names its subnet in NetworkInterfaces";
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        let request = asked.request()?;
        check_tags(&request.request.tags)?;
        check_tags(&request.volume_tags)?;
        check_user_data(request.user_data.as_deref().unwrap_or_default())
    }

    /// The launch without its networks.
    fn request(self) -> Result<RunInstances> {
        let user_data =
            self.user_data.as_deref().map(|text| decoded("UserData", text)).transpose()?;
        let mappings = self.block_device_mappings.iter().map(mapping).collect::<Result<_>>()?;
        let options = self.cpu_options.unwrap_or_default();
        // A thread is a vCPU.
        let threads = options.threads_per_core.unwrap_or(1);
        let cpus = options.core_count.map(|cores| cores.saturating_mul(threads));
        let terminate_on_shutdown =
            self.instance_initiated_shutdown_behavior.as_deref().map(terminates).transpose()?;
        let tags = tags(self.tag_specifications)?;
        Ok(RunInstances {
            image_id: self.image_id.unwrap_or_default(),
            kernel_id: self.kernel_id,
            ramdisk_id: self.ramdisk_id,
            user_data,
            terminate_on_shutdown,
            volume_tags: tags.1,
            request: Request {
                instance_type: self.instance_type,
                cpus,
                nested_virtualization: options
                    .nested_virtualization
                    .map(NestedVirtualization::is_enabled),
                key_name: self.key_name,
                block_device_mappings: mappings,
                metadata_options: self.metadata_options.into(),
                tags: tags.0,
                ..Request::default()
            },
            ..RunInstances::default()
        })
    }
}

/// Whether a guest's own shutdown ends its instance.
fn terminates(behavior: &str) -> Result<bool> {
    match behavior {
        "stop" => Ok(false),
        "terminate" => Ok(true),
        other => {
            let shown: String = other.escape_debug().take(40).collect();
            let why = format!("a guest's own shutdown may stop or terminate, and not '{shown}'");
            Err(Error::refused(Code::InvalidParameterValue, why))
        }
    }
}

/// The tags of instances, and those of their volumes.
fn tags(specifications: Vec<TagSpecification>) -> Result<(Vec<Tag>, Vec<Tag>)> {
    let (mut instance, mut volume) = (Vec::new(), Vec::new());
    for specification in specifications {
        let of = match specification.resource_type.as_str() {
            "instance" => &mut instance,
            "volume" => &mut volume,
            other => {
                let shown: String = other.escape_debug().take(40).collect();
                let why = format!(
                    "'{shown}' is not a type of resource that this action makes; it makes \
                     instance, volume"
                );
                return Err(Error::refused(Code::InvalidParameterValue, why));
            }
        };
        let given = specification.tags.into_iter();
        of.extend(given.map(|tag| Tag { key: tag.key, value: tag.value }));
    }
    Ok((instance, volume))
}

/// EC2 BlockDeviceMapping.
fn mapping(value: &Value) -> Result<BlockDeviceMapping> {
    let mut value = value.clone();
    if let Some(asked) = value.get("Ebs") {
        value["Ebs"] = ebs(asked)?;
    }
    BlockDeviceMapping::deserialize(&value).map_err(|error| {
        Error::refused(Code::InvalidBlockDeviceMapping, format!("BlockDeviceMapping: {error}"))
    })
}

/// EC2 EbsBlockDevice without what every volume here is like.
///
/// # Errors
/// `UnsupportedOperation`: it is to be encrypted.
pub fn ebs(asked: &Value) -> Result<Value> {
    let mut ebs = asked.clone();
    if ebs.get("Encrypted") == Some(&Value::Bool(true)) {
        let why = "volumes are not encrypted here: encrypt the disk that SPORE_HOME is on";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    if let Some(ebs) = ebs.as_object_mut() {
        // Every volume is as fast as the host's disk.
        for key in ["Encrypted", "Iops", "Throughput"] {
            ebs.shift_remove(key);
        }
    }
    Ok(ebs)
}
