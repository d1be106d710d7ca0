//! The control socket's connections, served by the event thread. (Protocol: [`crate::control`])

use crate::control::{MAX_LINE, Request, Response};
use rustix::event::PollFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, accept_with};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Most connections at a time; one more takes the place of that which has been idle for the longest
/// time.
const MAX_CLIENTS: usize = 64;
/// Connections accepted in a turn, so that whoever does nothing but connect keeps nobody else
/// waiting.
const MAX_ACCEPTED: usize = 16;
/// A connection on which nothing is asked for so long is closed.
const MAX_IDLE: Duration = Duration::from_secs(10);
/// Output that waits for a client. One that reads slower than the guest writes is disconnected.
const MAX_BACKLOG: usize = 256 << 10;

/// Bytes received at a time: they lie on the event thread's stack, which is each clone's own.
const PIECE: usize = 1 << 10;

/// Most descriptors that may come with a request: one for each disk.
const MAX_FDS: usize = 32;

/// What answers a request and takes the descriptors that came with it. Without an answer, that
/// comes later: by [`Control::answer_later`].
pub type RequestHandler<'a> = dyn FnMut(&Request, Vec<OwnedFd>) -> Option<Response> + 'a;

/// What a connection is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    /// Requests and responses.
    Requests,
    /// Silent until the end.
    Waiting,
    /// Its request is yet to be answered.
    Asking,
    /// Bytes of the serial line.
    Console,
}

struct Client {
    stream: UnixStream,
    mode: Mode,
    /// Received and not yet used: an unfinished line, or input that the guest has no room for.
    input: Vec<u8>,
    /// Came with the input; the next line's.
    fds: Vec<OwnedFd>,
    output: VecDeque<u8>,
    /// When something was last received, or it was accepted.
    active: Instant,
    /// It is to be dropped, once `output` is sent.
    closing: bool,
    gone: bool,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            mode: Mode::Requests,
            input: Vec::new(),
            fds: Vec::new(),
            output: VecDeque::new(),
            active: Instant::now(),
            closing: false,
            gone: false,
        }
    }

    /// How long it may stay as it is without asking anything.
    fn patience(&self) -> Option<Duration> {
        (self.mode == Mode::Requests).then(|| MAX_IDLE.saturating_sub(self.active.elapsed()))
    }

    fn wants(&self) -> PollFlags {
        // Input that the guest has no room for is not read: the socket holds the sender back.
        let full = self.mode == Mode::Console && !self.input.is_empty();
        let mut flags = PollFlags::empty();
        if !full && !self.closing {
            flags |= PollFlags::IN;
        }
        if !self.output.is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.output.len() + bytes.len() > MAX_BACKLOG {
            self.gone = true;
            return;
        }
        self.output.extend(bytes);
        self.flush();
    }

    fn respond(&mut self, response: &Response) {
        match serde_json::to_vec(response) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.send(&bytes);
            }
            Err(_) => self.gone = true,
        }
    }

    fn flush(&mut self) {
        while !self.output.is_empty() && !self.gone {
            let (head, _) = self.output.as_slices();
            match self.stream.write(head) {
                Ok(n) if n > 0 => drop(self.output.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => self.gone = true,
            }
        }
        self.gone |= self.closing && self.output.is_empty();
    }

    fn receive(&mut self) {
        let mut bytes = [0; PIECE];
        while !self.gone && self.input.len() < MAX_LINE {
            let room = PIECE.min(MAX_LINE - self.input.len());
            match self.read(&mut bytes[..room]) {
                Ok(0) => self.gone = true,
                // Who waits has nothing more to say.
                Ok(_) if self.mode == Mode::Waiting => return,
                Ok(n) => {
                    self.active = Instant::now();
                    self.input.extend(&bytes[..n]);
                    if n < room {
                        return;
                    }
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    return;
                }
                Err(_) => self.gone = true,
            }
        }
    }

    /// Bytes, and descriptors that came with them. Too many descriptors are an error.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(bytes)];
        let received = rustix::net::recvmsg(&self.stream, &mut parts, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MAX_FDS {
            return Err(io::Error::other("too many descriptors"));
        }
        Ok(received.bytes)
    }

    /// The next whole line, without its end.
    fn line(&mut self) -> Option<Vec<u8>> {
        if self.mode != Mode::Requests {
            return None;
        }
        let Some(end) = self.input.iter().position(|&byte| byte == b'\n') else {
            if self.input.len() >= MAX_LINE {
                let message = format!("a request is longer than {MAX_LINE} bytes");
                self.closing = true;
                self.input.clear();
                self.respond(&Response::Error { message });
            }
            return None;
        };
        let rest = self.input.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.input, rest);
        line.pop();
        Some(line)
    }
}

/// The listener and its connections.
pub struct Control {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
}

impl Control {
    /// Serve `listener`, if there is one.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub fn new(listener: Option<UnixListener>) -> io::Result<Self> {
        listener.as_ref().map_or(Ok(()), |listener| listener.set_nonblocking(true))?;
        Ok(Self { listener, clients: Vec::new() })
    }

    /// What to poll for: the listener, then each client, in the order of [`Control::serve`]'s
    /// `ready`.
    pub fn poll_fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let listener = self.listener.iter().map(|listener| (listener.as_fd(), PollFlags::IN));
        listener.chain(self.clients.iter().map(|client| (client.stream.as_fd(), client.wants())))
    }

    /// Do what can be done after a poll: accept, send, receive, and have `answer` answer each
    /// request.
    pub fn serve(&mut self, ready: &[PollFlags], answer: &mut RequestHandler<'_>) {
        let (listener, clients) =
            ready.split_at(usize::from(self.listener.is_some()).min(ready.len()));
        for (client, ready) in self.clients.iter_mut().zip(clients) {
            if ready.contains(PollFlags::OUT) {
                client.flush();
            }
            if ready.contains(PollFlags::IN) {
                client.receive();
            } else if ready.intersects(PollFlags::HUP | PollFlags::ERR) && client.output.is_empty()
            {
                client.gone = true;
            }
            while let Some(line) = client.line() {
                take_request(client, &line, answer);
            }
        }
        self.clients.retain(|client| !client.gone && client.patience() != Some(Duration::ZERO));
        if listener.iter().any(|ready| ready.contains(PollFlags::IN)) {
            self.accept();
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..MAX_ACCEPTED {
            let accepted = self.listener.as_ref().map(|listener| accept_with(listener, flags));
            let Some(Ok(stream)) = accepted else { return };
            if self.clients.len() >= MAX_CLIENTS {
                self.make_room();
            }
            self.clients.push(Client::new(stream.into()));
        }
    }

    /// Drop the connection that would be missed least: who asks nothing before who waits, and both
    /// before a console.
    fn make_room(&mut self) {
        let clients = self.clients.iter().enumerate();
        let least = clients.min_by_key(|(_, client)| (client.mode, client.active));
        if let Some(least) = least.map(|(index, _)| index) {
            self.clients.swap_remove(least);
        }
    }

    /// Answer what a handler did not at once.
    pub fn answer_later(&mut self, response: &Response) {
        for client in self.clients.iter_mut().filter(|client| client.mode == Mode::Asking) {
            client.mode = Mode::Requests;
            client.respond(response);
        }
    }

    /// The time until [`Control::serve`] is to be called again though nothing is ready.
    pub fn patience(&self) -> Option<Duration> {
        self.clients.iter().filter_map(Client::patience).min()
    }

    /// Send output of the serial line to who is attached.
    pub fn broadcast(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        for client in self.clients.iter_mut().filter(|client| client.mode == Mode::Console) {
            client.send(bytes);
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Offer what attached clients typed to `take`, which says how much it took.
    pub fn feed(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) {
        for client in self.clients.iter_mut().filter(|client| client.mode == Mode::Console) {
            if !client.input.is_empty() {
                let taken = take(&client.input);
                client.input.drain(..taken);
            }
        }
    }

    /// Some attached client has typed what the guest has not taken.
    pub fn has_input(&self) -> bool {
        self.clients.iter().any(|client| client.mode == Mode::Console && !client.input.is_empty())
    }
}

fn take_request(client: &mut Client, line: &[u8], answer: &mut RequestHandler<'_>) {
    let response = match Request::from_line(line) {
        Ok(request) => {
            let Some(response) = answer(&request, std::mem::take(&mut client.fds)) else {
                client.mode = Mode::Asking;
                return;
            };
            match (&request, &response) {
                (Request::Console {}, Response::Ok {}) => client.mode = Mode::Console,
                (Request::Wait {}, Response::Ok {}) => client.mode = Mode::Waiting,
                _ => {}
            }
            // "Without answering more": the connection's end is the answer.
            response
        }
        Err(message) => Response::Error { message },
    };
    client.respond(&response);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    struct Fixture {
        control: Control,
        client: UnixStream,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let mut control = Control::new(Some(UnixListener::bind(&path).unwrap())).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        control.serve(&[PollFlags::IN], &mut |_, _| unreachable!());
        Fixture { control, client, _dir: dir }
    }

    fn serve(control: &mut Control) {
        let everything = PollFlags::IN | PollFlags::OUT;
        control.serve(&[PollFlags::empty(), everything], &mut |request, _| match request {
            Request::Reset {} => Some(Response::Error { message: "no".to_owned() }),
            Request::Hibernate {} => None,
            _ => Some(Response::Ok {}),
        });
    }

    fn reply(client: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn requests_are_answered_line_by_line() {
        let Fixture { mut control, mut client, _dir } = fixture();
        client.write_all(b"{\"request\":\"power-button\"}\n{\"request\":").unwrap();
        serve(&mut control);
        assert_eq!(reply(&client), "{\"response\":\"ok\"}\n");
        client.write_all(b"\"reset\"}\n").unwrap();
        serve(&mut control);
        assert_eq!(reply(&client), "{\"response\":\"error\",\"message\":\"no\"}\n");
        client.write_all(b"{\"request\":\"make-coffee\",\"version\":2}\n").unwrap();
        serve(&mut control);
        assert!(reply(&client).contains("not a request"));
        client.write_all(b"{\"request\":\"reset\",\"version\":3}\n").unwrap();
        serve(&mut control);
        assert!(reply(&client).contains("speaks version 2"));
    }

    #[test]
    fn an_answer_may_come_later() {
        let Fixture { mut control, mut client, _dir } = fixture();
        client
            .write_all(b"{\"request\":\"hibernate\",\"version\":2}\n{\"request\":\"wait\"}\n")
            .unwrap();
        serve(&mut control);
        client.set_nonblocking(true).unwrap();
        assert!(client.read(&mut [0]).is_err(), "nothing yet, for the second neither");
        client.set_nonblocking(false).unwrap();
        control.answer_later(&Response::Error { message: "full".to_owned() });
        assert_eq!(reply(&client), "{\"response\":\"error\",\"message\":\"full\"}\n");
        serve(&mut control);
        assert_eq!(reply(&client), "{\"response\":\"ok\"}\n");
    }

    #[test]
    fn whoever_asks_is_served_however_many_are_idle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let mut control = Control::new(Some(UnixListener::bind(&path).unwrap())).unwrap();
        let serve = |control: &mut Control| {
            let ready = vec![PollFlags::IN; control.poll_fds().count()];
            control.serve(&ready, &mut |_, _| Some(Response::Ok {}));
        };
        // One of them is a console, the oldest: it is no idler.
        let mut console = UnixStream::connect(&path).unwrap();
        serve(&mut control);
        console.write_all(b"{\"request\":\"console\"}\n").unwrap();
        serve(&mut control);
        let idle: Vec<_> = (0..3 * MAX_CLIENTS)
            .map(|_| {
                let client = UnixStream::connect(&path).unwrap();
                serve(&mut control);
                client
            })
            .collect();
        assert_eq!(control.poll_fds().count(), 1 + MAX_CLIENTS);
        let mut asks = UnixStream::connect(&path).unwrap();
        asks.write_all(b"{\"request\":\"status\",\"version\":2}\n").unwrap();
        serve(&mut control);
        serve(&mut control);
        assert_eq!(reply(&asks), "{\"response\":\"ok\"}\n");
        assert_eq!(reply(&console), "{\"response\":\"ok\"}\n");
        control.broadcast(b"x");
        console.read_exact(&mut [0]).unwrap();
        assert!(control.patience().is_some_and(|patience| patience <= MAX_IDLE));
        for client in &mut control.clients {
            client.active = Instant::now().checked_sub(MAX_IDLE).unwrap();
        }
        serve(&mut control);
        assert_eq!(control.poll_fds().count(), 2, "the listener and the console");
        drop(idle);
    }

    #[test]
    fn a_request_of_any_length_up_to_the_longest_is_answered() {
        let Fixture { mut control, mut client, _dir } = fixture();
        for len in [PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, MAX_LINE] {
            let mut line = b"{\"request\":\"power-button\"}".to_vec();
            line.resize(len - 1, b' ');
            line.push(b'\n');
            client.write_all(&line).unwrap();
            serve(&mut control);
            assert_eq!(reply(&client), "{\"response\":\"ok\"}\n", "{len}");
        }
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let Fixture { mut control, mut client, _dir } = fixture();
        client.write_all(&[b'x'; MAX_LINE]).unwrap();
        serve(&mut control);
        assert!(reply(&client).contains("longer than"));
        serve(&mut control);
        assert_eq!(control.poll_fds().count(), 1, "only the listener is left");
    }

    #[test]
    fn a_console_holds_back_what_the_guest_has_no_room_for() {
        let Fixture { mut control, mut client, _dir } = fixture();
        client.write_all(b"{\"request\":\"console\"}\nls\n").unwrap();
        serve(&mut control);
        assert_eq!(reply(&client), "{\"response\":\"ok\"}\n");
        control.feed(&mut |bytes| {
            assert_eq!(bytes, b"ls\n");
            1
        });
        let (_, flags) = control.poll_fds().nth(1).unwrap();
        assert!(control.has_input() && !flags.contains(PollFlags::IN));
        control.feed(&mut |bytes| bytes.len());
        let (_, flags) = control.poll_fds().nth(1).unwrap();
        assert!(flags.contains(PollFlags::IN));
        control.broadcast(b"# ");
        let mut seen = [0; 2];
        client.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"# ");
    }

    #[test]
    fn a_client_that_does_not_read_is_dropped() {
        let Fixture { mut control, mut client, _dir } = fixture();
        client.write_all(b"{\"request\":\"console\"}\n").unwrap();
        serve(&mut control);
        for _ in 0..64 {
            control.broadcast(&[b'x'; 32 << 10]);
        }
        assert_eq!(control.poll_fds().count(), 1);
    }
}
