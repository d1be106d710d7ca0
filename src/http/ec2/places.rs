//! Regions, zones and accounts.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::service::shape::ZONE;
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("DescribeAccountAttributes", describe_account_attributes),
    ("DescribeAvailabilityZones", describe_availability_zones),
    ("DescribeRegions", describe_regions),
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Regions {
    region_names: Vec<String>,
    #[serde(rename = "AllRegions")]
    _all_regions: bool,
}

/// The store at hand, under the name that the client has for it, and those that it can copy to.
fn describe_regions(call: &Call<'_>) -> Result<Value> {
    let asked: Regions = call.input()?;
    let others = call.service.describe_regions()?;
    let mut names: Vec<String> =
        others.into_iter().map(|region| region.region_name.to_string()).collect();
    names.retain(|name| name != call.region);
    names.insert(0, call.region.to_owned());
    if let Some(unknown) = asked.region_names.iter().find(|name| !names.contains(name)) {
        let why = format!("there is no region '{}'", unknown.escape_debug());
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    names.retain(|name| asked.region_names.is_empty() || asked.region_names.contains(name));
    let filters = call.filters()?;
    names.retain(|name| filters.iter().all(|f| f.name != "region-name" || f.accepts(name)));
    let region = |name: String| json!({ "RegionName": name, "Endpoint": name, "OptInStatus": "opt-in-not-required" });
    Ok(json!({ "Regions": names.into_iter().map(region).collect::<Vec<_>>() }))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Zones {
    zone_names: Vec<String>,
    zone_ids: Vec<String>,
    #[serde(rename = "AllAvailabilityZones")]
    _all_availability_zones: bool,
}

fn describe_availability_zones(call: &Call<'_>) -> Result<Value> {
    let asked: Zones = call.input()?;
    let named = asked.zone_names.iter().chain(&asked.zone_ids);
    if let Some(unknown) = named.clone().find(|name| *name != ZONE) {
        let why = format!("there is no zone '{}'; there is {ZONE}", unknown.escape_debug());
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let filters = call.filters()?;
    let accepted = filters.iter().all(|filter| match filter.name.as_str() {
        "zone-name" | "zone-id" => filter.accepts(ZONE),
        "region-name" => filter.accepts(call.region),
        "state" => filter.accepts("available"),
        _ => true,
    });
    let zone = json!({
        "ZoneName": ZONE,
        "ZoneId": ZONE,
        "ZoneType": "availability-zone",
        "RegionName": call.region,
        "GroupName": call.region,
        "NetworkBorderGroup": call.region,
        "OptInStatus": "opt-in-not-required",
        "State": "available",
        "Messages": [],
    });
    Ok(json!({ "AvailabilityZones": if accepted { vec![zone] } else { vec![] } }))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Attributes {
    attribute_names: Vec<String>,
}

fn describe_account_attributes(call: &Call<'_>) -> Result<Value> {
    let asked: Attributes = call.input()?;
    let networks = call.service.describe_networks(&[], &[])?;
    let default = networks.iter().find(|network| network.vpc.is_default);
    let default =
        default.map_or_else(|| "none".to_owned(), |network| network.vpc.vpc_id.to_string());
    let all = [("supported-platforms", "VPC".to_owned()), ("default-vpc", default)];
    let wanted = |name: &str| {
        asked.attribute_names.is_empty() || asked.attribute_names.iter().any(|asked| asked == name)
    };
    let all = all.into_iter().filter(|(name, _)| wanted(name)).map(|(name, value)| {
        json!({ "AttributeName": name, "AttributeValues": [{ "AttributeValue": value }] })
    });
    Ok(json!({ "AccountAttributes": all.collect::<Vec<_>>() }))
}
