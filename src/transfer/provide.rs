//! What `spore-remote` has beyond `spore`: networks and bundles.

use super::bundle;
use super::remote::helper::Helper;
use super::remote::net;
use crate::context::Extension;

/// All of it, for the context of `spore-remote` ([`crate::context::Context::with_extension`]). Only
/// that program names this.
pub fn provided() -> Extension {
    static HELPER: Helper = Helper {
        region: net::region,
        bucket: net::bucket,
        transport: net::transport,
        bundle: bundle::write::write,
        register: bundle::read::register,
    };
    &HELPER
}
