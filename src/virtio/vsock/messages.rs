//! What waits of a connection's data: bytes, and of SOCK_SEQPACKET where messages end. (VIRTIO 1.2,
//! 5.10.6.6.2: messages travel in pieces, of which the last is marked)
//!
//! A message without bytes is none, in either direction: of a Unix socket it can't be told from the
//! end.

use super::packet::Kind;
use crate::sys::fds;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Most bytes of the guest's that wait for who reads them on the host: what the guest is told of
/// our room.
pub const BUF_ALLOC: u32 = 128 << 10;

/// Messages without bytes, one behind the other, that are not taken for the end of a socket whose
/// other end is gone.
const EMPTY: usize = 8;

/// The connection is over: the guest is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// The guest's bytes that the host's end does not take yet.
#[derive(Debug)]
pub struct ToHost {
    kind: Kind,
    bytes: VecDeque<u8>,
    /// Bytes of each message that is whole, and of the one that is not; none of a stream's.
    messages: VecDeque<u32>,
    unfinished: u32,
}

impl ToHost {
    /// None.
    pub fn new(kind: Kind) -> Self {
        Self { kind, bytes: VecDeque::new(), messages: VecDeque::new(), unfinished: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is something that the host's end could take.
    pub fn waits(&self) -> bool {
        match self.kind {
            Kind::Stream => !self.bytes.is_empty(),
            Kind::Seqpacket => !self.messages.is_empty(),
        }
    }

    /// Whether the rest of a message is still to come.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished > 0
    }

    /// These come behind them; with `ends` they are a message's last.
    pub fn add(&mut self, bytes: &[u8], ends: bool) {
        self.bytes.extend(bytes);
        if self.kind == Kind::Seqpacket {
            self.unfinished += bytes.len() as u32;
            if ends && self.unfinished > 0 {
                self.messages.push_back(std::mem::take(&mut self.unfinished));
            }
        }
    }

    /// Hands the host's end what it takes now: how many bytes.
    pub fn hand_over(&mut self, socket: BorrowedFd<'_>) -> Result<u32, Broken> {
        let mut handed = 0;
        while let Some(next) = self.next() {
            let bytes = match self.kind {
                Kind::Stream => self.bytes.as_slices().0,
                Kind::Seqpacket => &self.bytes.make_contiguous()[..next],
            };
            let count = match rustix::io::write(socket, bytes) {
                Ok(count) => count,
                Err(Errno::AGAIN | Errno::INTR) => break,
                // It is gone, or the message is larger than its socket's buffer.
                Err(_) => return Err(Broken),
            };
            self.bytes.drain(..count);
            self.messages.pop_front();
            handed += count as u32;
        }
        if self.bytes.is_empty() {
            self.bytes.shrink_to_fit();
        }
        Ok(handed)
    }

    /// Bytes that are handed over at once.
    fn next(&self) -> Option<usize> {
        match self.kind {
            Kind::Stream => Some(self.bytes.len()).filter(|len| *len > 0),
            Kind::Seqpacket => self.messages.front().map(|len| *len as usize),
        }
    }
}

/// What there is of the host's end.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing now.
    Nothing,
    /// A message.
    Message,
    /// Its end.
    End,
}

/// A message of the host's, of which the guest has had a part.
#[derive(Debug, Default)]
pub struct ToGuest {
    bytes: Vec<u8>,
    sent: usize,
}

impl ToGuest {
    /// Bytes that the guest has not had.
    pub fn left(&self) -> u32 {
        (self.bytes.len() - self.sent) as u32
    }

    /// Takes the next message of a SOCK_SEQPACKET socket, which does not block.
    pub fn take(&mut self, socket: BorrowedFd<'_>) -> Result<Next, Broken> {
        // One byte more shows that it is longer: the rest of it is lost.
        let mut bytes = vec![0; BUF_ALLOC as usize + 1];
        let mut read = || rustix::io::read(socket, &mut bytes);
        let mut taken = read();
        if taken == Ok(0) && has_ended(socket) {
            // It may be a message without bytes that others stand behind.
            taken = (1..EMPTY).map(|_| read()).find(|taken| *taken != Ok(0)).unwrap_or(Ok(0));
            if taken == Ok(0) {
                return Ok(Next::End);
            }
        }
        match taken {
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Ok(Next::Nothing),
            Ok(count) if count <= BUF_ALLOC as usize => {
                bytes.truncate(count);
                bytes.shrink_to_fit();
                *self = Self { bytes, sent: 0 };
                Ok(Next::Message)
            }
            _ => Err(Broken),
        }
    }

    /// The next bytes, of which there are as many, and whether they are the last.
    pub fn part(&mut self, len: u32) -> (&[u8], bool) {
        let from = self.sent;
        self.sent += (len as usize).min(self.bytes.len() - from);
        (&self.bytes[from..self.sent], self.sent == self.bytes.len())
    }

    /// Lets go of a message that the guest has had.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether the other end of a socket says nothing more.
fn has_ended(socket: BorrowedFd<'_>) -> bool {
    let mut looked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    fds::wait(&mut looked, Some(Duration::ZERO)).is_err() || !looked[0].revents().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
    use std::os::fd::{AsFd, OwnedFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn messages_of_the_guests_stay_apart() {
        let (ours, theirs) = pair();
        let mut to_host = ToHost::new(Kind::Seqpacket);
        to_host.add(b"one", false);
        assert!(to_host.is_unfinished() && !to_host.waits());
        assert_eq!(to_host.hand_over(ours.as_fd()).unwrap(), 0);
        to_host.add(b" message", true);
        to_host.add(b"", true);
        to_host.add(b"another", true);
        to_host.add(b"the third is not who", false);
        assert_eq!(to_host.hand_over(ours.as_fd()).unwrap(), 18);
        let mut bytes = [0; 64];
        for message in [&b"one message"[..], b"another"] {
            let count = rustix::io::read(&theirs, &mut bytes).unwrap();
            assert_eq!(&bytes[..count], message);
        }
        assert_eq!(rustix::io::read(&theirs, &mut bytes), Err(Errno::AGAIN));
        assert_eq!(to_host.len(), 20);
    }

    #[test]
    fn messages_of_the_hosts_are_taken_whole_or_not_at_all() {
        let (ours, theirs) = pair();
        let mut to_guest = ToGuest::default();
        assert_eq!(to_guest.take(ours.as_fd()).unwrap(), Next::Nothing);
        rustix::io::write(&theirs, b"message").unwrap();
        assert_eq!(to_guest.take(ours.as_fd()).unwrap(), Next::Message);
        assert_eq!(to_guest.part(4), (&b"mess"[..], false));
        assert_eq!(to_guest.left(), 3);
        assert_eq!(to_guest.part(9), (&b"age"[..], true));
        let (flags, nothing) = (rustix::net::SendFlags::empty(), &[]);
        rustix::net::send(&theirs, nothing, flags).unwrap();
        assert_eq!(to_guest.take(ours.as_fd()).unwrap(), Next::Nothing, "it is not the end");
        rustix::io::write(&theirs, &vec![1; BUF_ALLOC as usize]).unwrap();
        assert_eq!(to_guest.take(ours.as_fd()).unwrap(), Next::Message);
        assert_eq!(to_guest.left(), BUF_ALLOC);
        rustix::io::write(&theirs, &vec![1; BUF_ALLOC as usize + 9]).unwrap();
        assert_eq!(to_guest.take(ours.as_fd()), Err(Broken));
        rustix::net::send(&theirs, nothing, flags).unwrap();
        rustix::io::write(&theirs, b"last").unwrap();
        shutdown(&theirs, Shutdown::Write).unwrap();
        assert_eq!(to_guest.take(ours.as_fd()).unwrap(), Next::Message, "behind one without bytes");
        assert_eq!(to_guest.take(ours.as_fd()).unwrap(), Next::End);
    }
}
