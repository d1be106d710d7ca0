//! Programs of the host at the listening socket, until each has said what it wants: `CONNECT PORT`
//! for a port of the guest's, as Firecracker has it, or `LISTEN PORT` for the next connection that
//! the guest makes to a port of the host's.

use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest line, in bytes with its end.
const MAX_LINE: usize = 32;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be connected with this port of the guest's.
    Connect(u32),
    /// To be who answers at this port of the host's, once.
    Listen(u32),
}

impl Wish {
    fn from_line(line: &[u8]) -> Option<Self> {
        let (verb, port) =
            std::str::from_utf8(line).ok()?.trim_end_matches('\r').split_once(' ')?;
        let port = port.parse().ok()?;
        match verb {
            "CONNECT" => Some(Self::Connect(port)),
            "LISTEN" => Some(Self::Listen(port)),
            _ => None,
        }
    }
}

/// What reading a client's line came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not all of it is there.
    Nothing,
    /// This.
    Wish(Wish),
    /// It is gone, or says what is none.
    Nonsense,
}

/// A client that has not said what it wants.
#[derive(Debug)]
pub struct Client {
    stream: OwnedFd,
    line: Vec<u8>,
}

impl Client {
    /// One that has just come; its stream does not block.
    pub fn new(stream: OwnedFd) -> Self {
        Self { stream, line: Vec::with_capacity(MAX_LINE) }
    }

    /// Reads on. What follows the line is the guest's: not one byte more is read.
    pub fn hear(&mut self) -> Heard {
        loop {
            let mut byte = [0];
            match rustix::io::read(&self.stream, &mut byte) {
                Ok(1) if byte[0] == b'\n' => {
                    return Wish::from_line(&self.line).map_or(Heard::Nonsense, Heard::Wish);
                }
                Ok(1) if self.line.len() + 1 < MAX_LINE => self.line.push(byte[0]),
                Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
                _ => return Heard::Nonsense,
            }
        }
    }

    /// Its stream, which it is connected by from now on.
    pub fn into_stream(self) -> OwnedFd {
        self.stream
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn hear(text: &[u8]) -> Heard {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                .unwrap();
        rustix::io::write(&theirs, text).unwrap();
        Client::new(ours).hear()
    }

    #[test]
    fn a_line_says_what_is_wanted() {
        assert_eq!(hear(b"CONNECT 22\nSSH"), Heard::Wish(Wish::Connect(22)));
        assert_eq!(hear(b"LISTEN 4294967295\r\n"), Heard::Wish(Wish::Listen(u32::MAX)));
        assert_eq!(hear(b"CONNECT 2"), Heard::Nothing);
        for nonsense in
            [&b"CONNECT\n"[..], b"CONNECT 4294967296\n", b"GET / HTTP/1.1\n", b"\n", &[b'x'; 64]]
        {
            assert_eq!(hear(nonsense), Heard::Nonsense);
        }
    }
}
