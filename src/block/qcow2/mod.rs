//! qcow2, versions 2 and 3 (QEMU's docs/interop/qcow2.txt).
//!
//! [`Qcow2File`] reads any image; [`writer::Writer`] changes one of ours.

mod commit;
mod compressed;
mod file;
mod header;
mod refcount;
pub(crate) mod repair;
mod verify;
pub(crate) mod writer;

pub(crate) use file::{Mapping, Qcow2File};
pub(crate) use header::{Compression, Header};

use std::io;

/// An L2 or L1 entry's host offset. ("L1 table entry", "Standard Cluster Descriptor")
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// The cluster's refcount is exactly one: it may be written in place.
pub(crate) const COPIED: u64 = 1 << 63;
/// The entry is a compressed cluster descriptor.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros, whatever its host offset.
pub(crate) const ZERO: u64 = 1;

/// The error of an image whose metadata can't be believed.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad qcow2: {what}"))
}
