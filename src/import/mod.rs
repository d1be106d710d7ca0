//! Import: any disk that people have, from a file or standard input, into a raw sparse file of the
//! store.
//!
//! The result is raw whatever came in: the fastest base for overlays, readable by everything, and
//! as sparse as its content.
//!
//! What comes in is read by a process of its own ([`inside`]), which says where the bytes of the
//! disk are; this one copies and digests them ([`receive`]).

pub mod arrival;
pub mod external;
pub mod format;
mod inside;
mod members;
mod others;
pub(crate) mod receive;
pub(crate) mod room;
mod source;
pub(crate) mod stream;
pub(crate) mod wire;

pub use format::SourceFormat;
pub(crate) use inside::HELPER;
pub use receive::{Opened, Reading, open};
pub use source::{Imported, Options, Source};
