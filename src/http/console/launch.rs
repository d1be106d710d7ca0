//! The launch wizard.

use super::command;
use super::deed::taken;
use super::form::Form;
use super::mappings::{ROOT, VolumeRow, mappings};
use super::view::{Choice, Launch, Review, Tab, at};
use super::visit::{Answer, Visit, nowhere, page};
use crate::error::{Code, Error, Result};
use crate::id::hex;
use crate::record::instance::ClientToken;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the wizard's image step lists: its word, its name.
const CATALOGS: &[(&str, &str)] = &[
    ("quick", "Quick Start"),
    ("mine", "My AMIs"),
    ("marketplace", "AWS Marketplace"),
    ("community", "Community AMIs"),
];

/// The form.
///
/// # Errors
/// What there is to choose from can't be read.
pub fn wizard(visit: &Visit<'_>) -> Result<Answer> {
    let image = visit.query.text("image");
    let there = if image.is_empty() { "quick" } else { "mine" };
    let catalog = visit.query.given("catalog").unwrap_or(there);
    let request = match (catalog, image) {
        ("quick", _) => json!({ "Owners": ["amazon"] }),
        ("marketplace", _) => json!({ "Owners": ["aws-marketplace"] }),
        ("community", _) => json!({ "Filters": [{ "Name": "is-public", "Values": ["true"] }] }),
        (_, "") => json!({ "Owners": ["self"] }),
        (_, image) => json!({ "ImageIds": [image] }),
    };
    let choices = |action, member, request, value: &str, text: &str| -> Result<Vec<Choice>> {
        let list = visit.listed(action, member, request)?;
        Ok(list.iter().map(|record| choice(record, value, text)).collect())
    };
    let mut listed = visit.listed("DescribeImages", "Images", request)?;
    // Quick Start's and the marketplace's are public, too, and have their own tabs.
    listed.retain(|image| catalog != "community" || image["ImageOwnerAlias"].is_null());
    let mut images: Vec<Choice> =
        listed.iter().map(|image| choice(image, "/ImageId", "/Name")).collect();
    if let Some(first) = images.first_mut() {
        first.chosen = true;
    }
    let tab = |(word, text): &(&str, &'static str)| Tab {
        href: format!("/console/launch?catalog={word}"),
        text,
        here: *word == catalog,
    };
    let none = || json!({});
    let (types, type_name) = ("DescribeInstanceTypes", "/InstanceType");
    page(&Launch {
        frame: visit.frame("instances", "Launch instances"),
        tabs: CATALOGS.iter().map(tab).collect(),
        images,
        types: choices(types, "InstanceTypes", none(), type_name, type_name)?,
        keys: choices("DescribeKeyPairs", "KeyPairs", none(), "/KeyName", "/KeyName")?,
        networks: choices("DescribeSubnets", "Subnets", none(), "/SubnetId", "/CidrBlock")?,
        rows: {
            let root = VolumeRow::root();
            let more = VolumeRow::more(std::slice::from_ref(&root));
            [root].into_iter().chain(more).collect()
        },
        groups: choices(
            "DescribeSecurityGroups",
            "SecurityGroups",
            none(),
            "/GroupId",
            "/GroupName",
        )?,
    })
}

fn choice(record: &Value, value: &str, text: &str) -> Choice {
    Choice { value: at(record, value), text: at(record, text), chosen: false }
}

/// The summary, or the launch.
///
/// # Errors
/// The action's.
pub fn submitted(visit: &Visit<'_>) -> Result<Answer> {
    match visit.form.text("step") {
        "review" => review(visit),
        "launch" => {
            let asked = request(visit, &visit.form)?;
            let ports = ports(&visit.form);
            let id = match ports.is_empty() {
                true => {
                    let launched = visit.perform("RunInstances", asked)?;
                    let all = launched["Instances"].as_array().cloned().unwrap_or_default();
                    if let [one] = &all[..] { at(one, "/InstanceId") } else { String::new() }
                }
                false => launch_with(visit, asked, &ports)?,
            };
            Ok(Answer::SeeOther(format!("/console/instances?done=launch&id={id}")))
        }
        _ => Err(nowhere()),
    }
}

/// The ports of the host's that are passed on, as [`PublishedPort`] has them.
fn ports(form: &Form) -> Vec<&str> {
    form.text("ports").split([' ', ',', '\n', '\r']).filter(|port| !port.is_empty()).collect()
}

/// The network that a request means, by its id or name.
fn network(visit: &Visit<'_>, request: &Value) -> Result<String> {
    let Some(subnet) = request["SubnetId"].as_str() else {
        return visit.front.network().map(ToString::to_string).ok_or_else(|| {
            let why = "ports are passed on by a network, and none is chosen: choose one";
            Error::refused(Code::InvalidParameterCombination, why)
        });
    };
    let found = visit.listed("DescribeSubnets", "Subnets", json!({ "SubnetIds": [subnet] }))?;
    Ok(found.first().map(|subnet| at(subnet, "/VpcId")).unwrap_or_default())
}

/// Launches with ports, of which EC2's action knows nothing; the id, if it is one instance.
fn launch_with(visit: &Visit<'_>, mut asked: Value, ports: &[&str]) -> Result<String> {
    network(visit, &asked)?;
    let service = visit.front.open("RunInstances")?;
    // Whoever sends the form twice has launched once, with ports as without.
    let token = taken(&mut asked, "ClientToken");
    let digest = hex(&Sha256::digest(format!("{asked} {ports:?}")));
    let count = asked["MaxCount"].as_u64().and_then(|count| u32::try_from(count).ok());
    for member in ["MinCount", "MaxCount"] {
        asked.as_object_mut().map(|asked| asked.shift_remove(member));
    }
    let mut launch = service.launch_request(&asked, visit.front.network())?;
    launch.request.min_count = count.unwrap_or(1);
    launch.request.max_count = count.unwrap_or(1);
    launch.request.client_token = Some(ClientToken { token, request: digest });
    launch.request.ports = ports.iter().map(|port| port.parse()).collect::<Result<_>>()?;
    let launched = service.run_instances(&launch)?;
    Ok(match &launched.records[..] {
        [one] => one.instance.instance_id.to_string(),
        _ => String::new(),
    })
}

fn request(visit: &Visit<'_>, form: &Form) -> Result<Value> {
    let count: u32 = form.text("count").parse().unwrap_or(1);
    let mut request = json!({ "MinCount": count, "MaxCount": count });
    for (field, member) in [
        ("image", "ImageId"),
        ("type", "InstanceType"),
        ("key", "KeyName"),
        ("network", "SubnetId"),
        ("token", "ClientToken"),
    ] {
        if let Some(value) = form.given(field) {
            request[member] = value.into();
        }
    }
    if let Some(group) = form.given("group") {
        request["SecurityGroupIds"] = json!([group]);
    }
    if let Some(data) = form.given("data") {
        request["UserData"] = STANDARD.encode(data).into();
    }
    if let Some(name) = form.given("name") {
        let tags = json!([{ "Key": "Name", "Value": name }]);
        request["TagSpecifications"] = json!([{ "ResourceType": "instance", "Tags": tags }]);
    }
    if !mappings(form, ROOT)?.is_empty() {
        let asked = json!({ "ImageIds": [form.text("image")] });
        let images = visit.listed("DescribeImages", "Images", asked)?;
        let root = images.first().map(|image| at(image, "/RootDeviceName"));
        request["BlockDeviceMappings"] = mappings(form, &root.unwrap_or_default())?.into();
    }
    Ok(request)
}

fn review(visit: &Visit<'_>) -> Result<Answer> {
    let form = &visit.form;
    let shown = |field, nothing: &str| form.given(field).unwrap_or(nothing).to_owned();
    let request = request(visit, form)?;
    let mapped = request["BlockDeviceMappings"].as_array().into_iter().flatten();
    let volumes: Vec<String> = mapped.map(volume).collect();
    let volumes = if volumes.is_empty() { "as the image".to_owned() } else { volumes.join("; ") };
    let details = vec![
        ("Image", shown("image", "-")),
        ("Instance type", shown("type", "the image's own")),
        ("Key pair", shown("key", "the store's own")),
        ("Network", shown("network", "the service's own")),
        ("Security group", shown("group", "the network's default")),
        ("Ports", shown("ports", "none")),
        ("Volumes", volumes),
        ("User data", shown("data", "none")),
        ("Name", shown("name", "-")),
        ("Number", shown("count", "1")),
    ];
    let command = match ports(form) {
        ports if ports.is_empty() => command::aws(&request),
        ports => command::spore(&request, &network(visit, &request)?, &ports),
    };
    let own = ["csrf", "step", "token"];
    let brought = form.fields().iter().filter(|(name, _)| !own.contains(&name.as_str()));
    // Who sends the form twice has launched once.
    let token = ("token".to_owned(), super::session::nonce());
    let fields = brought.cloned().chain([token]).collect();
    let frame = visit.frame("instances", "Review and launch");
    page(&Review { frame, details, command, fields })
}

/// A mapping as a person reads it.
fn volume(mapping: &Value) -> String {
    let size = match mapping["Ebs"]["VolumeSize"].as_u64() {
        Some(size) => format!("{size} GiB"),
        None => "as the image".to_owned(),
    };
    format!("{}: {size}", at(mapping, "/DeviceName"))
}
