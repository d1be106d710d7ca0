//! What a worker and its thread say to each other: commands, and queues that go and come back.

use crate::virtio::device::Cease;
use crate::virtio::queue::SplitQueue;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What a worker shall do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Finish what was taken from the rings, and rest.
    Park,
    /// Finish what is in flight, give up the rest of what was taken from the rings, and rest.
    Cease,
    Run,
    /// As [`Command::Cease`], and end.
    Exit,
}

/// A live queue of a service.
pub struct Served {
    /// Its number within the device.
    pub queue: u16,
    /// The queue.
    pub ring: SplitQueue,
    /// Its first chain was put back by [`Outcome::NotNow`](super::device::Outcome::NotNow).
    pub(super) waits: bool,
    /// The last round took chains from it.
    pub(super) took: bool,
    /// Heads of the chains taken last that are [`Outcome::Kept`](super::device::Outcome::Kept) and
    /// not handed over, in the order in which they were taken.
    pub(super) kept: VecDeque<u16>,
}

impl Served {
    /// The ring of queue number `queue`.
    pub fn new(queue: u16, ring: SplitQueue) -> Self {
        Self { queue, ring, waits: false, took: false, kept: VecDeque::new() }
    }
}

/// The queues of a service that the driver has made ready.
pub type Rings = Vec<Served>;

/// Where commands go to the thread and the queues, `Q`, come back.
pub(crate) struct Slot<Q> {
    pub(super) command: Command,
    /// The queues, while the thread is parked.
    pub rings: Option<Q>,
    pub features: u64,
    /// The thread has the queues.
    pub busy: bool,
    /// The thread has ended.
    pub gone: bool,
}

/// What a worker and its thread share. The thread serves queues that are a `Q`.
pub(crate) struct Shared<Q> {
    slot: Mutex<Slot<Q>>,
    changed: Condvar,
    /// Any command but [`Command::Run`] waits; what the drain loop looks at before each request.
    attention: AtomicBool,
    /// The command is to give up what was begun; what handlers look at within a request.
    pub cease: Cease,
    /// Wakes a thread that polls.
    pub wake: EventFd,
    /// The guest's notifications of any of the queues.
    pub notify: EventFd,
}

impl<Q> Shared<Q> {
    pub fn new() -> io::Result<Self> {
        let slot =
            Slot { command: Command::Park, rings: None, features: 0, busy: false, gone: false };
        Ok(Self {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
            attention: AtomicBool::new(true),
            cease: Cease::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            notify: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// A poisoned lock is only a thread that panicked elsewhere; the slot is valid at every step.
    pub fn slot(&self) -> MutexGuard<'_, Slot<Q>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a command waits for the thread.
    pub fn has_command(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Waits until the slot is as wanted, at the latest until `deadline`.
    pub fn wait_until(
        &self,
        deadline: Instant,
        done: impl Fn(&Slot<Q>) -> bool,
    ) -> MutexGuard<'_, Slot<Q>> {
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

    pub(super) fn command(&self, command: Command) {
        let mut slot = self.slot();
        if slot.command == Command::Exit {
            // There is no way back.
            return;
        }
        slot.command = command;
        self.cease.set(matches!(command, Command::Cease | Command::Exit));
        self.attention.store(command != Command::Run, Ordering::SeqCst);
        drop(slot);
        self.changed.notify_all();
        if command != Command::Run {
            // It fails only when the counter is full, and then the thread is woken already.
            let _ = self.wake.write(1);
        }
    }

    /// The thread's rest: until there are queues to serve, with the features agreed upon. `None`:
    /// the end.
    pub fn next_job(&self) -> Option<(Q, u64)> {
        let mut slot = self.slot();
        loop {
            match slot.command {
                Command::Exit => return None,
                Command::Run => {
                    if let Some(rings) = slot.rings.take() {
                        slot.busy = true;
                        return Some((rings, slot.features));
                    }
                }
                Command::Park | Command::Cease => {}
            }
            slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the queues back from the thread, which goes on with them only if it was commanded to
    /// meanwhile.
    pub fn hand_back(&self, rings: Q, device_stopped: bool) {
        let mut slot = self.slot();
        slot.rings = Some(rings);
        slot.busy = false;
        if slot.command == Command::Run && device_stopped {
            slot.command = Command::Park;
        }
        drop(slot);
        self.changed.notify_all();
    }

    /// The thread has ended.
    pub fn ended(&self) {
        self.slot().gone = true;
        self.changed.notify_all();
    }
}

/// What an end needs of it, whatever the queues are.
trait Ends: Send + Sync {
    fn order(&self);
    fn wait(&self, deadline: Instant) -> bool;
}

impl<Q: Send> Ends for Shared<Q> {
    fn order(&self) {
        self.command(Command::Exit);
    }

    fn wait(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |slot| slot.gone).gone
    }
}

/// Ends a worker's thread.
pub struct Ending(Arc<dyn Ends>);

impl Ending {
    pub(super) fn of<Q: Send + 'static>(shared: Arc<Shared<Q>>) -> Self {
        Self(shared)
    }

    /// Has it finish what is in flight, and end; there is no way back.
    pub fn order(&self) {
        self.0.order();
    }

    /// Whether it has ended, at the latest at `deadline`. If not, the host's storage does not
    /// answer.
    pub fn wait(&self, deadline: Instant) -> bool {
        self.0.wait(deadline)
    }
}
