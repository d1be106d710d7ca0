//! Loading what a machine executes first.

pub mod entry;

pub use entry::EntryState;
