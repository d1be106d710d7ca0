//! One connection: where the host's end is, who may still send, and how much. (VIRTIO 1.2,
//! 5.10.6.3)

use super::notify::Message;
use super::packet::{GUEST_CID, HOST_CID, Header, NO_RECEIVE, NO_SEND, STREAM, op};
use crate::sys::iobuf::IoBuf;
use crate::sys::packet_io;
use crate::virtio::chain::DescriptorChain;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most bytes of the guest's that wait for who reads them on the host: what the guest is told of
/// our room.
pub const BUF_ALLOC: u32 = 128 << 10;
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
    /// A stream, which does not block.
    Stream(OwnedFd),
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

/// The connection is over: the guest is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    ports: Ports,
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
    /// The guest's bytes that the host's end does not take yet.
    pending: VecDeque<u8>,
    /// Bytes taken, modulo 2^32, and how many of them the guest knows of.
    forwarded: u32,
    announced: u32,
}

impl Connection {
    /// One that the host or, where it is `established`, the guest began.
    pub fn new(ports: Ports, end: End, established: bool) -> Self {
        Self {
            ports,
            end,
            established,
            host: Sends::Open,
            guest: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            sent: 0,
            asked: false,
            pending: VecDeque::new(),
            forwarded: 0,
            announced: 0,
        }
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
            kind: STREAM,
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

    /// The stream, and what of it calls for a round; nothing if nothing does. With `buffers` there
    /// is one of the guest's for what comes.
    pub fn interest(&self, buffers: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let End::Stream(stream) = &self.end else { return None };
        let mut wanted = PollFlags::empty();
        let open = self.established && self.host == Sends::Open && self.guest & NO_RECEIVE == 0;
        if buffers && open && self.credit() > 0 {
            wanted |= PollFlags::IN;
        }
        if !self.pending.is_empty() {
            wanted |= PollFlags::OUT;
        }
        // That its end goes is seen while it waits for the guest, and told once.
        let ends = buffers && (!self.established || self.host == Sends::Finished);
        (ends || !wanted.is_empty()).then(|| (stream.as_fd(), wanted))
    }

    /// What a round has to tell the guest of a stream for which `revents` came. `Err`: it is over.
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
        let End::Stream(stream) = &self.end else { return Ok(None) };
        if !self.established || self.host != Sends::Open || self.guest & NO_RECEIVE != 0 {
            return Ok(None);
        }
        let len = room.min(self.credit());
        if len == 0 {
            // Asked once: the answer, and every packet else, says it.
            let ask = !std::mem::replace(&mut self.asked, true);
            return Ok(ask.then(|| self.header(op::CREDIT_REQUEST, 0, 0)));
        }
        let segments = chain.writable(super::packet::HEADER as u32, len).unwrap_or_default();
        let Some(buf) = IoBuf::guest(chain.ram(), &segments) else { return Err(Broken) };
        match packet_io::receive(stream.as_fd(), &[&buf], &mut []) {
            Ok(0) => {
                self.host = Sends::Finished;
                Ok(Some(self.header(op::SHUTDOWN, NO_SEND, 0)))
            }
            Ok(count) => {
                let count = count as u32;
                self.sent = self.sent.wrapping_add(count);
                Ok(Some(self.header(op::RW, 0, count)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(Broken),
        }
    }

    /// Takes `len` bytes of the guest's, which begin at `offset` of the chain. What to tell it.
    pub fn send(
        &mut self,
        chain: &DescriptorChain,
        offset: u32,
        len: u32,
    ) -> Result<Option<Header>, Broken> {
        // A guest that sends more than it was told there is room for breaks the protocol.
        let waiting = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        if self.guest & NO_SEND != 0 || len > BUF_ALLOC - waiting.min(BUF_ALLOC) {
            return Err(Broken);
        }
        let taken = match &mut self.end {
            End::Notify(message) => {
                let mut bytes = vec![0; len as usize];
                if !chain.read(offset, &mut bytes) || !message.add(&bytes) {
                    return Err(Broken);
                }
                len
            }
            End::Stream(stream) if self.pending.is_empty() && len > 0 => {
                let segments = chain.readable(offset, len).unwrap_or_default();
                let Some(buf) = IoBuf::guest(chain.ram(), &segments) else { return Err(Broken) };
                match packet_io::send(stream.as_fd(), &[], &buf) {
                    Ok(count) => count as u32,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(_) => return Err(Broken),
                }
            }
            End::Stream(_) => 0,
        };
        let mut rest = vec![0; (len - taken) as usize];
        if !chain.read(offset + taken, &mut rest) {
            return Err(Broken);
        }
        self.pending.extend(rest);
        Ok(self.took(taken))
    }

    /// Hands the host's end what waits for it. What to tell the guest.
    pub fn flush(&mut self) -> Result<Option<Header>, Broken> {
        let (End::Stream(stream), false) = (&self.end, self.pending.is_empty()) else {
            return Ok(None);
        };
        let count = match rustix::io::write(stream, self.pending.as_slices().0) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return Err(Broken),
        };
        self.pending.drain(..count);
        if self.pending.is_empty() {
            self.pending.shrink_to_fit();
            self.pass_end();
            if self.is_over() {
                return Err(Broken);
            }
        }
        Ok(self.took(count as u32))
    }

    /// So many bytes have left the room.
    fn took(&mut self, count: u32) -> Option<Header> {
        self.forwarded = self.forwarded.wrapping_add(count);
        let tell = self.forwarded.wrapping_sub(self.announced) >= TELL;
        tell.then(|| self.header(op::CREDIT_UPDATE, 0, 0))
    }

    /// The guest has shut down these directions. What to tell it.
    pub fn shut(&mut self, flags: u32) -> Result<Option<Header>, Broken> {
        self.guest |= flags & (NO_RECEIVE | NO_SEND);
        if self.pending.is_empty() {
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
        self.guest == NO_RECEIVE | NO_SEND && self.pending.is_empty()
    }

    /// The host's end is told that nothing more comes.
    fn pass_end(&self) {
        if let (End::Stream(stream), true) = (&self.end, self.guest & NO_SEND != 0) {
            // It may be gone, which is seen when it is read or written.
            let _ = shutdown(stream, Shutdown::Write);
        }
    }

    /// The host's end is gone, and the guest was told.
    pub fn lingers(&self) -> bool {
        self.host == Sends::Closed
    }

    /// Has the host's end read a line before anything else. False: it is gone, or does not read.
    pub fn say(&self, line: &str) -> bool {
        let End::Stream(stream) = &self.end else { return true };
        rustix::io::write(stream, line.as_bytes()).is_ok_and(|count| count == line.len())
    }
}
