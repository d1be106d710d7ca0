//! Compressed files of several members, one after the other. (gzip: RFC 1952, 2.2; bzip2; the LZ4
//! frame format)
//!
//! Their decoders end with a member, and say nothing of what follows. It is treated as gzip(1),
//! bzip2(1) and lz4(1) treat it: zeros, as on a tape, are nothing; other bytes are left with a
//! warning, but for lz4(1), which fails: a member may come behind them.

use std::cell::RefCell;
use std::io::{self, BufRead, ErrorKind, Read};
use std::rc::Rc;

/// What is to be said to the user, and is no error.
pub type Warnings = Rc<RefCell<Vec<String>>>;

/// Input whose first bytes may have been looked at.
pub(super) struct Looked<R> {
    head: Vec<u8>,
    input: R,
}

impl<R: BufRead> Read for Looked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(bytes)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Looked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.head.is_empty() { self.input.fill_buf() } else { Ok(&self.head) }
    }

    fn consume(&mut self, count: usize) {
        if self.head.is_empty() {
            self.input.consume(count);
        } else {
            self.head.drain(..count);
        }
    }
}

/// A decoder of one member.
pub(super) trait Member: Read + Sized {
    /// The input that it reads.
    type Input: BufRead;
    /// What it is called.
    const NAME: &'static str;
    /// Bytes that tell a member.
    const HEAD: usize;
    /// Those of them that all members have.
    const MAGIC: &'static [u8];
    /// Whether its program passes over what follows the last member.
    const IGNORES: bool = true;

    /// Whether a member begins like this.
    fn begins(head: &[u8]) -> bool;

    /// Whether something begins like this that is passed over; behind it its length follows, in 32
    /// bits.
    fn is_skipped(_head: &[u8]) -> bool {
        false
    }

    /// The decoder of the member that begins here.
    fn new(input: Looked<Self::Input>) -> Self;

    /// What is behind it.
    fn into_input(self) -> Looked<Self::Input>;
}

/// The members of a file.
pub(super) struct Members<M> {
    member: Option<M>,
    warnings: Warnings,
}

impl<M: Member> Members<M> {
    /// Those of this input.
    ///
    /// # Errors
    /// I/O errors; what comes before the first is cut short.
    pub(super) fn new(input: M::Input, warnings: Warnings) -> io::Result<Self> {
        let mut members = Self { member: None, warnings };
        members.member = members.follow(Looked { head: Vec::new(), input })?;
        Ok(members)
    }

    /// The next member's decoder.
    fn follow(&self, mut input: Looked<M::Input>) -> io::Result<Option<M>> {
        let mut head = Vec::new();
        loop {
            head.clear();
            input.by_ref().take(M::HEAD as u64).read_to_end(&mut head)?;
            if M::begins(&head) {
                // What was looked at before is taken: less than a head is never left of it.
                return Ok(Some(M::new(Looked { head, input: input.input })));
            }
            if !head.is_empty() && head.len() < M::HEAD && M::MAGIC.starts_with(&head) {
                // The next member was cut off within that.
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if !M::is_skipped(&head) {
                break;
            }
            let mut len = [0; 4];
            input.read_exact(&mut len)?;
            let len = u64::from(u32::from_le_bytes(len));
            if io::copy(&mut input.by_ref().take(len), &mut io::sink())? != len {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let mut garbage = head.iter().any(|byte| *byte != 0);
        while !garbage {
            let bytes = input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            garbage = bytes.iter().any(|byte| *byte != 0);
            let count = bytes.len();
            input.consume(count);
        }
        let name = M::NAME;
        if !M::IGNORES {
            let why = format!("something else follows its {name} data, of which {name} takes none");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let what = format!("bytes after the end of its {name} data are ignored, as {name} does");
        self.warnings.borrow_mut().push(what);
        Ok(None)
    }
}

impl<M: Member> Read for Members<M> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            if let Some(member) = self.member.take() {
                self.member = self.follow(member.into_input())?;
            }
        }
        Ok(0)
    }
}

impl<R: BufRead> Member for flate2::bufread::GzDecoder<Looked<R>> {
    type Input = R;
    const NAME: &'static str = "gzip";
    const HEAD: usize = 2;
    const MAGIC: &'static [u8] = &[0x1f, 0x8b];

    fn begins(head: &[u8]) -> bool {
        head == [0x1f, 0x8b]
    }

    fn new(input: Looked<R>) -> Self {
        Self::new(input)
    }

    fn into_input(self) -> Looked<R> {
        self.into_inner()
    }
}

impl<R: BufRead> Member for bzip2::bufread::BzDecoder<Looked<R>> {
    type Input = R;
    const NAME: &'static str = "bzip2";
    const HEAD: usize = 4;
    const MAGIC: &'static [u8] = b"BZh";

    fn begins(head: &[u8]) -> bool {
        matches!(head, [b'B', b'Z', b'h', b'1'..=b'9'])
    }

    fn new(input: Looked<R>) -> Self {
        Self::new(input)
    }

    fn into_input(self) -> Looked<R> {
        self.into_inner()
    }
}

/// Input that has no end within a member: the decoder takes one for the member's.
struct Endless<R>(Looked<R>);

impl<R: BufRead> Read for Endless<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(bytes)?;
        if count == 0 && !bytes.is_empty() {
            // Another kind than `UnexpectedEof`, which the decoder forgives between two blocks.
            return Err(io::Error::new(ErrorKind::InvalidData, "it ends within a frame"));
        }
        Ok(count)
    }
}

/// One frame of LZ4's.
pub(super) struct Lz4<R: BufRead>(lz4_flex::frame::FrameDecoder<Endless<R>>);

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl<R: BufRead> Member for Lz4<R> {
    type Input = R;
    const NAME: &'static str = "lz4";
    const HEAD: usize = 4;
    const MAGIC: &'static [u8] = &[0x04, 0x22, 0x4d, 0x18];
    const IGNORES: bool = false;

    fn begins(head: &[u8]) -> bool {
        head == [0x04, 0x22, 0x4d, 0x18]
    }

    fn is_skipped(head: &[u8]) -> bool {
        matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
    }

    fn new(input: Looked<R>) -> Self {
        Self(lz4_flex::frame::FrameDecoder::new(Endless(input)))
    }

    fn into_input(self) -> Looked<R> {
        self.0.into_inner().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Write};

    /// Frames of these pieces.
    fn packed(pieces: &[&[u8]]) -> Vec<u8> {
        let pack = |piece: &&[u8]| {
            let mut info = lz4_flex::frame::FrameInfo::new();
            info.block_size = lz4_flex::frame::BlockSize::Max64KB;
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(piece).unwrap();
            encoder.finish().unwrap()
        };
        pieces.iter().flat_map(pack).collect()
    }

    fn unpacked(bytes: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let warnings = Warnings::default();
        let mut out = Vec::new();
        let mut members =
            Members::<Lz4<_>>::new(BufReader::with_capacity(7, bytes), Rc::clone(&warnings))?;
        members.read_to_end(&mut out)?;
        let warned = warnings.borrow().len();
        Ok((out, warned))
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * n / 7) as u8).collect()
    }

    #[test]
    fn no_piece_of_frames_passes_for_all_of_them() {
        let (a, b) = (noise(200_000), noise(65_536));
        let first = packed(&[&a]);
        let both = packed(&[&a, &b]);
        assert_eq!(unpacked(&both).unwrap(), ([&a[..], &b].concat(), 0));
        // Also at the boundaries of its blocks, of which there are several.
        let cuts = (1..both.len()).filter(|len| *len != first.len());
        for len in cuts.filter(|len| len % 97 == 0 || len.abs_diff(both.len()) < 40) {
            assert!(unpacked(&both[..len]).is_err(), "{len} of {}", both.len());
        }
        let (mut at, mut boundaries) = (7, 0);
        while let Some(len) = first.get(at..at + 4).map(|len| len.try_into().unwrap()) {
            let len = u32::from_le_bytes(len) & 0x7fff_ffff;
            assert!(unpacked(&first[..at]).is_err(), "a block's boundary at {at}");
            at += 4 + len as usize;
            boundaries += 1;
        }
        assert_eq!(boundaries, 5, "four blocks, and the mark behind them");
    }

    #[test]
    fn what_is_between_frames_is_passed_over_and_other_things_behind_them_refused() {
        let (a, b) = (noise(1000), noise(10));
        let skipped = b"\x53\x2a\x4d\x18\x03\0\0\0abc";
        let frames = [skipped, &packed(&[&a])[..], skipped, &packed(&[&b]), skipped].concat();
        let whole = [&a[..], &b].concat();
        assert_eq!(unpacked(&frames).unwrap(), (whole.clone(), 0));
        assert_eq!(unpacked(&[&frames[..], &[0; 99]].concat()).unwrap(), (whole, 0));
        assert!(unpacked(&[&frames[..], b"signature"].concat()).is_err());
        assert!(unpacked(&frames[..frames.len() - 1]).is_err());
    }
}
