//! Carries requests out, through a queue of the disk.

use super::pending::{Pending, Table};
use super::request::{Doing, Refusal, Request, parse, status_address};
use super::shared::{Shared, bit};
use super::work::Work;
use crate::block::{Op, Queue};
use crate::mem::GuestRam;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use virtio_bindings::virtio_blk::*;
use vm_memory::{Bytes, GuestAddress};

/// Most bytes in flight at a time: what a queue that comes to rest waits for. A request beyond them
/// waits for others.
const WINDOW: u64 = 32 << 20;

/// One request queue of a disk.
pub(super) struct BlkQueue {
    shared: Arc<Shared>,
    /// The virtqueue's number.
    number: u16,
    queue: Box<dyn Queue>,
    features: u64,
    pending: Table,
    /// The request of which something is left to be begun. No other is taken meanwhile.
    waiting: Option<u64>,
    /// Bytes in flight.
    flying: u64,
    cease: Cease,
    /// When the limits let the request that waits go on.
    due: Option<Instant>,
    /// Guest RAM, from the first request on: status bytes are written when requests finish.
    ram: Option<GuestRam>,
    /// Operations just finished; kept for its room.
    finished: Vec<(u64, io::Result<()>)>,
}

impl BlkQueue {
    pub fn new(shared: Arc<Shared>, number: u16, queue: Box<dyn Queue>) -> Self {
        let (pending, finished) = (Table::default(), Vec::new());
        Self {
            shared,
            number,
            queue,
            features: 0,
            pending,
            waiting: None,
            flying: 0,
            cease: Cease::default(),
            due: None,
            ram: None,
            finished,
        }
    }

    /// Answer at once.
    fn answer(
        &self,
        chain: &DescriptorChain,
        status: GuestAddress,
        code: u32,
        used: u32,
    ) -> Outcome {
        if code == VIRTIO_BLK_S_IOERR {
            self.shared.errors.fetch_add(1, Ordering::Relaxed);
        }
        // The address was found in RAM, which does not go away.
        let _ = chain.ram().write_obj(code as u8, status);
        Outcome::Done(used)
    }

    fn get_id(&self, chain: &DescriptorChain, status: GuestAddress) -> Outcome {
        let room = chain.writable_len() - 1;
        let id = &self.shared.serial[..self.shared.serial.len().min(room as usize)];
        if !chain.write(0, id) {
            return self.answer(chain, status, VIRTIO_BLK_S_IOERR, failed_len(chain));
        }
        let whole = id.len() as u32 == room;
        self.answer(chain, status, VIRTIO_BLK_S_OK, id.len() as u32 + u32::from(whole))
    }

    /// Begin what is left of the request that waits, as far as that goes now. True if a step of it
    /// was begun.
    fn advance(&mut self) -> bool {
        let Some((token, ram)) = self.waiting.zip(self.ram.as_ref()) else { return false };
        let mut begun = false;
        self.due = None;
        while let Some(pending) = self.pending.get_mut(token) {
            if pending.work.is_over() {
                self.waiting = None;
                break;
            }
            if self.flying >= WINDOW || self.cease.is_set() {
                break;
            }
            if let Some(throttle) = &self.shared.throttle {
                let mut throttle = throttle.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(wait) = throttle.take(!pending.admitted, pending.work.next_len()) {
                    self.due = Some(Instant::now() + wait);
                    break;
                }
                pending.admitted = true;
            }
            let Some((op, len)) = pending.work.step(ram) else { break };
            pending.operations += 1;
            pending.flying += len;
            self.flying += u64::from(len);
            self.queue.submit(token, op);
            begun = true;
        }
        begun
    }

    /// What is not begun of the request that waits never will be.
    fn forget(&mut self) {
        let Some(token) = self.waiting.take() else { return };
        self.due = None;
        if let Some(pending) = self.pending.get_mut(token) {
            pending.work = Work::Nothing;
            pending.forgotten = true;
            if pending.operations == 0 {
                self.pending.remove(token);
            }
        }
    }

    /// One operation is over. The request, if with it the whole is done.
    fn operation_finished(&mut self, token: u64, result: io::Result<()>) -> Option<Pending> {
        let pending = self.pending.get_mut(token)?;
        // A step's bytes, or some of another's: their sum is right once all are over.
        let landed = pending.flying / pending.operations.max(1);
        pending.flying -= landed;
        self.flying = self.flying.saturating_sub(landed.into());
        pending.operations = pending.operations.saturating_sub(1);
        if let Err(error) = result {
            pending.error.get_or_insert(error);
            pending.work = Work::Nothing;
        }
        if pending.operations > 0 || !pending.work.is_over() {
            return None;
        }
        if self.waiting == Some(token) {
            self.waiting = None;
        }
        if pending.forgotten {
            self.pending.remove(token);
            return None;
        }
        if pending.write_through && pending.error.is_none() {
            // 5.2.6.2: without VIRTIO_BLK_F_FLUSH a write is durable when it completes.
            pending.write_through = false;
            pending.operations = 1;
            self.queue.submit(token, Op::Flush);
            return None;
        }
        self.pending.remove(token)
    }

    /// Write the status byte and count; the head and the bytes written.
    fn request_finished(&self, pending: &Pending) -> (u16, u32) {
        let (code, used) = match &pending.error {
            None => (VIRTIO_BLK_S_OK, pending.used.0),
            Some(error) => {
                self.shared.host_error(pending.doing.verb(), error);
                (VIRTIO_BLK_S_IOERR, pending.used.1)
            }
        };
        let counter = match (&pending.error, pending.doing) {
            (Some(_), _) => Some((&self.shared.errors, 1)),
            (None, Doing::Read) => Some((&self.shared.read_bytes, pending.len.into())),
            (None, Doing::Write) => Some((&self.shared.write_bytes, pending.len.into())),
            (None, Doing::Flush) => Some((&self.shared.flushes, 1)),
            (None, Doing::Discard | Doing::WriteZeroes) => None,
        };
        if let Some((counter, amount)) = counter {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
        if let Some(ram) = &self.ram {
            // The address was found in RAM, which does not go away.
            let _ = ram.write_obj(code as u8, pending.status);
        }
        (pending.head, used)
    }
}

/// The bytes written by a request that only got its status, counted from the beginning of its
/// writable part as 2.7.8.2 wants: none, unless the status byte is all there is.
fn failed_len(chain: &DescriptorChain) -> u32 {
    u32::from(chain.writable_len() == 1)
}

impl QueueHandler for BlkQueue {
    fn start(&mut self, features: u64, cease: Cease) {
        self.features = features;
        self.cease = cease;
    }

    fn is_ready(&self, _queue: u16) -> bool {
        self.waiting.is_none()
    }

    fn due(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, _queue: u16, chain: DescriptorChain) -> Outcome {
        let Some(status) = status_address(&chain) else {
            return Outcome::Stop("a request has no room for its status in guest memory".into());
        };
        let failed = failed_len(&chain);
        let request = match parse(&chain, self.shared.geometry(), self.features) {
            Ok(Request::GetId) => return self.get_id(&chain, status),
            Ok(request) => request,
            Err(Refusal::Unsupp) => {
                return self.answer(&chain, status, VIRTIO_BLK_S_UNSUPP, failed);
            }
            Err(Refusal::IoErr) => return self.answer(&chain, status, VIRTIO_BLK_S_IOERR, failed),
        };
        let Some((work, doing, len)) = Work::of(request, chain.ram()) else {
            return self.answer(&chain, status, VIRTIO_BLK_S_IOERR, failed);
        };
        if work.is_over() {
            return self.answer(&chain, status, VIRTIO_BLK_S_OK, failed);
        }
        let written = if doing == Doing::Read { len + 1 } else { failed };
        let token = self.pending.insert(Pending {
            head: chain.head(),
            status,
            doing,
            len,
            used: (written, failed),
            work,
            admitted: false,
            operations: 0,
            flying: 0,
            error: None,
            write_through: doing.changes() && self.features & bit(VIRTIO_BLK_F_FLUSH) == 0,
            forgotten: false,
        });
        self.ram.get_or_insert_with(|| chain.ram().clone());
        self.waiting = Some(token);
        self.advance();
        Outcome::Deferred
    }

    fn submit_batch(&mut self) -> io::Result<()> {
        self.queue.submit_batch()
    }

    fn wake_on<'a>(&'a self, _waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        fds.extend(
            self.queue.completion_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
    }

    fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        loop {
            let mut finished = std::mem::take(&mut self.finished);
            self.queue.completions(&mut |token, result| finished.push((token, result)));
            let idle = finished.is_empty();
            for (token, result) in finished.drain(..) {
                if let Some(pending) = self.operation_finished(token, result) {
                    let (head, used) = self.request_finished(&pending);
                    each(self.number, head, used);
                }
            }
            self.finished = finished;
            if self.cease.is_set() {
                self.forget();
            }
            let begun = self.advance();
            // What was begun now, and a flush that followed a write, may be finished, too.
            // An error of it comes again at the worker's next one.
            if (idle && !begun) || self.queue.submit_batch().is_err() {
                return;
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }
}
