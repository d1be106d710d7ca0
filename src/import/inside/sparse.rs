//! Files with holes as pax archives have them: without the holes, and with a map of what is left.
//! bsdtar writes them unasked. (GNU tar manual, "Storing Sparse Files", PAX formats 0.0, 0.1, 1.0)

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};

/// Most pieces of a file.
const MAX_PIECES: usize = 1 << 20;
/// Bytes of a tar archive's block.
const BLOCK: u64 = 512;
/// Most digits of a number.
const DIGITS: usize = 20;

/// What a member's extended header says of its holes.
#[derive(Default)]
pub(super) struct Map {
    /// Bytes with the holes.
    size: u64,
    /// Where pieces begin, and their bytes, in turn.
    numbers: Vec<u64>,
    /// The map comes first in the member's data.
    is_in_front: bool,
}

impl Map {
    /// The map of a member; `None` if it has no holes.
    ///
    /// # Errors
    /// It can't be read; I/O errors.
    pub(super) fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Option<Self>> {
        let Some(pairs) = entry.pax_extensions()? else { return Ok(None) };
        let (mut map, mut found) = (Self::default(), false);
        for pair in pairs {
            let pair = pair?;
            let Some(key) = pair.key_bytes().strip_prefix(b"GNU.sparse.") else { continue };
            found = true;
            let value = pair.value_bytes();
            match key {
                b"size" | b"realsize" => map.size = number(value)?,
                b"major" => map.is_in_front = number(value)? == 1,
                b"offset" | b"numbytes" => map.push(value)?,
                b"map" => value.split(|byte| *byte == b',').try_for_each(|n| map.push(n))?,
                _ => {}
            }
        }
        Ok(found.then_some(map))
    }

    fn push(&mut self, digits: &[u8]) -> io::Result<()> {
        if self.numbers.len() >= 2 * MAX_PIECES {
            return Err(damaged());
        }
        self.numbers.push(number(digits)?);
        Ok(())
    }

    /// The file with its holes, of the member's data.
    ///
    /// # Errors
    /// The map is damaged; I/O errors.
    pub(super) fn filled<R: Read>(mut self, mut data: R) -> io::Result<Filled<R>> {
        if self.is_in_front {
            let mut taken = 0;
            let count = line(&mut data, &mut taken)?;
            for _ in 0..number(&count)?.saturating_mul(2) {
                let digits = line(&mut data, &mut taken)?;
                self.push(&digits)?;
            }
            let padding = taken.next_multiple_of(BLOCK) - taken;
            io::copy(&mut data.by_ref().take(padding), &mut io::sink())?;
        }
        let (mut pieces, mut end) = (VecDeque::new(), 0);
        let (pairs, rest) = self.numbers.as_chunks::<2>();
        for [start, len] in pairs {
            let next = start.checked_add(*len).filter(|next| *start >= end && *next <= self.size);
            end = next.ok_or_else(damaged)?;
            pieces.push_back((*start, end));
        }
        if !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Filled { data, pieces, size: self.size, at: 0 })
    }
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the map of a sparse file's pieces is damaged")
}

fn number(digits: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    text.and_then(|text| text.parse().ok()).ok_or_else(damaged)
}

/// The digits up to the end of a line.
fn line(data: &mut impl Read, taken: &mut u64) -> io::Result<Vec<u8>> {
    let mut digits = Vec::new();
    loop {
        let mut byte = [0];
        data.read_exact(&mut byte)?;
        *taken += 1;
        match byte {
            [b'\n'] => return Ok(digits),
            _ if digits.len() < DIGITS => digits.extend(byte),
            _ => return Err(damaged()),
        }
    }
}

/// A file with its holes, in order.
pub(super) struct Filled<R> {
    data: R,
    /// Where pieces that are left begin and end.
    pieces: VecDeque<(u64, u64)>,
    size: u64,
    at: u64,
}

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.pieces.front().is_some_and(|(_, end)| *end <= self.at) {
            self.pieces.pop_front();
        }
        let next = self.pieces.front().copied();
        let (is_piece, end) = match next {
            Some((start, end)) if start <= self.at => (true, end),
            Some((start, _)) => (false, start),
            None => (false, self.size),
        };
        let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &mut bytes[..most];
        let count = if is_piece { self.data.read(bytes)? } else { bytes.len() };
        if is_piece && count == 0 && most > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !is_piece {
            bytes.fill(0);
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(numbers: &[u64], size: u64, in_front: &str, data: &[u8]) -> io::Result<Vec<u8>> {
        let map = Map { size, numbers: numbers.to_vec(), is_in_front: !in_front.is_empty() };
        let mut front = in_front.as_bytes().to_vec();
        front.resize(front.len().next_multiple_of(512), 0);
        let mut bytes = Vec::new();
        map.filled(&[&front, data].concat()[..])?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn holes_are_zeros() {
        let whole = b"\0\0ab\0c\0\0";
        assert_eq!(read(&[2, 2, 5, 1], 8, "", b"abc").unwrap(), whole);
        assert_eq!(read(&[], 8, "3\n2\n2\n5\n1\n8\n0\n", b"abc").unwrap(), whole);
        assert_eq!(read(&[], 3, "", b"").unwrap(), [0; 3]);
    }

    #[test]
    fn maps_that_are_no_maps_are_refused() {
        for (numbers, data) in [
            (&[2, 2, 3, 1][..], &b"abc"[..]),
            (&[2, 9], b"abc"),
            (&[u64::MAX, 2], b"abc"),
            (&[2], b"abc"),
            (&[0, 4], b"abc"),
        ] {
            assert!(read(numbers, 8, "", data).is_err(), "{numbers:?}");
        }
        for front in [
            "2\n0\n1\n",
            "x\n",
            "99999999999999999999\n",
            "1\n0\n",
            "1\n-1\n2\n",
            "123456789012345678901",
        ] {
            assert!(read(&[], 8, front, b"").is_err(), "{front}");
        }
    }
}
