//! RunInstances.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::service::asked;
use crate::service::instances::reservations;
use crate::service::launch::TYPES;
use crate::service::launch_templates::Specification;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DescribeInstanceTypeOfferings", describe_instance_type_offerings),
    ("DescribeInstanceTypes", describe_instance_types),
    ("RunInstances", run_instances),
];

/// What of RunInstances is of the one request; the rest is what a template can say, too.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Launch {
    min_count: u32,
    max_count: u32,
    #[serde(default)]
    launch_template: Option<Specification>,
}

fn run_instances(call: &Call<'_>) -> Result<Value> {
    let mut rest = call.request.clone();
    let mut own = serde_json::Map::new();
    if let Some(rest) = rest.as_object_mut() {
        rest.shift_remove("DryRun");
        rest.shift_remove("ClientToken");
        for key in ["MinCount", "MaxCount", "LaunchTemplate"] {
            rest.shift_remove_entry(key).map(|(key, value)| own.insert(key, value));
        }
    }
    let asked: Launch = asked::read(&own.into(), &[])?;
    let mut request = call.service.launch_request(&rest, call.network)?;
    if request.image_id.is_empty() && asked.launch_template.is_none() {
        let why = "The request must contain the parameter ImageId";
        return Err(Error::refused(Code::MissingParameter, why));
    }
    request.launch_template = asked.launch_template;
    request.request.min_count = asked.min_count;
    request.request.max_count = asked.max_count;
    request.request.client_token = call.client_token();
    let launched = call.service.run_instances(&request)?;
    let reservation = reservations(&launched.records).into_iter().next();
    let failed = || Error::failure("nothing was launched");
    json_of(reservation.ok_or_else(failed)?)
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
