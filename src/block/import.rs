//! Reading disk images of other people: what can be imported without a foreign program.

use super::layer::Layer;
use super::reader::{Extent, Reader};
use super::{DiskFormat, chain::LayerChain};
use std::fs::File;
use std::io;

/// A stand-alone disk image to import from.
pub trait ImportSource: Send {
    /// Bytes of the disk; a multiple of 512.
    fn size(&self) -> u64;
    /// The extent that begins at `offset`; `None` at the end.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for bad metadata.
    fn extent_at(&self, offset: u64) -> io::Result<Option<Extent>>;
    /// Fill `bytes` from `offset`.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for bad metadata; `UnexpectedEof` beyond the end.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ImportSource for Reader {
    fn size(&self) -> u64 {
        Reader::size(self)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Option<Extent>> {
        Reader::extent_at(self, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Reader::read_exact_at(self, bytes, offset)
    }
}

/// Open an untrusted image of the declared format for import. The whole metadata of a qcow2 is
/// verified: nothing referenced twice, nothing outside of the file.
///
/// # Errors
/// `InvalidData` for bad metadata; `PermissionDenied` if the image names a backing file.
pub fn import_source(file: File, format: DiskFormat) -> io::Result<Reader> {
    let chain = LayerChain::open(vec![(file, format)])?;
    if let Some(Layer::Qcow2(image)) = chain.layers.first().map(|layer| &**layer) {
        if let Some(name) = &image.header.backing {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "the image refers to the backing file {name:?}, which is never opened; \
                     flatten it with qemu-img convert where it was made"
                ),
            ));
        }
        image.verify()?;
    }
    Ok(Reader::from_chain(chain))
}
