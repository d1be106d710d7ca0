//! Looking into what somebody else made: what an image boots by, which drivers and which secrets it
//! has.

pub mod boot_entries;
pub mod boot_method;
pub mod modules;
pub mod secrets;
