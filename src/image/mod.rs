//! Images, kernels and snapshots: what instances are launched from.

pub mod digest;
pub mod import;
pub mod record;
