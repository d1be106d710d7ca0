//! What tells a request from others.

use serde::{Deserialize, Serialize};

/// A request's ClientToken: the same request under it does nothing again. (EC2 Developer Guide,
/// "Ensuring idempotency in Amazon EC2 API requests")
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClientToken {
    /// As the client gave it: 1 to 64 ASCII characters.
    pub token: String,
    /// SHA-256 of the request without it, in hexadecimal.
    pub request: String,
}
