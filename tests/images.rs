//! Images as EC2 has them: their records, finding them, tags, deregistering, products, usage and
//! events.

mod common;

use common::images::{refused, show as image, snapshot_of};
use common::programs::administrators;
use common::{Store, has_kvm};
use serde_json::Value;
use std::fs;
use std::process::Command;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// An image with the built-in guest's kernel and root.
fn import(store: &Store, name: &str) -> String {
    let (kernel, root) = (store.home().join("demo.elf"), store.home().join("demo.raw"));
    fs::write(&kernel, sporevm::demo::KERNEL).unwrap();
    fs::write(&root, sporevm::demo::root()).unwrap();
    let (kernel, root) = (kernel.to_str().unwrap(), root.to_str().unwrap());
    let args = ["image", "import", root, "--name", name, "--kernel", kernel];
    let id = store.ok(&[&args[..], &["--tag", "spore:instance-type=spore.tiny"]].concat());
    id.trim().to_owned()
}

fn found(store: &Store, args: &[&str]) -> Vec<String> {
    let out = store.ok(&[&["image", "ls", "-o", "json"], args].concat());
    let images = json(&out)["Images"].as_array().unwrap().clone();
    images.iter().map(|image| image["Name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_record_has_what_ec2_says_of_an_image() {
    let store = Store::new();
    let id = import(&store, "web");
    let snapshot = snapshot_of(&image(&store, &id));
    let manifest = format!(
        r#"{{"Name": "whole", "Description": "d", "Architecture": "i386", "BootMode": "legacy-bios",
            "Platform": "windows", "RootDeviceName": "/dev/sda1", "Tags": [{{"Key": "K", "Value": "v"}}],
            "BlockDeviceMappings": [
              {{"DeviceName": "/dev/sda1", "Ebs": {{"SnapshotId": "{snapshot}", "VolumeSize": 3}}}},
              {{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}},
              {{"DeviceName": "/dev/sdc", "NoDevice": ""}},
              {{"DeviceName": "/dev/sdd", "Ebs": {{"VolumeSize": 1, "DeleteOnTermination": false}}}}]}}"#
    );
    let path = store.home().join("manifest.json");
    fs::write(&path, &manifest).unwrap();
    let path = path.to_str().unwrap();
    let id = store.ok(&["image", "register", "--manifest", path]);
    let whole = image(&store, id.trim());
    for (field, value) in [
        ("Name", "whole"),
        ("Description", "d"),
        ("State", "available"),
        ("Architecture", "i386"),
        ("BootMode", "legacy-bios"),
        ("Platform", "windows"),
        ("PlatformDetails", "Windows"),
        ("VirtualizationType", "hvm"),
        ("RootDeviceType", "ebs"),
        ("RootDeviceName", "/dev/sda1"),
        ("ImageType", "machine"),
        ("Hypervisor", "xen"),
    ] {
        assert_eq!(whole[field], value, "{field}");
    }
    let mappings = &whole["BlockDeviceMappings"];
    assert_eq!(mappings[0]["Ebs"]["VolumeSize"], 3);
    assert_eq!(mappings[1]["VirtualName"], "ephemeral0");
    assert_eq!(mappings[2]["NoDevice"], "");
    assert_eq!(mappings[3]["Ebs"]["DeleteOnTermination"], false);
    assert_eq!(whole["Public"], false);
    assert!(whole.get("LaunchPermissions").is_none());
    // The name stays: registering it again, malformed ones, impossible devices.
    refused(&store, &["image", "register", "--manifest", path], "InvalidAMIName.Duplicate");
    for (from, to, code) in [
        ("whole", "a:b", "InvalidAMIName.Malformed"),
        ("whole", "ab", "InvalidAMIName.Malformed"),
        ("ephemeral0", "ephemeral99", "InvalidParameterValue"),
        ("\"NoDevice\": \"\"", "\"NoDevice\": \"x\"", "InvalidParameterValue"),
        ("\"VolumeSize\": 3", "\"VolumeSize\": 16385", "InvalidParameterValue"),
        ("/dev/sdb", "/dev/../b", "InvalidParameterValue"),
    ] {
        let bad = manifest.replacen(from, to, 1).replacen("\"whole\"", "\"another\"", 1);
        fs::write(path, bad).unwrap();
        refused(&store, &["image", "register", "--manifest", path], code);
    }
}

#[test]
fn an_instance_store_root_has_at_most_10_gib() {
    let store = Store::new();
    let snapshot = snapshot_of(&image(&store, &import(&store, "web")));
    let manifest = |name: &str, gib: u64| {
        let path = store.home().join(name);
        let text = format!(
            r#"{{"Name": "{name}", "RootDeviceType": "instance-store", "BlockDeviceMappings":
                [{{"DeviceName": "/dev/vda", "Ebs": {{"SnapshotId": "{snapshot}", "VolumeSize": {gib}}}}}]}}"#
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    store.ok(&["image", "register", "--manifest", &manifest("ten", 10)]);
    let eleven = manifest("eleven", 11);
    refused(&store, &["image", "register", "--manifest", &eleven], "InvalidManifest");
}

#[test]
fn images_are_found_as_ec2_finds_them() {
    let store = Store::new();
    for name in ["web-1", "web-2", "db-1"] {
        import(&store, name);
    }
    store.ok(&["image", "modify", "db-1", "--description", "a,b*c"]);
    store.ok(&["image", "modify", "web-2", "--product-code", "code-1", "--hourly-rate", "0.5"]);
    store.ok(&[
        "image",
        "share",
        "web-1",
        "--launch-permission",
        "Add=[{Group=all},{UserId=4242}]",
        "--yes",
    ]);
    store.ok(&["tag", &import(&store, "tagged"), "Env=prod", "Owner=alice"]);
    let me = rustix::process::geteuid().as_raw().to_string();
    for (args, names) in [
        (&["--mine"][..], &["db-1", "demo", "tagged", "web-1", "web-2"][..]),
        (&["--owner", &me], &["db-1", "demo", "tagged", "web-1", "web-2"]),
        (&["--owner", "1234567"], &[]),
        (&["--quick-start"], &["demo"]),
        (&["--owner", "amazon,aws-marketplace"], &["demo", "web-2"]),
        (&["--marketplace"], &["web-2"]),
        (&["--community"], &[]),
        (&["--executable-by", "all"], &["web-1"]),
        (&["--executable-by", "4242"], &["web-1"]),
        (&["--executable-by", "self"], &[]),
        (&["--filter", "name=web-?"], &["web-1", "web-2"]),
        (&["--filter", r"name=web-\?"], &[]),
        (&["--filter", "name=web-1,db*"], &["db-1", "web-1"]),
        (&["--filter", r"description=a\,b\*c"], &["db-1"]),
        (&["--filter", "name=web*", "--filter", "is-public=true"], &["web-1"]),
        (&["--filter", "product-code=code-1"], &["web-2"]),
        (&["--filter", "product-code.type=marketplace"], &["web-2"]),
        (&["--filter", "owner-alias=amazon"], &["demo"]),
        (&["--filter", "tag:Env=pr*"], &["tagged"]),
        (&["--filter", "tag-key=Owner"], &["tagged"]),
        (&["--filter", "root-device-type=instance-store"], &["demo"]),
        (&["--filter", "state=deregistered"], &[]),
    ] {
        assert_eq!(found(&store, args), names, "{args:?}");
    }
    refused(&store, &["image", "ls", "--filter", "colour=red"], "InvalidParameterValue");
    refused(&store, &["image", "ls", "--owner", "nobody!"], "InvalidUserID.Malformed");
}

#[test]
fn a_deprecated_image_is_hidden_from_others() {
    let store = Store::new();
    let id = import(&store, "old");
    refused(&store, &["image", "deprecate", "old", "--at", "2001-01-01"], "InvalidParameterValue");
    refused(&store, &["image", "deprecate", "old", "--at", "soon"], "InvalidParameterValue");
    store.ok(&["image", "deprecate", "old", "--at", "2031-01-31T12:00Z"]);
    assert_eq!(image(&store, &id)["DeprecationTime"], "2031-01-31T12:00:00.000Z");
    // Years later, to the owner and to somebody else.
    let path = store.home().join("images").join(&id).join("record.json");
    let record = fs::read_to_string(&path).unwrap();
    fs::write(&path, record.replace("2031-01-31", "2001-01-31")).unwrap();
    assert_eq!(found(&store, &["--mine", "--filter", "name=old"]), ["old"]);
    let foreign = fs::read_to_string(&path).unwrap();
    let me = format!("\"OwnerId\": \"{}\"", rustix::process::geteuid().as_raw());
    fs::write(&path, foreign.replace(&me, "\"OwnerId\": \"4242\"")).unwrap();
    assert!(found(&store, &["--filter", "name=old"]).is_empty());
    assert_eq!(found(&store, &["--filter", "name=old", "--include-deprecated"]), ["old"]);
    fs::write(&path, record).unwrap();
    store.ok(&["image", "deprecate", "old", "--cancel"]);
    assert!(image(&store, &id).get("DeprecationTime").is_none());
}

#[test]
fn tags_are_for_every_kind_and_have_ec2s_limits() {
    let store = Store::new();
    let id = import(&store, "web");
    let web = image(&store, &id);
    let snapshot = snapshot_of(&web);
    let kernel = web["KernelId"].as_str().unwrap();
    store.ok(&["tag", &id, &snapshot, kernel, "Env=test", "Empty="]);
    for (kind, id) in [("image", id.as_str()), ("snapshot", &snapshot), ("kernel", kernel)] {
        let shown = store.ok(&[kind, "show", id, "-o", "json"]);
        assert!(shown.contains("\"Env\"") && shown.contains("\"Empty\""), "{shown}");
    }
    store.ok(&["tag", &id, "Env=prod"]);
    store.ok(&["untag", &id, "Empty", "Env=other", "missing"]);
    let tags = image(&store, &id)["Tags"].as_array().unwrap().clone();
    let env = tags.iter().find(|tag| tag["Key"] == "Env").unwrap();
    assert_eq!(env["Value"], "prod");
    assert!(tags.iter().all(|tag| tag["Key"] != "Empty"));
    let long = format!("{}=x", "k".repeat(10_000));
    refused(&store, &["tag", &id, &long], "InvalidParameterValue");
    refused(&store, &["tag", &id, "aws:x=y"], "InvalidParameterValue");
    let many: Vec<String> = (0..50).map(|n| format!("t{n}=")).collect();
    let many: Vec<&str> = ["tag", &id].into_iter().chain(many.iter().map(|t| t.as_str())).collect();
    refused(&store, &many, "TagLimitExceeded");
    for bad in ["nobody", "ami-../../../etc", "x-0123456789abcdef0"] {
        assert!(!store.spore(&["tag", bad, "a=b"]).status.success(), "{bad}");
    }
}

#[test]
fn a_deregistered_image_launches_nothing_and_takes_nothing_along() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = import(&store, "web");
    let snapshot = snapshot_of(&image(&store, &id));
    let run = ["run", &id, "-q", "--wait", "--timeout", "300"];
    let instance = store.ok(&run).trim().to_owned();
    assert!(image(&store, &id)["LastLaunchedTime"].is_string());
    let references = store.ok(&["image", "references", &id]);
    assert!(references.contains(&instance) && references.contains("vol-"), "{references}");
    store.ok(&["image", "deregister", "web"]);
    for args in [&["run", &id][..], &["image", "show", &id], &["image", "deregister", &id]] {
        refused(&store, args, "InvalidAMIID.Unavailable");
    }
    refused(&store, &["run", "web"], "InvalidAMIID.NotFound");
    assert_eq!(found(&store, &[]), ["demo"]);
    assert_eq!(found(&store, &["--filter", "state=deregistered"]), ["web"]);
    // The instance goes on, on its own volume, and still says where it came from.
    store.ok(&["start", &instance]);
    store.wait(&instance, "exit");
    assert!(store.logs(&instance).contains("identity: boot 2"));
    assert_eq!(store.describe(&instance)["ImageId"], id.as_str());
    assert!(store.ok(&["image", "references", &id]).contains(&instance));
    // So does the snapshot; and the name is free.
    store.ok(&["snapshot", "verify", &snapshot]);
    let again = store.ok(&["image", "register", "web", "--snapshot", &snapshot]);
    let other = store.ok(&["image", "register", "web-2", "--snapshot", &snapshot]);
    store.ok(&["image", "deregister", again.trim(), "--delete-associated-snapshots"]);
    store.ok(&["snapshot", "verify", &snapshot]);
    store.ok(&["image", "deregister", other.trim(), "--delete-associated-snapshots"]);
    refused(&store, &["snapshot", "show", &snapshot], "InvalidSnapshot.NotFound");
    store.ok(&["start", &instance]);
    store.wait(&instance, "exit");
    assert!(store.logs(&instance).contains("identity: boot 3"));
}

#[test]
fn an_arm_image_is_recorded_and_not_launched() {
    let store = Store::new();
    let id = import(&store, "web");
    let path = store.home().join("m.json");
    let mut manifest = image(&store, &id);
    let keep = ["KernelId", "BlockDeviceMappings"].map(|f| (f, manifest[f].take()));
    let mut manifest = Value::Object(keep.map(|(f, v)| (f.to_owned(), v)).into_iter().collect());
    (manifest["Name"], manifest["Architecture"]) = ("arm".into(), "arm64".into());
    fs::write(&path, manifest.to_string()).unwrap();
    store.ok(&["image", "register", "--manifest", path.to_str().unwrap()]);
    assert_eq!(found(&store, &["--filter", "architecture=arm64"]), ["arm"]);
    if has_kvm() {
        let said = refused(&store, &["run", "arm"], "InvalidParameterValue");
        assert!(said.contains("arm64"), "{said}");
    }
}

#[test]
fn the_mapping_decides_which_disks_an_instance_has() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = import(&store, "web");
    let mapping = r#"[{"DeviceName": "/dev/vda", "Ebs": {"VolumeSize": 2}},
        {"DeviceName": "/dev/vdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/vdc", "Ebs": {"VolumeSize": 1}}]"#;
    let run = [
        "run",
        &id,
        "-q",
        "--append",
        "demo.mode=poweroff-on-button",
        "--block-device-mappings",
        mapping,
    ];
    let instance = store.ok(&run).trim().to_owned();
    let shown = store.describe(&instance);
    assert_eq!(shown["BlockDeviceMappings"].as_array().unwrap().len(), 2);
    assert_eq!(shown["Spore"]["Ephemeral"][0]["VirtualName"], "ephemeral0");
    // The guest has three disks, of which only two are volumes.
    let table = store.ok(&["show", &instance]);
    let disks: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("Disk ")).collect();
    for (disk, what) in disks.iter().zip(["/dev/vda (root) vol-", "/dev/vdc vol-", "/dev/vdb eph"])
    {
        assert!(disk.trim_start().starts_with(what), "{table}");
        assert!(disk.contains(" read, ") && disk.contains(", uring,") | disk.contains(", sync,"));
    }
    assert_eq!(disks.len(), 3, "{table}");
    // What they take is the instance's, the instance store's file as well.
    let used = json(&store.ok(&["df", "-o", "json"]));
    let mut used = used["DiskUsage"].as_array().unwrap().iter();
    let used = used.find(|object| object["ResourceId"] == instance.as_str()).unwrap().clone();
    let gib = (2 + 1 + shown["Spore"]["Ephemeral"][0]["Size"].as_u64().unwrap()) << 30;
    assert_eq!(used["SizeBytes"], gib, "{used}");
    store.ok(&["terminate", &instance]);
    let volumes = json(&store.ok(&["volume", "ls", "-o", "json"]));
    assert_eq!(volumes["Volumes"].as_array().unwrap().len(), 1);
    assert_eq!(volumes["Volumes"][0]["Size"], 1);
    for (bad, code) in [
        (r#"[{"DeviceName": "/dev/vda", "NoDevice": ""}]"#, "InvalidBlockDeviceMapping"),
        (r#"[{"DeviceName": "/dev/vdb", "VirtualName": "x"}]"#, "InvalidParameterValue"),
        (r#"[{"DeviceName": "/dev/vdb"}]"#, "InvalidBlockDeviceMapping"),
        (r#"[{"DeviceName": "/dev/vdb", "Ebs": {}}]"#, "InvalidBlockDeviceMapping"),
        ("nonsense", "InvalidBlockDeviceMapping"),
    ] {
        refused(&store, &["run", &id, "--block-device-mappings", bad], code);
    }
}

#[test]
fn what_happened_and_what_was_used_is_written_down() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = import(&store, "web");
    store.ok(&["image", "modify", "web", "--product-code", "code-1", "--hourly-rate", "3600"]);
    let instance = store.ok(&["run", &id, "-q", "--wait", "--timeout", "300"]).trim().to_owned();
    store.ok(&["terminate", &instance]);
    store.ok(&["image", "deregister", "web"]);
    let events = json(&store.ok(&["events", "-o", "json"]));
    let events = events["Events"].as_array().unwrap();
    let said = |command: &str, event: &str, id: &str| {
        let is = |e: &&Value| e["Command"] == command && e["Event"] == event && e["Id"] == id;
        events.iter().any(|e| is(&e))
    };
    assert!(said("image import", "created", &id));
    assert!(said("image modify", "modified", &id));
    assert!(said("run", "created", &instance));
    assert!(said("terminate", "modified", &instance));
    assert!(said("image deregister", "modified", &id));
    // What no command did has its own time and cause, whoever saw it first.
    let end = events.iter().find(|e| e["Id"] == *instance && e["Record"]["State"] == "stopped");
    let end = end.unwrap();
    assert_eq!((&end["Cause"], &end["Command"]), (&"guest powered off".into(), &"".into()));
    let at = std::time::Duration::from_millis(end["Record"]["EndedAt"].as_u64().unwrap());
    assert_eq!(end["EventTime"], sporevm::store::rfc3339(at));
    let me = rustix::process::geteuid().as_raw().to_string();
    assert!(events.iter().all(|e| e["AccountId"] == me.as_str()));
    let of = |store: &Store| {
        let usage = json(&store.ok(&["usage", "-o", "json"]));
        let rows = usage["Usage"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["ProductCodes"][0] == "code-1").unwrap()
    };
    let usage = of(&store);
    assert_eq!(usage["ImageId"], id.as_str());
    let seconds = usage["InstanceSeconds"].as_f64().unwrap();
    let charge: f64 = usage["Charge"].as_str().unwrap().parse().unwrap();
    assert!(seconds > 0.0 && (charge - seconds).abs() < 1e-6, "{usage}");
    // A torn last line takes nothing else along.
    let journal = store.home().join("accounts").join(&me).join("journal.jsonl");
    let mut text = fs::read(&journal).unwrap();
    text.extend_from_slice(b"{\"EventTime\":\"2026");
    fs::write(&journal, text).unwrap();
    assert_eq!(of(&store), usage);
    import(&store, "after");
    assert!(store.ok(&["events"]).contains("after"));
}

#[test]
fn secrets_are_named_before_an_image_is_public() {
    if Command::new("mke2fs").arg("-V").output().is_err() {
        return common::skip::skip("mke2fs (e2fsprogs) is missing");
    }
    let store = Store::new();
    let root = store.home().join("root");
    for (path, text) in [
        ("etc/ssh/ssh_host_rsa_key", "k"),
        ("etc/ssh/ssh_host_rsa_key.pub", "k"),
        ("root/.aws/credentials", "k"),
        ("root/.bash_history", ""),
        ("srv/app/.env", "k"),
        ("etc/shadow", "root::19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let disk = store.home().join("disk");
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&root)
        .arg(&disk)
        .arg("16M")
        .status()
        .unwrap();
    assert!(made.success());
    // The same in a partition.
    let mut partitioned = vec![0u8; 1 << 20];
    partitioned[446 + 4] = 0x83;
    partitioned[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    partitioned[446 + 12..446 + 16].copy_from_slice(&(32u32 << 10).to_le_bytes());
    partitioned[510..512].copy_from_slice(&[0x55, 0xaa]);
    partitioned.extend(fs::read(&disk).unwrap());
    let other = store.home().join("partitioned");
    fs::write(&other, partitioned).unwrap();
    for (path, name) in [(disk, "plain"), (other, "partitioned")] {
        store.ok(&["image", "import", path.to_str().unwrap(), "--name", name, "--format", "raw"]);
        let shared = store.spore(&["image", "share", name, "--add", "all"]);
        let err = String::from_utf8_lossy(&shared.stderr).into_owned();
        // Nobody is there to be asked.
        assert_eq!(shared.status.code(), Some(1), "{err}");
        assert!(err.contains("files in it look like secrets") && err.contains("--yes"), "{err}");
        assert!(!store.ok(&["image", "show", name, "-o", "json"]).contains("\"Public\": true"));
        let shared = store.spore(&["image", "share", name, "--add", "all", "--yes"]);
        let err = String::from_utf8_lossy(&shared.stderr).into_owned();
        assert!(shared.status.success(), "{err}");
        for secret in ["/etc/ssh/ssh_host_rsa_key", "/root/.aws/credentials", "/srv/app/.env"] {
            assert_eq!(err.matches(secret).count(), 1, "{name}: {secret}: {err}");
        }
        assert!(!err.contains("history") && !err.contains(".pub"), "{err}");
        assert!(err.contains("an account that takes no password"), "{err}");
        assert!(err.contains("root") && !err.contains("daemon"), "{err}");
    }
    // What can't be looked into is not made public, unless somebody says so.
    import(&store, "opaque");
    let shared = store.spore(&["image", "share", "opaque", "--add", "all"]);
    let err = String::from_utf8_lossy(&shared.stderr).into_owned();
    assert_eq!((shared.status.code(), err.lines().count()), (Some(1), 1), "{err}");
    assert!(err.contains("not looked into") && err.contains("--yes"), "{err}");
    assert!(!store.ok(&["image", "show", "opaque", "-o", "json"]).contains("\"Public\": true"));
    store.ok(&["image", "share", "opaque", "--add", "all", "--yes"]);
}

/// Keys are found in what only a journal names, and a journal that can't be replayed is no reason
/// to look away.
#[test]
fn secrets_are_found_in_file_systems_that_were_not_unmounted() {
    let store = Store::new();
    let path = |name: &str| store.home().join(name);
    fs::create_dir_all(path("root/etc/ssh")).unwrap();
    fs::write(path("root/etc/ssh/ssh_host_rsa_key"), "k").unwrap();
    fs::write(path("block"), vec![0; 1024]).unwrap();
    let disk = path("disk");
    let mut make = administrators("mke2fs");
    make.args(["-q", "-F", "-t", "ext3", "-b", "1024", "-d"])
        .args([&path("root"), &disk])
        .arg("16M");
    assert!(make.status().unwrap().success());
    fs::write(path("script"), format!("jo\njw -b 15000 {}\njc\n", path("block").display()))
        .unwrap();
    let mut write = administrators("debugfs");
    assert!(
        write.args(["-w", "-f"]).args([&path("script"), &disk]).output().unwrap().status.success()
    );
    let bytes = fs::read(&disk).unwrap();
    assert_eq!(bytes[1024 + 0x60] & 4, 4, "it needs recovery");
    let mut torn = bytes.clone();
    let magic = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
    let journal = torn.windows(8).position(|bytes| bytes == magic).unwrap();
    torn[journal + 40] = 0x80; // a feature that nobody knows
    for (name, bytes) in [("unclean", bytes), ("torn", torn)] {
        fs::write(&disk, bytes).unwrap();
        store.ok(&["image", "import", disk.to_str().unwrap(), "--name", name, "--format", "raw"]);
        let shared = store.spore(&["image", "share", name, "--add", "all"]);
        let err = String::from_utf8_lossy(&shared.stderr).into_owned();
        assert!(err.contains("/etc/ssh/ssh_host_rsa_key"), "{name}: {err}");
        assert_eq!(err.contains("looks like a secret; "), name == "unclean", "{name}: {err}");
        assert!(!shared.status.success(), "{name}: {err}");
        assert_eq!(err.contains("its journal has features"), name == "torn", "{name}: {err}");
    }
}

#[test]
fn no_id_is_a_path() {
    let store = Store::new();
    import(&store, "web");
    let before = store.ok(&["df"]);
    for id in
        ["../web", "ami-../../images", "snap-0123456789abcde/f", "vol-/", "i-..", ".", "aki-%2e%2e"]
    {
        for verb in [
            &["image", "show"][..],
            &["image", "deregister"],
            &["image", "export", "-o", "/dev/null"],
            &["snapshot", "delete"],
            &["volume", "delete"],
            &["kernel", "deregister"],
            &["terminate"],
            &["start"],
            &["run"],
        ] {
            let output = store.spore(&[verb, &[id]].concat());
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
            let code = error.split(": ").nth(1).unwrap();
            assert!(code.ends_with(".NotFound") || code.ends_with(".Malformed"), "{error}");
        }
    }
    assert_eq!(store.ok(&["df"]), before);
}
