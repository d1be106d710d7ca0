//! What the helper that has a disk's layers answers, as it is heard: nothing of it is believed.

use super::inside::{BYTES, EXTENT, MAX_WHY, WHY};
use crate::block::Content;
use crate::helper::one_line;
use std::io::{self, Read};

/// Where the answers come from; each method hears one.
pub struct Answers<R>(pub R);

impl<R: Read> Answers<R> {
    /// The first answer: bytes of the disk, a multiple of 512.
    ///
    /// # Errors
    /// `InvalidData` with the helper's reason; nonsense; the end.
    pub fn size(&mut self) -> io::Result<u64> {
        self.begins(BYTES)?;
        let size = self.number()?;
        if size.is_multiple_of(512) { Ok(size) } else { Err(nonsense()) }
    }

    /// As many bytes of the disk as were asked for.
    ///
    /// # Errors
    /// As [`Self::size`].
    pub fn bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.begins(BYTES)?;
        self.0.read_exact(bytes)
    }

    /// What the disk has where it was asked for, and for how many of the `rest` bytes: one at
    /// least.
    ///
    /// # Errors
    /// As [`Self::size`].
    pub fn extent(&mut self, rest: u64) -> io::Result<(Content, u64)> {
        self.begins(EXTENT)?;
        let mut data = [0];
        self.0.read_exact(&mut data)?;
        let content = if data == [0] { Content::Zero } else { Content::Data };
        let len = self.number()?;
        if (1..=rest).contains(&len) { Ok((content, len)) } else { Err(nonsense()) }
    }

    /// Hears that an answer of the kind `what` begins.
    fn begins(&mut self, what: u8) -> io::Result<()> {
        let mut kind = [0];
        self.0.read_exact(&mut kind)?;
        match kind[0] {
            found if found == what => Ok(()),
            WHY => {
                let mut len = [0; 4];
                self.0.read_exact(&mut len)?;
                let mut why = vec![0; u32::from_le_bytes(len).min(MAX_WHY) as usize];
                self.0.read_exact(&mut why)?;
                let why = one_line(&String::from_utf8_lossy(&why), MAX_WHY as usize);
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
            _ => Err(nonsense()),
        }
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = [0; 8];
        self.0.read_exact(&mut number)?;
        Ok(u64::from_le_bytes(number))
    }
}

fn nonsense() -> io::Error {
    io::Error::other("the process that reads it said nonsense")
}
