//! Metadata as a volume: what cloud-init's NoCloud data source looks for on a file system labelled
//! CIDATA. (cloud-init, "NoCloud")

use super::tree::guest_name;
use crate::error::{OrFail, Result};
use crate::record::instance::Instance;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::{Map, Value, json};
use std::io::{Cursor, Write};

/// The label, as FAT pads it.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// Bytes of the volume: user data has 16 KiB at most.
const SIZE: usize = 1 << 20;
/// Bytes of one of its sectors, as a disk's.
const SECTOR: u16 = 512;

/// A volume of FAT with the files `meta-data`, `user-data` and, where there is an interface,
/// `network-config`. The same instance has the same volume.
///
/// # Errors
/// None that an instance could have.
pub fn volume(instance: &Instance, user_data: Option<&[u8]>) -> Result<Vec<u8>> {
    let doing = || "write a CIDATA volume";
    let mut bytes = Cursor::new(vec![0; SIZE]);
    let options = FormatVolumeOptions::new().volume_label(LABEL).bytes_per_sector(SECTOR);
    fatfs::format_volume(&mut bytes, options).or_fail(doing)?;
    let volume = FileSystem::new(&mut bytes, FsOptions::new()).or_fail(doing)?;
    let write = |name: &str, content: &[u8]| {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(content)?;
        file.flush()
    };
    write("meta-data", text(&meta_data(instance)).as_bytes()).or_fail(doing)?;
    // The data source wants both files.
    write("user-data", user_data.unwrap_or_default()).or_fail(doing)?;
    if let Some(config) = network_config(instance) {
        write("network-config", text(&config).as_bytes()).or_fail(doing)?;
    }
    volume.unmount().or_fail(doing)?;
    Ok(bytes.into_inner())
}

/// JSON, which is YAML.
fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn meta_data(instance: &Instance) -> Value {
    let mut data = json!({
        "instance-id": instance.instance_id,
        "local-hostname": guest_name(instance),
        "ami-launch-index": instance.ami_launch_index,
    });
    if let Some(key) = &instance.spore.public_key {
        data["public-keys"] = json!([key]);
    }
    data
}

/// Every interface asks for its address. (cloud-init, "Networking config Version 2")
fn network_config(instance: &Instance) -> Option<Value> {
    let interface = |(n, mac): (usize, String)| {
        let config = json!({ "match": { "macaddress": mac }, "dhcp4": true });
        (format!("interface{n}"), config)
    };
    let macs = instance.network_interfaces.iter().map(|each| each.mac_address.to_string());
    let ethernets: Map<String, Value> = macs.enumerate().map(interface).collect();
    (!ethernets.is_empty()).then(|| json!({ "version": 2, "ethernets": ethernets }))
}
