//! Carries packets between a pair of queues and a port.

use super::header::{self, ETHERNET};
use super::receive::{MAX_PACKET, Receiver, Round};
use super::shared::{PairPort, Shared, bit, count, offloads};
use crate::sys::eventfd::as_fd;
use crate::sys::iobuf::IoBuf;
use crate::sys::packet_io;
use crate::sys::tap::HEADER;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use virtio_bindings::virtio_net::*;

/// How long the link is down for a driver that goes on elsewhere: it looks some time after it was
/// told.
const LINK_DOWN: Duration = Duration::from_millis(500);

/// Most packets to the guest before others have their turn.
const MAX_ROUND: usize = 1024;

/// A pair of queues; with the last comes the control queue.
pub(super) struct Pair {
    shared: Arc<Shared>,
    /// Its number.
    pair: u16,
    /// Its port does not carry anything any more.
    gone: bool,
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
    pub fn new(shared: Arc<Shared>, pair: u16) -> Self {
        Self {
            shared,
            pair,
            gone: false,
            receiver: Receiver::new(),
            features: 0,
            offloads: 0,
            blocked: false,
            link_up: None,
            cease: Cease::default(),
        }
    }

    /// The queue's number that packets to the guest have.
    fn receive_queue(&self) -> u16 {
        2 * self.pair
    }

    /// The port, while it carries packets.
    fn port(&self) -> Option<&PairPort> {
        let port = self.shared.ports.get(usize::from(self.pair))?;
        (!self.gone && port.attached.load(Ordering::SeqCst)).then_some(port)
    }

    /// The port does not carry anything any more.
    fn lose_port(&mut self, why: &str) {
        self.gone = true;
        self.link_up = None;
        self.shared.notices.tell(&format!("{}: its link is down: {why}", self.shared.name));
        self.shared.set_link(false);
    }

    /// Has the port leave undone what the driver takes. Packets that came while it left more are
    /// thrown away.
    fn set_offloads(&mut self) {
        let wanted = offloads(self.features);
        // They are the tap's, and the first pair says them.
        if self.pair > 0 || self.gone || wanted == self.offloads {
            return;
        }
        let port = &*self.shared.ports[0].port;
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
        let Some(PairPort { port, .. }) = self.port() else { return drop_it() };
        if self.throttled().is_some() {
            return Outcome::NotNow;
        }
        let frame = chain.readable(HEADER as u32, len as u32).unwrap_or_default();
        let Some(frame) = IoBuf::guest(chain.ram(), &frame) else { return outside() };
        let sent = packet_io::send(port.as_fd(), &checked, &frame);
        self.blocked = false;
        match sent {
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

    /// Carries out a command. (5.1.6.5)
    fn control(&self, chain: &DescriptorChain) -> Outcome {
        let Some(last) = chain.writable_len().checked_sub(1) else {
            return Outcome::Stop("a command has no room for its answer".into());
        };
        let done = if self.command(chain) { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        if !chain.write(last, &[done as u8]) {
            return Outcome::Stop("a command's answer is outside guest memory".into());
        }
        // Counted from the beginning of the writable part, of which nothing else is written.
        // (2.7.8.2)
        Outcome::Done(u32::from(last == 0))
    }

    /// How many pairs of queues carry packets is all that a driver has to say. (5.1.6.5.5)
    fn command(&self, chain: &DescriptorChain) -> bool {
        let mut command = [0; 4];
        if self.features & bit(VIRTIO_NET_F_MQ) == 0 || !chain.read(0, &mut command) {
            return false;
        }
        let [class, kind, low, high] = command;
        let pairs = u16::from_le_bytes([low, high]);
        let all = self.shared.ports.len() as u16;
        let set = (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET);
        if (u32::from(class), u32::from(kind)) != set || !(1..=all).contains(&pairs) {
            return false;
        }
        self.shared.in_use().wanted = pairs;
        self.shared.apply_pairs().is_ok()
    }

    /// Takes packets until there are no more, or no more buffers.
    fn receive(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        let shared = self.shared.clone();
        for _ in 0..MAX_ROUND {
            if self.cease.is_set() || self.throttled().is_some() {
                return;
            }
            let (queue, index) = (self.receive_queue(), usize::from(self.pair));
            if self.port().is_none() {
                return;
            }
            let mut given = |head, len| each(queue, head, len);
            match self.receiver.receive(&*shared.ports[index].port, &shared.counters, &mut given) {
                Round::Packet(0) => {}
                Round::Packet(len) => {
                    self.charge(len);
                    count(&self.shared.counters.received, 1);
                    count(&self.shared.counters.received_bytes, len);
                }
                Round::Nothing => return,
                // It may have been detached meanwhile.
                Round::Gone if self.port().is_none() => return,
                Round::Gone => return self.lose_port("the tap is gone"),
            }
        }
    }
}

impl QueueHandler for Pair {
    fn start(&mut self, features: u64, cease: Cease) {
        (self.features, self.cease, self.blocked) = (features, cease, false);
        self.receiver.begin(features & bit(VIRTIO_NET_F_MRG_RXBUF) != 0);
        if let Err(error) = self.shared.apply_pairs() {
            self.lose_port(&format!("the tap does not take as many queues as the driver: {error}"));
        }
        self.set_offloads();
        let moved = std::mem::take(&mut self.shared.link().moved);
        if moved && !self.gone {
            // What the network has learnt of the guest is of where it was.
            self.shared.set_link(false);
            self.link_up = Some(Instant::now() + LINK_DOWN);
        }
    }

    fn is_ready(&self, queue: u16) -> bool {
        queue != self.receive_queue() || self.receiver.takes()
    }

    fn due(&self) -> Option<Duration> {
        let throttled = self.throttled().map(|wait| Instant::now() + wait);
        let times = [throttled, self.link_up, self.receiver.deadline()];
        let next = times.into_iter().flatten().min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
        match queue.checked_sub(self.receive_queue()) {
            Some(0) => self.receiver.accept(&chain),
            Some(1) => self.send(&chain),
            _ => self.control(&chain),
        }
    }

    fn wake_on<'a>(&'a self, waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        let index = usize::from(self.pair);
        if index > 0 && !self.gone {
            let changed = as_fd(&self.shared.ports[index].changed);
            fds.push(PollFd::from_borrowed_fd(changed, PollFlags::IN));
        }
        let Some(PairPort { port, .. }) = self.port() else { return };
        let mut events = PollFlags::empty();
        if self.receiver.is_ready() && self.throttled().is_none() {
            events |= PollFlags::IN;
        }
        if self.blocked && waits(self.receive_queue() + 1) {
            events |= PollFlags::OUT;
        }
        // poll(2) tells of errors unasked, and without a buffer nothing would take them away.
        if !events.is_empty() {
            fds.push(PollFd::from_borrowed_fd(port.as_fd(), events));
        }
    }

    fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        if self.pair > 0 {
            // It is seen below.
            let _ = self.shared.ports[usize::from(self.pair)].changed.read();
        }
        if self.link_up.is_some_and(|time| Instant::now() >= time) {
            self.link_up = None;
            self.shared.set_link(true);
        }
        self.receive(each);
    }
}
