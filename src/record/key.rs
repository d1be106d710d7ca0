//! The record of a key pair, in the shapes of EC2's API (DescribeKeyPairs).

use super::tag::Tag;
use super::{Durability, Record};
use crate::error::Code;
use crate::id::KeyPairId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// EC2 KeyPairInfo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeyPair {
    /// Its id.
    pub key_pair_id: KeyPairId,
    /// Its owner's name for it.
    pub key_name: String,
    /// What it is used with.
    pub key_type: KeyType,
    /// As EC2 computes it for this type and origin.
    pub key_fingerprint: String,
    /// A line of authorized_keys (sshd(8)), with the name as its comment.
    pub public_key: String,
    /// RFC 3339, UTC: when it was made or imported.
    pub create_time: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What EC2 has no word for.
    pub spore: KeyPairOrigin,
}

/// Whose a key pair is, and where its private half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeyPairOrigin {
    /// The owner's uid in decimal.
    pub owner_id: String,
    /// It was imported: its private half is not in the store.
    pub imported: bool,
}

/// EC2 KeyType.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// RFC 8017.
    Rsa,
    /// RFC 8032.
    #[default]
    Ed25519,
}

impl KeyType {
    /// EC2's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl Record for KeyPair {
    type Id = KeyPairId;
    const DIRECTORY: &'static str = "key-pairs";
    const KIND: &'static str = "key pair";
    const NOT_FOUND: Code = Code::InvalidKeyPairNotFound;
    const LISTED_BY: &'static str = "spore key ls";
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &KeyPairId {
        &self.key_pair_id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.key_name)
    }

    fn owner(&self) -> &str {
        &self.spore.owner_id
    }

    fn journal_view(&self) -> Value {
        json!({ "KeyName": self.key_name, "Tags": self.tags })
    }
}
