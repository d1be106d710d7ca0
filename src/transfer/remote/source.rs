//! Reading what is in remote regions.

use super::chunks::Unpackers;
use crate::error::{Error, Result};
use crate::transfer::copy::{Chunks, Fetch, Need, PARALLEL, Piece, Source};
use crate::transfer::package::{Chunk, Content, Part, damaged};
use crate::transfer::remote::Remote;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a package of a region lists.
pub(super) struct Listed<'a>(pub &'a Remote);

impl Source for Listed<'_> {
    fn chunks<'a>(
        &'a self,
        _part: Part,
        content: &'a Content,
        need: Need,
    ) -> Result<Box<dyn Chunks + 'a>> {
        let unpackers = (need == Need::Bytes).then(|| Unpackers::start(PARALLEL)).transpose()?;
        Ok(Box::new(ChunksOf { remote: self.0, content, unpackers, next: AtomicUsize::new(0) }))
    }

    fn changed(&self, content: &Content, _found: &str) -> Error {
        damaged(content)
    }
}

/// A content's chunks.
struct ChunksOf<'a> {
    remote: &'a Remote,
    content: &'a Content,
    /// Unless they are wanted as they are.
    unpackers: Option<Unpackers>,
    next: AtomicUsize,
}

impl Chunks for ChunksOf<'_> {
    fn next(&self) -> Option<Result<Piece<'_>>> {
        let chunk = self.content.chunks.get(self.next.fetch_add(1, Ordering::Relaxed))?;
        Some(Ok(Piece::of_chunk(chunk, self)))
    }
}

impl Fetch for ChunksOf<'_> {
    fn packed(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        self.remote.get(chunk)
    }

    fn bytes(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        let none = || Error::failure("these chunks are handed on as they are");
        let unpackers = self.unpackers.as_ref().ok_or_else(none)?;
        unpackers.unpack(&self.remote.get(chunk)?, self.content, chunk.offset)
    }
}
