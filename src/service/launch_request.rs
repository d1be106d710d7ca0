//! What a launch is asked for by.

use super::disks::NewVolume;
use crate::error::{Code, Error, Result};
pub use crate::instance::launch::Request;
pub use crate::instance::metadata::MAX_USER_DATA;
use crate::record::launch_template::Specification;
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::network::NetworkName;
use crate::record::tag::Tag;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// EC2 RunInstances.
#[derive(Clone, Debug, Default)]
pub struct RunInstances {
    /// The image.
    pub image_id: String,
    /// A kernel, or a file to register as one.
    pub kernel_id: Option<String>,
    /// A ramdisk, or a file to register as one.
    pub ramdisk_id: Option<String>,
    /// Everything else. The kernel and the ramdisk in it are those above, once they are found.
    pub request: Request,
    /// Bytes of the root volume; what the image says without.
    pub root_size: Option<u64>,
    /// Volumes beside those of the image and of the request's mapping.
    pub volumes: Vec<NewVolume>,
    /// Kept with the instance.
    pub user_data: Option<Vec<u8>>,
    /// Return only when the VMMs run, or say why they don't.
    pub wait_running: bool,
    /// Wait for an image that is pending.
    pub wait_image: bool,
    /// What says the rest: what is left open here is as there.
    pub launch_template: Option<Specification>,
    /// Whether their own power-off terminates them, if that is said here in place of the request.
    pub terminate_on_shutdown: Option<bool>,
    /// Tags of every volume that they have.
    pub volume_tags: Vec<Tag>,
    /// Tags that Spore itself gives every instance; their keys begin with `aws:`.
    pub system_tags: Vec<Tag>,
    /// What they hang on where nothing else is named.
    pub default_network: Option<NetworkName>,
    /// The reading end of a pipe at whose end-of-file they end.
    pub lifeline: Option<Arc<OwnedFd>>,
}

impl RunInstances {
    /// This request, and what it leaves open as the template has it. Devices and tags are both's;
    /// of one name they are this one's.
    pub fn over(&self, template: Self) -> Self {
        let mut whole = self.clone();
        if whole.image_id.is_empty() {
            whole.image_id = template.image_id;
        }
        whole.kernel_id = whole.kernel_id.or(template.kernel_id);
        whole.ramdisk_id = whole.ramdisk_id.or(template.ramdisk_id);
        whole.user_data = whole.user_data.or(template.user_data);
        whole.terminate_on_shutdown =
            whole.terminate_on_shutdown.or(template.terminate_on_shutdown);
        add_tags(&mut whole.volume_tags, template.volume_tags);
        let (own, of) = (&mut whole.request, template.request);
        if own.instance_type.is_none() {
            // What was said of processors belongs to the type.
            own.instance_type = of.instance_type;
            own.cpus = own.cpus.or(of.cpus);
        }
        own.nested_virtualization = own.nested_virtualization.or(of.nested_virtualization);
        own.key_name = own.key_name.take().or(of.key_name);
        if own.networks.is_empty() {
            own.networks = of.networks;
        }
        if own.groups.is_empty() {
            own.groups = of.groups;
        }
        let mut devices = of.block_device_mappings;
        devices.retain(|device| {
            own.block_device_mappings.iter().all(|other| other.device_name != device.device_name)
        });
        own.block_device_mappings.extend(devices);
        own.metadata_options = options(own.metadata_options, of.metadata_options);
        add_tags(&mut own.tags, of.tags);
        whole
    }
}

fn add_tags(tags: &mut Vec<Tag>, mut more: Vec<Tag>) {
    more.retain(|tag| tags.iter().all(|other| other.key != tag.key));
    tags.extend(more);
}

fn options(own: MetadataOptionsRequest, of: MetadataOptionsRequest) -> MetadataOptionsRequest {
    MetadataOptionsRequest {
        http_tokens: own.http_tokens.or(of.http_tokens),
        http_put_response_hop_limit: own
            .http_put_response_hop_limit
            .or(of.http_put_response_hop_limit),
        http_endpoint: own.http_endpoint.or(of.http_endpoint),
        http_protocol_ipv6: own.http_protocol_ipv6.or(of.http_protocol_ipv6),
        instance_metadata_tags: own.instance_metadata_tags.or(of.instance_metadata_tags),
    }
}

/// # Errors
/// `InvalidUserData.Malformed`: it is longer than EC2 takes.
pub fn check_user_data(data: &[u8]) -> Result<()> {
    if data.len() as u64 <= MAX_USER_DATA {
        return Ok(());
    }
    let why = format!("user data may have {MAX_USER_DATA} bytes at most");
    Err(Error::refused(Code::InvalidUserDataMalformed, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_before_its_template() {
        let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
        let mut template = RunInstances { image_id: "ami-1".into(), ..RunInstances::default() };
        template.terminate_on_shutdown = Some(true);
        template.request.instance_type = Some("t3.small".into());
        template.request.cpus = Some(1);
        template.request.tags = vec![tag("a", "template"), tag("b", "template")];
        let mut request = RunInstances::default();
        request.request.tags = vec![tag("a", "request")];
        let whole = request.over(template.clone());
        assert_eq!((whole.image_id.as_str(), whole.terminate_on_shutdown), ("ami-1", Some(true)));
        assert_eq!(whole.request.cpus, Some(1));
        assert_eq!(whole.request.tags, [tag("a", "request"), tag("b", "template")]);
        request.image_id = "ami-2".into();
        request.terminate_on_shutdown = Some(false);
        request.request.instance_type = Some("t3.large".into());
        let whole = request.over(template);
        assert_eq!((whole.image_id.as_str(), whole.terminate_on_shutdown), ("ami-2", Some(false)));
        // Its own type's.
        assert_eq!(whole.request.cpus, None);
    }
}
