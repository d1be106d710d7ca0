//! Images, kernels and snapshots: what instances are launched from.

pub mod record;
