//! Reading a disk synchronously and sparsely: import, copy, digest, verification.

use super::DiskFormat;
use super::chain::LayerChain;
use super::layer::Content;
use std::fs::File;
use std::io;

/// A run of bytes of a disk with one kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes, never 0.
    pub len: u64,
    /// What they are.
    pub content: Content,
}

/// A disk opened for reading only, from its layers, top first, in their declared formats.
pub struct Reader {
    chain: LayerChain,
}

impl Reader {
    /// Open the layers. A qcow2 layer's own backing file name is ignored: what is not given is not
    /// read.
    ///
    /// # Errors
    /// `InvalidData` naming what is wrong with a layer's metadata; I/O errors.
    pub fn open(layers: Vec<(File, DiskFormat)>) -> io::Result<Self> {
        Ok(Self { chain: LayerChain::open(layers)? })
    }

    pub(crate) fn from_chain(chain: LayerChain) -> Self {
        Self { chain }
    }

    pub(crate) fn chain(&self) -> &LayerChain {
        &self.chain
    }

    /// Bytes of the disk; a multiple of 512.
    pub fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Fill `bytes` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the range is not inside the disk; I/O errors; `InvalidData` for bad
    /// metadata.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.chain.read_at(bytes, offset)
    }

    /// The extent that begins at `offset`; `None` at the end of the disk. Neighbours may be of one
    /// kind.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for bad metadata.
    pub fn extent_at(&self, offset: u64) -> io::Result<Option<Extent>> {
        self.extent_within(offset, u64::MAX)
    }

    /// As [`Reader::extent_at`], looking no further than `most` bytes (at least 1) for where it
    /// ends.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for bad metadata.
    pub fn extent_within(&self, offset: u64, most: u64) -> io::Result<Option<Extent>> {
        let Some(rest) = self.size().checked_sub(offset).filter(|rest| *rest > 0) else {
            return Ok(None);
        };
        let (content, len) = self.chain.content(offset, rest.min(most.max(1)))?;
        Ok(Some(Extent { offset, len, content }))
    }

    /// All extents in order, from the first byte to the last. It ends after an error.
    pub fn extents(&self) -> impl Iterator<Item = io::Result<Extent>> + '_ {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let extent = self.extent_at(next?).transpose()?;
            next = extent.as_ref().ok().map(|e| e.offset + e.len);
            Some(extent)
        })
    }
}
