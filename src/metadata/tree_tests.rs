use super::*;
use serde_json::Value;

/// An instance with a network of Spore's, a tap, a second volume and an empty disk.
fn record() -> InstanceRecord {
    let volume = |n: u8| json!({ "VolumeId": format!("vol-{n:017}"), "DeleteOnTermination": true });
    let interface = |n: u8, network: &str| {
        json!({
            "NetworkInterfaceId": format!("eni-{n:017}"),
            "MacAddress": format!("02:00:00:00:00:a{n}"),
            "Attachment": { "DeviceIndex": n, "DeleteOnTermination": true },
            "Spore": { "Network": network },
        })
    };
    let mut own = interface(0, "default");
    own["PrivateIpAddress"] = "10.0.0.5".into();
    own["Ipv6Addresses"] = json!([{ "Ipv6Address": "fd00::5" }]);
    own["SubnetId"] = "subnet-00000000000000001".into();
    own["VpcId"] = "vpc-00000000000000001".into();
    own["Groups"] = json!([
        { "GroupId": "sg-00000000000000001", "GroupName": "default" },
        { "GroupId": "sg-00000000000000002", "GroupName": "web" },
    ]);
    let spore = json!({
        "Memory": 1u64 << 30,
        "CommandLine": "",
        "Uuid": "ec2d1e7a-0000-4000-8000-000000000000",
        "Engine": "auto",
        "Ephemeral": [{ "DeviceName": "/dev/vdc", "VirtualName": "ephemeral0", "Size": 1 }],
        "Starts": 1,
        "ConsoleStart": 0,
    });
    let record = json!({
        "ReservationId": "r-00000000000000001",
        "OwnerId": "1000",
        "Instance": {
            "InstanceId": "i-00000000000000001",
            "ImageId": "ami-00000000000000001",
            "State": { "Code": 0, "Name": "pending" },
            "AmiLaunchIndex": 2,
            "InstanceType": "t3.micro",
            "LaunchTime": "2026-01-01T00:00:00.000Z",
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "RootDeviceName": "/dev/vda",
            "RootDeviceType": "ebs",
            "BlockDeviceMappings": [
                { "DeviceName": "/dev/vda", "Ebs": volume(1) },
                { "DeviceName": "/dev/vdb", "Ebs": volume(2) },
            ],
            "NetworkInterfaces": [own, interface(1, "tap:tap0")],
            "CpuOptions": { "CoreCount": 2, "ThreadsPerCore": 1 },
            "InstanceInitiatedShutdownBehavior": "stop",
            "Tags": [{ "Key": "Name", "Value": "web" }, { "Key": "a:b", "Value": "" }],
            "Spore": spore,
        },
    });
    serde_json::from_value(record).unwrap()
}

fn subnet(dhcp6: bool) -> Subnet {
    let (ipv4_cidr, ipv6_cidr) = ("10.0.0.0/16".into(), Some("fd00::/64".into()));
    Subnet { device_index: 0, ipv4_cidr, ipv6_cidr, dhcp6 }
}

fn text<'a>(metadata: &'a Metadata, path: &str) -> Option<&'a str> {
    metadata.leaves.get(path).map(|leaf| std::str::from_utf8(leaf).unwrap())
}

fn full() -> Metadata {
    let mut record = record();
    record.instance.key_name = Some("mine".into());
    record.instance.spore.public_key = Some("ssh-ed25519 AAAA mine".into());
    let subnets = [subnet(false)];
    of(&record, Given { user_data: Some(b"\0\xff"), subnets: &subnets })
}

/// What is below a path, as "PATH VALUE", the lines of a value separated by commas.
fn below(metadata: &Metadata, directory: &str) -> Vec<String> {
    let line = |(path, leaf): (&String, &Vec<u8>)| {
        let path = path.strip_prefix(directory)?;
        Some(format!("{path} {}", String::from_utf8_lossy(leaf).replace('\n', ",")))
    };
    metadata.leaves.iter().filter_map(line).collect()
}

#[test]
fn the_tree_has_what_cloud_init_and_others_read() {
    let metadata = full();
    let mut found = below(&metadata, "meta-data/");
    found.retain(|line| !line.starts_with("network/"));
    let expected = [
        "ami-id ami-00000000000000001",
        "ami-launch-index 2",
        "ami-manifest-path (unknown)",
        "autoscaling/target-lifecycle-state InService",
        "block-device-mapping/ami /dev/vda",
        "block-device-mapping/ebs1 vdb",
        "block-device-mapping/ephemeral0 vdc",
        "block-device-mapping/root /dev/vda",
        "events/maintenance/history []",
        "events/maintenance/scheduled []",
        "hibernation/configured true",
        "hostname ip-10-0-0-5.internal",
        "instance-action none",
        "instance-id i-00000000000000001",
        "instance-life-cycle on-demand",
        "instance-type t3.micro",
        "ipv6 fd00::5",
        "local-hostname ip-10-0-0-5.internal",
        "local-ipv4 10.0.0.5",
        "mac 02:00:00:00:00:a0",
        "placement/availability-zone local-1a",
        "placement/availability-zone-id local-1-az1",
        "placement/region local-1",
        "profile default-hvm",
        "public-keys/ 0=mine",
        "public-keys/0/openssh-key ssh-ed25519 AAAA mine",
        "reservation-id r-00000000000000001",
        "security-groups default,web",
        "services/domain internal",
        "services/partition aws",
    ];
    assert_eq!(found, expected);
    assert_eq!(metadata.leaves["user-data"], b"\0\xff");
}

#[test]
fn an_interface_has_what_its_network_is() {
    let metadata = full();
    let of = |mac: &str| below(&metadata, &format!("meta-data/network/interfaces/macs/{mac}/"));
    let own = [
        "device-number 0",
        "interface-id eni-00000000000000000",
        "local-hostname ip-10-0-0-5.internal",
        "local-ipv4s 10.0.0.5",
        "mac 02:00:00:00:00:a0",
        "owner-id 1000",
        "security-group-ids sg-00000000000000001,sg-00000000000000002",
        "security-groups default,web",
        "subnet-id subnet-00000000000000001",
        "subnet-ipv4-cidr-block 10.0.0.0/16",
        "subnet-ipv6-cidr-blocks fd00::/64",
        "vpc-id vpc-00000000000000001",
        "vpc-ipv4-cidr-block 10.0.0.0/16",
        "vpc-ipv4-cidr-blocks 10.0.0.0/16",
        "vpc-ipv6-cidr-blocks fd00::/64",
    ];
    assert_eq!(of("02:00:00:00:00:a0"), own);
    let tap = [
        "device-number 1",
        "interface-id eni-00000000000000001",
        "mac 02:00:00:00:00:a1",
        "owner-id 1000",
    ];
    assert_eq!(of("02:00:00:00:00:a1"), tap);
}

#[test]
fn what_depends_on_options_is_there_by_them() {
    let mut record = record();
    let with = |record: &InstanceRecord, dhcp6| {
        of(record, Given { subnets: &[subnet(dhcp6)], ..Given::default() })
    };
    let bare = with(&record, false);
    let tag = "meta-data/tags/instance/Name";
    let ipv6s = "meta-data/network/interfaces/macs/02:00:00:00:00:a0/ipv6s";
    for path in [tag, ipv6s, "user-data", "meta-data/public-keys/"] {
        assert_eq!(text(&bare, path), None, "{path}");
    }
    record.instance.metadata_options.instance_metadata_tags = TagsState::Enabled;
    let metadata = with(&record, true);
    assert_eq!(text(&metadata, tag), Some("web"));
    assert_eq!(text(&metadata, "meta-data/tags/instance/a:b"), Some(""));
    assert_eq!(text(&metadata, ipv6s), Some("fd00::5"));
    assert_eq!(metadata.options, record.instance.metadata_options);
}

#[test]
fn a_guest_without_a_network_of_spores_is_called_by_its_id() {
    let mut record = record();
    record.instance.network_interfaces.remove(0);
    assert_eq!(guest_name(&record.instance), "i-00000000000000001");
    let metadata = of(&record, Given::default());
    let name = text(&metadata, "meta-data/local-hostname");
    assert_eq!(name, Some("i-00000000000000001.internal"));
    assert_eq!(text(&metadata, "meta-data/local-ipv4"), None);
}

#[test]
fn the_identity_document_is_ec2s() {
    let metadata = of(&record(), Given::default());
    let document = text(&metadata, "dynamic/instance-identity/document").unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    for (name, value) in [
        ("accountId", "1000"),
        ("architecture", "x86_64"),
        ("availabilityZone", "local-1a"),
        ("imageId", "ami-00000000000000001"),
        ("instanceId", "i-00000000000000001"),
        ("instanceType", "t3.micro"),
        ("pendingTime", "2026-01-01T00:00:00.000Z"),
        ("privateIp", "10.0.0.5"),
        ("region", "local-1"),
        ("version", "2017-09-30"),
    ] {
        assert_eq!(document[name], value, "{name}");
    }
    assert_eq!(document["billingProducts"], Value::Null);
}
