//! A call of a port of an instance's guest, by its socket device: without a network.

use super::dir::InstanceDir;
use crate::error::{Code, Error, OrFail, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest answer of the socket device, in bytes with its end.
const MAX_ANSWER: usize = 32;
/// Most of a banner that is looked at. (RFC 4253, 4.2: 255 bytes, and lines before it)
const MAX_BANNER: usize = 4096;

/// What became of a call.
#[derive(Debug)]
pub enum Call {
    /// The guest's program is at the other end.
    Connected(OwnedFd),
    /// The guest's kernel says that nobody listens there.
    Nobody,
    /// The guest does not answer: it has no driver for the device, or no address, (yet).
    Silent,
}

/// Calls a port of a running instance's guest once, and waits so long for its answer. The stream
/// blocks.
///
/// # Errors
/// There is no VMM, or the host refuses a socket.
pub fn call(dir: &InstanceDir, port: u32, patience: Duration) -> Result<Call> {
    let doing = || format!("reach the guest of {}", dir.id());
    let (path, _dir) = dir.vsock_path()?;
    let address = SocketAddrUnix::new(&path).or_fail(doing)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).or_fail(doing)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        // More than it has a place for wait to be let in.
        Err(Errno::AGAIN) => return Ok(Call::Silent),
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(no_vmm(dir)),
        Err(error) => return Err(error).or_fail(doing),
    }
    let mut stream = UnixStream::from(socket);
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).or_fail(doing)?;
    let answer = read_line(&mut stream, MAX_ANSWER, Instant::now() + patience).or_fail(doing)?;
    match answer {
        Line::Whole(line) if line.starts_with(b"OK ") => {
            stream.set_nonblocking(false).or_fail(doing)?;
            Ok(Call::Connected(stream.into()))
        }
        Line::Late => Ok(Call::Silent),
        Line::Whole(_) | Line::Cut => Ok(Call::Nobody),
    }
}

fn no_vmm(dir: &InstanceDir) -> Error {
    let why = format!("{} does not run; 'spore start {0}' starts it", dir.id());
    Error::refused(Code::IncorrectInstanceState, why)
}

/// Whether who is at the other end of a connection is an SSH server: it says its version first.
/// (RFC 4253, 4.2)
///
/// # Errors
/// The host's kernel refuses to wait.
pub fn is_ssh(stream: OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    rustix::io::ioctl_fionbio(&stream, true)?;
    let mut stream = File::from(stream);
    let mut left = MAX_BANNER;
    while left > 0 {
        match read_line(&mut stream, left, deadline)? {
            Line::Whole(line) if line.starts_with(b"SSH-") => return Ok(true),
            // Other lines may come before it.
            Line::Whole(line) => left = left.saturating_sub(line.len() + 1),
            Line::Late | Line::Cut => return Ok(false),
        }
    }
    Ok(false)
}

/// Which of these streams have something to read, or are at their end, within so long.
///
/// # Errors
/// The host's kernel refuses to wait.
pub fn readable(streams: &[OwnedFd], patience: Duration) -> io::Result<Vec<bool>> {
    let mut fds: Vec<_> = streams.iter().map(|each| PollFd::new(each, PollFlags::IN)).collect();
    crate::sys::fds::wait(&mut fds, Some(patience))?;
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Whether the other end of a stream that is readable has said something before it closed. Nothing
/// is read of it.
pub fn speaks(stream: &OwnedFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(recv(stream, &mut [0], flags), Ok((1.., _)))
}

/// What was read of a line.
enum Line {
    /// All, without its end.
    Whole(Vec<u8>),
    /// Not so much in time.
    Late,
    /// Its beginning: the stream is over, or the line too long.
    Cut,
}

/// Reads a line of a stream that does not block, and not one byte more.
fn read_line(stream: &mut (impl Read + AsFd), max: usize, deadline: Instant) -> io::Result<Line> {
    let mut line = Vec::new();
    while line.len() < max {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Ok(Line::Cut),
            Ok(_) if byte[0] == b'\n' => return Ok(Line::Whole(line)),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Line::Cut),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Line::Late);
                }
                let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
                crate::sys::fds::wait(&mut fds, Some(left))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Line::Cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &[u8]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text).unwrap();
        ours.set_nonblocking(true).unwrap();
        // Kept open: what follows never comes.
        std::mem::forget(theirs);
        ours
    }

    #[test]
    fn a_line_is_read_and_what_follows_is_not() {
        let mut stream = said(b"OK 7\nSSH");
        let now = Instant::now();
        assert!(
            matches!(read_line(&mut stream, 32, now).unwrap(), Line::Whole(line) if line == b"OK 7")
        );
        let mut rest = [0; 8];
        assert_eq!(stream.read(&mut rest).unwrap(), 3);
        assert!(matches!(read_line(&mut said(b"OK"), 32, now).unwrap(), Line::Late));
        assert!(matches!(read_line(&mut said(&[b'x'; 64]), 32, now).unwrap(), Line::Cut));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(matches!(read_line(&mut ours, 32, now).unwrap(), Line::Cut));
    }
}
