//! The cache of a store: what can be made again.

use super::{Store, beneath, staging};
use crate::error::Result;

impl Store {
    /// What of the cache is the user's, by name, sorted.
    pub fn cached(&self) -> Vec<String> {
        let names = beneath::Dir::place(&self.cache()).and_then(|cache| cache.own_names());
        let mut names = names.unwrap_or_default();
        names.sort();
        names
    }

    /// Removes a part of the cache.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn discard_cached(&self, name: &str) -> Result<()> {
        staging::discard(self, &self.cache().join(name)).map(drop)
    }
}
