//! One connection: where the host's end is, who may still send, and how much. (VIRTIO 1.2,
//! 5.10.6.3)

use super::messages::{BUF_ALLOC, Broken, Next, ToGuest, ToHost};
use super::notify::Message;
use super::packet::{
    END_OF_MESSAGE, GUEST_CID, HEADER, HOST_CID, Header, Kind, NO_RECEIVE, NO_SEND, op,
};
use crate::sys::iobuf::IoBuf;
use crate::sys::packet_io;
use crate::virtio::chain::DescriptorChain;
use rustix::event::PollFlags;
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that have left the room since the guest was told, from which on it is told.
const TELL: u32 = BUF_ALLOC / 2;

/// The ports of a connection: the host's, and the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    pub host: u32,
    pub guest: u32,
}

/// Where the host's end of a connection is.
#[derive(Debug)]
pub enum End {
    /// A socket of the connection's kind, which does not block.
    Socket(OwnedFd),
    /// Nowhere: it is for us.
    Notify(Message),
}

/// What the host's end has still to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    /// Anything.
    Open,
    /// Nothing: it reads on.
    Finished,
    /// Nothing, and it is gone.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    ports: Ports,
    kind: Kind,
    pub end: End,
    /// The guest has answered.
    pub established: bool,
    host: Sends,
    /// What the guest has shut down: [`NO_RECEIVE`] and [`NO_SEND`].
    guest: u32,
    /// Of the guest's room, its word.
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// Bytes sent to the guest, modulo 2^32.
    sent: u32,
    /// The guest was asked for its room.
    asked: bool,
    to_host: ToHost,
    /// Of SOCK_SEQPACKET; what a stream of the host's has stays in its socket.
    to_guest: ToGuest,
    /// Bytes taken, modulo 2^32, and how many of them the guest knows of.
    forwarded: u32,
    announced: u32,
}

impl Connection {
    /// One that the host or, where it is `established`, the guest began.
    pub fn new(ports: Ports, kind: Kind, end: End, established: bool) -> Self {
        Self {
            ports,
            kind,
            end,
            established,
            host: Sends::Open,
            guest: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            sent: 0,
            asked: false,
            to_host: ToHost::new(kind),
            to_guest: ToGuest::default(),
            forwarded: 0,
            announced: 0,
        }
    }

    /// What it carries.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A packet to the guest.
    pub fn header(&mut self, op: u16, flags: u32, len: u32) -> Header {
        self.announced = self.forwarded;
        Header {
            src_cid: HOST_CID,
            dst_cid: GUEST_CID,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: self.kind as u16,
            op,
            flags,
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.forwarded,
        }
    }

    /// What every packet of the guest's says of its room. (5.10.6.3)
    pub fn learn(&mut self, header: &Header) {
        (self.peer_buf_alloc, self.peer_fwd_cnt) = (header.buf_alloc, header.fwd_cnt);
        self.asked = false;
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        let waiting = self.sent.wrapping_sub(self.peer_fwd_cnt);
        self.peer_buf_alloc.saturating_sub(waiting)
    }

    /// Whether the guest may be sent something.
    fn is_open(&self) -> bool {
        self.established && self.host == Sends::Open && self.guest & NO_RECEIVE == 0
    }

    /// Whether a part of a message has still to go to the guest, which has room for it. One that
    /// has none was asked behind the part before: its answer comes at once, its room when it has
    /// read.
    pub fn has_more(&self) -> bool {
        self.is_open() && self.to_guest.left() > 0 && self.credit() > 0
    }

    /// The socket, and what of it calls for a round; nothing if nothing does. With `buffers` there
    /// is one of the guest's for what comes.
    pub fn interest(&self, buffers: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let End::Socket(socket) = &self.end else { return None };
        let mut wanted = PollFlags::empty();
        if buffers && self.is_open() && self.credit() > 0 && self.to_guest.left() == 0 {
            wanted |= PollFlags::IN;
        }
        if self.to_host.waits() {
            wanted |= PollFlags::OUT;
        }
        // That its end goes is seen while it waits for the guest, and told once.
        let ends = buffers && (!self.established || self.host == Sends::Finished);
        (ends || !wanted.is_empty()).then(|| (socket.as_fd(), wanted))
    }

    /// What a round has to tell the guest of a socket for which `revents` came. `Err`: it is over.
    pub fn look(&mut self, revents: PollFlags) -> Result<Option<Header>, Broken> {
        let gone = revents.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        if gone && !self.established {
            return Err(Broken);
        }
        if gone && self.host == Sends::Finished {
            self.host = Sends::Closed;
            return Ok(Some(self.header(op::SHUTDOWN, NO_RECEIVE | NO_SEND, 0)));
        }
        Ok(None)
    }

    /// Fills a receive buffer behind its header, for `room` bytes: the packet, if there is one.
    pub fn receive(
        &mut self,
        chain: &DescriptorChain,
        room: u32,
    ) -> Result<Option<Header>, Broken> {
        let End::Socket(socket) = &self.end else { return Ok(None) };
        if !self.is_open() {
            return Ok(None);
        }
        if self.kind == Kind::Seqpacket && self.to_guest.left() == 0 {
            match self.to_guest.take(socket.as_fd())? {
                Next::Nothing => return Ok(None),
                Next::End => return Ok(Some(self.finish())),
                // The guest will never have room for it.
                Next::Message if self.to_guest.left() > self.peer_buf_alloc => return Err(Broken),
                Next::Message => {}
            }
        }
        let len = room.min(self.credit());
        if len == 0 {
            // Asked once: the answer, and every packet else, says it.
            let ask = !std::mem::replace(&mut self.asked, true);
            return Ok(ask.then(|| self.header(op::CREDIT_REQUEST, 0, 0)));
        }
        match self.kind {
            Kind::Stream => self.receive_bytes(chain, len),
            Kind::Seqpacket => self.receive_message(chain, len),
        }
    }

    /// At most `len` bytes of the host's stream, straight into the guest's buffer.
    fn receive_bytes(
        &mut self,
        chain: &DescriptorChain,
        len: u32,
    ) -> Result<Option<Header>, Broken> {
        let End::Socket(socket) = &self.end else { return Ok(None) };
        let segments = chain.writable(HEADER as u32, len).unwrap_or_default();
        let Some(buf) = IoBuf::guest(chain.ram(), &segments) else { return Err(Broken) };
        match packet_io::receive(socket.as_fd(), &[&buf], &mut []) {
            Ok(0) => Ok(Some(self.finish())),
            Ok(count) => Ok(Some(self.data(count as u32, 0))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(Broken),
        }
    }

    /// At most `len` bytes of the host's message.
    fn receive_message(
        &mut self,
        chain: &DescriptorChain,
        len: u32,
    ) -> Result<Option<Header>, Broken> {
        let (bytes, last) = self.to_guest.part(len);
        let count = bytes.len() as u32;
        if !chain.write(HEADER as u32, bytes) {
            return Err(Broken);
        }
        if last {
            self.to_guest.clear();
        }
        Ok(Some(self.data(count, if last { END_OF_MESSAGE } else { 0 })))
    }

    /// The packet of so many bytes to the guest.
    fn data(&mut self, count: u32, flags: u32) -> Header {
        self.sent = self.sent.wrapping_add(count);
        self.header(op::RW, flags, count)
    }

    /// The host's end says nothing more.
    fn finish(&mut self) -> Header {
        self.host = Sends::Finished;
        self.header(op::SHUTDOWN, NO_SEND, 0)
    }

    /// Takes the data of a packet of the guest's, which begins at `offset` of the chain. What to
    /// tell it.
    pub fn send(
        &mut self,
        chain: &DescriptorChain,
        offset: u32,
        header: &Header,
    ) -> Result<Option<Header>, Broken> {
        let len = header.len;
        // A guest that sends more than it was told there is room for breaks the protocol.
        if self.guest & NO_SEND != 0 || len > BUF_ALLOC - self.to_host.len().min(BUF_ALLOC) {
            return Err(Broken);
        }
        let straight = self.kind == Kind::Stream && !self.to_host.waits() && len > 0;
        let taken = match &mut self.end {
            End::Notify(message) => {
                let mut bytes = vec![0; len as usize];
                if !chain.read(offset, &mut bytes) || !message.add(&bytes) {
                    return Err(Broken);
                }
                len
            }
            End::Socket(socket) if straight => {
                let segments = chain.readable(offset, len).unwrap_or_default();
                let Some(buf) = IoBuf::guest(chain.ram(), &segments) else { return Err(Broken) };
                match packet_io::send(socket.as_fd(), &[], &buf) {
                    Ok(count) => count as u32,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(_) => return Err(Broken),
                }
            }
            End::Socket(_) => 0,
        };
        let mut rest = vec![0; (len - taken) as usize];
        if !chain.read(offset + taken, &mut rest) {
            return Err(Broken);
        }
        self.to_host.add(&rest, header.flags & END_OF_MESSAGE != 0);
        let handed = match &self.end {
            End::Socket(socket) if !straight => self.to_host.hand_over(socket.as_fd())?,
            _ => 0,
        };
        Ok(self.took(taken + handed))
    }

    /// Hands the host's end what waits for it. What to tell the guest.
    pub fn flush(&mut self) -> Result<Option<Header>, Broken> {
        let (End::Socket(socket), true) = (&self.end, self.to_host.waits()) else {
            return Ok(None);
        };
        let count = self.to_host.hand_over(socket.as_fd())?;
        if !self.to_host.waits() {
            self.pass_end();
            if self.is_over() {
                return Err(Broken);
            }
        }
        Ok(self.took(count))
    }

    /// So many bytes have left the room.
    fn took(&mut self, count: u32) -> Option<Header> {
        self.forwarded = self.forwarded.wrapping_add(count);
        let unknown = self.forwarded.wrapping_sub(self.announced);
        // What there is of a message stays until its rest comes, for which the guest may wait to
        // be told of room that it has already.
        let stuck = unknown > 0
            && self.to_host.is_unfinished()
            && BUF_ALLOC - self.to_host.len().min(BUF_ALLOC) < unknown.saturating_add(TELL);
        (stuck || unknown >= TELL).then(|| self.header(op::CREDIT_UPDATE, 0, 0))
    }

    /// The guest has shut down these directions. What to tell it.
    pub fn shut(&mut self, flags: u32) -> Result<Option<Header>, Broken> {
        self.guest |= flags & (NO_RECEIVE | NO_SEND);
        if !self.to_host.waits() {
            self.pass_end();
        }
        if self.is_over() {
            return Err(Broken);
        }
        // Who has notified waits until the other end is closed: it has been heard then.
        let heard = self.message().is_some() && self.host == Sends::Open;
        Ok(heard.then(|| {
            self.host = Sends::Closed;
            self.header(op::SHUTDOWN, NO_RECEIVE | NO_SEND, 0)
        }))
    }

    /// The message for us, once it is whole.
    pub fn message(&self) -> Option<&Message> {
        match &self.end {
            End::Notify(message) if self.guest & NO_SEND != 0 => Some(message),
            _ => None,
        }
    }

    /// Both directions are over, and the host's end has everything.
    fn is_over(&self) -> bool {
        self.guest == NO_RECEIVE | NO_SEND && !self.to_host.waits()
    }

    /// The host's end is told that nothing more comes.
    fn pass_end(&self) {
        if let (End::Socket(socket), true) = (&self.end, self.guest & NO_SEND != 0) {
            // It may be gone, which is seen when it is read or written.
            let _ = shutdown(socket, Shutdown::Write);
        }
    }

    /// The host's end is gone, and the guest was told.
    pub fn lingers(&self) -> bool {
        self.host == Sends::Closed
    }

    /// Has the host's end read a line before anything else. False: it is gone, or does not read.
    pub fn say(&self, line: &str) -> bool {
        let End::Socket(socket) = &self.end else { return true };
        rustix::io::write(socket, line.as_bytes()).is_ok_and(|count| count == line.len())
    }
}
