//! Files from elsewhere: what is published under a name or an address, on its way into the store.
//!
//! A download has a directory of its own, whose lock whoever brings it holds: others wait for it,
//! or go on where it died ([`place`]). What has come stays until it is imported, so that an
//! interrupted one goes on ([`fetch`]). Nothing that comes is believed before its checksum is what
//! the publisher says ([`published`]).

mod fetch;
mod file;
mod keys;
mod place;
pub mod published;
pub(crate) mod signature;
pub(crate) mod transport;

pub use fetch::{Downloaded, Fetched, fetch};
pub use place::{Place, take};
