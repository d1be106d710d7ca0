//! Images, their kernels and their snapshots.

pub mod digest;
pub mod import;
pub mod record;

/// The content's file name in a snapshot's directory.
pub use import::DATA;
