//! Guest memory: one address map and the RAM behind it.

pub mod layout;
pub mod ram;

pub use ram::GuestRam;
