//! Passes requests on to a share's server, and moves the data of open files.

use super::shared::{HIGH_PRIORITY, REQUESTS, Shared};
use crate::share::fuse::{Fields, IN_HEADER, OUT_HEADER, TRANSFER_IN, op};
use crate::share::wire::{self, Answer, MAX_BODY, MAX_DATA, MAX_PAYLOAD, Request};
use crate::sys::file_io::{self, Part};
use crate::sys::iobuf::IoBuf;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The number of what nobody waits for the answer of.
const NO_ANSWER: u64 = 0;

/// struct fuse_in_header, as far as it matters.
#[derive(Clone, Copy)]
struct Header {
    len: u32,
    opcode: u32,
    unique: u64,
    node: u64,
}

/// A request that the server works on.
struct Pending {
    queue: u16,
    chain: DescriptorChain,
    header: Header,
}

/// The thread of a share's queues.
pub(super) struct Handler {
    shared: Arc<Shared>,
    /// `None`: the server is gone.
    server: Option<Arc<OwnedFd>>,
    /// The socket takes no request now.
    blocked: bool,
    pending: HashMap<u64, Pending>,
    /// How many there were.
    numbered: u64,
    /// What the guest has open, by its handles.
    files: HashMap<u64, File>,
}

impl Handler {
    pub fn new(shared: Arc<Shared>, server: Arc<OwnedFd>) -> Self {
        Self {
            shared,
            server: Some(server),
            blocked: false,
            pending: HashMap::new(),
            numbered: NO_ANSWER,
            files: HashMap::new(),
        }
    }

    /// The server has ended: from now on all requests fail.
    fn lose_server(&mut self, why: &str) {
        if self.server.is_some() {
            // It fails if it was said already, which was with the same socket.
            let _ = self.shared.why_lost.set(why.to_owned());
            self.server = None;
            let name = &self.shared.name;
            self.shared.notices.tell(&format!(
                "{name}: its server is gone ({why}): the guest has I/O errors there until its next start"
            ));
        }
        self.files.clear();
    }

    /// Sends a request. False: there is no room now.
    fn send(&mut self, request: &Request<'_>) -> bool {
        let Some(server) = &self.server else { return true };
        self.blocked = false;
        match request.send(server) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                false
            }
            Err(error) => {
                self.lose_server(&error.to_string());
                true
            }
        }
    }

    /// Passes a request on.
    fn pass(&mut self, queue: u16, chain: DescriptorChain, header: Header) -> Outcome {
        let len = header.len - IN_HEADER;
        let mut body = vec![0; MAX_BODY.min(len as usize)];
        if body.len() < len as usize {
            return answer(&chain, header, Err(Errno::TOOBIG));
        }
        if !chain.read(IN_HEADER, &mut body) {
            return Outcome::Stop("a request is outside guest memory".into());
        }
        let quiet = is_quiet(header.opcode);
        let number = if quiet { NO_ANSWER } else { self.numbered + 1 };
        let room = chain.writable_len().saturating_sub(OUT_HEADER);
        let Header { opcode, node, .. } = header;
        if !self.send(&Request { number, node, opcode, room, body: &body }) {
            return Outcome::NotNow;
        }
        if self.server.is_none() && !quiet {
            return answer(&chain, header, Err(Errno::IO));
        }
        match opcode {
            op::INIT | op::DESTROY => self.files.clear(),
            op::RELEASE => drop(Fields(&body).u64().ok().and_then(|fh| self.files.remove(&fh))),
            _ => {}
        }
        if quiet {
            return match chain.writable_len() {
                0 => Outcome::Done(0),
                _ => answer(&chain, header, Ok(0)),
            };
        }
        self.numbered = number;
        self.pending.insert(number, Pending { queue, chain, header });
        Outcome::Deferred
    }

    /// Reads or writes an open file.
    fn transfer(&mut self, chain: &DescriptorChain, header: Header) -> Outcome {
        let mut body = [0; TRANSFER_IN as usize];
        if header.len - IN_HEADER < TRANSFER_IN || !chain.read(IN_HEADER, &mut body) {
            return answer(chain, header, Err(Errno::INVAL));
        }
        let mut fields = Fields(&body);
        let (Ok(handle), Ok(offset), Ok(size)) = (fields.u64(), fields.u64(), fields.u32()) else {
            return answer(chain, header, Err(Errno::INVAL));
        };
        let end = offset.checked_add(size.into()).filter(|end| i64::try_from(*end).is_ok());
        let reads = header.opcode == op::READ;
        let segments = match reads {
            true => chain.writable(OUT_HEADER, size),
            false => chain.readable(IN_HEADER + TRANSFER_IN, size),
        };
        let buffer = segments.and_then(|segments| IoBuf::guest(chain.ram(), &segments));
        let (Some(buffer), Some(_), true) = (buffer, end, size <= MAX_DATA) else {
            return answer(chain, header, Err(Errno::INVAL));
        };
        let Some(file) = self.files.get(&handle) else {
            let errno = if self.server.is_some() { Errno::BADF } else { Errno::IO };
            return answer(chain, header, Err(errno));
        };
        let part = Part::whole(&buffer);
        if reads {
            let read = file_io::read_some(file, part, offset).map(|len| len as u32);
            return answer(chain, header, read.map_err(|error| errno(&error)));
        }
        let written = file_io::write_full(file, &[part], offset);
        // struct fuse_write_out
        if written.is_ok() && !chain.write(OUT_HEADER, &u64::from(size).to_le_bytes()) {
            return answer(chain, header, Err(Errno::INVAL));
        }
        answer(chain, header, written.map(|()| 8).map_err(|error| errno(&error)))
    }

    /// What an answer of the server's comes to; the bytes written.
    fn finish(&mut self, pending: &Pending, answered: Answer, file: Option<OwnedFd>) -> u32 {
        let Pending { chain, header, .. } = pending;
        let Answer { handle, errno, payload, .. } = answered;
        if let Some(file) = file.filter(|_| handle != 0) {
            self.files.insert(handle, file.into());
        } else if handle != 0 && matches!(header.opcode, op::OPEN | op::CREATE) {
            // More descriptors than this process may have: the guest shall hear it now.
            let mut body = [0; 24];
            body[..8].copy_from_slice(&handle.to_le_bytes());
            let (number, node, opcode, room) = (NO_ANSWER, header.node, op::RELEASE, 0);
            self.send(&Request { number, node, opcode, room, body: &body });
            return written(chain, *header, Err(Errno::MFILE));
        }
        if (1..4096).contains(&errno) {
            return written(chain, *header, Err(Errno::from_raw_os_error(errno)));
        }
        let fits = payload.len() <= MAX_PAYLOAD && chain.write(OUT_HEADER, &payload);
        match errno == 0 && fits {
            true => written(chain, *header, Ok(payload.len() as u32)),
            false => written(chain, *header, Err(Errno::IO)),
        }
    }
}

/// Whether the server does it without an answer: the guest need not wait for that.
fn is_quiet(opcode: u32) -> bool {
    let closes = matches!(opcode, op::RELEASE | op::RELEASEDIR | op::DESTROY);
    closes || matches!(opcode, op::FORGET | op::BATCH_FORGET)
}

/// Writes FUSE's header in front of so many bytes, or of none for an error; all bytes written.
/// Nothing, if there is no room for it.
fn written(chain: &DescriptorChain, header: Header, what: Result<u32, Errno>) -> u32 {
    let (len, error) = match what {
        Ok(bytes) => (OUT_HEADER + bytes, 0),
        Err(errno) => (OUT_HEADER, -errno.raw_os_error()),
    };
    let mut out = [0; OUT_HEADER as usize];
    out[..4].copy_from_slice(&len.to_le_bytes());
    out[4..8].copy_from_slice(&error.to_le_bytes());
    out[8..].copy_from_slice(&header.unique.to_le_bytes());
    if chain.write(0, &out) { len } else { 0 }
}

fn answer(chain: &DescriptorChain, header: Header, what: Result<u32, Errno>) -> Outcome {
    Outcome::Done(written(chain, header, what))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The header of a request; `None` if there is none.
fn header(chain: &DescriptorChain) -> Option<Header> {
    let mut bytes = [0; IN_HEADER as usize];
    if !chain.read(0, &mut bytes) {
        return None;
    }
    let mut f = Fields(&bytes);
    let (len, opcode) = (f.u32().ok()?, f.u32().ok()?);
    let (unique, node) = (f.u64().ok()?, f.u64().ok()?);
    Some(Header { len, opcode, unique, node })
}

impl QueueHandler for Handler {
    fn start(&mut self, _features: u64, _cease: Cease) {
        self.blocked = false;
        if self.shared.new_driver.swap(false, Ordering::SeqCst) {
            self.files.clear();
            // If there is no room for it, the next driver's INIT does the same.
            let (number, node, opcode, room) = (NO_ANSWER, 0, op::DESTROY, 0);
            self.send(&Request { number, node, opcode, room, body: &[] });
        }
    }

    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
        let Some(header) = header(&chain) else {
            return Outcome::Stop("a request has no header".into());
        };
        // 5.11.6: what the header says is what is there.
        if header.len < IN_HEADER || header.len > chain.readable_len() {
            return answer(&chain, header, Err(Errno::INVAL));
        }
        let needs_none = matches!(header.opcode, op::FORGET | op::BATCH_FORGET);
        if chain.writable_len() < OUT_HEADER && !needs_none {
            return Outcome::Stop("a request has no room for its answer".into());
        }
        match header.opcode {
            op::READ | op::WRITE => self.transfer(&chain, header),
            _ => self.pass(queue, chain, header),
        }
    }

    fn wake_on<'a>(&'a self, waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        if let Some(server) = &self.server {
            let blocked = self.blocked && (waits(HIGH_PRIORITY) || waits(REQUESTS));
            let room = if blocked { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN | room));
        }
    }

    fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        while let Some(server) = &self.server {
            let (answered, file) = match wire::receive(server, MAX_PAYLOAD) {
                Ok((packet, file)) => (Answer::parse(packet), file),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.lose_server(&error.to_string());
                    break;
                }
            };
            let known = answered.and_then(|a| Some((self.pending.remove(&a.number)?, a)));
            let Some((pending, answered)) = known else {
                self.lose_server("it said nonsense");
                break;
            };
            let bytes = self.finish(&pending, answered, file);
            each(pending.queue, pending.chain.head(), bytes);
        }
        if self.server.is_none() {
            for (_, Pending { queue, chain, header }) in self.pending.drain() {
                each(queue, chain.head(), written(&chain, header, Err(Errno::IO)));
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }
}
