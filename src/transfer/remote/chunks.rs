//! Decompressing what a region gives: by a helper, `__chunks`, that has a socket and nothing else.
//!
//! A question is two numbers (64 bits, little-endian) and bytes: how many these are, and how many
//! they have to become. The answer is one number and bytes: that many, or none if they don't become
//! them.

use crate::error::{Error, OrFail, Result};
use crate::helper::{self, Child, Ends, Given, Helper, Syscalls, not_ours};
use crate::sys::seccomp::{Allow, Allow::Call};
use crate::transfer::package::{Content, malformed};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of address space: a chunk, packed and unpacked, and what zstd takes.
const MEMORY: u64 = 512 << 20;
/// How long a chunk may take; it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// What decompressing takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),  // the socket
    Call(libc::SYS_write), // the socket
    Call(libc::SYS_close), // the socket
    Call(libc::SYS_fcntl), // std looks at what it closes
];

/// The helper, with a socket.
pub(crate) const HELPER: Helper = Helper {
    word: "__chunks",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    // As much as the content takes; each chunk has its own bound.
    seconds: None,
    ends: Ends::WithParent,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(not_ours)?;
    serve(&given.file).or_fail(|| "decompress chunks")
}

fn serve(mut socket: &File) -> io::Result<()> {
    loop {
        let mut head = [0; 16];
        match socket.read_exact(&mut head) {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let (packed, len) = (number(&head, 0), number(&head, 8));
        let mut bytes = vec![0; usize::try_from(packed).unwrap_or(usize::MAX)];
        socket.read_exact(&mut bytes)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let unpacked = zstd::bulk::decompress(&bytes, len).ok();
        let unpacked = unpacked.filter(|unpacked| unpacked.len() == len).unwrap_or_default();
        socket.write_all(&(unpacked.len() as u64).to_le_bytes())?;
        socket.write_all(&unpacked)?;
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8]))
}

/// A helper that decompresses chunks. It ends when this is dropped, or with the thread that started
/// it.
pub(super) struct Unpacker {
    socket: File,
    child: Child,
}

impl Unpacker {
    /// # Errors
    /// No more processes or descriptors.
    pub(super) fn start() -> Result<Self> {
        let doing = || "start a process that decompresses";
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).or_fail(doing)?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&ours, direction, Some(PATIENCE)).or_fail(doing)?;
        }
        let child = helper::start(&HELPER, &[(theirs.as_fd(), OsStr::new(""))])?;
        Ok(Self { socket: ours.into(), child })
    }

    /// Decompress the chunk at `offset`, which has to have exactly what is to be there.
    ///
    /// # Errors
    /// `InvalidManifest`; the helper was stopped.
    pub(super) fn unpack(
        &mut self,
        packed: &[u8],
        content: &Content,
        offset: u64,
    ) -> Result<Vec<u8>> {
        let len = content.chunk_len(offset);
        match self.ask(packed, len) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(malformed("a chunk can't be decompressed to what is to be there")),
            Err(_) => Err(self.stopped()),
        }
    }

    fn stopped(&mut self) -> Error {
        self.child.failure("decompressing a chunk")
    }

    fn ask(&mut self, packed: &[u8], len: usize) -> io::Result<Option<Vec<u8>>> {
        let head = [packed.len() as u64, len as u64].map(u64::to_le_bytes).concat();
        self.socket.write_all(&head)?;
        self.socket.write_all(packed)?;
        let mut count = [0; 8];
        self.socket.read_exact(&mut count)?;
        match u64::from_le_bytes(count) {
            0 => return Ok(None),
            count if count == len as u64 => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Helpers for several threads.
pub(super) struct Unpackers {
    idle: Mutex<Vec<Unpacker>>,
    came_back: Condvar,
}

impl Unpackers {
    /// Start up to `count` of them: fewer where the user may have no more processes.
    ///
    /// # Errors
    /// There is not even one.
    pub(super) fn start(count: usize) -> Result<Self> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            match Unpacker::start() {
                Ok(unpacker) => all.push(unpacker),
                Err(error) if all.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Self { idle: Mutex::new(all), came_back: Condvar::new() })
    }

    /// [`Unpacker::unpack`] by one that is idle, or will be.
    ///
    /// # Errors
    /// As [`Unpacker::unpack`]'s.
    pub(super) fn unpack(&self, packed: &[u8], content: &Content, offset: u64) -> Result<Vec<u8>> {
        let mut idle = self.idle();
        let mut unpacker = loop {
            match idle.pop() {
                Some(unpacker) => break unpacker,
                None => {
                    let waited = self.came_back.wait(idle);
                    idle = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(idle);
        let unpacked = unpacker.unpack(packed, content, offset);
        self.idle().push(unpacker);
        self.came_back.notify_one();
        unpacked
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Unpacker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the helper answers to `packed`, which is to become `len` bytes.
    fn answer(packed: &[u8], len: u64) -> Vec<u8> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let (mut ours, theirs) = (File::from(ours), File::from(theirs));
        let helper = std::thread::spawn(move || serve(&theirs));
        ours.write_all(&[packed.len() as u64, len].map(u64::to_le_bytes).concat()).unwrap();
        ours.write_all(packed).unwrap();
        let mut count = [0; 8];
        ours.read_exact(&mut count).unwrap();
        let mut bytes = vec![0; u64::from_le_bytes(count) as usize];
        ours.read_exact(&mut bytes).unwrap();
        drop(ours);
        helper.join().unwrap().unwrap();
        bytes
    }

    #[test]
    fn a_chunk_is_what_it_has_to_be_or_nothing() {
        let packed = zstd::bulk::compress(&[7; 5000], 3).unwrap();
        assert_eq!(answer(&packed, 5000), [7; 5000]);
        for (bytes, len) in [(&packed[..], 4999), (&packed, 5001), (&packed[..9], 5000), (b"x", 1)]
        {
            assert!(answer(bytes, len).is_empty(), "{len}");
        }
    }
}
