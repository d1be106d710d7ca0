//! Regions that are not directories: content by its digest in a bucket or in a registry, and a package for each image.
//!
//! Content goes first, the package last: an image is there whole or not at all, and what an interrupted copy has sent
//! is not sent again. Only [`net`] knows of asynchronous code, and only [`helper`]'s program has that.

pub(crate) mod backend;
pub(crate) mod chunks;
mod client;
mod collect;
pub mod helper;
pub(super) mod net;
pub mod pull;
pub mod push;

pub use client::Remote;
