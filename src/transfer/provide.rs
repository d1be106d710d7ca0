//! What `spore-remote` has beyond `spore`: networks and bundles.

use super::bundle;
use super::remote::helper::{HELPER, Helper};
use super::remote::net;
use crate::helper;

/// This program has it all. The first thing that `spore-remote` does.
pub fn provide() {
    helper::this_is_another();
    let _ = HELPER.set(Helper {
        region: net::region,
        bucket: net::bucket,
        bundle: bundle::write::write,
        register: bundle::read::register,
    });
}
