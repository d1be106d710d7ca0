//! The shapes of EC2's answers, made of records. Names and types are those of EC2's service model;
//! what is Spore's own lies under the key `Spore` of the object that it belongs to.

pub mod image;
pub mod instance;
pub mod network;
pub mod snapshot;
pub mod status;
pub mod task;
pub mod volume;

pub use crate::metadata::tree::{AVAILABILITY_ZONE as ZONE, REGION};
use serde::Serialize;

/// EC2 HypervisorType, which knows `xen` and `ovm`. EC2 says so of instances on KVM (Nitro), too.
pub const HYPERVISOR: &str = "xen";
/// EC2 UsageOperation of what nobody is charged for by EC2: plain Linux.
pub const USAGE_OPERATION: &str = "RunInstances";

/// EC2 Placement.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Placement {
    availability_zone: &'static str,
    group_name: &'static str,
    tenancy: &'static str,
}

impl Placement {
    /// The one that there is.
    pub const HERE: Self = Self { availability_zone: ZONE, group_name: "", tenancy: "default" };
}

/// An object with nothing in it, which JSON need not say.
fn is_empty(value: &impl Serialize) -> bool {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_object().is_some_and(serde_json::Map::is_empty)
}
