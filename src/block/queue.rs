//! One queue of a disk: requests taken apart into transfers, and put together again.

use super::layer::{Layer, Source};
use super::qcow2::Mapping;
use super::state::{Answers, CommitRequest, Current, Shared, Work};
use super::{Engine, Op, Queue};
use crate::sys::file_io::Part;
use crate::sys::iobuf::IoBuf;
use crate::sys::uring::{Request, Ring, Transfer};
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// An operation with transfers in flight.
struct Operation {
    token: u64,
    /// The layers that it works on, and its epoch there.
    shared: Arc<Shared>,
    epoch: Option<u64>,
    transfers: usize,
    result: io::Result<()>,
}

/// What the io_uring engine needs besides the ring.
struct Async {
    ring: Ring,
    /// Readable if the ring or the answers' event is.
    epoll: OwnedFd,
    answers: Arc<Answers>,
    commits: usize,
}

/// A [`Queue`] over files.
pub(crate) struct DiskQueue {
    disk: Arc<Current>,
    host: Option<Async>,
    operations: Vec<Option<Operation>>,
    free: Vec<usize>,
    done: VecDeque<(u64, io::Result<()>)>,
    /// An empty buffer for what transfers no data.
    nothing: Arc<IoBuf>,
}

impl DiskQueue {
    pub(crate) fn new(disk: Arc<Current>, ring: Option<Ring>) -> io::Result<Self> {
        let host = ring.map(Async::new).transpose()?;
        Ok(Self {
            disk,
            host,
            operations: Vec::new(),
            free: Vec::new(),
            done: VecDeque::new(),
            nothing: Arc::new(IoBuf::host(0)),
        })
    }

    /// Refuse what is not inside the disk, in whole sectors, or writes to a read-only one.
    fn check(&self, shared: &Shared, op: &Op) -> io::Result<()> {
        let (offset, len, writes) = match op {
            Op::Read { offset, buf } => (*offset, buf.len() as u64, false),
            Op::Write { offset, buf } => (*offset, buf.len() as u64, true),
            Op::Discard { offset, len } | Op::WriteZeroes { offset, len, .. } => {
                (*offset, *len, true)
            }
            Op::Flush => return Ok(()),
        };
        if writes && shared.read_only {
            return Err(rustix::io::Errno::ROFS.into());
        }
        let inside = offset.checked_add(len).is_some_and(|end| end <= shared.chain.size());
        if inside && offset % 512 == 0 && len % 512 == 0 {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at {offset} are not whole sectors inside the disk"),
        ))
    }

    fn begin(&mut self, token: u64, shared: &Arc<Shared>) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.operations.push(None);
            self.operations.len() - 1
        });
        let epoch = shared.writer.as_ref().map(|w| w.epochs.enter());
        let shared = shared.clone();
        self.operations[slot] =
            Some(Operation { token, shared, epoch, transfers: 1, result: Ok(()) });
        slot
    }

    /// One of the operation's transfers (or its own preparation) has ended.
    fn end(&mut self, slot: usize, result: io::Result<()>) {
        let Some(operation) = &mut self.operations[slot] else { return };
        operation.transfers -= 1;
        if operation.result.is_ok() {
            operation.result = result;
        }
        if operation.transfers > 0 {
            return;
        }
        if let Some(Operation { token, shared, epoch, result, .. }) = self.operations[slot].take() {
            if let (Some(writer), Some(epoch)) = (&shared.writer, epoch) {
                writer.epochs.exit(epoch);
            }
            self.free.push(slot);
            self.done.push_back((token, result));
        }
    }

    /// Start a transfer of the operation, or do it: with either engine at once if it is a read of
    /// what the page cache has, to which io_uring's way is longer than the system call's.
    fn transfer(&mut self, slot: usize, transfer: Transfer, at: At<'_>) -> io::Result<()> {
        let host = at.shared.chain.layers[at.layer].host();
        let At { mut offset, buf, mut start, mut len, .. } = at;
        let ring = self.host.as_mut().map(|host| &mut host.ring);
        // A ring works on the files that it was made for. One that came later, by a swap, is read
        // without it.
        let Some(ring) = ring.filter(|ring| ring.knows(host.file())) else {
            return match transfer {
                Transfer::Read => host.read_part(Part { buf, start, len }, offset),
                Transfer::Write => host.write_parts(&[Part { buf, start, len }], offset),
                Transfer::Sync => host.sync(),
            };
        };
        if transfer == Transfer::Read {
            let done = host.read_cached(Part { buf, start, len }, offset);
            (offset, start, len) = (offset + done as u64, start + done, len - done);
            if len == 0 {
                return Ok(());
            }
        }
        let (file, buf, user) = (host.file().clone(), buf.clone(), slot as u64);
        ring.push(Request { user, transfer, file, offset, buf, start, len })?;
        if let Some(operation) = &mut self.operations[slot] {
            operation.transfers += 1;
        }
        Ok(())
    }

    fn read(
        &mut self,
        shared: &Shared,
        slot: usize,
        offset: u64,
        buf: &Arc<IoBuf>,
    ) -> io::Result<()> {
        let mut start = 0;
        while start < buf.len() {
            let from = offset + start as u64;
            let (source, have) = shared.chain.map(from, (buf.len() - start) as u64)?;
            let len = have as usize;
            match source {
                Source::Zero => {
                    buf.zero(start, len);
                }
                Source::Compressed { layer } => shared.unpack(layer, from, buf, start, len)?,
                Source::Host { layer, offset, .. } => {
                    self.transfer(
                        slot,
                        Transfer::Read,
                        At { shared, layer, offset, buf, start, len },
                    )?;
                }
            }
            start += len;
        }
        Ok(())
    }

    fn flush(&mut self, token: u64) {
        let shared = self.disk.get();
        let Some(host) = self.host.as_mut().filter(|_| !shared.read_only) else {
            let result = shared.flush();
            return self.done.push_back((token, result));
        };
        // A top that the ring does not know is synced by the committing thread, too.
        let known = host.ring.knows(shared.chain.layers[0].host().file());
        if shared.needs_commit() || !known {
            let answers = host.answers.clone();
            if self.disk.commit_aside(Work::Flush(CommitRequest { token, answers })) {
                host.commits += 1;
            } else {
                self.done.push_back((token, shared.flush()));
            }
            return;
        }
        let slot = self.begin(token, &shared);
        let nothing = self.nothing.clone();
        let at = At { shared: &shared, layer: 0, offset: 0, buf: &nothing, start: 0, len: 0 };
        let result = self.transfer(slot, Transfer::Sync, at);
        self.end(slot, result);
    }
}

impl DiskQueue {
    /// Begin anything but a flush.
    fn start(&mut self, shared: &Arc<Shared>, token: u64, op: Op) {
        if let Err(e) = self.check(shared, &op) {
            return self.done.push_back((token, Err(e)));
        }
        if let Op::Write { offset, buf } = &op {
            return self.done.push_back((token, write(shared, *offset, buf)));
        }
        let slot = self.begin(token, shared);
        let result = match op {
            Op::Read { offset, buf } => self.read(shared, slot, offset, &Arc::new(buf)),
            Op::Discard { len: 0, .. }
            | Op::WriteZeroes { len: 0, .. }
            | Op::Write { .. }
            | Op::Flush => Ok(()),
            Op::Discard { offset, len } => shared.discard(offset, len),
            Op::WriteZeroes { offset, len, unmap } => shared.zero(offset, len, unmap),
        };
        self.end(slot, result);
    }
}

/// Write, at once with either engine: writes end in the page cache, and where the file system has
/// no non-blocking buffered writes (ext4), io_uring hands each to a worker thread, at half the
/// rate.
fn write(shared: &Shared, offset: u64, buf: &IoBuf) -> io::Result<()> {
    let writer = shared.writer.as_ref();
    let epoch = writer.map(|writer| writer.epochs.enter());
    let result = write_mapped(shared, offset, buf);
    if let (Some(writer), Some(epoch)) = (writer, epoch) {
        writer.epochs.exit(epoch);
    }
    result
}

fn write_mapped(shared: &Shared, offset: u64, buf: &IoBuf) -> io::Result<()> {
    let top = &*shared.chain.layers[0];
    let mut start = 0;
    while start < buf.len() {
        let (at, rest) = (offset + start as u64, buf.len() - start);
        let mapped = match top {
            Layer::Raw { .. } => Some((at, rest)),
            Layer::Qcow2(image) => match image.map(at, rest as u64)? {
                (Mapping::Data { host, copied: true }, have) => Some((host, have as usize)),
                _ => None,
            },
        };
        let Some((offset, len)) = mapped else {
            return shared.write(at, Part { buf, start, len: rest });
        };
        top.host().write_parts(&[Part { buf, start, len }], offset)?;
        start += len;
    }
    Ok(())
}

/// One transfer's place: bytes of a layer's file, and of a buffer.
struct At<'a> {
    shared: &'a Shared,
    layer: usize,
    offset: u64,
    buf: &'a Arc<IoBuf>,
    start: usize,
    len: usize,
}

impl Queue for DiskQueue {
    fn engine(&self) -> Engine {
        if self.host.is_some() { Engine::Uring } else { Engine::Sync }
    }

    fn submit(&mut self, token: u64, op: Op) {
        if matches!(op, Op::Flush) {
            return self.flush(token);
        }
        let disk = self.disk.clone();
        if let Op::Read { .. } = op {
            // Layers that are replaced meanwhile still read the same.
            return self.start(&disk.get(), token, op);
        }
        // The layers are not replaced until the change is made. Its metadata may be written out
        // when they could be.
        let held = disk.hold();
        let shared = held.clone();
        self.start(&shared, token, op);
        drop(held);
        shared.relieve();
    }

    fn submit_batch(&mut self) -> io::Result<()> {
        let Some(host) = &mut self.host else { return Ok(()) };
        host.ring.submit()
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        self.host.as_ref().map(|host| host.epoll.as_fd())
    }

    fn completions(&mut self, each: &mut dyn FnMut(u64, io::Result<()>)) {
        if let Some(host) = &mut self.host {
            let mut ended = smallvec::SmallVec::<[(u64, io::Result<()>); 32]>::new();
            host.ring.completions(&mut |slot, result| ended.push((slot, result)));
            if host.commits > 0 {
                // Event and answers change together under the lock: the event is never left set for
                // an answer that was taken, which would make the queue's thread spin.
                let mut done = host.answers.done.lock().unwrap();
                let _ = host.answers.event.read();
                let answers = std::mem::take(&mut *done);
                drop(done);
                host.commits -= answers.len();
                self.done.extend(answers);
            }
            for (slot, result) in ended {
                self.end(slot as usize, result);
            }
        }
        while let Some((token, result)) = self.done.pop_front() {
            each(token, result);
        }
    }

    fn in_flight(&self) -> usize {
        let commits = self.host.as_ref().map_or(0, |host| host.commits);
        self.operations.len() - self.free.len() + self.done.len() + commits
    }
}

impl Drop for DiskQueue {
    fn drop(&mut self) {
        // The disk's other queues count on every operation ending.
        while self.host.as_mut().is_some_and(|host| host.ring.wait().is_ok()) {
            self.completions(&mut |_, _| {});
        }
    }
}

impl Async {
    fn new(ring: Ring) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for fd in [ring.as_fd(), crate::sys::eventfd::as_fd(&event)] {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        let answers = Arc::new(Answers { done: Mutex::default(), event });
        Ok(Self { ring, epoll, answers, commits: 0 })
    }
}
