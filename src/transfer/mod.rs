//! Images on their way from one place to another: stores, buckets, registries, files and bundles.

pub mod bundle;
pub mod copy;
pub mod export;
pub mod incoming;
pub mod package;
pub mod place;
pub mod region;
pub mod remote;
