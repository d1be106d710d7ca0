//! Images, their kernels and their snapshots.

pub mod accounts;
pub mod arrival;
pub mod attribute;
pub mod boot_entries;
pub mod boot_method;
pub mod builtin;
pub mod bundle;
pub mod catalog;
pub mod child;
pub mod copy;
pub mod digest;
pub mod export;
pub mod import;
pub mod incoming;
pub mod kernel;
pub mod modules;
pub mod names;
pub mod package;
pub mod permission;
pub mod place;
pub mod product;
pub mod record;
pub mod region;
pub mod remote;
pub mod secrets;
pub mod snapshot;

/// The content's file name in a snapshot's directory.
pub use import::DATA;
pub use names::check_tags;
