//! Carries requests out on a queue of the disk, whoever asks for them and however they are
//! answered.

use super::pending::{Pending, Table};
use super::request::Doing;
use super::shared::Shared;
use super::work::Work;
use crate::block::{Op, Queue};
use crate::mem::GuestRam;
use crate::virtio::device::{Cease, PollFds};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes in flight at a time: what a queue that comes to rest waits for. A request beyond them
/// waits for others.
const WINDOW: u64 = 32 << 20;

/// A request to be begun.
pub(crate) struct New<T> {
    /// Who asks for it, to be answered.
    pub asker: T,
    /// What there is to do: something.
    pub work: Work,
    /// What it does.
    pub doing: Doing,
    /// Bytes of data.
    pub len: u32,
    /// A flush must follow.
    pub write_through: bool,
}

/// The requests of one queue of a disk, each of which a `T` asks for.
pub(crate) struct Executor<T> {
    shared: Arc<Shared>,
    queue: Box<dyn Queue>,
    pending: Table<T>,
    /// The request of which something is left to be begun. No other is taken meanwhile.
    waiting: Option<u64>,
    /// Bytes in flight.
    flying: u64,
    cease: Cease,
    /// When the limits let the request that waits go on.
    due: Option<Instant>,
    /// Guest RAM, from the first request on.
    ram: Option<GuestRam>,
    /// Operations just finished; kept for its room.
    finished: Vec<(u64, io::Result<()>)>,
}

impl<T> Executor<T> {
    pub fn new(shared: Arc<Shared>, queue: Box<dyn Queue>) -> Self {
        Self {
            shared,
            queue,
            pending: Table::default(),
            waiting: None,
            flying: 0,
            cease: Cease::default(),
            due: None,
            ram: None,
            finished: Vec::new(),
        }
    }

    /// When `cease` is set, nothing more is begun, and what is not in flight is forgotten without a
    /// word.
    pub fn start(&mut self, cease: Cease) {
        self.cease = cease;
    }

    /// Whether it takes another request.
    pub fn is_ready(&self) -> bool {
        self.waiting.is_none()
    }

    /// How long until the limits let something go on.
    pub fn due(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Begin a request; it is [ready](Self::is_ready) for one.
    pub fn begin(&mut self, new: New<T>, ram: &GuestRam) {
        let token = self.pending.insert(Pending {
            asker: new.asker,
            doing: new.doing,
            len: new.len,
            work: new.work,
            admitted: false,
            operations: 0,
            flying: 0,
            error: None,
            write_through: new.write_through,
            forgotten: false,
        });
        self.ram.get_or_insert_with(|| ram.clone());
        self.waiting = Some(token);
        self.advance();
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
    fn operation_finished(&mut self, token: u64, result: io::Result<()>) -> Option<Pending<T>> {
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
            pending.write_through = false;
            pending.operations = 1;
            self.queue.submit(token, Op::Flush);
            return None;
        }
        self.pending.remove(token)
    }

    /// Count a request, and tell the user of it if it failed.
    fn count(&self, pending: &Pending<T>) {
        if let Some(error) = &pending.error {
            self.shared.host_error(pending.doing.verb(), error);
        }
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
    }

    /// Tell the host of what was begun.
    ///
    /// # Errors
    /// It takes no more for now; what was begun stays.
    pub fn submit_batch(&mut self) -> io::Result<()> {
        self.queue.submit_batch()
    }

    /// Adds the descriptor by which operations finish.
    pub fn wake_on<'a>(&'a self, fds: &mut PollFds<'a>) {
        fds.extend(
            self.queue.completion_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
    }

    /// Hands over each finished request once, with what it did and why it failed, if it did.
    pub fn completions(&mut self, each: &mut dyn FnMut(T, Doing, Option<io::Error>)) {
        loop {
            let mut finished = std::mem::take(&mut self.finished);
            self.queue.completions(&mut |token, result| finished.push((token, result)));
            let idle = finished.is_empty();
            for (token, result) in finished.drain(..) {
                if let Some(pending) = self.operation_finished(token, result) {
                    self.count(&pending);
                    each(pending.asker, pending.doing, pending.error);
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

    /// Requests that are not handed over yet.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }
}
