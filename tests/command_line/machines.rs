//! What a machine is given in few words, and what a shell offers.

use super::common::{Store, has_kvm};
use super::{lines, refused};
use std::process::Command;

#[test]
fn a_launch_takes_a_larger_root_and_more_volumes() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let volume = store.ok(&["volume", "create", "--size", "1"]);
    store.ok(&["snapshot", "create", volume.trim(), "--tag", "Name=data"]);
    let disks = ["--disk", "2G", "--volume", "size=1G", "--volume", "snapshot=data,delete=false"];
    let id = store.launch(&[&disks[..], &["--append", "demo.mode=hang"]].concat()).remove(0);
    let mappings = store.describe(&id)["BlockDeviceMappings"].clone();
    let devices: Vec<&str> =
        mappings.as_array().unwrap().iter().map(|m| m["DeviceName"].as_str().unwrap()).collect();
    assert_eq!(devices, ["/dev/vda", "/dev/vdb", "/dev/vdc"]);
    assert_eq!(mappings[1]["Ebs"]["DeleteOnTermination"], true);
    assert_eq!(mappings[2]["Ebs"]["DeleteOnTermination"], false);
    let root = mappings[0]["Ebs"]["VolumeId"].as_str().unwrap();
    let sized = ["volume", "ls", "-q", "--filter", "size=2"];
    assert_eq!(lines(&store, &sized), [root]);
    let run = |args: &[&'static str]| [&["run", "demo"], args].concat();
    refused(&store, &run(&["--disk", "1500M"]), 1, "whole GiB");
    refused(&store, &run(&["--volume", "colour=red"]), 2, "says nothing of a volume");
    refused(&store, &run(&["--volume", "snapshot=nothing"]), 1, "InvalidSnapshot.NotFound");
    let twice = r#"[{"DeviceName":"/dev/vda","Ebs":{"VolumeSize":3}}]"#;
    let twice = ["--disk", "2G", "--block-device-mappings", twice];
    refused(&store, &[&["run", "demo"], &twice[..]].concat(), 1, "contradict each other");
}

#[test]
fn a_stopped_machine_takes_other_sizes_and_any_another_name() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("hang");
    store.ok(&["modify", &id, "--name", "web"]);
    assert_eq!(lines(&store, &["ls", "-q", "web"]), [&*id], "one that runs may be renamed");
    refused(&store, &["modify", "web", "-c", "2"], 1, "IncorrectInstanceState");
    store.ok(&["stop", "--force", "web"]);
    store.ok(&["modify", "web", "-c", "3", "-m", "256M", "--name", "db"]);
    let shown = store.describe("db");
    assert_eq!(shown["CpuOptions"]["CoreCount"], 3);
    assert_eq!(shown["Spore"]["Memory"], 256 << 20);
    store.ok(&["modify", "db", "-t", "t3.nano", "-c", "1"]);
    let shown = store.describe("db");
    assert_eq!(
        (&shown["CpuOptions"]["CoreCount"], &shown["InstanceType"]),
        (&1.into(), &"t3.nano".into())
    );
    assert_eq!(shown["Spore"]["Memory"], 512 << 20);
    let model = |model: &str| store.spore(&["modify", "db", "--cpu-model", model]).status.success();
    for level in ["x86-64-v2", "x86-64-v3", "x86-64-v4"] {
        if model(level) {
            assert_eq!(store.describe("db")["Spore"]["CpuModel"], level);
            assert!(lines(&store, &["show", "db"]).iter().any(|line| line.ends_with(level)));
        } else {
            // A software KVM may lack even the first.
            refused(&store, &["modify", "db", "--cpu-model", level], 1, "it lacks ");
            refused(&store, &["run", "demo", "--cpu-model", level], 1, "a lower --cpu-model");
        }
    }
    store.ok(&["modify", "db", "--cpu-model", "host", "--nested", "false"]);
    let shown = store.describe("db");
    assert_eq!(shown["Spore"].get("CpuModel"), None);
    assert_eq!(shown["CpuOptions"].get("NestedVirtualization"), None);
    refused(&store, &["modify", "db", "-m", "1M"], 2, "--memory");
    refused(&store, &["modify", "db", "-m", "100T"], 1, "exceeds this host's memory");
    store.ok(&["start", "db"]);
}

/// What a shell is offered after these words, without what it is told of each.
fn offered(store: &Store, words: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spore"));
    command.arg("--").arg("spore").args(words).env("COMPLETE", "fish");
    let output = command.env("SPORE_HOME", store.home()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_shell_is_offered_what_is_in_the_store() {
    let store = Store::new();
    let volume = store.ok(&["volume", "create", "--size", "1", "--tag", "Name=data"]);
    let volume = volume.trim();
    store.ok(&["volume", "create", "--size", "1", "--tag", "Name=two words"]);
    assert_eq!(offered(&store, &["volume", "show", "da"]), ["data"]);
    assert_eq!(offered(&store, &["volume", "show", &volume[..12]]), [volume]);
    assert!(!offered(&store, &["volume", "show", ""]).contains(&"two words".to_owned()));
    assert_eq!(offered(&store, &["run", "dem"]), ["demo"]);
    assert_eq!(offered(&store, &["run", "demo", "-t", "c5."]).len(), 3);
    assert_eq!(offered(&store, &["kernel", "show", "pv-grub-hd00"]), ["pv-grub-hd00"]);
    let filters = offered(&store, &["ls", "--filter", "instance-st"]);
    assert_eq!(filters, ["instance-state-code=", "instance-state-name="]);
    assert!(offered(&store, &["term"]).contains(&"terminate".to_owned()));
    if has_kvm() {
        store.launch(&["-n", "2", "--name", "web", "--append", "demo.mode=hang"]);
        assert_eq!(offered(&store, &["stop", "we"]), ["web", "web-0", "web-1"]);
        assert_eq!(offered(&store, &["terminate", "i-"]).len(), 2);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(store.ok(&["completions", shell]).contains("COMPLETE"), "{shell}");
    }
}

#[test]
fn disks_are_nvme_controllers_where_that_is_asked_for() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    refused(&store, &["run", "demo", "--disk-bus", "nvme"], 1, "exclude each other");
    let nvme = ["--disk-bus", "nvme", "--transport", "pci", "--append", "demo.mode=hang"];
    let id = store.launch(&nvme).remove(0);
    let shown = store.describe(&id);
    assert_eq!(
        (&shown["Spore"]["DiskBus"], &shown["Spore"]["Transport"]),
        (&"nvme".into(), &"pci".into())
    );
    let line = shown["Spore"]["CommandLine"].as_str().unwrap();
    assert!(line.contains("root=/dev/nvme0n1"), "{line}");
    store.ok(&["stop", "--force", &id]);
    store.ok(&["start", &id]);
    store.ok(&["terminate", &id]);
}
