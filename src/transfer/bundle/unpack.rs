//! Unpacking a bundle's archive: by a helper, `__unbundle`, that has the end of a pipe and nothing
//! else.
//!
//! Its parent verifies and decrypts the parts, feeds them, and copies and digests the disk that
//! comes back.

use super::archive;
use super::refusal::invalid;
use crate::context::Context;
use crate::error::{Error, OrFail, Result};
use crate::helper::{self, Ends, Given, Helper, Syscalls, not_ours};
use crate::id::hex;
use crate::import::receive;
use crate::import::wire::{Frame, Sender};
use crate::sys::fds;
use crate::sys::process::not_started;
use crate::sys::seccomp::{Allow, Allow::Call};
use flate2::read::GzDecoder;
use sha1::{Digest, Sha1};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;

/// Bytes of address space.
const MEMORY: u64 = 512 << 20;
/// Most that may follow the disk in its archive: tar fills up records of 10 KiB.
const MAX_TRAILER: u64 = 1 << 20;
/// Bytes that are fed at a time: a pipe's.
const PIECE: usize = 64 << 10;

/// What unpacking takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),  // the archive
    Call(libc::SYS_write), // the answer
    Call(libc::SYS_close), // the archive
    Call(libc::SYS_fcntl), // std looks at what it closes
];

/// The helper, with a pipe; its note is the disk's size in bytes and the archive's SHA-1:
/// `SIZE/DIGEST`.
pub(crate) const HELPER: Helper = Helper {
    word: "__unbundle",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    // As much as the disk takes.
    seconds: None,
    ends: Ends::WithParent,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(not_ours)?;
    let (size, digest) = given.text()?.split_once('/').ok_or_else(not_ours)?;
    let size: u64 = size.parse().map_err(|_| not_ours())?;
    let mut out = Sender::new(BufWriter::with_capacity(PIECE, io::stdout()));
    match read(&given.file, size, digest, &mut out) {
        Ok(()) => out.send(&Frame::End(size.next_multiple_of(512)), &[]),
        Err(error) => out.send(&Frame::Failed(error), &[]),
    }
}

fn read(from: &File, size: u64, digest: &str, out: &mut Sender<impl Write>) -> Result<()> {
    let mut archive = Summed { sum: Sha1::new(), from: GzDecoder::new(from) };
    archive::read(&mut archive, size, &mut |at, bytes| {
        out.send(&Frame::Data { at, len: bytes.len() as u64 }, &bytes)
    })?;
    let trailer = io::copy(&mut archive.by_ref().take(MAX_TRAILER), &mut io::sink());
    let trailer = trailer.map_err(archive::broken)?;
    if trailer == MAX_TRAILER || hex(&archive.sum.finalize()) != digest {
        return Err(invalid("the digest of what is in it is not its manifest's"));
    }
    Ok(())
}

/// Digests what passes.
struct Summed<R> {
    sum: Sha1,
    from: R,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }
}

/// Brings the disk of `size` bytes that is in `archive`, which has this SHA-1, into `out`, complete
/// and synced. Gives the rest of the archive, and the disk's digest.
///
/// # Errors
/// `InvalidManifest`: it is something else; as [`receive::disk_of`]'s.
pub(super) fn disk<R: Read + Send>(
    context: &Context,
    archive: R,
    (size, digest): (u64, [u8; 20]),
    out: File,
) -> Result<(R, String)> {
    let (theirs, ours) = fds::pipe()?;
    let note = format!("{size}/{}", hex(&digest));
    let mut child = helper::start(&HELPER, &[(theirs.as_fd(), OsStr::new(&note))])?;
    drop(theirs);
    std::thread::scope(|scope| {
        let feeder = std::thread::Builder::new().spawn_scoped(scope, || feed(archive, ours));
        let feeder = feeder.map_err(|cause| not_started("feed what unpacks a bundle", cause))?;
        let received = receive::disk_of(context, &mut child, out, size.next_multiple_of(512));
        // Whatever is still fed has nobody to take it then.
        drop(child);
        let fed = feeder.join().unwrap_or_else(|_| Err(Error::failure("a thread panicked")));
        // What is wrong with the parts is why the archive could not be read.
        Ok((fed?, received?))
    })
}

/// Feeds the archive to the helper until it has all or wants no more.
fn feed<R: Read>(mut parts: R, mut to: File) -> Result<R> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = parts.read(&mut buffer).map_err(archive::broken)?;
        match to.write_all(&buffer[..count]) {
            Ok(()) if count > 0 => {}
            Ok(()) => return Ok(parts),
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => return Ok(parts),
            Err(cause) => return Err(cause).or_fail(|| "feed what unpacks a bundle"),
        }
    }
}
