//! Carries packets between the guest's queues and the host's sockets.

use super::client::{Client, Heard, Wish};
use super::connection::{Connection, End, Ports};
use super::messages::Broken;
use super::notify::Message;
use super::packet::{
    F_SEQPACKET, GUEST_CID, HEADER, HOST_CID, Header, Kind, NO_RECEIVE, NO_SEND, op,
};
use super::shared::{EVENT, RECEIVE, Shared};
use crate::plan::NOTIFY_PORT;
use crate::sys::eventfd::as_fd;
use crate::sys::fds;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most connections at once.
pub const MAX_CONNECTIONS: usize = 256;
/// Most programs of the host that have not said what they want, and most that wait for the guest.
const MAX_CLIENTS: usize = 32;
/// Answers that wait for buffers, from which on no packet of the guest's is taken.
const MAX_ANSWERS: usize = 64;
/// Bytes of a packet to the guest, at most.
const MAX_DATA: u32 = 64 << 10;
/// Ports of the host's that its own connections have, from here on. (Firecracker begins here, too.)
const FIRST_PORT: u32 = 1 << 30;
/// How long nobody is let in when the process can't open more.
const FULL: Duration = Duration::from_secs(1);
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET. (VIRTIO 1.2, 5.10.6.7)
const TRANSPORT_RESET: [u8; 4] = [0; 4];

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug)]
enum Who {
    Listener(Kind),
    Client(usize),
    Waiting(usize),
    Connection(Ports),
}

/// Who waits for the guest to connect to a port of the host's.
struct Waiter {
    port: u32,
    kind: Kind,
    socket: OwnedFd,
}

/// Serves all queues.
pub(super) struct Muxer {
    shared: Arc<Shared>,
    listeners: [(Kind, OwnedFd); 2],
    /// The driver knows SOCK_SEQPACKET.
    messages: bool,
    /// When somebody is let in again.
    full_until: Option<Instant>,
    clients: Vec<Client>,
    waiting: Vec<Waiter>,
    connections: BTreeMap<Ports, Connection>,
    next_port: u32,
    /// Headers alone, to the guest.
    answers: VecDeque<Header>,
    /// Connections whose sockets may have something.
    ready: VecDeque<Ports>,
    /// The guest's next receive buffer waits in its ring.
    buffer_waits: bool,
}

impl Muxer {
    pub fn new(shared: Arc<Shared>, listeners: [(Kind, OwnedFd); 2]) -> Self {
        Self {
            shared,
            listeners,
            messages: false,
            full_until: None,
            clients: Vec::new(),
            waiting: Vec::new(),
            connections: BTreeMap::new(),
            next_port: FIRST_PORT,
            answers: VecDeque::new(),
            ready: VecDeque::new(),
            buffer_waits: false,
        }
    }

    /// What a round waits for. With `buffers` there is one of the guest's for what comes.
    fn interests(&self, buffers: bool) -> Vec<(Who, PollFd<'_>)> {
        let mut list = Vec::new();
        let waits = |fd, flags| PollFd::from_borrowed_fd(fd, flags);
        if buffers {
            if self.lets_in() {
                let listeners = self.listeners.iter();
                list.extend(listeners.map(|(kind, listener)| {
                    (Who::Listener(*kind), waits(listener.as_fd(), PollFlags::IN))
                }));
            }
            let clients = self.clients.iter().enumerate();
            list.extend(clients.map(|(at, c)| (Who::Client(at), waits(c.as_fd(), PollFlags::IN))));
            // Only that they go.
            let waiting = self.waiting.iter().enumerate();
            list.extend(waiting.map(|(at, waiter)| {
                (Who::Waiting(at), waits(waiter.socket.as_fd(), PollFlags::empty()))
            }));
        }
        list.extend(self.connections.iter().filter_map(|(ports, connection)| {
            let (fd, flags) = connection.interest(buffers)?;
            Some((Who::Connection(*ports), waits(fd, flags)))
        }));
        list
    }

    fn lets_in(&self) -> bool {
        self.full_until.is_none_or(|until| Instant::now() >= until)
            && self.clients.len() < MAX_CLIENTS
    }

    /// Looks at the host's side: who has come, said something, or gone.
    fn look(&mut self) {
        let (who, mut polled): (Vec<Who>, Vec<PollFd<'_>>) =
            self.interests(true).into_iter().unzip();
        if fds::wait(&mut polled, Some(Duration::ZERO)).is_err() {
            return;
        }
        let revents: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        let found = who.into_iter().zip(revents).filter(|(_, revents)| !revents.is_empty());
        // From the end on: what is taken out moves nobody that is still to be looked at.
        for (who, revents) in found.rev() {
            match who {
                Who::Listener(kind) => self.accept(kind),
                Who::Client(at) => self.hear(at),
                Who::Waiting(at) => drop(self.waiting.swap_remove(at)),
                Who::Connection(ports) => self.look_at(ports, revents),
            }
        }
        let more = self.connections.iter().filter(|(_, connection)| connection.has_more());
        self.ready.extend(more.map(|(ports, _)| *ports));
    }

    fn look_at(&mut self, ports: Ports, revents: PollFlags) {
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        match connection.look(revents) {
            Ok(header) => {
                self.answers.extend(header);
                self.ready.push_back(ports);
            }
            Err(Broken) => self.drop_connection(ports),
        }
    }

    fn accept(&mut self, kind: Kind) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = self.listeners.iter().find(|(of, _)| *of == kind);
        let Some((_, listener)) = listener else { return };
        match accept_with(listener, flags) {
            Ok(socket) => self.clients.push(Client::new(socket, kind)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            // No descriptors, no memory: the listener stays ready.
            Err(_) => self.full_until = Some(Instant::now() + FULL),
        }
        if let Some(at) = self.clients.len().checked_sub(1) {
            self.hear(at);
        }
    }

    fn hear(&mut self, at: usize) {
        let wish = match self.clients[at].hear() {
            Heard::Nothing => return,
            Heard::Nonsense => None,
            Heard::Wish(wish) => Some(wish),
        };
        let client = self.clients.swap_remove(at);
        let (kind, socket) = (client.kind(), client.into_socket());
        match wish {
            Some(Wish::Connect(port)) => self.connect(socket, kind, port),
            Some(Wish::Listen(port)) if port != NOTIFY_PORT && self.waiting.len() < MAX_CLIENTS => {
                let answer = format!("OK {port}\n");
                if rustix::io::write(&socket, answer.as_bytes()) == Ok(answer.len()) {
                    self.waiting.push(Waiter { port, kind, socket });
                }
            }
            _ => {}
        }
    }

    /// Begins a connection of the host's.
    fn connect(&mut self, socket: OwnedFd, kind: Kind, guest: u32) {
        if !self.speaks(kind) || !self.has_room() {
            return;
        }
        while self.connections.keys().any(|ports| ports.host == self.next_port) {
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        }
        let ports = Ports { host: self.next_port, guest };
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        let mut connection = Connection::new(ports, kind, End::Socket(socket), false);
        self.answers.push_back(connection.header(op::REQUEST, 0, 0));
        self.connections.insert(ports, connection);
    }

    /// Whether the driver knows connections of this kind.
    fn speaks(&self, kind: Kind) -> bool {
        kind == Kind::Stream || self.messages
    }

    /// Whether there is room for a connection; one whose host's end is gone, and that the guest
    /// does not let go, makes some.
    fn has_room(&mut self) -> bool {
        if self.connections.len() >= MAX_CONNECTIONS {
            let lingers = self.connections.iter().find(|(_, connection)| connection.lingers());
            if let Some(ports) = lingers.map(|(ports, _)| *ports) {
                self.drop_connection(ports);
            }
        }
        self.connections.len() < MAX_CONNECTIONS
    }

    /// Ends a connection and tells the guest.
    fn drop_connection(&mut self, ports: Ports) {
        if let Some(mut connection) = self.connections.remove(&ports) {
            self.answers.push_back(connection.header(op::RST, 0, 0));
            if let End::Notify(message) = &connection.end {
                self.shared.notified.take(message);
            }
        }
    }

    /// Does something with a connection of which the guest is told, or which is over then.
    fn with(
        &mut self,
        ports: Ports,
        act: impl FnOnce(&mut Connection) -> Result<Option<Header>, Broken>,
    ) {
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        match act(connection) {
            Ok(header) => self.answers.extend(header),
            Err(Broken) => self.drop_connection(ports),
        }
    }

    /// Fills a receive buffer.
    fn receive(&mut self, chain: &DescriptorChain) -> Outcome {
        self.buffer_waits = false;
        let room = chain.writable_len().saturating_sub(HEADER as u32).min(MAX_DATA);
        if chain.readable_len() != 0 || room == 0 {
            return Outcome::Stop("a receive buffer has no room for a packet".into());
        }
        let mut looked = false;
        loop {
            let header = match self.answers.pop_front() {
                Some(header) => Some(header),
                None => self.next_data(chain, room),
            };
            if let Some(header) = header {
                return match chain.write(0, &header.to_bytes()) {
                    true => Outcome::Done(HEADER as u32 + header.len),
                    false => Outcome::Stop("a receive buffer is outside guest memory".into()),
                };
            }
            if self.answers.is_empty() && std::mem::replace(&mut looked, true) {
                self.buffer_waits = true;
                return Outcome::NotNow;
            }
            self.look();
        }
    }

    /// The next packet of those that are ready, one of each in turn.
    fn next_data(&mut self, chain: &DescriptorChain, room: u32) -> Option<Header> {
        while let Some(ports) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&ports) else { continue };
            match connection.receive(chain, room) {
                Ok(Some(header)) => {
                    if header.op == op::RW {
                        self.ready.push_back(ports);
                    }
                    return Some(header);
                }
                Ok(None) => {}
                Err(Broken) => {
                    self.drop_connection(ports);
                    return self.answers.pop_front();
                }
            }
        }
        None
    }

    /// Takes a packet of the guest's.
    fn send(&mut self, chain: &DescriptorChain) -> Outcome {
        if self.answers.len() >= MAX_ANSWERS {
            return Outcome::NotNow;
        }
        let mut bytes = [0; HEADER];
        if chain.writable_len() != 0 || !chain.read(0, &mut bytes) {
            return Outcome::Stop("a packet has no header".into());
        }
        let header = Header::from_bytes(&bytes);
        if header.len > chain.readable_len() - HEADER as u32 {
            return Outcome::Stop("a packet is shorter than its header says".into());
        }
        self.dispatch(&header, chain);
        Outcome::Done(0)
    }

    fn dispatch(&mut self, header: &Header, chain: &DescriptorChain) {
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let ours = (header.src_cid, header.dst_cid) == (GUEST_CID, HOST_CID);
        let kind = Kind::of(header).filter(|kind| self.speaks(*kind));
        let connection = self.connections.get_mut(&ports);
        // Ports are those of both kinds.
        let taken = connection.is_some();
        let connection = connection.filter(|connection| ours && kind == Some(connection.kind()));
        let known = connection.is_some();
        let established = connection.is_some_and(|connection| {
            connection.learn(header);
            connection.established
        });
        match header.op {
            op::RST if known => self.end(ports),
            op::RST => {}
            op::REQUEST if ours && !taken && kind.is_some() => self.answer(ports, header),
            op::RESPONSE if known && !established => self.with(ports, |connection| {
                connection.established = true;
                let reported = connection.say(&format!("OK {}\n", ports.host));
                if reported { Ok(None) } else { Err(Broken) }
            }),
            op::RW if known && established => {
                self.with(ports, |connection| connection.send(chain, HEADER as u32, header));
            }
            op::SHUTDOWN if known && established => {
                self.with(ports, |connection| connection.shut(header.flags));
                if let Some(message) = self.connections.get(&ports).and_then(Connection::message) {
                    self.shared.notified.take(message);
                }
            }
            op::CREDIT_UPDATE if known => {}
            op::CREDIT_REQUEST if known => {
                self.with(ports, |connection| Ok(Some(connection.header(op::CREDIT_UPDATE, 0, 0))))
            }
            // It breaks the protocol, or means a connection that is none.
            _ if known => self.drop_connection(ports),
            _ if header.src_cid == GUEST_CID => self.answers.push_back(header.refusal()),
            _ => {}
        }
    }

    /// The guest has ended a connection: the host's end has what was sent before.
    fn end(&mut self, ports: Ports) {
        let waits = |c: &mut Connection| c.established && c.shut(NO_RECEIVE | NO_SEND).is_ok();
        if self.connections.get_mut(&ports).is_some_and(waits) {
            return;
        }
        if let Some(Connection { end: End::Notify(message), .. }) = self.connections.remove(&ports)
        {
            self.shared.notified.take(&message);
        }
    }

    /// The guest wants to connect to a port of the host's.
    fn answer(&mut self, ports: Ports, header: &Header) {
        let kind = Kind::of(header).filter(|_| self.has_room());
        let end = kind.and_then(|kind| Some((kind, self.end_for(ports, kind)?)));
        let Some((kind, end)) = end else { return self.answers.push_back(header.refusal()) };
        let mut connection = Connection::new(ports, kind, end, true);
        connection.learn(header);
        self.answers.push_back(connection.header(op::RESPONSE, 0, 0));
        self.connections.insert(ports, connection);
    }

    fn end_for(&mut self, ports: Ports, kind: Kind) -> Option<End> {
        if ports.host == NOTIFY_PORT && kind == Kind::Stream {
            return Some(End::Notify(Message::default()));
        }
        loop {
            let is = |waiter: &Waiter| (waiter.port, waiter.kind) == (ports.host, kind);
            let at = self.waiting.iter().position(is)?;
            let Waiter { socket, .. } = self.waiting.remove(at);
            let line = format!("ACCEPT {}\n", ports.guest);
            // One that has gone meanwhile is none.
            if rustix::io::write(&socket, line.as_bytes()) == Ok(line.len()) {
                return Some(End::Socket(socket));
            }
        }
    }

    /// Fills a buffer for events.
    fn event(&self, chain: &DescriptorChain) -> Outcome {
        if chain.readable_len() != 0 || chain.writable_len() < TRANSPORT_RESET.len() as u32 {
            return Outcome::Stop("a buffer for events has no room for one".into());
        }
        if self.shared.lost.read().is_err() {
            return Outcome::NotNow;
        }
        match chain.write(0, &TRANSPORT_RESET) {
            true => Outcome::Done(TRANSPORT_RESET.len() as u32),
            false => Outcome::Stop("a buffer for events is outside guest memory".into()),
        }
    }
}

impl QueueHandler for Muxer {
    fn start(&mut self, features: u64, _cease: Cease) {
        self.messages = features & F_SEQPACKET != 0;
        self.buffer_waits = false;
        if self.shared.new_driver.swap(false, Ordering::SeqCst) {
            // Whoever was connected was with another. Who waits for the guest still does.
            self.connections.clear();
            self.answers.clear();
            self.ready.clear();
        }
    }

    fn due(&self) -> Option<Duration> {
        // What came of a socket that took bytes.
        let answer = self.buffer_waits && !self.answers.is_empty();
        let full = self.full_until.map(|until| until.saturating_duration_since(Instant::now()));
        if answer { Some(Duration::ZERO) } else { full.filter(|left| !left.is_zero()) }
    }

    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
        match queue {
            RECEIVE => self.receive(&chain),
            EVENT => self.event(&chain),
            _ => self.send(&chain),
        }
    }

    fn submit_batch(&mut self) -> io::Result<()> {
        let pending = |connection: &Connection| {
            connection.interest(false).is_some_and(|(_, flags)| flags.contains(PollFlags::OUT))
        };
        let waiting: Vec<Ports> =
            self.connections.iter().filter(|(_, c)| pending(c)).map(|(ports, _)| *ports).collect();
        for ports in waiting {
            self.with(ports, Connection::flush);
        }
        Ok(())
    }

    fn wake_on<'a>(&'a self, waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        fds.extend(self.interests(waits(RECEIVE)).into_iter().map(|(_, fd)| fd));
        if waits(EVENT) {
            fds.push(PollFd::from_borrowed_fd(as_fd(&self.shared.lost), PollFlags::IN));
        }
    }
}
