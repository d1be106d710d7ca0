//! Carries packets between a pair of queues and a port.

use super::header::{self, ETHERNET};
use super::receive::{MAX_PACKET, Receiver, Round};
use super::shared::{Port, RECEIVE, SEND, Shared, bit, count, offloads};
use crate::sys::iobuf::IoBuf;
use crate::sys::packet_io;
use crate::sys::tap::HEADER;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use virtio_bindings::virtio_net::*;

/// How long the link is down for a driver that goes on elsewhere: it looks some time after it was
/// told.
const LINK_DOWN: Duration = Duration::from_millis(500);

/// Most packets to the guest before others have their turn.
const MAX_ROUND: usize = 1024;

/// A pair of queues, and the control queue.
pub(super) struct Pair {
    shared: Arc<Shared>,
    /// `None` when it is gone.
    port: Option<Box<dyn Port>>,
    receiver: Receiver,
    features: u64,
    /// What the port leaves undone.
    offloads: u32,
    /// The port takes no packet now.
    blocked: bool,
    /// When the link comes up again.
    link_up: Option<Instant>,
    cease: Cease,
}

impl Pair {
    pub fn new(shared: Arc<Shared>, port: Box<dyn Port>) -> Self {
        Self {
            shared,
            port: Some(port),
            receiver: Receiver::new(),
            features: 0,
            offloads: 0,
            blocked: false,
            link_up: None,
            cease: Cease::default(),
        }
    }

    /// The port does not carry anything any more.
    fn lose_port(&mut self, why: &str) {
        self.port = None;
        self.link_up = None;
        self.shared.notices.tell(&format!("{}: its link is down: {why}", self.shared.name));
        self.shared.set_link(false);
    }

    /// Has the port leave undone what the driver takes. Packets that came while it left more are
    /// thrown away.
    fn set_offloads(&mut self) {
        let wanted = offloads(self.features);
        let Some(port) = self.port.as_deref().filter(|_| wanted != self.offloads) else { return };
        if let Err(error) = port.set_offloads(wanted) {
            return self
                .lose_port(&format!("the tap does not take the driver's features: {error}"));
        }
        if self.offloads & !wanted != 0 {
            self.receiver.discard(port);
        }
        self.offloads = wanted;
    }

    /// How long the limits keep the next packet.
    fn throttled(&self) -> Option<Duration> {
        let throttle = self.shared.throttle.as_ref()?;
        throttle.lock().unwrap_or_else(PoisonError::into_inner).wait()
    }

    fn charge(&self, bytes: usize) {
        if let Some(throttle) = &self.shared.throttle {
            throttle.lock().unwrap_or_else(PoisonError::into_inner).charge(bytes);
        }
    }

    fn send(&mut self, chain: &DescriptorChain) -> Outcome {
        let counters = &self.shared.counters;
        let drop_it = || {
            count(&counters.send_dropped, 1);
            Outcome::Done(0)
        };
        let Some(len) = (chain.readable_len() as usize).checked_sub(HEADER) else {
            return Outcome::Stop("a packet has no header".into());
        };
        if chain.writable_len() != 0 {
            return Outcome::Stop("a packet to be sent has writable buffers".into());
        }
        if !(ETHERNET..=MAX_PACKET - HEADER).contains(&len) {
            return drop_it();
        }
        let outside = || Outcome::Stop("a packet is outside guest memory".into());
        let mut driver = [0; HEADER];
        if !chain.read(0, &mut driver) {
            return outside();
        }
        let Some(checked) = header::checked(driver, len, self.features) else { return drop_it() };
        let Some(port) = self.port.as_deref() else { return drop_it() };
        if self.throttled().is_some() {
            return Outcome::NotNow;
        }
        let frame = chain.readable(HEADER as u32, len as u32).unwrap_or_default();
        let Some(frame) = IoBuf::guest(chain.ram(), &frame) else { return outside() };
        self.blocked = false;
        match packet_io::send(port.as_fd(), &checked, &frame) {
            Ok(_) => {
                self.charge(len);
                count(&counters.sent, 1);
                count(&counters.sent_bytes, len);
                Outcome::Done(0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Outcome::NotNow
            }
            // EINVAL: the frame is not what its header says. EIO: the tap is down. Both are of this
            // packet alone; that the tap is gone is found by who waits for packets.
            Err(_) => drop_it(),
        }
    }

    /// Nothing that the device offers has a command. (5.1.6.5)
    fn control(chain: &DescriptorChain) -> Outcome {
        let Some(last) = chain.writable_len().checked_sub(1) else {
            return Outcome::Stop("a command has no room for its answer".into());
        };
        if !chain.write(last, &[VIRTIO_NET_ERR as u8]) {
            return Outcome::Stop("a command's answer is outside guest memory".into());
        }
        // Counted from the beginning of the writable part, of which nothing else is written.
        // (2.7.8.2)
        Outcome::Done(u32::from(last == 0))
    }

    /// Takes packets until there are no more, or no more buffers.
    fn receive(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        for _ in 0..MAX_ROUND {
            if self.cease.is_set() || self.throttled().is_some() {
                return;
            }
            let Some(port) = self.port.as_deref() else { return };
            let counters = &self.shared.counters;
            let mut given = |head, len| each(RECEIVE, head, len);
            match self.receiver.receive(port, counters, &mut given) {
                Round::Packet(0) => {}
                Round::Packet(len) => {
                    self.charge(len);
                    count(&self.shared.counters.received, 1);
                    count(&self.shared.counters.received_bytes, len);
                }
                Round::Nothing => return,
                Round::Gone => return self.lose_port("the tap is gone"),
            }
        }
    }
}

impl QueueHandler for Pair {
    fn start(&mut self, features: u64, cease: Cease) {
        (self.features, self.cease, self.blocked) = (features, cease, false);
        self.receiver.begin(features & bit(VIRTIO_NET_F_MRG_RXBUF) != 0);
        self.set_offloads();
        let moved = std::mem::take(&mut self.shared.link().moved);
        if moved && self.port.is_some() {
            // What the network has learnt of the guest is of where it was.
            self.shared.set_link(false);
            self.link_up = Some(Instant::now() + LINK_DOWN);
        }
    }

    fn is_ready(&self, queue: u16) -> bool {
        queue != RECEIVE || self.receiver.takes()
    }

    fn due(&self) -> Option<Duration> {
        let throttled = self.throttled().map(|wait| Instant::now() + wait);
        let times = [throttled, self.link_up, self.receiver.deadline()];
        let next = times.into_iter().flatten().min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
        match queue {
            RECEIVE => self.receiver.accept(&chain),
            SEND => self.send(&chain),
            _ => Self::control(&chain),
        }
    }

    fn wake_on<'a>(&'a self, waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        let Some(port) = &self.port else { return };
        let mut events = PollFlags::empty();
        if self.receiver.is_ready() && self.throttled().is_none() {
            events |= PollFlags::IN;
        }
        if self.blocked && waits(SEND) {
            events |= PollFlags::OUT;
        }
        // poll(2) tells of errors unasked, and without a buffer nothing would take them away.
        if !events.is_empty() {
            fds.push(PollFd::from_borrowed_fd(port.as_fd(), events));
        }
    }

    fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        if self.link_up.is_some_and(|time| Instant::now() >= time) {
            self.link_up = None;
            self.shared.set_link(true);
        }
        self.receive(each);
    }
}
