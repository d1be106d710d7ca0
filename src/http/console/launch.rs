//! The launch wizard.

use super::form::Form;
use super::view::{Choice, Launch, Review, Tab, at};
use super::visit::{Answer, Visit, nowhere, page};
use crate::error::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

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
    let mut images = choices("DescribeImages", "Images", request, "/ImageId", "/Name")?;
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
            let launched = visit.perform("RunInstances", request(visit, &visit.form)?)?;
            let instances = launched["Instances"].as_array().map(Vec::as_slice).unwrap_or_default();
            let id = match instances {
                [one] => at(one, "/InstanceId"),
                _ => String::new(),
            };
            Ok(Answer::SeeOther(format!("/console/instances?done=launch&id={id}")))
        }
        _ => Err(nowhere()),
    }
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
    if let Some(size) = form.given("size").and_then(|size| size.parse::<u32>().ok()) {
        let asked = json!({ "ImageIds": [form.text("image")] });
        let images = visit.listed("DescribeImages", "Images", asked)?;
        let root = images.first().map_or(Value::Null, |image| image["RootDeviceName"].clone());
        let mapping = json!({ "DeviceName": root, "Ebs": { "VolumeSize": size } });
        request["BlockDeviceMappings"] = json!([mapping]);
    }
    Ok(request)
}

fn review(visit: &Visit<'_>) -> Result<Answer> {
    let form = &visit.form;
    let shown = |field, nothing: &str| form.given(field).unwrap_or(nothing).to_owned();
    let details = vec![
        ("Image", shown("image", "-")),
        ("Instance type", shown("type", "the image's own")),
        ("Key pair", shown("key", "none")),
        ("Network", shown("network", "the service's own")),
        ("Security group", shown("group", "the network's default")),
        ("Root volume, GiB", shown("size", "as the image")),
        ("User data", shown("data", "none")),
        ("Name", shown("name", "-")),
        ("Number", shown("count", "1")),
    ];
    let request = request(visit, form)?;
    let own = ["csrf", "step", "token"];
    let brought = form.fields().iter().filter(|(name, _)| !own.contains(&name.as_str()));
    // Who sends the form twice has launched once.
    let token = ("token".to_owned(), super::session::nonce());
    let fields = brought.cloned().chain([token]).collect();
    let frame = visit.frame("instances", "Review and launch");
    page(&Review { frame, details, command: command(&request), fields })
}

/// AWS's command line that launches the same.
fn command(request: &Value) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut command = "aws ec2 run-instances".to_owned();
    let members = [
        ("ImageId", "--image-id"),
        ("MaxCount", "--count"),
        ("InstanceType", "--instance-type"),
        ("KeyName", "--key-name"),
        ("SubnetId", "--subnet-id"),
        ("SecurityGroupIds", "--security-group-ids"),
        ("UserData", "--user-data"),
        ("BlockDeviceMappings", "--block-device-mappings"),
        ("TagSpecifications", "--tag-specifications"),
    ];
    for (member, option) in members {
        let value = match &request[member] {
            Value::Null => continue,
            // The command line encodes it itself.
            Value::String(text) if member == "UserData" => {
                let data = STANDARD.decode(text).unwrap_or_default();
                quoted(&String::from_utf8_lossy(&data))
            }
            Value::String(text) => quoted(text),
            value => quoted(&value.to_string()),
        };
        command.push_str(&format!(" {option} {value}"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_quoted() {
        let request = json!({ "ImageId": "a'b; rm", "MaxCount": 2 });
        assert_eq!(command(&request), "aws ec2 run-instances --image-id 'a'\\''b; rm' --count '2'");
    }
}
