//! What `-o json` prints is what EC2 answers: each answer is compared with EC2's service model, the
//! one that botocore (PyPI) makes its client of.

#[path = "../common/mod.rs"]
mod common;

use common::venv::python;
use common::{Store, has_kvm};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Answers of a store, and what of EC2's each is to be.
struct Answers {
    store: Store,
    asked: Vec<Value>,
}

impl Answers {
    fn new() -> Self {
        Self { store: Store::new(), asked: Vec::new() }
    }

    /// The answer to a command, which is that of an operation of EC2's.
    fn ask(&mut self, operation: &str, args: &[&str]) -> Value {
        let text = self.store.ok(&[args, &["-o", "json"]].concat());
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        self.asked.push(json!({ "Operation": operation, "Answer": answer }));
        answer
    }

    /// What of the answers the model has otherwise.
    fn wrong(&self, python: &Path) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ec2_model/shapes.py");
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for line in &self.asked {
            writeln!(stdin, "{line}").unwrap();
        }
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A disk of 4 MiB with nothing on it.
fn disk(store: &Store) -> String {
    let path = store.home().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    path.to_string_lossy().into_owned()
}

/// The text of a field, which must be there.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn answers_about_images_snapshots_and_volumes_are_ec2s() {
    let Some(python) = python() else { return };
    let mut ec2 = Answers::new();
    let disk = disk(&ec2.store);
    let import = ["snapshot", "import", &disk, "--format", "raw", "--tag", "Name=data"];
    let snapshot = ec2.store.ok(&[&import[..], &["-q"]].concat());
    let snapshot = snapshot.trim();
    ec2.ask("RegisterImage", &["image", "register", "web", "--snapshot", snapshot]);
    let copy = ec2.ask("CopyImage", &["image", "copy", "web", "--name", "copy"]);
    let images = ec2.ask("DescribeImages", &["image", "ls"]);
    let shown = ec2.ask("DescribeImages", &["image", "show", "web"]);
    let web = &shown["Images"][0];
    assert_eq!(web["Hypervisor"], "xen");
    assert_eq!(web["UsageOperation"], "RunInstances");
    assert_eq!(web["BlockDeviceMappings"][0]["Ebs"]["Encrypted"], false);
    let demo = images["Images"].as_array().unwrap().iter().find(|image| image["Name"] == "demo");
    assert!(demo.unwrap()["Spore"]["SizeBytes"].is_u64(), "{images}");
    ec2.ask("DescribeImageAttribute", &["image", "share", "web", "--add", "user:1"]);
    ec2.ask("DescribeImageReferences", &["image", "references", "web"]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let day = format!("{}-01-01", 1970 + now / (366 * 86_400) + 2);
    ec2.ask("EnableImageDeprecation", &["image", "deprecate", "copy", "--at", &day]);

    let created = ec2.ask("CreateVolume", &["volume", "create", "--snapshot", "data"]);
    let volume = text(&created["VolumeId"]);
    assert_eq!((text(&created["State"]), text(&created["SnapshotId"])), ("available", snapshot));
    assert_eq!(created["Spore"]["SizeBytes"], 4 << 20);
    let volumes = ec2.ask("DescribeVolumes", &["volume", "ls"]);
    assert_eq!(volumes["Volumes"][0]["Attachments"], json!([]));
    let made = ec2.ask("CreateSnapshot", &["snapshot", "create", volume]);
    assert_eq!((text(&made["VolumeId"]), text(&made["Progress"])), (volume, "100%"));
    let snapshots = ec2.ask("DescribeSnapshots", &["snapshot", "ls"]);
    let mut listed = snapshots["Snapshots"].as_array().unwrap().iter();
    assert!(listed.any(|other| other["SnapshotId"] == made["SnapshotId"]), "{snapshots}");
    ec2.ask("CopySnapshot", &["snapshot", "copy", "data", "--tag", "a=b"]);
    let resized = ec2.ask("ModifyVolume", &["volume", "resize", volume, "--size", "2"]);
    let modification = &resized["VolumeModification"];
    assert_eq!(
        (&modification["OriginalSize"], &modification["TargetSize"]),
        (&json!(1), &json!(2))
    );

    let gone = ["image", "deregister", "copy", "--delete-associated-snapshots"];
    let gone = ec2.ask("DeregisterImage", &gone);
    assert_eq!(gone["Return"], true);
    assert_eq!(gone["Spore"]["ImageId"], copy["ImageId"]);
    let result = &gone["DeleteSnapshotResults"][0];
    // A copy within a store shares its image's snapshot or has one of its own.
    assert!(["success", "skipped"].contains(&text(&result["ReturnCode"])), "{gone}");
    for delete in [["volume", "delete", volume], ["snapshot", "delete", text(&made["SnapshotId"])]]
    {
        // Neither has an output in the model; the API itself answers `<return>true</return>`.
        let text = ec2.store.ok(&[&delete[..], &["-o", "json"]].concat());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "Return": true }));
    }
    assert_eq!(ec2.wrong(&python), "");
}

#[test]
fn answers_about_key_pairs_are_ec2s() {
    let Some(python) = python() else { return };
    let mut ec2 = Answers::new();
    let made = ec2.ask("CreateKeyPair", &["key", "create", "ci"]);
    assert!(text(&made["KeyMaterial"]).contains("PRIVATE KEY"));
    let listed = ec2.ask("DescribeKeyPairs", &["key", "ls"]);
    assert_eq!(listed["KeyPairs"][0]["KeyFingerprint"], made["KeyFingerprint"]);
    let public = ec2.store.home().join("key.pub");
    std::fs::write(&public, text(&listed["KeyPairs"][0]["PublicKey"])).unwrap();
    let import = ["key", "import", "same", public.to_str().unwrap()];
    let imported = ec2.ask("ImportKeyPair", &import);
    assert_eq!(imported["KeyFingerprint"], made["KeyFingerprint"]);
    assert_eq!(imported["KeyMaterial"], Value::Null);
    assert_eq!(ec2.wrong(&python), "");
}

/// What the two checks of each instance have found.
fn checks(ec2: &mut Answers, args: &[&str]) -> Vec<[String; 2]> {
    let answer = ec2.ask("DescribeInstanceStatus", args);
    let found = |status: &Value| {
        ["SystemStatus", "InstanceStatus"].map(|of| text(&status[of]["Status"]).to_owned())
    };
    answer["InstanceStatuses"].as_array().unwrap().iter().map(found).collect()
}

#[test]
fn answers_about_instances_are_ec2s() {
    let Some(python) = python() else { return };
    if !has_kvm() {
        return;
    }
    let mut ec2 = Answers::new();
    let mapping = r#"[{"DeviceName": "/dev/vdb", "Ebs": {"VolumeSize": 1, "Encrypted": false}}]"#;
    let run = ["run", "demo", "-n", "2", "--name", "web", "--root-device-type", "ebs"];
    let rest = ["--append", "demo.mode=hang", "--block-device-mappings", mapping];
    let launched = ec2.ask("RunInstances", &[&run[..], &rest].concat());
    let instance = &launched["Instances"][0];
    assert_eq!(launched["Instances"].as_array().unwrap().len(), 2);
    let id = text(&instance["InstanceId"]);
    assert_eq!(instance["Placement"]["Tenancy"], "default");
    assert_eq!(instance["StateTransitionReason"], "");
    assert_eq!(instance["PlatformDetails"], "Linux/UNIX");
    assert_eq!(instance["Monitoring"]["State"], "disabled");
    assert_eq!(instance["Spore"]["InstanceInitiatedShutdownBehavior"], "stop");
    let ebs = &instance["BlockDeviceMappings"][1]["Ebs"];
    assert_eq!(ebs["Status"], "attached");
    let volumes = ec2.ask("DescribeVolumes", &["volume", "show", text(&ebs["VolumeId"])]);
    let attached = &volumes["Volumes"][0];
    assert_eq!(attached["State"], "in-use");
    assert_eq!(attached["Attachments"][0]["InstanceId"], id);
    assert!(text(&attached["Attachments"][0]["AttachTime"]).ends_with('Z'));
    for (filter, found) in [
        (format!("block-device-mapping.volume-id={}", text(&ebs["VolumeId"])), 1),
        ("block-device-mapping.device-name=/dev/vdb".to_owned(), 2),
        (format!("launch-time={}*", &text(&instance["LaunchTime"])[..10]), 2),
        ("state=running".to_owned(), 2),
        ("client-token=x".to_owned(), 0),
        ("tag:Name=web".to_owned(), 2),
    ] {
        let ids = ec2.store.ok(&["ls", "-q", "--filter", &filter]);
        assert_eq!(ids.lines().count(), found, "{filter}");
    }
    let mine = ["volume", "ls", "-q", "--filter", "status=in-use"];
    assert_eq!(ec2.store.ok(&mine).lines().count(), 4);

    // Nothing has been heard of these guests so far.
    assert_eq!(checks(&mut ec2, &["status"]), [["ok", "initializing"]; 2]);

    let all = ec2.ask("CreateSnapshots", &["snapshot", "create", id]);
    assert_eq!(all["Snapshots"].as_array().unwrap().len(), 2);
    ec2.ask("CreateImage", &["image", "create", id, "--name", "golden", "--no-reboot"]);
    let stopped = ec2.ask("StopInstances", &["stop", "--force", id]);
    assert_eq!(stopped["StoppingInstances"][0]["PreviousState"]["Name"], "running");
    assert_eq!(checks(&mut ec2, &["status", id]), [["not-applicable"; 2]]);
    assert_eq!(checks(&mut ec2, &["status"]).len(), 1);
    let described = ec2.ask("DescribeInstances", &["show", id]);
    let why = text(&described["Reservations"][0]["Instances"][0]["StateTransitionReason"]);
    assert!(why.starts_with("User initiated (") && why.ends_with(" GMT)"), "{why}");
    let spare = ec2.ask("CreateVolume", &["volume", "create", "--size", "1"]);
    let spare = text(&spare["VolumeId"]);
    let attach = ["volume", "attach", spare, id, "--device", "/dev/vdc"];
    ec2.ask("AttachVolume", &attach);
    ec2.ask("DetachVolume", &["volume", "detach", spare]);
    ec2.ask("DescribeInstances", &["modify", id, "-t", "t3.nano"]);
    ec2.ask("StartInstances", &["start", id]);
    ec2.ask("DescribeInstances", &["ls"]);
    ec2.ask("TerminateInstances", &["terminate", id]);
    ec2.ask("DescribeInstances", &["show", id]);
    assert_eq!(ec2.wrong(&python), "");
}

#[test]
fn answers_about_networks_are_ec2s() {
    let Some(python) = python() else { return };
    let mut ec2 = Answers::new();
    let create = ["network", "create", "lab", "--cidr", "10.7.0.0/16", "--tag", "a=b"];
    let made = ec2.ask("CreateVpc", &create);
    assert_eq!(made["Vpc"]["CidrBlock"], "10.7.0.0/16");
    let six = &made["Vpc"]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"];
    assert!(text(six).ends_with("::/64"), "{made}");
    let listed = ec2.ask("DescribeVpcs", &["network", "ls", "--filter", "cidr=10.7.0.0/16"]);
    assert_eq!(listed["Vpcs"][0], made["Vpc"]);
    assert_eq!(
        (&listed["Vpcs"][0]["State"], listed["Vpcs"].as_array().unwrap().len()),
        (&json!("available"), 1)
    );
    ec2.ask("DescribeVpcs", &["network", "show", "lab", "default"]);
    let group = ["network", "group", "create", "lab", "web", "--description", "servers"];
    let group = ec2.ask("CreateSecurityGroup", &group);
    let allow =
        |rest: &[&'static str]| [&["network", "group", "allow", "lab", "web"][..], rest].concat();
    for (operation, rule) in [
        ("Ingress", &["--protocol", "tcp", "--port", "80-81", "--cidr", "0.0.0.0/0"][..]),
        ("Ingress", &["--protocol", "icmpv6", "--cidr", "fd00::/8"]),
        ("Ingress", &["--from", "default"]),
        ("Egress", &["--out", "--protocol", "udp", "--port", "53", "--cidr", "10.0.0.0/8"]),
    ] {
        let operation = format!("AuthorizeSecurityGroup{operation}");
        assert_eq!(ec2.ask(&operation, &allow(rule))["Return"], true);
    }
    let groups = ec2.ask("DescribeSecurityGroups", &["network", "group", "ls", "lab"]);
    let web = &groups["SecurityGroups"][1];
    assert_eq!((&web["GroupId"], &web["VpcId"]), (&group["GroupId"], &made["Vpc"]["VpcId"]));
    assert_eq!(web["IpPermissions"][0]["FromPort"], 80);
    let revoke = ["network", "group", "revoke", "lab", "web", "--from", "default"];
    ec2.ask("RevokeSecurityGroupIngress", &revoke);
    for delete in [&["network", "group", "delete", "lab", "web"][..], &["network", "delete", "lab"]]
    {
        let text = ec2.store.ok(&[delete, &["-o", "json"]].concat());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "Return": true }));
    }
    assert_eq!(ec2.wrong(&python), "");
}
