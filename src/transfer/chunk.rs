//! Chunks of content, as they are outside of a store: compressed, and known by their digest.

use super::package::Chunk;
use crate::error::{OrFail, Result};
use crate::id::hex;
use sha2::{Digest, Sha256};

/// zstd's level: that of exports. A chunk that is the same has to be compressed the same each time.
pub const LEVEL: i32 = 3;

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Compress a chunk.
///
/// # Errors
/// No memory.
pub fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(bytes, LEVEL).or_fail(|| "compress the image")
}

/// Compress a chunk, and say what it is known by.
///
/// # Errors
/// No memory.
pub fn pack(bytes: &[u8], offset: u64) -> Result<(Chunk, Vec<u8>)> {
    let packed = compress(bytes)?;
    Ok((Chunk { offset, digest: sha256(&packed), size: packed.len() as u64 }, packed))
}
