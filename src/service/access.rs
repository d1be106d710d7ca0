//! Access keys: CreateAccessKey, ListAccessKeys and DeleteAccessKey of IAM.

use super::Service;
use crate::error::Result;
use crate::key::access;
pub use crate::key::access::AccessKey;

impl Service {
    /// IAM CreateAccessKey.
    ///
    /// # Errors
    /// As [`access::create`]'s.
    pub fn create_access_key(&self) -> Result<AccessKey> {
        access::create(&self.store)
    }

    /// The caller's first key, which is made if there is none.
    ///
    /// # Errors
    /// As [`access::create`]'s.
    pub fn first_access_key(&self) -> Result<AccessKey> {
        access::first(&self.store)
    }

    /// IAM ListAccessKeys, with the secrets: only their owner gets as far as this.
    ///
    /// # Errors
    /// They can't be read.
    pub fn list_access_keys(&self) -> Result<Vec<AccessKey>> {
        access::own(&self.store)
    }

    /// The key that a request says it is signed with.
    ///
    /// # Errors
    /// It can't be read.
    pub fn find_access_key(&self, id: &str) -> Result<Option<AccessKey>> {
        access::find(&self.store, id)
    }

    /// IAM DeleteAccessKey.
    ///
    /// # Errors
    /// As [`access::delete`]'s.
    pub fn delete_access_key(&self, id: &str) -> Result<()> {
        access::delete(&self.store, id)
    }
}
