//! The thread of a service: the one drain loop that feeds every device's queues.

use crate::sys::eventfd::as_fd;
use crate::sys::fds::wait;
use crate::virtio::command::{Rings, Served, Shared};
use crate::virtio::device::{DeviceType, Outcome, PollFds, QueueHandler, Signal, ThreadStart};
use rustix::event::{PollFd, PollFlags};
use std::sync::Arc;

/// What the thread owns.
pub(super) struct QueueThread {
    handler: Box<dyn QueueHandler>,
    shared: Arc<Shared<Rings>>,
    signal: Arc<dyn Signal>,
}

impl Drop for QueueThread {
    /// However the thread ends, by panic too, nobody waits for it in vain.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.signal.stop("its worker thread panicked, which is a bug of Spore");
        }
        self.shared.ended();
    }
}

impl QueueThread {
    pub fn new(
        handler: Box<dyn QueueHandler>,
        shared: Arc<Shared<Rings>>,
        signal: Arc<dyn Signal>,
    ) -> Self {
        Self { handler, shared, signal }
    }

    /// Serves the queues of one driver after the other, until it is commanded to end.
    pub fn main(mut self, kind: &'static DeviceType, on_start: ThreadStart) {
        if let Err(error) = on_start(kind) {
            self.signal.stop(&format!("its worker thread could not start: {error}"));
            return;
        }
        drop(on_start);
        while let Some((mut rings, features)) = self.shared.next_job() {
            self.handler.start(features, self.shared.cease.clone());
            if let Err(reason) = self.serve(&mut rings) {
                self.signal.stop(&reason);
            }
            self.quiesce(&mut rings);
            self.shared.hand_back(rings, self.signal.stopped());
        }
    }

    /// Serves until another command comes, or the device stops.
    fn serve(&mut self, rings: &mut [Served]) -> Result<(), String> {
        // What woke us last time. A command since then is seen by `interrupted`.
        let _ = self.shared.wake.read();
        while !self.interrupted() {
            self.drain(rings)?;
            if self.interrupted() {
                break;
            }
            let mut fds = PollFds::new();
            fds.push(readable(as_fd(&self.shared.notify)));
            fds.push(readable(as_fd(&self.shared.wake)));
            let waits = |queue| rings.iter().any(|served| served.queue == queue && served.waits);
            self.handler.wake_on(&waits, &mut fds);
            wait(&mut fds, self.handler.due())
                .map_err(|e| format!("cannot wait for the guest: {e}"))?;
            if !fds[0].revents().is_empty() {
                // Before the rings are looked at, so that a later notification is not lost.
                let _ = self.shared.notify.read();
            }
        }
        Ok(())
    }

    /// Drains the rings: serves every available chain, publishes completions, raises at most one
    /// interrupt per batch and queue. It ends early when another command comes, and leaves a queue
    /// alone whose handler has its hands full or has no use for its next chain now.
    fn drain(&mut self, rings: &mut [Served]) -> Result<(), String> {
        loop {
            for served in rings.iter_mut() {
                self.take(served)?;
            }
            self.handler.submit_batch().map_err(|e| format!("the host takes no requests: {e}"))?;
            let finished = self.complete(rings)?;
            if self.interrupted() || !self.goes_on(rings, finished)? {
                return Ok(());
            }
        }
    }

    /// Hands over what waits in a ring: one turn of it at most, so that a guest that never stops is
    /// interrupted nonetheless.
    fn take(&mut self, served: &mut Served) -> Result<(), String> {
        let Served { queue, ring, waits, took, kept } = served;
        let broken = |e| format!("queue {queue}: {e}");
        (*waits, *took) = (false, false);
        ring.disable_notification().map_err(broken)?;
        for _ in 0..ring.size() {
            if self.interrupted() || !self.handler.is_ready(*queue) {
                break;
            }
            let Some(chain) = ring.pop().map_err(broken)? else { break };
            let head = chain.head();
            match self.handler.handle(*queue, chain) {
                Outcome::Done(len) => ring.push_used(head, len).map_err(broken)?,
                Outcome::Deferred => {}
                Outcome::Kept => kept.push_back(head),
                Outcome::NotNow => {
                    ring.put_back(head);
                    *waits = true;
                    break;
                }
                Outcome::Stop(reason) => return Err(format!("queue {queue}: {reason}")),
            }
            *took = true;
        }
        Ok(())
    }

    /// Whether there is more to do already, after something was `finished` or nothing. If not, the
    /// driver notifies of what comes.
    fn goes_on(&self, rings: &mut [Served], finished: bool) -> Result<bool, String> {
        let (mut more, mut waits, took) =
            (false, false, rings.iter().filter(|served| served.took).count());
        for Served { queue, ring, waits: put_back, took: own, .. } in rings {
            if *put_back {
                // What another queue brought, or what is finished now, may be what its chain waits
                // for. Else only a descriptor tells, so that no notification of further chains is
                // of use.
                waits |= finished || took > usize::from(*own);
            } else if self.handler.is_ready(*queue) {
                more |= ring.enable_notification().map_err(|e| format!("queue {queue}: {e}"))?;
            }
        }
        Ok(more || waits)
    }

    /// Gives the guest what is finished; false if nothing is.
    fn complete(&mut self, rings: &mut [Served]) -> Result<bool, String> {
        let (mut result, mut finished) = (Ok(()), false);
        self.handler.completions(&mut |queue, head, len| {
            finished = true;
            let served = rings.iter_mut().find(|served| served.queue == queue);
            if let (true, Some(served)) = (result.is_ok(), served) {
                served.kept.pop_front();
                result = served.ring.push_used(head, len);
            }
        });
        result.map_err(|e| format!("{e}"))?;
        for Served { queue, ring, .. } in rings {
            if ring.publish().map_err(|e| format!("queue {queue}: {e}"))? {
                self.signal.used(*queue);
            }
        }
        Ok(finished)
    }

    /// Waits for what is in flight, so that no host operation touches guest memory afterwards, and
    /// puts back what was kept. Chains that were put back are not in flight: they are in the ring.
    fn quiesce(&mut self, rings: &mut Rings) {
        self.finish(rings);
        for Served { ring, kept, .. } in rings {
            std::mem::take(kept).into_iter().rev().for_each(|head| ring.put_back(head));
        }
    }

    fn finish(&mut self, rings: &mut Rings) {
        loop {
            // What a broken batch left behind is begun, too: only then it ends.
            let begun = self.handler.submit_batch();
            // A stopped device's guest sees what was done before it stopped.
            if self.complete(rings).is_err() || begun.is_err() || self.handler.in_flight() == 0 {
                return;
            }
            let (mut fds, due) = (PollFds::new(), self.handler.due());
            self.handler.wake_on(&|_| false, &mut fds);
            if fds.is_empty() && due.is_none() {
                return;
            }
            // A command to give up what this waits for wakes it.
            fds.push(readable(as_fd(&self.shared.wake)));
            if wait(&mut fds, due).is_err() {
                return;
            }
            let _ = self.shared.wake.read();
        }
    }

    fn interrupted(&self) -> bool {
        self.shared.has_command() || self.signal.stopped()
    }
}

fn readable(fd: std::os::fd::BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::chain::DescriptorChain;
    use crate::virtio::device::Cease;
    use crate::virtio::feature;
    use crate::virtio::queue::SplitQueue;
    use crate::virtio::testing::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Queue 0 waits for the one request in queue 1.
    struct Waiting {
        finishes: Arc<AtomicBool>,
        head: Option<u16>,
    }

    impl QueueHandler for Waiting {
        fn start(&mut self, _features: u64, _cease: Cease) {}

        fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
            match (queue, self.head) {
                (0, Some(_)) => Outcome::NotNow,
                (0, None) => Outcome::Done(0),
                _ => {
                    self.head = Some(chain.head());
                    Outcome::Deferred
                }
            }
        }

        fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
            if self.finishes.load(Ordering::SeqCst)
                && let Some(head) = self.head.take()
            {
                each(1, head, 0);
            }
        }
    }

    struct Silent;

    impl Signal for Silent {
        fn used(&self, _queue: u16) {}
        fn config_changed(&self) {}
        fn stop(&self, reason: &str) {
            panic!("{reason}");
        }
        fn stopped(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_is_finished_may_be_what_another_queue_waits_for() {
        let ram = ram();
        let mut drivers = [Driver::new(&ram, 0, 16), Driver::new(&ram, 0x4000, 16)];
        let mut rings: Rings = (0..)
            .zip(&drivers)
            .map(|(queue, driver)| {
                Served::new(
                    queue,
                    SplitQueue::new(ram.clone(), driver.state, 16, feature::RING).unwrap(),
                )
            })
            .collect();
        let finishes = Arc::new(AtomicBool::new(false));
        let handler = Box::new(Waiting { finishes: finishes.clone(), head: None });
        let shared = Arc::new(Shared::new().unwrap());
        shared.command(crate::virtio::command::Command::Run);
        let mut thread = QueueThread::new(handler, shared, Arc::new(Silent));
        let mut offer = |queue: usize| {
            drivers[queue].chain(0, &[(BUFFERS, 8, true)]);
            drivers[queue].offer(0);
        };
        offer(1);
        thread.drain(&mut rings).unwrap();
        offer(0);
        thread.drain(&mut rings).unwrap();
        finishes.store(true, Ordering::SeqCst);
        // Nothing wakes the thread after this.
        thread.drain(&mut rings).unwrap();
        assert_eq!(drivers[1].used(), [(0, 0)]);
        assert_eq!(drivers[0].used(), [(0, 0)]);
    }
}
