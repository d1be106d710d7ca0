//! The digest of a disk's content, which costs nothing for what was never written.
//!
//! SHA-256 over the disk's size (64 bits, little-endian) followed by the SHA-256 of each of its
//! chunks of 1 MiB in order, the last one being as long as it is. It depends on the bytes that a
//! guest would read alone: not on the format, nor on where the holes are.

use crate::block::{Content, DiskFormat};
use crate::disk::Disk;
use crate::error::{OrFail, Result};
use crate::id::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

/// Bytes of a chunk.
pub const CHUNK: usize = 1 << 20;

/// The SHA-256 of one chunk.
pub type ChunkDigest = [u8; 32];

/// The SHA-256 of these bytes.
pub fn chunk(bytes: &[u8]) -> ChunkDigest {
    Sha256::digest(bytes).into()
}

/// Whether all bytes are zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|group| group.iter().fold(0, |any, byte| any | byte) == 0)
}

/// The digest, in hexadecimal, of a disk of `size` bytes whose chunks that are not all zeros are
/// given by index.
pub fn combine(size: u64, chunks: &BTreeMap<u64, ChunkDigest>) -> String {
    let zeros = vec![0; CHUNK];
    let (whole, rest) = (size / CHUNK as u64, (size % CHUNK as u64) as usize);
    let (zero_chunk, zero_tail) = (chunk(&zeros), chunk(&zeros[..rest]));
    let mut all = Sha256::new();
    all.update(size.to_le_bytes());
    for index in 0..whole {
        all.update(chunks.get(&index).unwrap_or(&zero_chunk));
    }
    if rest > 0 {
        all.update(chunks.get(&whole).unwrap_or(&zero_tail));
    }
    hex(&all.finalize())
}

/// Copy `from` to its end. Gives the SHA-256 in hexadecimal and the number of the bytes.
///
/// # Errors
/// I/O errors.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<(String, u64)> {
    let (mut sum, mut size, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((hex(&sum.finalize()), size)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        sum.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

/// The digest of a disk file in a declared format, without anything below it.
///
/// # Errors
/// I/O errors and bad metadata.
pub fn file(file: &File, format: DiskFormat) -> Result<String> {
    let file = file.try_clone().or_fail(|| "duplicate a descriptor")?;
    disk(&Disk::open(vec![(file, format)]).or_fail(|| "open the disk for its digest")?, &mut |_| {
        Ok(())
    })
}

/// The digest of a disk's content. `at_byte` is told how far it is, and may end it.
///
/// # Errors
/// I/O errors and bad metadata; as `at_byte`'s.
pub fn disk(disk: &Disk, at_byte: &mut dyn FnMut(u64) -> Result<()>) -> Result<String> {
    let mut chunks = BTreeMap::new();
    let mut bytes = vec![0; CHUNK];
    let mut at = 0;
    while at < disk.size() {
        at_byte(at)?;
        let extent = disk.extent_at(at).or_fail(|| "read the disk for its digest")?;
        let Some(extent) = extent else { break };
        let start = at / CHUNK as u64 * CHUNK as u64;
        if extent.content == Content::Zero {
            at += extent.len;
            continue;
        }
        let len = (disk.size() - start).min(CHUNK as u64) as usize;
        disk.read_exact_at(&mut bytes[..len], start).or_fail(|| "read the disk for its digest")?;
        chunks.insert(start / CHUNK as u64, chunk(&bytes[..len]));
        at = start + len as u64;
    }
    Ok(combine(disk.size(), &chunks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_and_written_zeros_have_one_digest() {
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(3 << 20).unwrap();
        sparse.write_all_at(b"spore", (1 << 20) + 4096).unwrap();
        let mut dense = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 3 << 20];
        bytes[(1 << 20) + 4096..][..5].copy_from_slice(b"spore");
        dense.write_all(&bytes).unwrap();
        let digest = file(&sparse, DiskFormat::Raw).unwrap();
        assert_eq!(digest, file(&dense, DiskFormat::Raw).unwrap());
        dense.write_all_at(b"S", (1 << 20) + 4096).unwrap();
        assert_ne!(digest, file(&dense, DiskFormat::Raw).unwrap());
    }

    #[test]
    fn the_size_counts() {
        let none = BTreeMap::new();
        assert_ne!(combine(512, &none), combine(1024, &none));
    }
}
