//! Command lines that launch what the wizard launches.

use super::view::at;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A word as a POSIX shell reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The user data, which command lines encode themselves.
fn user_data(request: &Value) -> Option<String> {
    let data = STANDARD.decode(request["UserData"].as_str()?).unwrap_or_default();
    Some(String::from_utf8_lossy(&data).into_owned())
}

/// AWS's.
pub fn aws(request: &Value) -> String {
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
            _ if member == "UserData" => user_data(request).unwrap_or_default(),
            _ if member == "SecurityGroupIds" => at(request, "/SecurityGroupIds/0"),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        command.push_str(&format!(" {option} {}", quoted(&value)));
    }
    command
}

/// Spore's own, of what has ports of the host's passed on, which EC2 has not. `network` is a name
/// or an id.
pub fn spore(request: &Value, network: &str, ports: &[&str]) -> String {
    let text = |pointer: &str| request.pointer(pointer).map(|_| at(request, pointer));
    let mut options = vec![
        ("-n", text("/MaxCount")),
        ("-t", text("/InstanceType")),
        ("--key", text("/KeyName")),
        ("--network", Some(network.to_owned())),
        ("--group", text("/SecurityGroupIds/0")),
    ];
    options.extend(ports.iter().map(|port| ("-p", Some((*port).to_owned()))));
    options.push(("--user-data", user_data(request)));
    let mappings = &request["BlockDeviceMappings"];
    let mappings = (!mappings.is_null()).then(|| mappings.to_string());
    options.push(("--block-device-mappings", mappings));
    let name = text("/TagSpecifications/0/Tags/0/Value").map(|name| format!("Name={name}"));
    options.push(("--tag", name));
    let mut command = format!("spore run {}", quoted(&at(request, "/ImageId")));
    for (option, value) in options {
        if let Some(value) = value {
            command.push_str(&format!(" {option} {}", quoted(&value)));
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_command_line_is_quoted() {
        let request = json!({ "ImageId": "a'b; rm", "MaxCount": 2, "SecurityGroupIds": ["sg-1"] });
        assert_eq!(
            aws(&request),
            "aws ec2 run-instances --image-id 'a'\\''b; rm' --count '2' --security-group-ids 'sg-1'"
        );
        assert_eq!(
            spore(&request, "default", &["0:22"]),
            "spore run 'a'\\''b; rm' -n '2' --network 'default' --group 'sg-1' -p '0:22'"
        );
    }
}
