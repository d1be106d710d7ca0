//! Instance metadata: what a guest reads at 169.254.169.254 and `[fd00:ec2::254]`. (EC2 User
//! Guide, "Instance metadata and user data")
//!
//! The control plane makes a finished [`Metadata`] of an instance's records ([`tree`]); the process
//! that holds the instance's network looks up and answers ([`http`]).

pub mod answer;
pub mod http;
pub mod nocloud;
pub mod token;
pub mod tree;

pub use crate::record::metadata::MetadataOptions;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The metadata of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Who is answered.
    pub options: MetadataOptions,
    /// What is answered, by its path below `/VERSION/`: `meta-data/instance-id`, `user-data`. A
    /// path that ends in `/` is a directory whose listing the paths below it do not make.
    pub leaves: BTreeMap<String, Vec<u8>>,
}

impl Metadata {
    /// The instance's id, which its tokens are bound to.
    pub fn instance_id(&self) -> &[u8] {
        self.leaves.get("meta-data/instance-id").map_or(&[], Vec::as_slice)
    }
}
