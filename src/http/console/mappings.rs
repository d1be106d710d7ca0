//! Volumes as a form has them: rows of fields of the same names.

use super::form::Form;
use crate::error::{Code, Error, Result};
use serde_json::{Value, json};

/// The root device, where the form does not know its name yet.
pub const ROOT: &str = "root";
/// Rows for further volumes.
const MORE: usize = 3;
/// Names of further devices.
const DEVICES: &[&str] = &["/dev/sdf", "/dev/sdg", "/dev/sdh"];

/// One volume.
pub struct VolumeRow {
    /// Its device.
    pub device: String,
    /// Whether that stands.
    pub fixed: bool,
    /// GiB; empty if nothing is said.
    pub gib: String,
    /// Its type.
    pub kind: String,
    /// delete, keep or omit: what becomes of it.
    pub ends: &'static str,
    /// Whether it can be left out.
    pub optional: bool,
}

impl VolumeRow {
    /// The root volume of an image that is yet to be chosen.
    pub fn root() -> Self {
        let (gib, kind) = (String::new(), String::new());
        Self { device: ROOT.to_owned(), fixed: true, gib, kind, ends: "", optional: false }
    }

    /// A volume of an instance's.
    pub fn of(volume: &Value, root: &str) -> Self {
        let attachment = &volume["Attachments"][0];
        let device = attachment["Device"].as_str().unwrap_or_default().to_owned();
        let deleted = attachment["DeleteOnTermination"] == true;
        Self {
            fixed: true,
            gib: volume["Size"].to_string(),
            kind: volume["VolumeType"].as_str().unwrap_or_default().to_owned(),
            ends: if deleted { "delete" } else { "keep" },
            optional: device != root,
            device,
        }
    }

    /// Rows for volumes beside these.
    pub fn more(rows: &[Self]) -> Vec<Self> {
        let free = DEVICES.iter().filter(|name| !rows.iter().any(|row| row.device == **name));
        let row = |device: &&str| Self {
            device: (*device).to_owned(),
            fixed: false,
            gib: String::new(),
            kind: String::new(),
            ends: "delete",
            optional: false,
        };
        free.take(MORE).map(row).collect()
    }
}

/// The BlockDeviceMappings that a form's rows say; `root` is the root device's name.
///
/// # Errors
/// `InvalidParameterValue`: a size is no number.
pub fn mappings(form: &Form, root: &str) -> Result<Vec<Value>> {
    let [devices, sizes, kinds, ends] =
        ["device", "gib", "volume_type", "ends"].map(|name| form.all(name));
    let mut all = Vec::new();
    for (n, device) in devices.iter().enumerate() {
        let of = |list: &[String]| {
            list.get(n).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let device = if device == ROOT { root } else { device.trim() };
        let (size, kind, end) = (of(&sizes), of(&kinds), of(&ends));
        if end.as_deref() == Some("omit") {
            all.push(json!({ "DeviceName": device, "NoDevice": "" }));
            continue;
        }
        // A row of which nothing was filled in is none.
        if device.is_empty() || size.is_none() && kind.is_none() {
            continue;
        }
        let mut ebs = json!({});
        if let Some(size) = size {
            ebs["VolumeSize"] = size.parse::<u32>().map(Value::from).map_err(|_| {
                let why =
                    format!("the size of {device} is no number of GiB: {}", size.escape_debug());
                Error::refused(Code::InvalidParameterValue, why)
            })?;
        }
        if let Some(kind) = kind {
            ebs["VolumeType"] = kind.into();
        }
        if let Some(end) = end {
            ebs["DeleteOnTermination"] = (end == "delete").into();
        }
        all.push(json!({ "DeviceName": device, "Ebs": ebs }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_mapping_of_what_was_filled_in() {
        let form = Form::parse(
            b"device=root&device=/dev/sdf&device=/dev/sdg&device=/dev/sdb&gib=8&gib=&gib=2&gib=&\
              volume_type=&volume_type=&volume_type=gp2&volume_type=&ends=&ends=delete&ends=keep&ends=omit",
        );
        let expected = json!([
            { "DeviceName": "/dev/vda", "Ebs": { "VolumeSize": 8 } },
            { "DeviceName": "/dev/sdg",
              "Ebs": { "VolumeSize": 2, "VolumeType": "gp2", "DeleteOnTermination": false } },
            { "DeviceName": "/dev/sdb", "NoDevice": "" },
        ]);
        assert_eq!(Value::from(mappings(&form, "/dev/vda").unwrap()), expected);
        assert!(mappings(&Form::parse(b"device=a&gib=x"), "").is_err());
        assert!(mappings(&Form::parse(b"gib=1&gib=2"), "").unwrap().is_empty());
    }
}
