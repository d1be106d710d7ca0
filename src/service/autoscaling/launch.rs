//! What a group launches, as a request of RunInstances.

use super::find::{configurations, named, validation};
use crate::error::{Error, Result};
use crate::id::hex;
use crate::image::catalog;
use crate::record::autoscaling::{AutoScalingGroup, LaunchData, Member};
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::network::Network;
use crate::record::scaling::LaunchSource;
use crate::record::tag::{GROUP_TAG, Tag};
use crate::record::token::ClientToken;
use crate::service::Service;
use crate::service::launch::{Request, RunInstances, check_user_data};
use crate::service::launch_templates::Specification;
use crate::store::Store;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Most entries of a list of a launch configuration's.
const MAX_LIST: usize = 64;

/// # Errors
/// `ValidationError`: nothing can be launched by it.
pub fn check(launch: &LaunchData) -> Result<()> {
    if launch.security_groups.len() > MAX_LIST || launch.block_device_mappings.len() > MAX_LIST {
        return Err(validation(format!("a list of it has more than {MAX_LIST} entries")));
    }
    check_user_data(&user_data(launch)?.unwrap_or_default())
}

fn user_data(launch: &LaunchData) -> Result<Option<Vec<u8>>> {
    let decoded = |text: &String| {
        let text: String = text.split_ascii_whitespace().collect();
        STANDARD.decode(text).map_err(|_| validation("UserData is not in base64"))
    };
    launch.user_data.as_ref().map(decoded).transpose()
}

/// What tells the launch of a member from all others.
pub fn client_token(token: &str) -> ClientToken {
    // The launch configuration may be another when it is asked for again.
    ClientToken { token: token.to_owned(), request: hex(&Sha256::digest(token)) }
}

impl Service {
    /// What a group launches from by a launch template. Its version stays as it is named: `$Latest`
    /// and `$Default` may be others later.
    ///
    /// # Errors
    /// `ValidationError`: it is not there, has no such version, or nothing can be launched by that.
    pub fn launch_template_source(&self, named: &Specification) -> Result<LaunchSource> {
        let found = || -> Result<LaunchSource> {
            let (template, version) = self.launch_template_version(named)?;
            let request = self.launch_request(&version.launch_template_data, None)?;
            if request.image_id.is_empty() {
                return Err(validation("it names no image"));
            }
            catalog::resolve(&self.store, &request.image_id)?;
            Ok(LaunchSource::LaunchTemplate {
                launch_template_id: template.launch_template_id.to_string(),
                launch_template_name: template.launch_template_name,
                version: named.version.clone().unwrap_or_else(|| "$Default".to_owned()),
            })
        };
        found().map_err(|error: Error| {
            validation(format!("the launch template can't be used: {}", error.message()))
        })
    }

    /// The same with the number of a template's version.
    ///
    /// # Errors
    /// The template or the version is gone.
    pub(super) fn numbered(&self, launch: &LaunchSource) -> Result<LaunchSource> {
        let mut launch = launch.clone();
        if let LaunchSource::LaunchTemplate { launch_template_id, version, .. } = &mut launch
            && version.starts_with('$')
        {
            let (_, found) =
                self.launch_template_version(&named_by(launch_template_id, version))?;
            *version = found.version_number.to_string();
        }
        Ok(launch)
    }
}

fn named_by(id: &str, version: &str) -> Specification {
    Specification { id: Some(id.to_owned()), name: None, version: Some(version.to_owned()) }
}

/// The launch of a member of a group.
///
/// # Errors
/// What it is launched from is gone.
pub fn request(store: &Store, group: &AutoScalingGroup, member: &Member) -> Result<RunInstances> {
    let mut launch = match member.launch.as_ref().unwrap_or(group.source()) {
        LaunchSource::LaunchConfiguration(name) => {
            configured(named(store, &configurations(store), name)?.launch, group)?
        }
        // Where the template says what they hang on, that comes first.
        LaunchSource::LaunchTemplate { launch_template_id, version, .. } => RunInstances {
            launch_template: Some(named_by(launch_template_id, version)),
            default_network: group.spore.network.clone(),
            ..RunInstances::default()
        },
    };
    let propagated = group.tags.iter().filter(|tag| tag.propagate_at_launch);
    let tag = |key: &str, value: &str| Tag { key: key.to_owned(), value: value.to_owned() };
    launch.system_tags = vec![tag(GROUP_TAG, &group.auto_scaling_group_name)];
    let request = &mut launch.request;
    (request.min_count, request.max_count) = (1, 1);
    request.client_token = Some(client_token(&member.token));
    request.tags = propagated.map(|each| tag(&each.key, &each.value)).collect();
    Ok(launch)
}

/// What a launch configuration asks for.
fn configured(launch: LaunchData, group: &AutoScalingGroup) -> Result<RunInstances> {
    let options = launch.metadata_options.clone().unwrap_or_default();
    Ok(RunInstances {
        user_data: user_data(&launch)?,
        image_id: launch.image_id,
        kernel_id: launch.kernel_id,
        ramdisk_id: launch.ramdisk_id,
        request: Request {
            instance_type: launch.instance_type,
            key_name: launch.key_name,
            networks: group.spore.network.clone().map(Network::Named).into_iter().collect(),
            groups: launch.security_groups,
            block_device_mappings: launch.block_device_mappings,
            metadata_options: MetadataOptionsRequest {
                http_tokens: options.http_tokens,
                http_put_response_hop_limit: options.http_put_response_hop_limit,
                http_endpoint: options.http_endpoint,
                ..MetadataOptionsRequest::default()
            },
            ..Request::default()
        },
        ..RunInstances::default()
    })
}
