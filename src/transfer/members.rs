//! What the members of an exported image are called.

/// The first member's name: what an exported image is recognised by.
pub const PACKAGE: &str = "spore-image/package.json";

/// The last member's name.
pub(crate) const END: &str = "spore-image/end";

/// The name of the member that has the chunk of `what` at `offset`.
pub(crate) fn member(what: &str, offset: u64) -> String {
    format!("{what}/{offset:016x}.zst")
}

/// What the chunks of disk `n` are named by.
pub(crate) fn disk_member(n: usize) -> String {
    format!("disk-{n}")
}
