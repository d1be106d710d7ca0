//! RunInstances.

use super::super::call::{Action, Call, decoded, json_of};
use super::networks;
use crate::error::{Code, Error, Result};
use crate::id::hex;
use crate::record::image::BlockDeviceMapping;
use crate::record::instance::ClientToken;
use crate::record::metadata::{Endpoint, HopLimit, HttpTokens, MetadataOptionsRequest, TagsState};
use crate::record::network::Network;
use crate::service::instances::reservations;
use crate::service::launch::{Request, RunInstances, TYPES};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DescribeInstanceTypeOfferings", describe_instance_type_offerings),
    ("DescribeInstanceTypes", describe_instance_types),
    ("RunInstances", run_instances),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Launch {
    image_id: String,
    min_count: u32,
    max_count: u32,
    #[serde(default)]
    instance_type: Option<String>,
    #[serde(default)]
    key_name: Option<String>,
    #[serde(default)]
    kernel_id: Option<String>,
    #[serde(default)]
    ramdisk_id: Option<String>,
    #[serde(default)]
    user_data: Option<String>,
    #[serde(default)]
    subnet_id: Option<String>,
    #[serde(default)]
    security_group_ids: Vec<String>,
    #[serde(default)]
    security_groups: Vec<String>,
    #[serde(default)]
    network_interfaces: Vec<Interface>,
    #[serde(default)]
    block_device_mappings: Vec<Value>,
    #[serde(default)]
    instance_initiated_shutdown_behavior: Option<String>,
    #[serde(default)]
    metadata_options: MetadataOptions,
    #[serde(default)]
    cpu_options: Option<CpuOptions>,
    #[serde(default)]
    client_token: Option<String>,
    #[serde(default, rename = "Placement")]
    _placement: Placement,
    #[serde(default, rename = "CreditSpecification")]
    _credit_specification: Option<Value>,
    // Every instance whose root is a volume can be hibernated.
    #[serde(default, rename = "HibernationOptions")]
    _hibernation_options: Option<Value>,
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

/// EC2 CpuOptionsRequest.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CpuOptions {
    core_count: u8,
    #[serde(default)]
    threads_per_core: Option<u8>,
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

fn run_instances(call: &Call<'_>) -> Result<Value> {
    let asked: Launch = call.input()?;
    let volume_tags = call.tags("volume", TAGGED)?;
    let request = request(call, asked)?;
    let launched = call.service.run_instances(&request)?;
    let instances = launched.records.iter().map(|record| &record.instance);
    let mappings = instances.flat_map(|instance| &instance.block_device_mappings);
    let volumes: Vec<String> = mappings.map(|mapping| mapping.ebs.volume_id.to_string()).collect();
    if !volume_tags.is_empty() {
        let results = call.service.create_tags(&volumes, &volume_tags)?;
        results.into_iter().collect::<Result<()>>()?;
    }
    let reservation = reservations(&launched.records).into_iter().next();
    let failed = || Error::failure("nothing was launched");
    json_of(reservation.ok_or_else(failed)?)
}

/// What RunInstances makes, and tags.
const TAGGED: &[&str] = &["instance", "volume"];

fn request(call: &Call<'_>, asked: Launch) -> Result<RunInstances> {
    let (networks, groups) = placed(call, &asked)?;
    let user_data = asked.user_data.as_deref().map(|text| decoded("UserData", text)).transpose()?;
    let mappings = asked.block_device_mappings.iter().map(mapping).collect::<Result<_>>()?;
    let cpus = asked.cpu_options.map(|options| {
        // A thread is a vCPU.
        options.core_count.saturating_mul(options.threads_per_core.unwrap_or(1))
    });
    let terminate_on_shutdown = match asked.instance_initiated_shutdown_behavior.as_deref() {
        None | Some("stop") => false,
        Some("terminate") => true,
        Some(other) => {
            let why = format!(
                "a guest's own shutdown may stop or terminate, and not '{}'",
                other.escape_debug()
            );
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
    };
    Ok(RunInstances {
        image_id: asked.image_id,
        kernel_id: asked.kernel_id,
        ramdisk_id: asked.ramdisk_id,
        user_data,
        request: Request {
            min_count: asked.min_count,
            max_count: asked.max_count,
            instance_type: asked.instance_type,
            cpus,
            key_name: asked.key_name,
            networks,
            groups,
            block_device_mappings: mappings,
            terminate_on_shutdown,
            metadata_options: asked.metadata_options.into(),
            client_token: asked.client_token.map(|token| client_token(call, token)),
            tags: call.tags("instance", TAGGED)?,
            ..Request::default()
        },
        ..RunInstances::default()
    })
}

/// The token with what it stands for: the request without it.
fn client_token(call: &Call<'_>, token: String) -> ClientToken {
    let mut request = call.request.clone();
    request.as_object_mut().map(|request| request.shift_remove("ClientToken"));
    ClientToken { token, request: hex(&Sha256::digest(request.to_string())) }
}

/// The networks of a launch, and the groups of its interfaces.
fn placed(call: &Call<'_>, asked: &Launch) -> Result<(Vec<Network>, Vec<String>)> {
    let mut groups = [asked.security_group_ids.clone(), asked.security_groups.clone()].concat();
    let mut interfaces: Vec<&Interface> = asked.network_interfaces.iter().collect();
    interfaces.sort_by_key(|interface| interface.device_index);
    let mut subnets: Vec<Option<&str>> =
        interfaces.iter().map(|interface| interface.subnet_id.as_deref()).collect();
    if interfaces.is_empty() {
        subnets.push(asked.subnet_id.as_deref());
    } else if asked.subnet_id.is_some() || !groups.is_empty() {
        let why = "Network interfaces and an instance-level subnet ID or security groups may not be \
                   specified on the same request";
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
        Some(subnet) => networks::of_subnet(call, subnet).map(Some),
        // A group says which network.
        None if !groups.is_empty() => networks::of_group(call, &groups[0]),
        None => Ok(call.network.cloned()),
    });
    let named = named.collect::<Result<Vec<_>>>()?;
    Ok((named.into_iter().flatten().map(Network::Named).collect(), groups))
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

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Types {
    instance_types: Vec<String>,
}

fn describe_instance_types(call: &Call<'_>) -> Result<Value> {
    let asked: Types = call.input()?;
    if let Some(unknown) = asked.instance_types.iter().find(|t| !TYPES.iter().any(|k| k.name == *t))
    {
        let why = format!("the instance type '{}' is not there", unknown.escape_debug());
        return Err(Error::refused(Code::InvalidInstanceType, why));
    }
    let filters = call.filters()?;
    let chosen = TYPES.iter().filter(|known| {
        let named =
            asked.instance_types.is_empty() || asked.instance_types.iter().any(|t| t == known.name);
        named
            && filters.iter().all(|filter| match filter.name.as_str() {
                "instance-type" => filter.accepts(known.name),
                "current-generation" | "hibernation-supported" => filter.accepts("true"),
                "processor-info.supported-architecture" => filter.accepts("x86_64"),
                "vcpu-info.default-vcpus" => filter.accepts(&known.cpus.to_string()),
                "memory-info.size-in-mib" => filter.accepts(&known.memory_mib.to_string()),
                _ => false,
            })
    });
    let types = chosen.map(|known| {
        json!({
            "InstanceType": known.name,
            "CurrentGeneration": true,
            "FreeTierEligible": false,
            "SupportedUsageClasses": ["on-demand"],
            "SupportedRootDeviceTypes": ["ebs", "instance-store"],
            "SupportedVirtualizationTypes": ["hvm", "paravirtual"],
            "BareMetal": false,
            "Hypervisor": "nitro",
            "ProcessorInfo": { "SupportedArchitectures": ["i386", "x86_64"] },
            "VCpuInfo": { "DefaultVCpus": known.cpus, "DefaultCores": known.cpus, "DefaultThreadsPerCore": 1 },
            "MemoryInfo": { "SizeInMiB": known.memory_mib },
            "InstanceStorageSupported": true,
            "HibernationSupported": true,
            "BurstablePerformanceSupported": false,
            "DedicatedHostsSupported": false,
            "AutoRecoverySupported": false,
        })
    });
    call.listed("InstanceTypes", &asked.instance_types, types.collect(), "InstanceType")
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Offerings {
    location_type: Option<String>,
}

fn describe_instance_type_offerings(call: &Call<'_>) -> Result<Value> {
    let asked: Offerings = call.input()?;
    let location_type = asked.location_type.as_deref().unwrap_or("region");
    let location = match location_type {
        "region" => call.region,
        _ => crate::service::shape::ZONE,
    };
    let filters = call.filters()?;
    let chosen = TYPES.iter().filter(|known| {
        filters.iter().all(|filter| match filter.name.as_str() {
            "instance-type" => filter.accepts(known.name),
            "location" => filter.accepts(location),
            _ => false,
        })
    });
    let offerings = chosen.map(|known| {
        json!({ "InstanceType": known.name, "LocationType": location_type, "Location": location })
    });
    call.listed("InstanceTypeOfferings", &[], offerings.collect(), "InstanceType")
}
