//! Receive buffers, and packets that go into one or several of them. (VIRTIO 1.2, 5.1.6.3 and
//! 5.1.6.4)

use super::header::{ETHERNET, NUM_BUFFERS};
use super::shared::{Counters, Port, count};
use crate::sys::iobuf::{IoBuf, MAX_SEGMENTS};
use crate::sys::packet_io;
use crate::sys::tap::HEADER;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::Outcome;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Most bytes of a packet with its header: 64 KiB of IP, and room for Ethernet, a tag and extension
/// headers.
pub(super) const MAX_PACKET: usize = 68 << 10;
/// Bytes of buffers from which on no more are taken: some of the largest packets.
const WINDOW: usize = 4 * MAX_PACKET;
/// How long a packet that the driver has too few buffers for waits for more.
const PATIENCE: Duration = Duration::from_millis(100);

/// Most packets that are thrown away at once: more than a tap's queue has.
const MAX_DISCARDED: usize = 4096;
/// Failures of a port, one after the other, at which it counts as gone.
const MAX_FAILURES: u32 = 1000;

/// A buffer that the driver has posted.
struct Held {
    head: u16,
    buf: IoBuf,
}

/// A packet whose end no buffer had room for: it is in `spill`.
struct Tail {
    /// Bytes of the packet in all.
    packet: usize,
    /// Buffers, from the first on, that have what came before.
    filled: usize,
    /// Bytes of the packet's end.
    len: usize,
    /// When it is dropped.
    deadline: Instant,
}

/// What a round brought.
pub(super) enum Round {
    /// A packet of so many bytes, the header before it not counted.
    Packet(usize),
    /// Nothing: there is no packet, or no buffer for it.
    Nothing,
    /// The port is gone.
    Gone,
}

/// The receiving side of a pair of queues.
pub(super) struct Receiver {
    held: VecDeque<Held>,
    /// Bytes of all of them.
    room: usize,
    tail: Option<Tail>,
    /// Takes the end of a packet that is longer than its buffers.
    spill: Box<[u8]>,
    /// A packet may have several buffers (VIRTIO_NET_F_MRG_RXBUF).
    mergeable: bool,
    /// Failures one after the other.
    failures: u32,
}

impl Receiver {
    pub fn new() -> Self {
        let spill = vec![0; MAX_PACKET].into_boxed_slice();
        let held = VecDeque::new();
        Self { held, room: 0, tail: None, spill, mergeable: false, failures: 0 }
    }

    /// Forgets all buffers, and the packet that is half in them.
    pub fn begin(&mut self, mergeable: bool) {
        self.held.clear();
        (self.room, self.tail, self.mergeable) = (0, None, mergeable);
    }

    /// Throws away what is on its way by the port: it is for another driver. Bounded, for more may
    /// come meanwhile.
    pub fn discard(&mut self, port: &dyn Port) {
        for _ in 0..MAX_DISCARDED {
            if packet_io::receive(port.as_fd(), &[], &mut self.spill).is_err() {
                return;
            }
        }
    }

    /// More buffers are of use.
    pub fn takes(&self) -> bool {
        self.room < WINDOW
    }

    /// A packet would find a buffer.
    pub fn is_ready(&self) -> bool {
        self.tail.is_none() && !self.held.is_empty()
    }

    /// When the packet that waits for buffers is dropped.
    pub fn deadline(&self) -> Option<Instant> {
        self.tail.as_ref().map(|tail| tail.deadline)
    }

    /// Takes a buffer of the driver's.
    pub fn accept(&mut self, chain: &DescriptorChain) -> Outcome {
        let len = chain.writable_len();
        if chain.readable_len() != 0 || (len as usize) < HEADER {
            return Outcome::Stop("a receive buffer has no room for a header".into());
        }
        let segments = chain.writable(0, len).unwrap_or_default();
        let Some(buf) = IoBuf::guest(chain.ram(), &segments) else {
            return Outcome::Stop("a receive buffer is outside guest memory".into());
        };
        self.room += buf.len();
        self.held.push_back(Held { head: chain.head(), buf });
        Outcome::Kept
    }

    /// Takes a packet from the port, or ends the one that waited, and hands over the buffers that
    /// have it.
    pub fn receive(
        &mut self,
        port: &dyn Port,
        counters: &Counters,
        each: &mut dyn FnMut(u16, u32),
    ) -> Round {
        if self.tail.is_some() && !self.finish(counters) {
            return Round::Nothing;
        }
        if let Some(tail) = self.tail.take() {
            return self.hand_over(tail.packet, each);
        }
        if self.held.is_empty() {
            return Round::Nothing;
        }
        let (filled, room, taken) = self.take(port);
        let packet = match taken {
            // A tap has no empty packets; a socket whose other end is closed has nothing else.
            Ok(0) => return Round::Gone,
            Ok(packet) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Round::Nothing,
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Round::Gone,
            // What else may be wrong is so of one packet, unless it is so of each.
            Err(_) => {
                count(&counters.receive_dropped, 1);
                self.failures += 1;
                return if self.failures < MAX_FAILURES { Round::Packet(0) } else { Round::Gone };
            }
        };
        self.failures = 0;
        if packet < HEADER + ETHERNET || (packet > room && !self.mergeable) {
            count(&counters.receive_dropped, 1);
            return Round::Packet(0);
        }
        if packet > room {
            let deadline = Instant::now() + PATIENCE;
            self.tail = Some(Tail { packet, filled, len: packet - room, deadline });
            if !self.finish(counters) {
                return Round::Nothing;
            }
            self.tail = None;
        }
        self.hand_over(packet, each)
    }

    /// Takes a packet into the first buffers: how many those are, how much room they have, and the
    /// bytes of the packet.
    fn take(&mut self, port: &dyn Port) -> (usize, usize, io::Result<usize>) {
        let mut bufs = SmallVec::<[&IoBuf; 64]>::new();
        let (mut room, mut pieces) = (0, 1);
        for Held { buf, .. } in &self.held {
            pieces += buf.iovecs().len();
            if pieces > MAX_SEGMENTS || room >= MAX_PACKET || (!self.mergeable && room > 0) {
                break;
            }
            room += buf.len();
            bufs.push(buf);
        }
        (bufs.len(), room, packet_io::receive(port.as_fd(), &bufs, &mut self.spill))
    }

    /// Puts the end of the packet that waits into the buffers that have come. False: there are too
    /// few, or there is no such packet any more.
    fn finish(&mut self, counters: &Counters) -> bool {
        let Some(tail) = &self.tail else { return false };
        let room: usize = self.held.iter().skip(tail.filled).map(|held| held.buf.len()).sum();
        if room < tail.len {
            if Instant::now() >= tail.deadline {
                self.tail = None;
                count(&counters.receive_dropped, 1);
            }
            return false;
        }
        let mut rest = &self.spill[..tail.len.min(self.spill.len())];
        for Held { buf, .. } in self.held.iter().skip(tail.filled) {
            let (piece, after) = rest.split_at(rest.len().min(buf.len()));
            buf.copy_in(0, piece);
            rest = after;
        }
        true
    }

    /// Gives the first buffers back, of which `packet` bytes are filled.
    fn hand_over(&mut self, packet: usize, each: &mut dyn FnMut(u16, u32)) -> Round {
        let (mut buffers, mut covered) = (0u16, 0);
        while covered < packet {
            let Some(held) = self.held.get(buffers.into()) else { break };
            covered += held.buf.len();
            buffers += 1;
        }
        if let Some(first) = self.held.front() {
            // 5.1.6.4: how many it has, which is 1 without mergeable ones. The first has a whole
            // header.
            first.buf.copy_in(NUM_BUFFERS, &buffers.to_le_bytes());
        }
        let mut left = packet;
        for _ in 0..buffers {
            let Some(Held { head, buf }) = self.held.pop_front() else { break };
            let len = left.min(buf.len());
            self.room -= buf.len();
            left -= len;
            each(head, len as u32);
        }
        Round::Packet(packet - HEADER)
    }
}
