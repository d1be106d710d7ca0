//! What a guest is told of itself, as its launch says.

use crate::id::{InstanceId, hex};
use crate::record::metadata::{Endpoint, MetadataOptions};
use crate::record::network::{Network, NetworkInterface};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What a guest is told of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaunchMetadata {
    /// How it gets at its metadata.
    pub options: MetadataOptions,
    /// It gets it as a volume labelled CIDATA.
    pub no_cloud: bool,
    /// Whom it is to let in.
    pub key: Option<LaunchKey>,
}

impl LaunchMetadata {
    /// As on EC2, and nobody is to be let in.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whom a guest is to let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaunchKey {
    /// The key pair's name.
    pub name: String,
    /// Its public half, a line of authorized_keys.
    pub public_key: String,
}

/// A random-looking (version 4) UUID that follows from the id. It begins with `ec2` where the guest
/// finds metadata as on EC2, and nowhere else: by that cloud-init looks for metadata, for minutes.
/// (ds-identify, `ec2_identify_platform`)
pub fn uuid(id: &InstanceId, options: &MetadataOptions, interfaces: &[NetworkInterface]) -> String {
    let own = |each: &NetworkInterface| matches!(each.spore.network, Network::Named(_));
    let served = options.http_endpoint == Endpoint::Enabled && interfaces.iter().any(own);
    let hex = hex(&Sha256::digest(id.as_str()));
    let first = match &hex[27..30] {
        _ if served => "ec2",
        "ec2" => "0c2",
        other => other,
    };
    let [a, b, c] = [&hex[..5], &hex[5..9], &hex[9..12]];
    let [d, e] = [&hex[12..15], &hex[15..27]];
    format!("{first}{a}-{b}-4{c}-8{d}-{e}")
}
