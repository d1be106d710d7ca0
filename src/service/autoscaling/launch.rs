//! What a group launches, as a request of RunInstances.

use super::find::{configurations, named, validation};
use crate::error::Result;
use crate::id::hex;
use crate::record::autoscaling::{AutoScalingGroup, LaunchData, Member};
use crate::record::instance::ClientToken;
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::network::Network;
use crate::record::scaling::LaunchSource;
use crate::record::tag::{GROUP_TAG, Tag};
use crate::service::launch::{Request, RunInstances, check_user_data};
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

/// The launch of a member of a group.
///
/// # Errors
/// What it is launched from is gone.
pub fn request(store: &Store, group: &AutoScalingGroup, member: &Member) -> Result<RunInstances> {
    let launch = match member.launch.as_ref().unwrap_or(&group.launch) {
        LaunchSource::LaunchConfiguration(name) => {
            named(store, &configurations(store), name)?.launch
        }
        LaunchSource::LaunchTemplate { .. } => {
            return Err(validation("launch templates are not there yet"));
        }
    };
    let propagated = group.tags.iter().filter(|tag| tag.propagate_at_launch);
    let tag = |key: &str, value: &str| Tag { key: key.to_owned(), value: value.to_owned() };
    let tags = propagated.map(|each| tag(&each.key, &each.value)).collect();
    let options = launch.metadata_options.clone().unwrap_or_default();
    Ok(RunInstances {
        user_data: user_data(&launch)?,
        image_id: launch.image_id,
        kernel_id: launch.kernel_id,
        ramdisk_id: launch.ramdisk_id,
        system_tags: vec![tag(GROUP_TAG, &group.auto_scaling_group_name)],
        request: Request {
            min_count: 1,
            max_count: 1,
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
            client_token: Some(client_token(&member.token)),
            tags,
            ..Request::default()
        },
        ..RunInstances::default()
    })
}
