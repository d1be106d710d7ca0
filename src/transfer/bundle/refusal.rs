//! The error for a bundle that is not taken.

use crate::error::{Code, Error};

/// The error for a bundle that can't be believed, with EC2's code.
pub(super) fn invalid(why: impl std::fmt::Display) -> Error {
    Error::refused(Code::InvalidManifest, format!("the bundle is refused: {why}"))
}
