//! What the confined reader says to its parent, through a pipe: which bytes of the disk are where.
//!
//! A frame is four numbers (64 bits, little-endian): what it is, and three that depend on that.
//! Bytes may follow. The reader is not trusted: every frame is bounded, and one out of turn is the
//! end.

use super::format::SourceFormat;
use crate::error::{Error, Kind, OrFail, Result};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Most bytes of data in a frame of a disk's.
pub const MAX_DATA: u64 = 1 << 20;
/// Longest text.
const MAX_TEXT: u64 = 4096;
/// Most warnings.
pub const MAX_WARNINGS: usize = 8;

/// Which file bytes are in: the source, or one of those that what must be read back and forth was
/// unpacked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What is imported.
    Source,
    /// A spool, by number.
    Spool(usize),
}

/// A frame. Bytes follow [`Frame::Data`], [`Frame::Chunk`] and [`Frame::Package`], as many as it
/// says.
#[derive(Debug)]
pub enum Frame {
    /// A disk comes, of so many bytes if that is known already.
    Disk(Option<u64>),
    /// Bytes of the disk are in a file as they are.
    Copy { at: u64, len: u64, which: Which, from: u64 },
    /// Bytes of the disk.
    Data { at: u64, len: u64 },
    /// An exported image comes: its package.
    Package(u64),
    /// A piece of an exported image's content: its kernel (0), its ramdisk (1) or a disk of its (2
    /// and up).
    Chunk { content: u64, at: u64, len: u64 },
    /// Something to tell the user.
    Warning(String),
    /// qemu-img may be able to read this file, of this format, whole.
    Fallback(Which, SourceFormat, String),
    /// The disk has more content than may be stored.
    TooLarge,
    /// It can't be read.
    Failed(Error),
    /// That was all: bytes of the disk.
    End(u64),
}

const DISK: u64 = 1;
const COPY: u64 = 2;
const DATA: u64 = 3;
const PACKAGE: u64 = 4;
const CHUNK: u64 = 5;
const WARNING: u64 = 6;
const FALLBACK: u64 = 7;
const FAILED: u64 = 8;
const END: u64 = 9;
const TOO_LARGE: u64 = 10;
/// In place of a size that is not known.
const UNKNOWN: u64 = u64::MAX;
/// The bits of `COPY`'s last number that are the offset; those above are the file's number.
const OFFSET: u64 = (1 << 56) - 1;

const FORMATS: [SourceFormat; 5] = [
    SourceFormat::Raw,
    SourceFormat::Qcow2,
    SourceFormat::Vmdk,
    SourceFormat::Vpc,
    SourceFormat::Vhdx,
];

/// An error on its way.
#[derive(Serialize, Deserialize)]
struct Told {
    kind: Kind,
    code: Option<String>,
    message: String,
}

fn number(which: Which) -> u64 {
    match which {
        Which::Source => 0,
        Which::Spool(n) => 1 + n as u64,
    }
}

fn which(number: u64) -> Which {
    match number {
        0 => Which::Source,
        n => Which::Spool(usize::try_from(n - 1).unwrap_or(usize::MAX)),
    }
}

/// The reader's end.
pub struct Sender<W: Write>(W);

impl<W: Write> Sender<W> {
    /// Frames go to `out`.
    pub fn new(out: W) -> Self {
        Self(out)
    }

    /// Says a frame, with what follows it.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub fn send(&mut self, frame: &Frame, bytes: &[u8]) -> Result<()> {
        let text;
        let (head, bytes) = match frame {
            Frame::Disk(size) => ([DISK, size.unwrap_or(UNKNOWN), 0, 0], bytes),
            Frame::Copy { at, len, which, from } => {
                ([COPY, *at, *len, number(*which) << 56 | from & OFFSET], bytes)
            }
            Frame::Data { at, len } => ([DATA, *at, *len, 0], bytes),
            Frame::Package(len) => ([PACKAGE, *len, 0, 0], bytes),
            Frame::Chunk { content, at, len } => ([CHUNK, *content, *len, *at], bytes),
            Frame::Warning(why) => ([WARNING, why.len() as u64, 0, 0], why.as_bytes()),
            Frame::Fallback(file, format, why) => {
                let format = FORMATS.iter().position(|known| known == format).unwrap_or(0);
                ([FALLBACK, why.len() as u64, number(*file), format as u64], why.as_bytes())
            }
            Frame::Failed(error) => {
                let reported = Told {
                    kind: error.kind(),
                    code: error.code().map(|code| code.as_str().to_owned()),
                    message: error.message().chars().take(1000).collect(),
                };
                text = serde_json::to_vec(&reported).or_fail(|| "write JSON")?;
                ([FAILED, text.len() as u64, 0, 0], &text[..])
            }
            Frame::TooLarge => ([TOO_LARGE, 0, 0, 0], bytes),
            Frame::End(size) => ([END, *size, 0, 0], bytes),
        };
        let head: Vec<u8> = head.iter().flat_map(|number| number.to_le_bytes()).collect();
        let sent = self.0.write_all(&head).and_then(|()| self.0.write_all(bytes));
        sent.and_then(|()| self.0.flush()).or_fail(|| "hand on what was read")
    }
}

/// The parent's end.
pub struct Receiver<R: Read> {
    from: R,
    /// Looked at and not taken.
    next: Option<Frame>,
}

/// The reader said what it may not.
pub fn nonsense() -> Error {
    Error::failure(
        "the process that reads the disk does not answer as it should; please report this",
    )
}

impl<R: Read> Receiver<R> {
    /// Frames come from `from`.
    pub fn new(from: R) -> Self {
        Self { from, next: None }
    }

    /// The next frame, which is not taken; `None` at an end without [`Frame::End`].
    ///
    /// # Errors
    /// It is none; I/O errors.
    pub fn peek(&mut self) -> Result<Option<&Frame>> {
        if self.next.is_none() {
            self.next = self.read()?;
        }
        Ok(self.next.as_ref())
    }

    /// The next frame.
    ///
    /// # Errors
    /// As [`Receiver::peek`]'s.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        match self.next.take() {
            Some(frame) => Ok(Some(frame)),
            None => self.read(),
        }
    }

    /// Fills `bytes` from what follows a frame.
    ///
    /// # Errors
    /// I/O errors.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).or_fail(|| "read a disk")
    }

    fn text(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > MAX_TEXT {
            return Err(nonsense());
        }
        let mut text = vec![0; len as usize];
        self.fill(&mut text)?;
        Ok(text)
    }

    fn read(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 32];
        let first = loop {
            match self.from.read(&mut head) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.or_fail(|| "read a disk")?,
            }
        };
        if first == 0 {
            return Ok(None);
        }
        if self.from.read_exact(&mut head[first..]).is_err() {
            return Ok(None);
        }
        let number = |n: usize| u64::from_le_bytes(*head[n * 8..].first_chunk().unwrap_or(&[0; 8]));
        let (a, b, c) = (number(1), number(2), number(3));
        Ok(Some(match number(0) {
            DISK => Frame::Disk(Some(a).filter(|size| *size != UNKNOWN)),
            COPY => Frame::Copy { at: a, len: b, which: which(c >> 56), from: c & OFFSET },
            DATA if b <= MAX_DATA => Frame::Data { at: a, len: b },
            PACKAGE => Frame::Package(a),
            CHUNK => Frame::Chunk { content: a, at: c, len: b },
            WARNING => Frame::Warning(String::from_utf8_lossy(&self.text(a)?).into_owned()),
            FALLBACK => {
                let format = usize::try_from(c).ok().and_then(|n| FORMATS.get(n));
                let text = String::from_utf8_lossy(&self.text(a)?).into_owned();
                Frame::Fallback(which(b), *format.ok_or_else(nonsense)?, text)
            }
            FAILED => {
                let reported = serde_json::from_slice(&self.text(a)?).map_err(|_| nonsense())?;
                let Told { kind, code, message } = reported;
                let clean = |text: &str| crate::helper::one_line(text, 1000);
                Frame::Failed(Error::reported(kind, code.as_deref(), clean(&message)))
            }
            TOO_LARGE => Frame::TooLarge,
            END => Frame::End(a),
            _ => return Err(nonsense()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let mut pipe = Vec::new();
        let mut sender = Sender::new(&mut pipe);
        let copy = Frame::Copy { at: 1, len: 2, which: Which::Spool(1), from: 3 };
        let fallback = Frame::Fallback(Which::Source, SourceFormat::Vhdx, "why".into());
        let failed =
            Frame::Failed(Error::refused(crate::error::Code::InvalidParameterValue, "bad\x1b[0m"));
        for frame in [Frame::Disk(None), copy, fallback, failed, Frame::End(512)] {
            sender.send(&frame, &[]).unwrap();
        }
        sender.send(&Frame::Data { at: 0, len: 3 }, b"abc").unwrap();
        let mut receiver = Receiver::new(&pipe[..]);
        assert!(matches!(receiver.peek().unwrap(), Some(Frame::Disk(None))));
        let said: Vec<String> =
            (0..5).map(|_| format!("{:?}", receiver.next().unwrap().unwrap())).collect();
        assert!(said[1].contains("Spool(1), from: 3"), "{said:?}");
        assert!(said[2].contains("Vhdx, \"why\""), "{said:?}");
        assert!(said[3].contains("bad?[0m"), "{said:?}");
        assert!(matches!(receiver.next().unwrap(), Some(Frame::Data { at: 0, len: 3 })));
        let mut bytes = [0; 3];
        receiver.fill(&mut bytes).unwrap();
        assert!(receiver.next().unwrap().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for head in [
            [77, 0, 0, 0],
            [DATA, 0, MAX_DATA + 1, 0],
            [FAILED, 1 << 40, 0, 0],
            [FALLBACK, 0, 0, 9],
        ] {
            let bytes: Vec<u8> = head.iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
            assert!(Receiver::new(&bytes[..]).next().is_err(), "{head:?}");
        }
    }
}
