//! Images: how they are registered, found, named, changed and shared.

pub mod attribute;
pub mod builtin;
pub mod catalog;
pub mod names;
pub mod permission;
pub mod product;

pub use names::check_tags;
