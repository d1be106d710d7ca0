//! Images on their way from one place to another: stores, buckets, registries, files and bundles.

pub mod bundle;
pub(crate) mod chunk;
pub mod copy;
pub mod download;
pub mod endpoint;
pub mod export;
pub(crate) mod members;
pub mod package;
pub mod provide;
pub mod region;
pub mod remote;
pub(crate) mod stored;
