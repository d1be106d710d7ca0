//! The programs that a front end may have to become or to start.

pub use crate::helper::launcher;
pub use crate::transfer::remote::helper::{is_missing, missing, remote};
