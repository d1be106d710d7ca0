//! EC2's actions on key pairs.

use super::Service;
use super::filter::{Filter, Filters, select};
use crate::error::Result;
use crate::key;
pub use crate::key::MAX_TEXT;
use crate::record::key::{KeyPair, KeyType};
use crate::record::tag::Tag;

const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("key-pair-id", "KeyPairId"),
        ("fingerprint", "KeyFingerprint"),
        ("key-name", "KeyName"),
        ("key-type", "KeyType"),
    ],
};

impl Service {
    /// EC2 CreateKeyPair: the pair, and its private half, which also stays in the store.
    ///
    /// # Errors
    /// As [`key::create`]'s.
    pub fn create_key_pair(
        &self,
        name: &str,
        key_type: KeyType,
        tags: &[Tag],
    ) -> Result<(KeyPair, String)> {
        key::create(&self.store, name, key_type, tags)
    }

    /// EC2 ImportKeyPair, of a line of OpenSSH's format.
    ///
    /// # Errors
    /// As [`key::import`]'s.
    pub fn import_key_pair(&self, name: &str, public: &str, tags: &[Tag]) -> Result<KeyPair> {
        key::import(&self.store, name, public, tags)
    }

    /// EC2 DescribeKeyPairs: the caller's own, those named or all, of which all filters hold.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_key_pairs(&self, names: &[String], filters: &[Filter]) -> Result<Vec<KeyPair>> {
        let found = match names {
            [] => key::own(&self.store)?,
            names => {
                names.iter().map(|name| key::resolve(&self.store, name)).collect::<Result<_>>()?
            }
        };
        select(found, filters, FILTERS)
    }

    /// EC2 DeleteKeyPair.
    ///
    /// # Errors
    /// As [`key::delete`]'s.
    pub fn delete_key_pair(&self, name: &str) -> Result<()> {
        key::delete(&self.store, name)
    }
}
