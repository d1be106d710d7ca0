//! The side that wants a disk's bytes: a question at a time, and an answer that is checked.

use super::answers::Answers;
use super::inside::{EXTENT, HELPER, PIECE, READ, given};
use crate::block::{Content, DiskFormat};
use crate::error::{Error, Result};
use crate::helper::{self, Child};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, shutdown, socketpair};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long an answer may take on a slow disk: it costs the reading of some tables and of 1 MiB.
const PATIENCE: Duration = Duration::from_secs(120);

/// A helper that has the layers open.
pub(super) struct Served {
    child: Child,
    questions: OwnedFd,
}

impl Served {
    /// Starts it; and the size of the disk in bytes.
    pub(super) fn start(layers: &[(File, DiskFormat)]) -> io::Result<(Self, u64)> {
        let flags = SocketFlags::CLOEXEC;
        let (questions, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let mut files = vec![(theirs.as_fd(), OsStr::new(""))];
        files.extend(given(layers));
        let child = helper::start(&HELPER, &files).map_err(other)?;
        // Fewer turns a piece; a user who may have no more memory in pipes takes what there is.
        let _ = rustix::pipe::fcntl_setpipe_size(&child.answer, PIECE);
        let mut served = Self { child, questions };
        let size = served.hear(|answers| answers.size())?;
        Ok((served, size))
    }

    /// Fill `bytes` from `offset`, a range of the disk.
    pub(super) fn read(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        for (n, piece) in bytes.chunks_mut(PIECE).enumerate() {
            self.ask(READ, offset + (n * PIECE) as u64, piece.len() as u64);
            self.hear(|answers| answers.bytes(piece))?;
        }
        Ok(())
    }

    /// What the disk has from `offset` on, and for how many bytes of the `rest`.
    pub(super) fn extent(&mut self, offset: u64, rest: u64) -> io::Result<(Content, u64)> {
        self.ask(EXTENT, offset, rest);
        self.hear(|answers| answers.extent(rest))
    }

    fn ask(&self, what: u8, offset: u64, len: u64) {
        let mut question = [what; 17];
        question[1..9].copy_from_slice(&offset.to_le_bytes());
        question[9..].copy_from_slice(&len.to_le_bytes());
        // 17 bytes fit: nothing else is under way. What can't be asked any more is told by the end
        // of the answers.
        let _ = rustix::io::retry_on_intr(|| send(&self.questions, &question, SendFlags::NOSIGNAL));
    }

    /// Hears an answer.
    fn hear<T>(
        &mut self,
        answer: impl FnOnce(&mut Answers<&mut dyn Read>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut patience = helper::within(PATIENCE);
        let heard = answer(&mut Answers(&mut self.child.reader(&mut patience)));
        heard.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => other(self.child.failure("it")),
            _ => error,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It ends by itself, even where it could not be ended.
        let _ = shutdown(&self.questions, rustix::net::Shutdown::Both);
    }
}

/// What the `overlay` module, too, says of a helper.
pub(super) fn other(error: Error) -> io::Error {
    io::Error::other(error.message().to_owned())
}

/// As [`Result`], for I/O.
pub(super) fn as_io<T>(result: Result<T>) -> io::Result<T> {
    result.map_err(other)
}
