//! What EC2's API does, for any front end: each action is a method of [`Service`] that takes a
//! structure with EC2's names (or a parameter or two) and answers in the records' shapes. What
//! addresses an object may be its id, a unique prefix of that, or its name.

pub mod access;
pub mod account;
pub mod asked;
pub mod autoscaling;
pub mod autostart;
pub mod console;
pub mod create_image;
pub mod deregister;
pub mod disks;
pub mod ebs;
pub mod filter;
pub mod foreground;
mod idempotent;
pub mod image_attributes;
pub mod images;
pub mod instances;
pub mod kernels;
pub mod keys;
mod kinds;
pub mod launch;
pub mod launch_data;
pub mod launch_request;
pub mod launch_templates;
pub mod networks;
pub mod power;
pub mod probe;
pub mod programs;
pub mod prune;
pub mod pull;
mod pull_region;
pub mod reach;
pub mod regions;
pub mod register;
pub mod restart;
pub mod shape;
pub mod snapshots;
pub mod statistics;
pub mod status;
pub mod tags;
pub mod tasks;
mod template_data;
pub mod transfer;
pub mod usage;
pub mod volumes;
pub mod wait;

use crate::context::Context;
use crate::error::Result;
use crate::import::arrival;
use crate::kernel;
use crate::snapshot::retained;
use crate::store::Store;
pub use crate::store::time;
use std::path::Path;
use std::sync::Once;

/// The actions on one store, on behalf of whom a context names.
pub struct Service {
    store: Store,
    swept: Once,
}

impl Service {
    /// Opens the caller's store, which is made if there is none.
    ///
    /// # Errors
    /// As [`Store::open`]'s.
    pub fn open(context: &Context) -> Result<Self> {
        Ok(Self { store: Store::open(context)?, swept: Once::new() })
    }

    /// Opens the store in that directory.
    ///
    /// # Errors
    /// As [`Store::open_within`]'s.
    pub fn open_within(home: &Path, context: &Context) -> Result<Self> {
        Ok(Self { store: Store::open_within(home, context)?, swept: Once::new() })
    }

    /// The store's directory, absolute.
    pub fn home(&self) -> &Path {
        self.store.home()
    }

    /// Says one line that the caller should know, and that fails nothing.
    pub fn warn(&self, line: impl std::fmt::Display) {
        self.store.context().warn(line);
    }

    /// The store without what killed imports have left of images and snapshots.
    fn swept(&self) -> &Store {
        self.swept.call_once(|| {
            arrival::sweep(&self.store);
            // What refers to them first.
            kernel::sweep(&self.store);
            retained::sweep(&self.store);
        });
        &self.store
    }
}
