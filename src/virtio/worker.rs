//! Worker threads, and the one drain loop that feeds every device's queues.

use crate::error::Result;
use crate::sys::eventfd::as_fd;
use crate::virtio::device::{DeviceKind, Outcome, QueueHandler};
use crate::virtio::queue::SplitQueue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smallvec::SmallVec;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Address space for a worker's stack; only what it touches costs memory.
const STACK: usize = 512 << 10;
/// A worker that has not come to rest so long after it was told to waits for host storage that does not answer. What it is
/// in the middle of is at most some dozen MiB.
const PATIENCE: Duration = Duration::from_secs(30);

/// Called first in every new worker thread: the place to put it into its sandbox. An error stops the device.
pub type ThreadStart = Arc<dyn Fn(DeviceKind) -> Result<()> + Send + Sync>;

/// How a device reaches its guest; the transport's.
pub trait Signal: Send + Sync {
    /// Interrupt: buffers of this queue were used.
    fn used(&self, queue: u16);
    /// Stop the device for this reason: DEVICE_NEEDS_RESET, a configuration interrupt and a notice.
    fn stop(&self, reason: &str);
    /// The device is stopped and no queue may be served.
    fn stopped(&self) -> bool;
}

/// What a worker shall do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Finish what was taken from the ring, and rest.
    Park,
    /// Finish what is in flight, give up the rest of what was taken from the ring, and rest.
    Cease,
    Run,
    /// As [`Order::Cease`], and end.
    Exit,
}

/// Set when a queue shall begin nothing more, not even what is left of a request that it has begun. To be looked at before
/// each step of a request.
#[derive(Clone, Default)]
pub struct Cease(Arc<AtomicBool>);

impl Cease {
    /// It is so.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, cease: bool) {
        self.0.store(cease, Ordering::SeqCst);
    }
}

/// Where orders go to the thread and the queue comes back.
struct Slot {
    order: Order,
    /// The queue, while the thread is parked.
    ring: Option<SplitQueue>,
    features: u64,
    /// The thread has the queue.
    busy: bool,
    /// The thread has ended.
    gone: bool,
}

struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
    /// Any order but [`Order::Run`] waits; what the drain loop looks at before each request.
    attention: AtomicBool,
    /// The order is to give up what was begun; what handlers look at within a request.
    cease: Cease,
    /// Wakes a thread that polls.
    wake: EventFd,
    /// The guest's notifications.
    kick: EventFd,
}

impl Shared {
    /// A poisoned lock is only a thread that panicked elsewhere; the slot is valid at every step.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, slot: MutexGuard<'a, Slot>) -> MutexGuard<'a, Slot> {
        self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until the slot is as wanted, at the latest until `deadline`.
    fn wait_until(&self, deadline: Instant, done: impl Fn(&Slot) -> bool) -> MutexGuard<'_, Slot> {
        let mut slot = self.slot();
        while !done(&slot) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(slot, left);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        slot
    }

    fn order(&self, order: Order) {
        let mut slot = self.slot();
        if slot.order == Order::Exit {
            // There is no way back.
            return;
        }
        slot.order = order;
        self.cease.set(matches!(order, Order::Cease | Order::Exit));
        self.attention.store(order != Order::Run, Ordering::SeqCst);
        drop(slot);
        self.changed.notify_all();
        if order != Order::Run {
            // It fails only when the counter is full, and then the thread is woken already.
            let _ = self.wake.write(1);
        }
    }

    /// The thread's rest: until there is a queue to serve. `None`: the end.
    fn next_job(&self) -> Option<(SplitQueue, u64)> {
        let mut slot = self.slot();
        loop {
            match slot.order {
                Order::Exit => return None,
                Order::Run => {
                    if let Some(ring) = slot.ring.take() {
                        slot.busy = true;
                        return Some((ring, slot.features));
                    }
                }
                Order::Park | Order::Cease => {}
            }
            slot = self.wait(slot);
        }
    }

    fn hand_back(&self, ring: SplitQueue) {
        let mut slot = self.slot();
        slot.ring = Some(ring);
        slot.busy = false;
        if slot.order == Order::Run {
            slot.order = Order::Park;
        }
        drop(slot);
        self.changed.notify_all();
    }
}

/// The thread of one queue, with its handler. It parks between drivers and ends with the worker.
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// A worker for queue number `queue`.
    ///
    /// # Errors
    /// No file descriptors are left, or the host has no thread for us.
    pub fn new(
        queue: u16,
        kind: DeviceKind,
        handler: Box<dyn QueueHandler>,
        signal: Arc<dyn Signal>,
        on_start: ThreadStart,
    ) -> io::Result<Self> {
        let slot = Slot { order: Order::Park, ring: None, features: 0, busy: false, gone: false };
        let shared = Shared {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
            attention: AtomicBool::new(true),
            cease: Cease::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        };
        let shared = Arc::new(shared);
        let serving = Serving { queue, handler, shared: shared.clone(), signal };
        let thread = std::thread::Builder::new()
            .name(kind.thread_name().to_owned())
            .stack_size(STACK)
            .spawn(move || serving.main(kind, &on_start))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Where the guest's notifications arrive.
    pub fn kick(&self) -> &EventFd {
        &self.shared.kick
    }

    /// Serve `ring` under these features, from what waits in it on.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn run(&mut self, ring: SplitQueue, features: u64) -> io::Result<()> {
        let mut slot = self.shared.slot();
        if slot.gone {
            return Err(io::Error::other("its worker thread has ended"));
        }
        if slot.busy {
            return Err(io::Error::other("its worker thread still waits for the host's storage"));
        }
        slot.ring = Some(ring);
        slot.features = features;
        drop(slot);
        self.shared.order(Order::Run);
        Ok(())
    }

    /// Finish what was taken from the queue and stop serving; the queue, if it had one. `None` also if it does not come to
    /// rest, see [`Worker::rests`].
    pub fn park(&mut self) -> Option<SplitQueue> {
        self.rest(Order::Park)
    }

    /// As [`Worker::park`], giving up what is not in flight of what was taken from the queue: its driver is gone.
    pub fn cease(&mut self) -> Option<SplitQueue> {
        self.rest(Order::Cease)
    }

    fn rest(&mut self, order: Order) -> Option<SplitQueue> {
        self.shared.order(order);
        // Whoever ends the machine must not wait for who waits here.
        let rests = |slot: &Slot| !slot.busy || slot.gone || slot.order == Order::Exit;
        self.shared.wait_until(Instant::now() + PATIENCE, rests).ring.take()
    }

    /// Nothing is in flight. If it is not so after [`Worker::park`] or [`Worker::cease`], the host's storage does not answer.
    pub fn rests(&self) -> bool {
        !self.shared.slot().busy
    }

    /// The way to its end, past whoever waits for it.
    pub fn ending(&self) -> Ending {
        Ending(self.shared.clone())
    }
}

/// Ends a worker's thread.
pub struct Ending(Arc<Shared>);

impl Ending {
    /// Have it finish what is in flight, and end; there is no way back.
    pub fn order(&self) {
        self.0.order(Order::Exit);
    }

    /// Whether it has ended, at the latest at `deadline`. If not, the host's storage does not answer.
    pub fn wait(&self, deadline: Instant) -> bool {
        self.0.wait_until(deadline, |slot| slot.gone).gone
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.order(Order::Exit);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Serving {
    queue: u16,
    handler: Box<dyn QueueHandler>,
    shared: Arc<Shared>,
    signal: Arc<dyn Signal>,
}

impl Drop for Serving {
    /// However the thread ends, by panic too, nobody waits for it in vain.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.signal.stop("its worker thread panicked, which is a bug of Spore");
        }
        self.shared.slot().gone = true;
        self.shared.changed.notify_all();
    }
}

impl Serving {
    fn main(mut self, kind: DeviceKind, on_start: &ThreadStart) {
        if let Err(error) = on_start(kind) {
            self.signal.stop(&format!("its worker thread could not start: {error}"));
            return;
        }
        while let Some((mut ring, features)) = self.shared.next_job() {
            self.handler.start(features, self.shared.cease.clone());
            if let Err(reason) = self.serve(&mut ring) {
                self.signal.stop(&format!("queue {}: {reason}", self.queue));
            }
            self.quiesce(&mut ring);
            self.shared.hand_back(ring);
        }
    }

    /// Until another order comes, or the device stops.
    fn serve(&mut self, ring: &mut SplitQueue) -> Result<(), String> {
        // What woke us last time. An order since then is seen by `interrupted`.
        let _ = self.shared.wake.read();
        while !self.interrupted() {
            self.drain(ring)?;
            if self.interrupted() {
                break;
            }
            let (wake, kick) = (as_fd(&self.shared.wake), as_fd(&self.shared.kick));
            let fds = [Some(wake), Some(kick), self.handler.completion_fd()];
            let [_, notified, _] = wait_readable(fds, self.handler.due())
                .map_err(|e| format!("cannot wait for the guest: {e}"))?;
            if notified {
                // Before the ring is looked at, so that a later notification is not lost.
                let _ = self.shared.kick.read();
            }
        }
        Ok(())
    }

    /// THE drain loop: serve all that waits, hand over all that is done, one interrupt a batch. It ends early when another
    /// order comes, and when the handler has its hands full: then what waits in the ring waits for that.
    fn drain(&mut self, ring: &mut SplitQueue) -> Result<(), String> {
        let broken = |e| format!("{e}");
        loop {
            ring.disable_notification().map_err(broken)?;
            // One turn of the ring at most, so that a guest that never stops is interrupted nonetheless.
            for _ in 0..ring.size() {
                if self.interrupted() || !self.handler.is_ready() {
                    break;
                }
                let Some(chain) = ring.pop().map_err(broken)? else { break };
                let head = chain.head();
                match self.handler.handle(chain) {
                    Outcome::Done(len) => ring.push_used(head, len).map_err(broken)?,
                    Outcome::Deferred => {}
                    Outcome::Stop(reason) => return Err(reason),
                }
            }
            self.handler.kick().map_err(|e| format!("the host takes no requests: {e}"))?;
            self.complete(ring)?;
            let full = !self.handler.is_ready();
            if full || self.interrupted() || !ring.enable_notification().map_err(broken)? {
                return Ok(());
            }
        }
    }

    /// Give the guest what is finished.
    fn complete(&mut self, ring: &mut SplitQueue) -> Result<(), String> {
        let mut result = Ok(());
        self.handler.completions(&mut |head, len| {
            if result.is_ok() {
                result = ring.push_used(head, len);
            }
        });
        let wanted = result.and_then(|()| ring.publish()).map_err(|e| format!("{e}"))?;
        if wanted {
            self.signal.used(self.queue);
        }
        Ok(())
    }

    /// Wait for what is in flight, so that no host operation touches guest memory afterwards.
    fn quiesce(&mut self, ring: &mut SplitQueue) {
        loop {
            // What a broken batch left behind is begun, too: only then it ends.
            let begun = self.handler.kick();
            // A stopped device's guest sees what was done before it stopped.
            if self.complete(ring).is_err() || begun.is_err() || self.handler.in_flight() == 0 {
                return;
            }
            let (fd, due) = (self.handler.completion_fd(), self.handler.due());
            if fd.is_none() && due.is_none() {
                return;
            }
            // An order to give up what this waits for wakes it.
            if wait_readable([fd, Some(as_fd(&self.shared.wake)), None], due).is_err() {
                return;
            }
            let _ = self.shared.wake.read();
        }
    }

    fn interrupted(&self) -> bool {
        self.shared.attention.load(Ordering::SeqCst) || self.signal.stopped()
    }
}

/// Block until one of the descriptors is readable, and say which (or none: a signal came or `timeout` is over, which costs a
/// look).
fn wait_readable(
    fds: [Option<BorrowedFd<'_>>; 3],
    timeout: Option<Duration>,
) -> io::Result<[bool; 3]> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let mut polled: SmallVec<[PollFd<'_>; 3]> =
        fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && ready.next() == Some(true)))
}
