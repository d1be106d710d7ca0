//! Writable disks: overlays over snapshots.

pub mod record;
