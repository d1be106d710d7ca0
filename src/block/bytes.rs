//! Bytes that can be read at any place.

use std::io;

/// The bytes of a disk or of a file.
pub trait Bytes {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fill `bytes` from `offset`.
    ///
    /// # Errors
    /// They are not all there, or can't be read.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Bytes for super::Reader {
    fn size(&self) -> u64 {
        Self::size(self)
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_exact_at(self, bytes, offset)
    }
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let found = self.get(from..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
