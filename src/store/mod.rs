//! The store: one directory per object, a JSON record in it. There is no daemon and no database.
//!
//! # Consistency
//! - An object is made as a directory under `tmp/` and appears by one rename: it is there whole or
//!   not at all. It goes the same way back. What a killed command leaves in `tmp/` is swept by the
//!   next one ([`staging`]).
//! - A record is replaced by a rename over it; a reader sees the old or the new one.
//! - Transitions of one object take the flock of its `lock` file ([`Locked`]); what spans objects
//!   (a name is unique, a kernel in use stays) takes the store's one `lock`. The kernel drops both
//!   with their holder.
//! - [`Durability`] says what a power failure may take: see there.
//!
//! Any number of commands work on one store at the same time. Listing is readdir; an object that
//! goes while being listed was not there.

mod accounts;
pub mod acl;
mod address;
pub mod admit;
pub mod beneath;
mod cache;
mod collection;
mod format;
pub mod journal;
mod listing;
mod open;
mod paths;
pub mod pattern;
mod record;
pub mod reserve;
pub mod shared;
pub mod staging;
pub mod time;

pub use crate::record::{Durability, Record};
pub use beneath::sync_dir;
pub use collection::{Collection, Locked, check_owner, not_owned};
pub use listing::Listing;
pub use open::{Store, StoreLock};
pub use paths::config_home;
pub use record::RECORD;
pub use staging::Staging;
pub use time::{now, rfc3339};
