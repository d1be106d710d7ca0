//! The readers of a bundle alone, without keys, storage and store: what fuzz/drive/bundle.rs
//! drives.

use super::manifest::Manifest;
use super::{archive, xml};
use crate::error::Result;
use crate::snapshot::copy::Copy;
use std::fs::File;
use std::io::Read;

/// Read a manifest as if its signature were right.
///
/// # Errors
/// `InvalidManifest`.
pub fn manifest(text: &str) -> Result<()> {
    Manifest::of(&xml::parse(text)?, |_| Ok(None)).map(drop)
}

/// Read the disk of `size` bytes in the archive into `out`, an empty file.
///
/// # Errors
/// `InvalidManifest`: it is something else.
pub fn archive(from: &mut dyn Read, size: u64, out: File) -> Result<()> {
    let copy = Copy::new(out);
    archive::read(from, size, &mut |at, bytes| copy.chunk(at, bytes))
}
