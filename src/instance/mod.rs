//! Instances: resolve, prepare, spawn, follow, end.
