//! Parameters of the Query protocols (`A.1.B=value`) as a value in the shape of an action's
//! request. (AWS, "Amazon EC2 Query protocol" and "AWS Query protocol" of the Smithy documentation)

use super::model::{Kind, List, Member, Model};
use crate::error::{Code, Error, Result};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// Most parameters of a request.
pub const MAX_PARAMETERS: usize = 10_000;
/// Most parts of a parameter's name.
const MAX_DEPTH: usize = 16;

/// What a request says beside the parameters of its action: the protocol's own, and those of
/// signatures of old.
const PROTOCOL: [&str; 9] = [
    "Action",
    "Version",
    "AWSAccessKeyId",
    "SecurityToken",
    "Signature",
    "SignatureMethod",
    "SignatureVersion",
    "Timestamp",
    "Expires",
];

/// The parameters below one part of a name.
#[derive(Default)]
struct Node<'a> {
    value: Option<&'a str>,
    below: BTreeMap<&'a str, Node<'a>>,
}

/// The request of the shape `input`. What is empty is absent: some clients send a parameter for
/// each field of a form.
///
/// # Errors
/// `UnknownParameter`, `MissingParameter`, `InvalidParameterValue`, `MalformedQueryString`.
pub fn request(
    model: &Model,
    input: Option<&str>,
    parameters: &[(String, String)],
) -> Result<Value> {
    if parameters.len() > MAX_PARAMETERS {
        let why = format!("a request may have {MAX_PARAMETERS} parameters at most");
        return Err(Error::refused(Code::MalformedQueryString, why));
    }
    let mut root = Node::default();
    for (name, value) in parameters {
        if !PROTOCOL.contains(&name.as_str()) && !name.starts_with("X-Amz-") {
            root.insert(name, value)?;
        }
    }
    let Some(input) = input else {
        return match root.below.keys().next() {
            Some(name) => Err(unknown(name)),
            None => Ok(Value::Object(Map::new())),
        };
    };
    let Kind::Structure(members, required) = model.kind(input) else {
        return Err(Error::failure(format!("the shape {input} is no structure")));
    };
    Ok(structure(model, &root, "", members, required)?.unwrap_or_else(|| Map::new().into()))
}

impl<'a> Node<'a> {
    fn insert(&mut self, name: &'a str, value: &'a str) -> Result<()> {
        let mut node = self;
        for (depth, part) in name.split('.').enumerate() {
            if depth == MAX_DEPTH {
                return Err(unknown(name));
            }
            node = node.below.entry(part).or_default();
        }
        match node.value.replace(value) {
            None => Ok(()),
            Some(_) => {
                let why = format!("the parameter {} is given twice", shown(name));
                Err(Error::refused(Code::MalformedQueryString, why))
            }
        }
    }
}

/// The value of a shape, if there is one.
fn value(model: &Model, node: &Node<'_>, at: &str, shape: &str) -> Result<Option<Value>> {
    match model.kind(shape) {
        Kind::Structure(members, required) => structure(model, node, at, members, required),
        Kind::List(list) => listed(model, node, at, list),
        Kind::Value(kind) => {
            // Some clients send a list of one for what is none.
            let only = (node.below.len() == 1).then(|| node.below.first_key_value()).flatten();
            let only = only.filter(|(key, _)| is_index(key)).and_then(|(_, below)| below.value);
            match node.value.or(only) {
                Some(text) if only.is_some() || node.below.is_empty() => single(kind, at, text),
                _ => Err(unknown(&first_below(node, at))),
            }
        }
    }
}

fn structure(
    model: &Model,
    node: &Node<'_>,
    at: &str,
    members: &[Member],
    required: &[String],
) -> Result<Option<Value>> {
    // A structure has no value of its own but an empty one.
    if node.value.is_some_and(|value| !value.is_empty()) {
        return Err(unknown(at));
    }
    let mut found = Map::new();
    for (&part, below) in &node.below {
        let at = join(at, part);
        let Some(Member(name, .., shape)) = members.iter().find(|member| member.1 == part) else {
            return Err(unknown(&first_below(below, &at)));
        };
        if let Some(value) = value(model, below, &at, shape)? {
            found.insert(name.clone(), value);
        }
    }
    if found.is_empty() && !at.is_empty() {
        return Ok(None);
    }
    for name in required {
        if !found.contains_key(name) {
            let word = members.iter().find(|member| member.0 == *name).map(|member| &member.1);
            let at = join(at, word.unwrap_or(name));
            let why = format!("The request must contain the parameter {at}");
            return Err(Error::refused(Code::MissingParameter, why));
        }
    }
    Ok(Some(found.into()))
}

/// A list, whose numbers say its order and may begin anywhere.
fn listed(model: &Model, node: &Node<'_>, at: &str, list: &List) -> Result<Option<Value>> {
    let List(word, _, member) = list;
    if node.value.is_some_and(|value| !value.is_empty()) {
        return Err(unknown(at));
    }
    let (node, at) = match node.below.get(word.as_str()) {
        Some(below) if !word.is_empty() => (below, join(at, word)),
        _ => (node, at.to_owned()),
    };
    let mut found = BTreeMap::new();
    for (part, below) in &node.below {
        let at = join(&at, part);
        let Some(index) = part.parse::<u32>().ok().filter(|_| is_index(part)) else {
            return Err(unknown(&first_below(below, &at)));
        };
        if let Some(value) = value(model, below, &at, member)? {
            found.insert(index, value);
        }
    }
    let found: Vec<Value> = found.into_values().collect();
    Ok((!found.is_empty()).then(|| found.into()))
}

fn is_index(part: &str) -> bool {
    (1..=9).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit())
}

fn single(kind: &str, at: &str, text: &str) -> Result<Option<Value>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |what: &str| {
        let why = format!("the value '{}' of {at} is {what}", shown(text));
        Error::refused(Code::InvalidParameterValue, why)
    };
    let value = match kind {
        "boolean" => match text {
            "true" | "True" | "TRUE" | "1" => true.into(),
            "false" | "False" | "FALSE" | "0" => false.into(),
            _ => return Err(invalid("neither true nor false")),
        },
        "integer" | "long" => {
            text.trim().parse::<i64>().map_err(|_| invalid("no whole number"))?.into()
        }
        "float" => {
            let number = text.trim().parse().ok().and_then(Number::from_f64);
            number.ok_or_else(|| invalid("no number"))?.into()
        }
        _ => text.into(),
    };
    Ok(Some(value))
}

fn join(at: &str, part: &str) -> String {
    if at.is_empty() { part.to_owned() } else { format!("{at}.{part}") }
}

/// The name of a parameter that a node came of.
fn first_below(node: &Node<'_>, at: &str) -> String {
    match node.below.first_key_value() {
        Some((part, below)) if node.value.is_none() => first_below(below, &join(at, part)),
        _ => at.to_owned(),
    }
}

fn unknown(name: &str) -> Error {
    let why = format!("The parameter {} is not recognized", shown(name));
    Error::refused(Code::UnknownParameter, why)
}

fn shown(text: &str) -> String {
    text.escape_debug().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(action: &str, parameters: &str) -> Result<Value> {
        let model = Model::parse(include_str!("model/ec2.json"));
        let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let parameters: Vec<_> = parameters.split('&').filter_map(pair).collect();
        request(&model, model.action(action).unwrap().input.as_deref(), &parameters)
    }

    #[test]
    fn parameters_become_a_request_in_the_models_shape() {
        let asked = ask(
            "RunInstances",
            "Action=RunInstances&Version=2016-11-15&ImageId=demo&MinCount=1&MaxCount=2\
             &BlockDeviceMapping.1.DeviceName=/dev/sdb&BlockDeviceMapping.1.Ebs.VolumeSize=8\
             &BlockDeviceMapping.1.Ebs.DeleteOnTermination=true\
             &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a\
             &TagSpecification.1.Tag.1.Value=b=c&SecurityGroupId.2=sg-2&SecurityGroupId.10=sg-10\
             &UserData=&Placement.AvailabilityZone=&IamInstanceProfile.Name=",
        );
        let expected = json!({
            "ImageId": "demo", "MinCount": 1, "MaxCount": 2,
            "BlockDeviceMappings": [{
                "DeviceName": "/dev/sdb",
                "Ebs": { "VolumeSize": 8, "DeleteOnTermination": true },
            }],
            "TagSpecifications": [
                { "ResourceType": "instance", "Tags": [{ "Key": "a", "Value": "b=c" }] },
            ],
            "SecurityGroupIds": ["sg-2", "sg-10"],
        });
        assert_eq!(asked.unwrap(), expected);
    }

    #[test]
    fn lists_may_begin_with_0_and_one_may_stand_for_a_value() {
        let tags = ask("CreateTags", "ResourceId.0=i-1&Tag.0.Key=a&Tag.0.Value=");
        assert_eq!(tags.unwrap(), json!({ "Resources": ["i-1"], "Tags": [{ "Key": "a" }] }));
        let output = ask("GetConsoleOutput", "InstanceId.1=i-1");
        assert_eq!(output.unwrap(), json!({ "InstanceId": "i-1" }));
    }

    #[test]
    fn what_is_no_parameter_is_refused_by_its_name() {
        for (action, bad, code, name) in [
            ("DescribeImages", "Bogus=1", Code::UnknownParameter, "Bogus"),
            ("DescribeImages", "ImageId.x=1", Code::UnknownParameter, "ImageId.x"),
            ("DescribeImages", "ImageId=ami-1", Code::UnknownParameter, "ImageId"),
            ("DescribeImages", "Filter.1.Nam=1", Code::UnknownParameter, "Filter.1.Nam"),
            ("DescribeImages", "ImageId.1.2.3=x", Code::UnknownParameter, "ImageId.1.2.3"),
            ("DescribeImages", "DryRun=maybe", Code::InvalidParameterValue, "DryRun"),
            ("DescribeImages", "MaxResults=many", Code::InvalidParameterValue, "MaxResults"),
            ("DescribeImages", "DryRun=true&DryRun=true", Code::MalformedQueryString, "DryRun"),
            ("CreateTags", "ResourceId.1=i-1", Code::MissingParameter, "Tag"),
            ("RunInstances", "MaxCount=1", Code::MissingParameter, "MinCount"),
            (
                "DescribeImages",
                "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1",
                Code::UnknownParameter,
                "a.a",
            ),
        ] {
            let error = ask(action, bad).unwrap_err();
            assert_eq!(error.code(), Some(code), "{bad}");
            assert!(error.message().contains(name), "{bad}: {error}");
        }
        let model = Model::parse(include_str!("model/ec2.json"));
        let many: Vec<_> =
            (0..=MAX_PARAMETERS).map(|n| (format!("ImageId.{n}"), "x".into())).collect();
        let error = request(&model, Some("DescribeImagesRequest"), &many).unwrap_err();
        assert_eq!(error.code(), Some(Code::MalformedQueryString));
    }
}
