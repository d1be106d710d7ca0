//! What concerns an account or the whole store rather than an object.

use super::usage::{self, Usage};
use super::{Service, kinds};
use crate::account;
use crate::error::Result;
use crate::image::{permission, product};
use crate::instance::disk_usage;
pub use crate::instance::disk_usage::{Usage as DiskUsage, Usages as DiskUsages};
use crate::store::admit;
pub use crate::store::journal::Entry;
use std::collections::HashSet;

impl Service {
    /// Agrees to the terms of a product, so that others' images which carry its code can be
    /// launched.
    ///
    /// # Errors
    /// It is no product code; no space.
    pub fn accept_product(&self, code: &str) -> Result<()> {
        product::accept(&self.store, code)
    }

    /// Takes an acceptance back; instances go on.
    ///
    /// # Errors
    /// `InvalidProductCode.NotFound`: it is not accepted.
    pub fn cancel_product(&self, code: &str) -> Result<()> {
        product::cancel(&self.store, code)
    }

    /// The codes of accepted products, sorted.
    pub fn accepted_products(&self) -> Vec<String> {
        product::accepted(&self.store)
    }

    /// Shares the store with all users of this machine.
    ///
    /// # Errors
    /// As [`permission::share_store`]'s.
    pub fn share_store(&self) -> Result<()> {
        permission::share_store(&self.store).map(drop)
    }

    /// Makes the account of a user, by name or uid, in a shared store ahead of time.
    ///
    /// # Errors
    /// `InvalidUserID.Unknown`; as [`admit::admit`]'s.
    pub fn admit_user(&self, user: &str) -> Result<()> {
        admit::admit(&self.store, account::user(user)?)
    }

    /// What happened to the objects that these ids, prefixes of ids and names address, or to all,
    /// in the order of time.
    ///
    /// # Errors
    /// Nothing has happened to an object of such an id, and nothing has that name; a journal can't
    /// be read.
    pub fn describe_events(&self, texts: &[String]) -> Result<Vec<Entry>> {
        let mut entries = self.store.entries()?;
        let mut ids = HashSet::new();
        for text in texts {
            // What is gone is in the journal only.
            let is = |entry: &&Entry| entry.id.starts_with(text.as_str()) && text.contains('-');
            let known: Vec<String> =
                entries.iter().filter(is).map(|entry| entry.id.clone()).collect();
            match known.is_empty() {
                true => {
                    let found = kinds::addressed(&self.store, text)?;
                    ids.extend(found.iter().map(|object| object.id().to_owned()));
                }
                false => ids.extend(known),
            }
        }
        entries.retain(|entry| texts.is_empty() || ids.contains(&entry.id));
        // One account's stay in their own order even if its clock jumped.
        if entries.iter().any(|entry| entry.account_id != entries[0].account_id) {
            entries.sort_by(|a, b| a.event_time.cmp(&b.event_time));
        }
        Ok(entries)
    }

    /// What was used, of all that the caller may know.
    ///
    /// # Errors
    /// As [`usage::report`]'s.
    pub fn describe_usage(&self) -> Result<Vec<Usage>> {
        usage::report(&self.store)
    }

    /// What objects take on the disk.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn describe_disk_usage(&self) -> Result<DiskUsages> {
        disk_usage::usages(&self.store)
    }
}
