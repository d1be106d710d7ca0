//! What the clients of all services have in common.

use crate::transfer::package::Chunk;
use crate::transfer::remote::backend::Answer;

/// Most images and snapshots that a region is believed to have.
pub(super) const MAX_IDS: usize = 100_000;
/// What a region's client can do. (See [`crate::transfer::remote::backend::Backend`])
pub(super) trait RegionClient: Send + Sync {
    async fn list(&self) -> Answer<Vec<String>>;
    async fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>>;
    async fn has(&self, digest: &str) -> Answer<bool>;
    async fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()>;
    async fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>>;
    async fn publish(&self, id: &str, json: Vec<u8>, chunks: &[&Chunk]) -> Answer<()>;
    async fn tagged(&self, reference: &str, limit: u64) -> Option<Answer<Vec<u8>>> {
        let _ = (reference, limit);
        None
    }
    async fn tag(&self, id: &str, tag: &str) -> Answer<()> {
        let _ = (id, tag);
        Ok(())
    }
}

/// Say whose cryptography TLS uses, before a client is made.
pub(super) fn provide_cryptography() {
    // Fails if there is one already: that will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The innermost cause of an error, which says more than what is around it.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let outer = error.to_string();
    let inner = cause.to_string();
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}
