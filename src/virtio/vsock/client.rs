//! Programs of the host at the listening sockets, until each has said what it wants: `CONNECT PORT`
//! for a port of the guest's, as Firecracker has it, or `LISTEN PORT` for the next connection that
//! the guest makes to a port of the host's.

use super::packet::Kind;
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
        let line = std::str::from_utf8(line).ok()?;
        let (verb, port) = line.trim_end_matches(['\r', '\n']).split_once(' ')?;
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
    socket: OwnedFd,
    kind: Kind,
    line: Vec<u8>,
}

impl Client {
    /// One that has just come by a socket of this kind, which does not block.
    pub fn new(socket: OwnedFd, kind: Kind) -> Self {
        Self { socket, kind, line: Vec::with_capacity(MAX_LINE) }
    }

    /// What its connections carry.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads on.
    pub fn hear(&mut self) -> Heard {
        match self.kind {
            Kind::Stream => self.hear_line(),
            Kind::Seqpacket => self.hear_message(),
        }
    }

    /// What follows the line is the guest's: not one byte more is read.
    fn hear_line(&mut self) -> Heard {
        loop {
            let mut byte = [0];
            match rustix::io::read(&self.socket, &mut byte) {
                Ok(1) if byte[0] == b'\n' => {
                    return Wish::from_line(&self.line).map_or(Heard::Nonsense, Heard::Wish);
                }
                Ok(1) if self.line.len() + 1 < MAX_LINE => self.line.push(byte[0]),
                Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
                _ => return Heard::Nonsense,
            }
        }
    }

    /// A message is a line, with its end or without.
    fn hear_message(&self) -> Heard {
        // One byte more shows that it is longer.
        let mut message = [0; MAX_LINE + 1];
        match rustix::io::read(&self.socket, &mut message) {
            Ok(len @ 1..=MAX_LINE) => {
                Wish::from_line(&message[..len]).map_or(Heard::Nonsense, Heard::Wish)
            }
            Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            _ => Heard::Nonsense,
        }
    }

    /// Its socket, which it is connected by from now on.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn heard(text: &[u8], kind: Kind, socket: SocketType) -> Heard {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, socket, SocketFlags::NONBLOCK, None).unwrap();
        rustix::io::write(&theirs, text).unwrap();
        Client::new(ours, kind).hear()
    }

    fn hear(text: &[u8]) -> Heard {
        heard(text, Kind::Stream, SocketType::STREAM)
    }

    #[test]
    fn a_message_says_what_is_wanted() {
        let hear = |text: &[u8]| heard(text, Kind::Seqpacket, SocketType::SEQPACKET);
        assert_eq!(hear(b"CONNECT 22"), Heard::Wish(Wish::Connect(22)));
        assert_eq!(hear(b"LISTEN 80\n"), Heard::Wish(Wish::Listen(80)));
        let long = format!("CONNECT {:0>32}", 22);
        for nonsense in [&b"CONNECT"[..], b"CONNECT 22\nSSH", long.as_bytes()] {
            assert_eq!(hear(nonsense), Heard::Nonsense);
        }
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
