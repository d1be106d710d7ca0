//! EC2 GetLaunchTemplateData: a launch as that of an instance was.

use super::Service;
use super::instances::reservations;
use crate::error::{Error, Result};
use crate::record::tag::is_reserved;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

impl Service {
    /// EC2 GetLaunchTemplateData: what a launch template has to say for instances like this one.
    ///
    /// # Errors
    /// The instance is unknown.
    pub fn launch_template_data(&self, instance_id: &str) -> Result<Value> {
        let record = self.describe_instance(instance_id)?;
        let instance = &record.instance;
        let described = serde_json::to_value(reservations(std::slice::from_ref(&record)))
            .map_err(|error| Error::failure(format!("cannot answer: {error}")))?;
        let described = &described[0]["Instances"][0];
        let mut data = Map::new();
        for (key, of) in [
            ("ImageId", "ImageId"),
            ("InstanceType", "InstanceType"),
            ("KernelId", "KernelId"),
            ("RamDiskId", "RamdiskId"),
            ("KeyName", "KeyName"),
        ] {
            described.get(of).map(|value| data.insert(key.into(), value.clone()));
        }
        data.insert(
            "InstanceInitiatedShutdownBehavior".into(),
            json!(instance.instance_initiated_shutdown_behavior),
        );
        if instance.cpu_options.nested_virtualization.is_enabled() {
            data.insert("CpuOptions".into(), json!({ "NestedVirtualization": "enabled" }));
        }
        let (_, user_data) = self.instance_user_data(instance_id)?;
        if let Some(user_data) = user_data {
            data.insert("UserData".into(), STANDARD.encode(user_data).into());
        }
        let tags: Vec<_> = instance.tags.iter().filter(|tag| !is_reserved(&tag.key)).collect();
        if !tags.is_empty() {
            let tags = json!([{ "ResourceType": "instance", "Tags": tags }]);
            data.insert("TagSpecifications".into(), tags);
        }
        let mut options = described["MetadataOptions"].clone();
        options.as_object_mut().map(|options| options.shift_remove("State"));
        data.insert("MetadataOptions".into(), options);
        data.insert("BlockDeviceMappings".into(), self.devices(described)?);
        let interfaces = described["NetworkInterfaces"].as_array().into_iter().flatten();
        let interfaces: Vec<Value> = interfaces.enumerate().map(interface).collect();
        if !interfaces.is_empty() {
            data.insert("NetworkInterfaces".into(), interfaces.into());
        }
        Ok(data.into())
    }

    /// Its volumes, each of the size and the snapshot that it has.
    fn devices(&self, described: &Value) -> Result<Value> {
        let device = |mapping: &Value| {
            let ebs = &mapping["Ebs"];
            let id = ebs["VolumeId"].as_str().unwrap_or_default().parse()?;
            let volume = self.store.volumes().get(&id)?;
            let mut made = json!({
                "DeleteOnTermination": ebs["DeleteOnTermination"],
                "VolumeSize": volume.size,
            });
            if let Some(snapshot) = volume.snapshot_id {
                made["SnapshotId"] = json!(snapshot);
            }
            Ok(json!({ "DeviceName": mapping["DeviceName"], "Ebs": made }))
        };
        let mappings = described["BlockDeviceMappings"].as_array().into_iter().flatten();
        Ok(mappings.map(device).collect::<Result<Vec<_>>>()?.into())
    }
}

fn interface((index, described): (usize, &Value)) -> Value {
    let groups = described["Groups"].as_array().into_iter().flatten();
    let groups: Vec<&Value> = groups.map(|group| &group["GroupId"]).collect();
    json!({ "DeviceIndex": index, "SubnetId": described["SubnetId"], "Groups": groups })
}
