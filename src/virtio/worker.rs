//! Worker threads: each serves a range of a device's queues, and does what its device's transport
//! commands.

use crate::virtio::command::{Command, Ending, Rings, Shared, Slot};
use crate::virtio::device::{DeviceType, Service, Signal, ThreadStart};
use crate::virtio::queue_thread::QueueThread;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Address space for a worker's stack; only what it touches costs memory.
const STACK: usize = 512 << 10;
/// A worker that has not come to rest so long after it was told to waits for host storage that does
/// not answer. What it is in the middle of is at most some dozen MiB.
const PATIENCE: Duration = Duration::from_secs(30);

/// The thread of a service, which serves queues that are a `Q`. It parks between drivers and ends
/// with the worker.
pub struct Worker<Q = Rings> {
    queues: Range<u16>,
    shared: Arc<Shared<Q>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// A worker for a service of a device of this kind.
    ///
    /// # Errors
    /// No file descriptors are left, or the host has no thread for us.
    pub fn new(
        kind: &'static DeviceType,
        service: Service,
        signal: Arc<dyn Signal>,
        on_start: ThreadStart,
    ) -> io::Result<Self> {
        let Service { queues, handler } = service;
        Self::start(kind, queues, move |shared| {
            QueueThread::new(handler, shared, signal).main(kind, on_start);
        })
    }
}

impl<Q: Send + 'static> Worker<Q> {
    /// A worker whose thread is `main`, for queues with these numbers.
    ///
    /// # Errors
    /// As [`Worker::new`]'s.
    pub(crate) fn start(
        kind: &'static DeviceType,
        queues: Range<u16>,
        main: impl FnOnce(Arc<Shared<Q>>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name(kind.thread.to_owned())
            .stack_size(STACK)
            .spawn(move || main(own))?;
        Ok(Self { queues, shared, thread: Some(thread) })
    }

    /// The numbers of its queues.
    pub fn queues(&self) -> Range<u16> {
        self.queues.clone()
    }

    /// Where the guest's notifications of its queues arrive.
    pub fn notify_fd(&self) -> &EventFd {
        &self.shared.notify
    }

    /// What it shares with its thread, for whoever notifies it without the worker.
    pub(crate) fn shared(&self) -> Arc<Shared<Q>> {
        self.shared.clone()
    }

    /// Serves `rings` under these features, from what waits in them on. A worker that was parked,
    /// but too slow to hand its own rings back, goes on with those: they are ahead of what was
    /// known of them.
    ///
    /// # Errors
    /// The thread has ended, or still is in the middle of what a reset should have ended.
    pub fn run(&mut self, rings: Q, features: u64) -> io::Result<()> {
        let mut slot = self.shared.slot();
        if slot.gone {
            return Err(io::Error::other("its worker thread has ended"));
        }
        let has_own = slot.busy || slot.rings.is_some();
        match slot.command {
            Command::Run if has_own => return Ok(()),
            Command::Park if has_own => {}
            _ if slot.busy => {
                let why = "its worker thread still waits for the host's storage";
                return Err(io::Error::other(why));
            }
            _ => (slot.rings, slot.features) = (Some(rings), features),
        }
        drop(slot);
        self.shared.command(Command::Run);
        Ok(())
    }

    /// Serves on with the queues that it still has, if it has any: it was parked, and too slow.
    pub(crate) fn go_on(&self) {
        let slot = self.shared.slot();
        let has_own = slot.busy || slot.rings.is_some();
        drop(slot);
        if has_own {
            self.shared.command(Command::Run);
        }
    }

    /// Finishes what was taken from the queues and stops serving; the queues, if it had any. `None`
    /// also if it does not come to rest, see [`Worker::rests`].
    pub fn park(&mut self) -> Option<Q> {
        self.rest(Command::Park)
    }

    /// As [`Worker::park`], giving up what is not in flight of what was taken from the queues:
    /// their driver is gone.
    pub fn cease(&mut self) -> Option<Q> {
        self.rest(Command::Cease)
    }

    /// As [`Worker::park`] of each of a device's workers, in the time that one has: what they had.
    pub fn park_all(workers: &mut [Self]) -> Vec<Q> {
        Self::rest_all(workers, Command::Park)
    }

    /// As [`Worker::cease`] of each of a device's workers, in the time that one has.
    pub fn cease_all(workers: &mut [Self]) {
        drop(Self::rest_all(workers, Command::Cease));
    }

    fn rest(&mut self, command: Command) -> Option<Q> {
        Self::rest_all(std::slice::from_mut(self), command).pop()
    }

    fn rest_all(workers: &mut [Self], command: Command) -> Vec<Q> {
        workers.iter().for_each(|worker| worker.shared.command(command));
        let deadline = Instant::now() + PATIENCE;
        // Whoever ends the machine must not wait for who waits here.
        let rests = |slot: &Slot<Q>| !slot.busy || slot.gone || slot.command == Command::Exit;
        let take = |worker: &Self| worker.shared.wait_until(deadline, rests).rings.take();
        workers.iter().filter_map(take).collect()
    }

    /// Nothing is in flight. If it is not so after [`Worker::park`] or [`Worker::cease`], the
    /// host's storage does not answer.
    pub fn rests(&self) -> bool {
        !self.shared.slot().busy
    }

    /// The way to its end, past whoever waits for it.
    pub fn ending(&self) -> Ending {
        Ending::of(self.shared.clone())
    }
}

impl<Q> Drop for Worker<Q> {
    fn drop(&mut self) {
        self.shared.command(Command::Exit);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::rng::TYPE;
    use std::sync::Barrier;

    /// Two queues of which neither comes to rest before the other is asked to, too.
    #[test]
    fn all_of_a_device_are_asked_to_rest_at_once() {
        let asked = Arc::new(Barrier::new(2));
        let start = |number: u16| {
            let asked = asked.clone();
            let main = move |shared: Arc<Shared<u16>>| {
                while let Some((queue, _)) = shared.next_job() {
                    drop(shared.wait_until(Instant::now() + PATIENCE, |_| shared.has_command()));
                    asked.wait();
                    shared.hand_back(queue, false);
                }
                shared.ended();
            };
            Worker::start(&TYPE, number..number + 1, main).unwrap()
        };
        let mut workers = [start(0), start(1)];
        for (number, worker) in (7..).zip(&mut workers) {
            worker.run(number, 0).unwrap();
        }
        assert_eq!(Worker::park_all(&mut workers), [7, 8]);
        assert!(workers.iter().all(Worker::rests));
    }
}
