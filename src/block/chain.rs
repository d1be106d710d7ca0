//! A stack of layers as one sequence of bytes.

use super::DiskFormat;
use super::layer::{Content, Layer, Source};
use super::merged::Merged;
use super::qcow2::Mapping;
use crate::sys::iobuf::IoBuf;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Layers from the top to the base.
pub(crate) struct LayerChain {
    pub layers: Vec<Arc<Layer>>,
    size: u64,
    /// Of what is below the top, if that is more than one file.
    merged: Option<Merged>,
}

impl LayerChain {
    /// Open the layers, the first being the top.
    pub(crate) fn open(files: Vec<(File, DiskFormat)>) -> io::Result<Self> {
        let mut layers = Vec::with_capacity(files.len());
        let alone = files.len() == 1;
        for (n, (file, format)) in files.into_iter().enumerate() {
            let layer = Layer::open(file, format).map_err(|e| match alone {
                true => e,
                false => io::Error::new(e.kind(), format!("layer {n}: {e}")),
            })?;
            layers.push(Arc::new(layer));
        }
        Self::new(layers)
    }

    /// The chain of these layers, the first being the top.
    pub(crate) fn new(layers: Vec<Arc<Layer>>) -> io::Result<Self> {
        let Some(top) = layers.first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a disk needs a layer"));
        };
        let size = top.size();
        let merged = (layers.len() > 2).then(Merged::default);
        Ok(Self { layers, size, merged })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the range from `offset` is, and how much of it is there contiguously.
    pub(crate) fn map(&self, offset: u64, len: u64) -> io::Result<(Source, u64)> {
        let (source, mut have) = self.map_once(0, offset, len)?;
        // Slices, tables and clusters are no borders to what is contiguous in the file.
        while have < len && !matches!(source, Source::Compressed { .. }) {
            let (next, more) = self.map_once(0, offset + have, len - have)?;
            let follows = match (source, next) {
                (Source::Zero, Source::Zero) => true,
                (
                    Source::Host { layer, offset, copied },
                    Source::Host { layer: l, offset: o, copied: c },
                ) => layer == l && copied == c && offset + have == o,
                _ => false,
            };
            if !follows {
                break;
            }
            have += more;
        }
        Ok((source, have))
    }

    /// As [`LayerChain::map`] for the layers from `from` on, without joining.
    pub(crate) fn map_once(&self, from: usize, offset: u64, len: u64) -> io::Result<(Source, u64)> {
        let Some(merged) = self.merged.as_ref().filter(|_| from <= 1) else {
            return self.walk(from, offset, len);
        };
        let mut len = len;
        if from == 0 {
            match self.walk_one(0, offset, len)? {
                (None, have) => len = have,
                (Some(found), have) => return Ok((found, have)),
            }
        }
        merged.map((offset, len), self.size, |offset, len| self.walk(1, offset, len))
    }

    /// Ask the layers from `from` on, one after the other.
    fn walk(&self, from: usize, offset: u64, len: u64) -> io::Result<(Source, u64)> {
        let mut len = len;
        for (n, layer) in self.layers.iter().enumerate().skip(from) {
            // A layer that is smaller than the one above it reads as zeros beyond its end.
            if offset >= layer.size() {
                break;
            }
            match self.walk_one(n, offset, len)? {
                (None, have) => len = have,
                (Some(found), have) => return Ok((found, have)),
            }
        }
        Ok((Source::Zero, len))
    }

    /// What layer `n` has of the range; `None` if the layers below decide. `offset` is inside the
    /// layer.
    fn walk_one(&self, n: usize, offset: u64, len: u64) -> io::Result<(Option<Source>, u64)> {
        let layer = &self.layers[n];
        let (mapping, have) = layer.map(offset, len.min(layer.size() - offset))?;
        let source = match mapping {
            Mapping::Unallocated => None,
            Mapping::Zero => Some(Source::Zero),
            Mapping::Data { host, copied } => Some(Source::Host { layer: n, offset: host, copied }),
            Mapping::Compressed => Some(Source::Compressed { layer: n }),
        };
        Ok((source, have))
    }

    /// Whether the layers from `from` on have nothing but known zeros in the range.
    pub(crate) fn is_zero(&self, from: usize, offset: u64, len: u64) -> io::Result<bool> {
        let mut at = 0;
        while at < len {
            match self.map_once(from, offset + at, len - at)? {
                (Source::Zero, n) => at += n,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Copy a piece of the compressed cluster around `offset` out: the bytes from there to its end.
    pub(crate) fn unpack(&self, layer: usize, offset: u64) -> io::Result<(Arc<[u8]>, usize)> {
        match &*self.layers[layer] {
            Layer::Qcow2(image) => {
                let within = offset % image.header.cluster_size();
                Ok((image.unpack(offset)?, within as usize))
            }
            Layer::Raw { .. } => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Fill `bytes` from `offset`, synchronously. The range is inside the disk.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let from = offset + at as u64;
            let (source, have) = self.map(from, (bytes.len() - at) as u64)?;
            let piece = &mut bytes[at..at + have as usize];
            match source {
                Source::Zero => piece.fill(0),
                Source::Host { layer, offset, .. } => {
                    self.layers[layer].host().read_at(piece, offset)?;
                }
                Source::Compressed { layer } => {
                    let (cluster, within) = self.unpack(layer, from)?;
                    piece.copy_from_slice(&cluster[within..within + piece.len()]);
                }
            }
            at += have as usize;
        }
        Ok(())
    }

    /// Copy what a compressed cluster has for `len` bytes from `offset` into the buffer at `start`.
    pub(crate) fn unpack_into(
        &self,
        layer: usize,
        offset: u64,
        buf: &IoBuf,
        start: usize,
        len: usize,
    ) -> io::Result<()> {
        let (cluster, within) = self.unpack(layer, offset)?;
        buf.copy_in(start, &cluster[within..within + len]);
        Ok(())
    }

    /// Whether the range from `offset` has data, and how far that holds. Holes of the host file
    /// count as zeros.
    pub(crate) fn content(&self, offset: u64, len: u64) -> io::Result<(Content, u64)> {
        let (source, have) = self.map(offset, len)?;
        let Source::Host { layer, offset: host, .. } = source else {
            let zero = source == Source::Zero;
            return Ok((if zero { Content::Zero } else { Content::Data }, have));
        };
        let file = self.layers[layer].host().file();
        match rustix::fs::seek(&**file, rustix::fs::SeekFrom::Data(host)) {
            Ok(data) if data > host => Ok((Content::Zero, have.min(data - host))),
            Ok(_) => {
                let hole = rustix::fs::seek(&**file, rustix::fs::SeekFrom::Hole(host));
                let data = hole.map_or(have, |hole| hole.saturating_sub(host));
                Ok((Content::Data, have.min(data.next_multiple_of(512).max(512))))
            }
            Err(rustix::io::Errno::NXIO) => Ok((Content::Zero, have)),
            Err(_) => Ok((Content::Data, have)),
        }
    }
}
