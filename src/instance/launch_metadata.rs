//! What a guest is told of itself, as its launch says.

use crate::record::metadata::MetadataOptions;
use serde::Serialize;

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
