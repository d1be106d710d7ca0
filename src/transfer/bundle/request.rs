//! What is asked of bundling, and what bounds every bundle.

use crate::id::{KernelId, RamdiskId};
use crate::record::tag::Tag;
use std::path::PathBuf;

/// Bytes of a part but the last.
pub(super) const PART: usize = 10 << 20;

/// Longest part that is read.
pub(super) const MAX_PART: u64 = 64 << 20;

/// Longest manifest that is read.
pub(super) const MAX_MANIFEST: u64 = 8 << 20;

/// How the manifest's name ends.
pub const SUFFIX: &str = ".manifest.xml";

/// Whose keys a bundle is made with or read with; one's own, made when first needed, where none are
/// given.
#[derive(Clone, Debug, Default)]
pub struct KeyFiles {
    /// The user's private key (PEM, PKCS#1 or PKCS#8).
    pub key: Option<PathBuf>,
    /// The user's certificate (PEM, X.509).
    pub cert: Option<PathBuf>,
    /// EC2's certificate.
    pub ec2_cert: Option<PathBuf>,
}

/// What to bundle, and how.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// An image, or a snapshot: an id, a unique prefix of one, or a name.
    pub what: String,
    /// What the files' names begin with; the image's name if absent.
    pub prefix: Option<String>,
    /// Do not encrypt the parts.
    pub unencrypted: bool,
    /// With which keys.
    pub keys: KeyFiles,
}

/// What a bundle is registered as.
#[derive(Clone, Debug, Default)]
pub struct RegisterBundle {
    /// The manifest's file, or `s3://…`.
    pub location: String,
    /// The image's name; made of the bundle's if absent.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// A kernel in place of the bundle's.
    pub kernel: Option<KernelId>,
    /// The ramdisk that belongs to that.
    pub ramdisk: Option<RamdiskId>,
    /// The kernel command line: a bundle has none.
    pub command_line: Option<String>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// With which keys it is read.
    pub keys: KeyFiles,
}
