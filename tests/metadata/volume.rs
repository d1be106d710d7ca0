//! Metadata as a volume, judged by util-linux, dosfstools, mtools and cloud-init; and by what
//! cloud-init knows at its first moment where to look.

use super::cloud_init::CloudInit;
use super::common::programs::administrators;
use super::common::skip::skip;
use super::{MAC, options, record};
use serde_json::{Value, json};
use sporevm::metadata::nocloud;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const KEY: &str = "ssh-ed25519 AAAA mine";

fn written(dir: &Path, user_data: Option<&[u8]>) -> String {
    let mut record = record(options("optional"));
    record.instance.spore.public_key = Some(KEY.into());
    let volume = nocloud::volume(&record.instance, user_data).unwrap();
    assert_eq!(volume, nocloud::volume(&record.instance, user_data).unwrap());
    let path = dir.join("cidata.img");
    fs::write(&path, volume).unwrap();
    path.to_str().unwrap().to_owned()
}

fn says(command: &mut Command) -> Option<String> {
    let Ok(output) = command.output() else {
        skip(format!("{command:?} is missing"));
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    Some(text)
}

#[test]
fn the_volume_is_one_of_fat_that_is_labelled_cidata() {
    let dir = TempDir::new().unwrap();
    let path = written(dir.path(), None);
    let mut blkid = administrators("blkid");
    let Some(found) = says(blkid.args(["-p", "-o", "export", &path])) else { return };
    assert!(found.contains("LABEL=CIDATA\n") && found.contains("TYPE=vfat\n"), "{found}");
    says(administrators("fsck.fat").args(["-n", &path]));
}

#[test]
fn cloud_init_reads_the_volumes_files() {
    let Some(cloud_init) = CloudInit::get() else { return };
    let dir = TempDir::new().unwrap();
    // More than a cluster's, and no text.
    let data: Vec<u8> = (0..16 << 10).map(|n| (n % 256) as u8).collect();
    for user_data in [Some(&data[..]), Some(b"#cloud-config\n{}\n"), None] {
        let path = written(dir.path(), user_data);
        let seed = dir.path().join("seed");
        let _ = fs::remove_dir_all(&seed);
        fs::create_dir(&seed).unwrap();
        let mut mcopy = Command::new("mcopy");
        if says(mcopy.args(["-i", &path, "::*", seed.to_str().unwrap()])).is_none() {
            return;
        }
        assert_eq!(fs::read(seed.join("user-data")).unwrap(), user_data.unwrap_or_default());
        let found = cloud_init.python("nocloud.py", &format!("{}/", seed.display()));
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["instance-id"], "i-00000000000000001", "{found}");
        assert_eq!(found["hostname"], "ip-10-0-0-5");
        assert_eq!(found["public-keys"], json!([KEY]));
        let interface = &found["network-config"]["ethernets"]["interface0"];
        assert_eq!(*interface, json!({ "match": { "macaddress": MAC }, "dhcp4": true }));
    }
}

/// Debian's ds-identify in a machine with this UUID and, if there is one, this volume; the data
/// sources that it finds.
fn identified(cloud_init: &CloudInit, uuid: &str, volume: Option<&str>) -> String {
    let root = TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    write("sys/class/dmi/id/product_uuid", &format!("{uuid}\n"));
    write("sys/class/dmi/id/product_serial", &format!("{uuid}\n"));
    write("sys/class/dmi/id/sys_vendor", "Spore\n");
    write("proc/cmdline", "console=ttyS0\n");
    write("proc/1/environ", "");
    write("proc/uptime", "1 1\n");
    // What the machine has: whose judgement of it counts is ds-identify's.
    let blkid = match volume {
        Some(path) => format!("exec blkid -p -o export {path}"),
        None => "exit 2".to_owned(),
    };
    for (name, text) in [("systemd-detect-virt", "echo kvm"), ("blkid", &blkid)] {
        let text = format!("#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\n{text}\n");
        let path = write(&format!("bin/{name}"), &text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", root.path().join("bin").display());
    let mut command = Command::new("sh");
    let command = command.arg(cloud_init.ds_identify()).arg("--force");
    let _ = command.env("PATH", path).env("PATH_ROOT", root.path()).output().unwrap();
    let found = fs::read_to_string(root.path().join("run/cloud-init/cloud.cfg"));
    found.unwrap_or_default()
}

#[test]
fn ds_identify_finds_ec2_by_the_uuid_and_nocloud_by_the_volume_and_else_nothing() {
    let Some(cloud_init) = CloudInit::get() else { return };
    let dir = TempDir::new().unwrap();
    let volume = written(dir.path(), None);
    let uuid = |options: Value| {
        let record = record(options);
        let instance = &record.instance;
        let (id, interfaces) = (&instance.instance_id, &instance.network_interfaces);
        sporevm::instance::launch::uuid(id, &instance.metadata_options, interfaces)
    };
    let mut off = options("optional");
    off["HttpEndpoint"] = "disabled".into();
    let (own, other) = (uuid(options("optional")), uuid(off));
    let found = identified(&cloud_init, &own, None);
    assert!(found.contains("datasource_list: [ Ec2, None ]"), "{found}");
    let found = identified(&cloud_init, &other, Some(&volume));
    assert!(found.contains("datasource_list: [ NoCloud, None ]"), "{found}");
    let found = identified(&cloud_init, &other, None);
    assert!(!found.contains("Ec2") && !found.contains("NoCloud"), "{found}");
}
