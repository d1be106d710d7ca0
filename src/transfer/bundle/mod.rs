//! Bundles: an instance-store image as EC2 has it in S3, a manifest in XML beside parts of 10 MiB.
//!
//! The parts are one stream cut up: a tar archive of the root disk, compressed by gzip and
//! encrypted by AES-128 in CBC mode. The manifest has the SHA-1 of each part and of the archive,
//! and the cipher's key and initialization vector, encrypted by RSA once for the user and once for
//! EC2, and is signed by the user. It is what ec2-ami-tools and euca2ools write and read; SHA-1 is
//! theirs.

mod archive;
#[doc(hidden)]
pub mod examine;
pub mod intact;
mod kernels;
mod keys;
mod manifest;
pub(super) mod read;
mod refusal;
mod request;
mod storage;
pub(crate) mod unpack;
pub(super) mod write;
mod xml;

pub use request::{Bundle, KeyFiles, RegisterBundle, SUFFIX};

use super::remote::helper::helper;
use crate::error::Result;
use crate::record::image::Image;
use crate::store::Store;

/// Make a bundle in the place `to`: a directory, or `s3://bucket/prefix?…`. Gives its manifest's
/// location. Nothing stays if that fails.
///
/// # Errors
/// There is no such image, it has other volumes than its root, there is a bundle of that name, a
/// key is unusable, no space, cancelled.
pub fn make(store: &Store, bundle: &Bundle, to: &str) -> Result<String> {
    (helper(store.context())?.bundle)(store, bundle, to)
}

/// Register a bundle. Nothing stays if that fails.
///
/// # Errors
/// `InvalidManifest`: the bundle is damaged, incomplete, signed by somebody else or encrypted for
/// others. The name is taken; its kernel is not registered here; I/O errors, no space, cancelled.
pub fn register(store: &Store, request: &RegisterBundle) -> Result<Image> {
    (helper(store.context())?.register)(store, request)
}

/// Sees that this program can register bundles, before anything else is done.
///
/// # Errors
/// It can't ([`super::remote::helper::is_missing`]).
pub fn prepare(store: &Store) -> Result<()> {
    helper(store.context()).map(drop)
}
