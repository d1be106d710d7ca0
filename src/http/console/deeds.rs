//! What can be done to volumes, snapshots, key pairs, security groups and Auto Scaling groups.

use super::deed::{DEED, Deed, Input, field, named, taken};
use super::view::{Choice, at};
use super::visit::Visit;
use crate::error::{Code, Error, Result};
use crate::service::shape::{REGION, ZONE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const TYPES: &[(&str, &str)] = &[
    ("", "gp3"),
    ("gp2", "gp2"),
    ("io1", "io1"),
    ("io2", "io2"),
    ("st1", "st1"),
    ("sc1", "sc1"),
    ("standard", "standard"),
];
const NAME: super::deed::Field = field("Tag", "Name tag", Input::Line(255));
const DESCRIPTION: super::deed::Field = field("Description", "Description", Input::Line(255));

/// Sets or removes a tag of anything.
pub const TAG: Deed = Deed {
    word: "tag",
    title: "Edit tags",
    action: "CreateTags",
    of: "Resources",
    fields: &[
        field("Key", "Key", Input::Line(127)).required(),
        field("Value", "Value", Input::Line(255)),
        field(
            "How",
            "What to do",
            Input::One(&[("set", "Set the tag"), ("remove", "Remove the tag")]),
        ),
    ],
    shape: |request| {
        let (id, how) = (taken(request, "Resources"), taken(request, "How"));
        let mut tag = json!({ "Key": taken(request, "Key") });
        let value = taken(request, "Value");
        if how == "set" {
            tag["Value"] = value.into();
        }
        *request = json!({ "Resources": [id], "Tags": [tag] });
        Ok((how != "set").then_some("DeleteTags"))
    },
    ..DEED
};

/// Of a volume.
pub const VOLUME: &[Deed] = &[
    Deed {
        word: "attach",
        title: "Attach volume",
        action: "AttachVolume",
        of: "VolumeId",
        fields: &[
            field("InstanceId", "Instance", Input::Of(instances)).required(),
            field("Device", "Device", Input::Line(32)).required().with("/dev/sdf"),
        ],
        when: |volume| volume["State"] == "available",
        ..DEED
    },
    Deed {
        word: "detach",
        title: "Detach volume",
        action: "DetachVolume",
        of: "VolumeId",
        fields: &[field(
            "Force",
            "Force: the guest loses it even if it holds on to it",
            Input::Check,
        )],
        note: "Unmount it in the guest first: what the guest has not written is lost.",
        danger: true,
        when: |volume| volume["State"] == "in-use",
        ..DEED
    },
    Deed {
        word: "modify",
        title: "Modify volume",
        action: "ModifyVolume",
        of: "VolumeId",
        fields: &[field("Size", "Size, GiB", Input::Number).required().with("/Size")],
        note: "A volume can only grow. The guest is told; its file system is for it to grow.",
        ..DEED
    },
    Deed {
        word: "snapshot",
        title: "Create snapshot",
        action: "CreateSnapshot",
        of: "VolumeId",
        fields: &[DESCRIPTION, NAME],
        note: "Of a volume in use it is as after a power failure.",
        shape: |request| {
            named(request, "snapshot");
            Ok(None)
        },
        made: "/SnapshotId",
        ..DEED
    },
    TAG,
    Deed {
        word: "delete",
        title: "Delete volume",
        action: "DeleteVolume",
        of: "VolumeId",
        note: "All that is on it is lost. Its snapshots stay.",
        danger: true,
        when: |volume| volume["State"] == "available",
        ..DEED
    },
];

/// Among the volumes.
pub const VOLUMES: &[Deed] = &[Deed {
    word: "create",
    title: "Create volume",
    action: "CreateVolume",
    fields: &[
        field("Size", "Size, GiB (the snapshot's if empty)", Input::Number),
        field("SnapshotId", "Snapshot", Input::Of(snapshots)),
        field("VolumeType", "Type", Input::One(TYPES)),
        NAME,
    ],
    shape: volume,
    made: "/VolumeId",
    ..DEED
}];

fn volume(request: &mut Value) -> Result<Option<&'static str>> {
    named(request, "volume");
    request["AvailabilityZone"] = ZONE.into();
    Ok(None)
}

/// Of a snapshot.
pub const SNAPSHOT: &[Deed] = &[
    Deed {
        word: "volume",
        title: "Create volume",
        action: "CreateVolume",
        of: "SnapshotId",
        fields: &[
            field("Size", "Size, GiB", Input::Number).with("/VolumeSize"),
            field("VolumeType", "Type", Input::One(TYPES)),
            NAME,
        ],
        shape: volume,
        made: "/VolumeId",
        when: is_completed,
        ..DEED
    },
    Deed {
        word: "image",
        title: "Create image",
        action: "RegisterImage",
        of: "Snapshot",
        fields: &[
            field("Name", "Image name", Input::Line(128)).required(),
            DESCRIPTION,
            field("RootDeviceName", "Root device", Input::Line(32)).required().with("/dev/sda1"),
            field(
                "Architecture",
                "Architecture",
                Input::One(&[("x86_64", "x86_64"), ("i386", "i386")]),
            ),
            field(
                "VirtualizationType",
                "Virtualization",
                Input::One(&[("hvm", "hvm"), ("paravirtual", "paravirtual")]),
            ),
        ],
        note: "The snapshot becomes the root volume of the image's instances.",
        shape: |request| {
            let snapshot = taken(request, "Snapshot");
            let device = request["RootDeviceName"].clone();
            request["BlockDeviceMappings"] =
                json!([{ "DeviceName": device, "Ebs": { "SnapshotId": snapshot } }]);
            Ok(None)
        },
        made: "/ImageId",
        when: is_completed,
        ..DEED
    },
    Deed {
        word: "copy",
        title: "Copy snapshot",
        action: "CopySnapshot",
        of: "SourceSnapshotId",
        fields: &[
            field("DestinationRegion", "Destination region", Input::Of(regions)),
            DESCRIPTION.with("/Description"),
            NAME,
        ],
        shape: |request| {
            named(request, "snapshot");
            request["SourceRegion"] = REGION.into();
            Ok(None)
        },
        made: "/SnapshotId",
        when: is_completed,
        ..DEED
    },
    TAG,
    Deed {
        word: "delete",
        title: "Delete snapshot",
        action: "DeleteSnapshot",
        of: "SnapshotId",
        note: "Volumes that were made of it keep what is on them. What an image has is not deleted \
               before the image is deregistered.",
        danger: true,
        ..DEED
    },
];

fn is_completed(snapshot: &Value) -> bool {
    snapshot["State"] == "completed"
}

/// Of a key pair.
pub const KEY: &[Deed] = &[
    TAG,
    Deed {
        word: "delete",
        title: "Delete key pair",
        action: "DeleteKeyPair",
        of: "KeyPairId",
        note: "Instances that were launched with it keep its public key.",
        danger: true,
        ..DEED
    },
];

/// Among the key pairs.
pub const KEYS: &[Deed] = &[
    Deed {
        word: "create",
        title: "Create key pair",
        action: "CreateKeyPair",
        fields: &[
            field("KeyName", "Name", Input::Line(255)).required(),
            field("KeyType", "Type", Input::One(&[("ed25519", "ED25519"), ("rsa", "RSA")])),
        ],
        note: "The private key is downloaded, once.",
        made: "/KeyPairId",
        ..DEED
    },
    Deed {
        word: "import",
        title: "Import key pair",
        action: "ImportKeyPair",
        fields: &[
            field("KeyName", "Name", Input::Line(255)).required(),
            field("PublicKeyMaterial", "Public key, as in ~/.ssh/id_ed25519.pub", Input::Lines)
                .required(),
        ],
        shape: |request| {
            let text = taken(request, "PublicKeyMaterial");
            request["PublicKeyMaterial"] = STANDARD.encode(text).into();
            Ok(None)
        },
        made: "/KeyPairId",
        ..DEED
    },
];

/// Among the security groups.
pub const GROUPS: &[Deed] = &[Deed {
    word: "create",
    title: "Create security group",
    action: "CreateSecurityGroup",
    fields: &[
        field("GroupName", "Name", Input::Line(255)).required(),
        field("Description", "Description", Input::Line(255)).required(),
        field("VpcId", "Network", Input::Of(networks)).required(),
    ],
    made: "/GroupId",
    ..DEED
}];

/// Of a security group.
pub const GROUP: &[Deed] = &[
    Deed {
        word: "authorize",
        title: "Add rule",
        action: "AuthorizeSecurityGroupIngress",
        of: "GroupId",
        fields: &[
            field(
                "How",
                "Direction",
                Input::One(&[("ingress", "Inbound"), ("egress", "Outbound")]),
            ),
            field(
                "Protocol",
                "Protocol",
                Input::One(&[("tcp", "TCP"), ("udp", "UDP"), ("icmp", "ICMP"), ("-1", "All")]),
            ),
            field("Ports", "Ports: 22, or 8000-8080; all if empty", Input::Line(16)),
            field(
                "Whom",
                "From or to: a range such as 10.0.0.0/8, or a group's id",
                Input::Line(64),
            )
            .required()
            .with("0.0.0.0/0"),
        ],
        shape: |request| rule(request, true),
        ..DEED
    },
    Deed {
        word: "revoke",
        title: "Remove rule",
        action: "RevokeSecurityGroupIngress",
        of: "GroupId",
        fields: &[field("Rule", "Rule", Input::Of(rules)).required()],
        danger: true,
        shape: |request| {
            let text = taken(request, "Rule");
            let mut words = text.split(' ');
            for member in ["How", "Protocol", "Ports", "Whom"] {
                request[member] = words.next().unwrap_or_default().into();
            }
            rule(request, false)
        },
        ..DEED
    },
    Deed {
        word: "delete",
        title: "Delete security group",
        action: "DeleteSecurityGroup",
        of: "GroupId",
        note: "One that an instance is in is not deleted.",
        danger: true,
        when: |group| group["GroupName"] != "default",
        ..DEED
    },
];

/// Makes an IpPermission of a rule's words.
fn rule(request: &mut Value, add: bool) -> Result<Option<&'static str>> {
    let [how, protocol, ports, whom] =
        ["How", "Protocol", "Ports", "Whom"].map(|member| taken(request, member));
    let mut permission = json!({ "IpProtocol": protocol });
    if !ports.is_empty() && ports != "all" {
        let (from, to) = ports.split_once('-').unwrap_or((&ports, &ports));
        for (member, text) in [("FromPort", from), ("ToPort", to)] {
            let port: u16 = text.trim().parse().map_err(|_| {
                let why = format!("'{}' are no ports", ports.escape_debug());
                Error::refused(Code::InvalidParameterValue, why)
            })?;
            permission[member] = port.into();
        }
    }
    let (list, end) = match &whom {
        id if id.starts_with("sg-") => ("UserIdGroupPairs", json!({ "GroupId": id })),
        range if range.contains(':') => ("Ipv6Ranges", json!({ "CidrIpv6": range })),
        range => ("IpRanges", json!({ "CidrIp": range })),
    };
    permission[list] = json!([end]);
    request["IpPermissions"] = json!([permission]);
    Ok(Some(match (add, how == "egress") {
        (true, false) => "AuthorizeSecurityGroupIngress",
        (true, true) => "AuthorizeSecurityGroupEgress",
        (false, false) => "RevokeSecurityGroupIngress",
        (false, true) => "RevokeSecurityGroupEgress",
    }))
}

/// A security group's rules: direction, protocol, ports, other end.
pub fn rules_of(group: &Value) -> Vec<[String; 4]> {
    let mut all = Vec::new();
    for (how, member) in [("ingress", "IpPermissions"), ("egress", "IpPermissionsEgress")] {
        for permission in group[member].as_array().into_iter().flatten() {
            let port = |member: &str| permission[member].as_i64().filter(|port| *port >= 0);
            let ports = match (port("FromPort"), port("ToPort")) {
                (Some(from), Some(to)) if from == to => from.to_string(),
                (Some(from), Some(to)) => format!("{from}-{to}"),
                _ => "all".to_owned(),
            };
            for (list, end) in [
                ("IpRanges", "CidrIp"),
                ("Ipv6Ranges", "CidrIpv6"),
                ("UserIdGroupPairs", "GroupId"),
            ] {
                let ends = permission[list].as_array().into_iter().flatten();
                all.extend(ends.map(|one| {
                    let protocol = at(permission, "/IpProtocol");
                    [
                        how.to_owned(),
                        protocol,
                        ports.clone(),
                        one[end].as_str().unwrap_or("-").to_owned(),
                    ]
                }));
            }
        }
    }
    all
}

fn rules(_: &Visit<'_>, group: &Value) -> Result<Vec<Choice>> {
    let choice = |rule: [String; 4]| {
        let text = rule.join(" ");
        Choice::of(&text, &text)
    };
    Ok(rules_of(group).into_iter().map(choice).collect())
}

fn instances(visit: &Visit<'_>, _: &Value) -> Result<Vec<Choice>> {
    let mut all = visit.instances(None)?;
    all.retain(|one| matches!(one["State"]["Name"].as_str(), Some("running" | "stopped")));
    Ok(all.iter().map(|one| Choice::named(one, "/InstanceId")).collect())
}

/// The completed snapshots, and none.
pub fn snapshots(visit: &Visit<'_>, _: &Value) -> Result<Vec<Choice>> {
    let mut all = visit.listed("DescribeSnapshots", "Snapshots", json!({}))?;
    all.retain(is_completed);
    let none = Choice::of("", "None: an empty volume");
    Ok([none].into_iter().chain(all.iter().map(|one| Choice::named(one, "/SnapshotId"))).collect())
}

/// The region at hand, and those that can be copied to.
pub fn regions(visit: &Visit<'_>, _: &Value) -> Result<Vec<Choice>> {
    let all = visit.listed("DescribeRegions", "Regions", json!({}))?;
    let choice = |one: &Value| Choice::of(&at(one, "/RegionName"), &at(one, "/RegionName"));
    Ok(all.iter().map(choice).collect())
}

fn networks(visit: &Visit<'_>, _: &Value) -> Result<Vec<Choice>> {
    let all = visit.listed("DescribeVpcs", "Vpcs", json!({}))?;
    Ok(all.iter().map(|one| Choice::named(one, "/VpcId")).collect())
}

const PROCESSES: &[(&str, &str)] = &[
    ("", "All"),
    ("Launch", "Launch"),
    ("Terminate", "Terminate"),
    ("HealthCheck", "HealthCheck"),
    ("ReplaceUnhealthy", "ReplaceUnhealthy"),
    ("AlarmNotification", "AlarmNotification"),
    ("ScheduledActions", "ScheduledActions"),
    ("InstanceRefresh", "InstanceRefresh"),
];

const fn scaling(word: &'static str, title: &'static str, action: &'static str) -> Deed {
    Deed { word, title, action, api: "autoscaling", of: "AutoScalingGroupName", ..DEED }
}

fn processes(request: &mut Value) -> Result<Option<&'static str>> {
    let process = taken(request, "Process");
    if !process.is_empty() {
        request["ScalingProcesses"] = json!([process]);
    }
    Ok(None)
}

/// Of an Auto Scaling group.
pub const SCALING: &[Deed] = &[
    Deed {
        fields: &[field("DesiredCapacity", "Desired capacity", Input::Number)
            .required()
            .with("/DesiredCapacity")],
        ..scaling("desired", "Set desired capacity", "SetDesiredCapacity")
    },
    Deed {
        fields: &[
            field("MinSize", "Minimum", Input::Number).required().with("/MinSize"),
            field("MaxSize", "Maximum", Input::Number).required().with("/MaxSize"),
        ],
        ..scaling("limits", "Set limits", "UpdateAutoScalingGroup")
    },
    Deed {
        fields: &[field("Process", "Process", Input::One(PROCESSES))],
        shape: processes,
        ..scaling("suspend", "Suspend processes", "SuspendProcesses")
    },
    Deed {
        fields: &[field("Process", "Process", Input::One(PROCESSES))],
        shape: processes,
        when: |group| group["SuspendedProcesses"].as_array().is_some_and(|list| !list.is_empty()),
        ..scaling("resume", "Resume processes", "ResumeProcesses")
    },
    Deed {
        fields: &[
            field("MinHealthyPercentage", "Minimum healthy, %", Input::Number).with("90"),
            field("SkipMatching", "Skip instances that are as they should be", Input::Check),
            field("AutoRollback", "Roll back if it fails", Input::Check),
        ],
        note: "The instances are replaced, a few at a time, by ones of the group's launch template \
               or configuration as it is now.",
        shape: |request| {
            let name = taken(request, "AutoScalingGroupName");
            *request = json!({ "AutoScalingGroupName": name, "Preferences": request.take() });
            Ok(None)
        },
        ..scaling("refresh", "Start instance refresh", "StartInstanceRefresh")
    },
    scaling("cancel", "Cancel instance refresh", "CancelInstanceRefresh"),
    Deed {
        fields: &[field("ForceDelete", "Terminate its instances, too", Input::Check)],
        note: "A group that has instances is deleted only with them.",
        danger: true,
        ..scaling("delete", "Delete group", "DeleteAutoScalingGroup")
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_the_permission_that_it_is_listed_as() {
        let mut request = json!({ "GroupId": "sg-1", "How": "egress", "Protocol": "tcp",
            "Ports": "8000-8080", "Whom": "10.0.0.0/8" });
        let action = rule(&mut request, true).unwrap();
        assert_eq!(action, Some("AuthorizeSecurityGroupEgress"));
        let group = json!({ "IpPermissionsEgress": request["IpPermissions"] });
        assert_eq!(
            rules_of(&group),
            [["egress", "tcp", "8000-8080", "10.0.0.0/8"].map(String::from)]
        );
        let mut wrong = json!({ "Ports": "22;", "Whom": "::/0" });
        assert!(rule(&mut wrong, true).is_err());
    }

    #[test]
    fn a_tag_is_set_or_removed() {
        let mut request = json!({ "Resources": "vol-1", "Key": "a", "How": "remove" });
        assert_eq!((TAG.shape)(&mut request).unwrap(), Some("DeleteTags"));
        assert_eq!(request, json!({ "Resources": ["vol-1"], "Tags": [{ "Key": "a" }] }));
    }
}
