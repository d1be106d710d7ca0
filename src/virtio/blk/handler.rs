//! Answers requests of a virtqueue, which are carried out through a queue of the disk.

use super::executor::{Executor, New};
use super::request::{Doing, Refusal, Request, parse, status_address};
use super::shared::{Shared, bit};
use super::work::Work;
use crate::block::Queue;
use crate::mem::GuestRam;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use virtio_bindings::virtio_blk::*;
use vm_memory::{Bytes, GuestAddress};

/// Who asks for a request: a chain.
struct Asker {
    head: u16,
    status: GuestAddress,
    /// Bytes that the guest may find written, if it succeeds and if it fails.
    used: (u32, u32),
}

/// One request queue of a disk.
pub(super) struct BlkQueue {
    shared: Arc<Shared>,
    /// The virtqueue's number.
    number: u16,
    features: u64,
    executor: Executor<Asker>,
    /// Guest RAM, from the first request on: status bytes are written when requests finish.
    ram: Option<GuestRam>,
}

impl BlkQueue {
    pub fn new(shared: Arc<Shared>, number: u16, queue: Box<dyn Queue>) -> Self {
        let executor = Executor::new(shared.clone(), queue);
        Self { shared, number, features: 0, executor, ram: None }
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
}

/// The bytes written by a request that only got its status, counted from the beginning of its
/// writable part as 2.7.8.2 wants: none, unless the status byte is all there is.
fn failed_len(chain: &DescriptorChain) -> u32 {
    u32::from(chain.writable_len() == 1)
}

impl QueueHandler for BlkQueue {
    fn start(&mut self, features: u64, cease: Cease) {
        self.features = features;
        self.executor.start(cease);
    }

    fn is_ready(&self, _queue: u16) -> bool {
        self.executor.is_ready()
    }

    fn due(&self) -> Option<Duration> {
        self.executor.due()
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
        let asker = Asker { head: chain.head(), status, used: (written, failed) };
        // 5.2.6.2: without VIRTIO_BLK_F_FLUSH a write is durable when it completes.
        let write_through = doing.changes() && self.features & bit(VIRTIO_BLK_F_FLUSH) == 0;
        self.ram.get_or_insert_with(|| chain.ram().clone());
        self.executor.begin(New { asker, work, doing, len, write_through }, chain.ram());
        Outcome::Deferred
    }

    fn submit_batch(&mut self) -> io::Result<()> {
        self.executor.submit_batch()
    }

    fn wake_on<'a>(&'a self, _waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        self.executor.wake_on(fds);
    }

    fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        let Self { executor, ram, number, .. } = self;
        executor.completions(&mut |asker, _, error| {
            let (code, used) = match error {
                None => (VIRTIO_BLK_S_OK, asker.used.0),
                Some(_) => (VIRTIO_BLK_S_IOERR, asker.used.1),
            };
            if let Some(ram) = ram {
                // The address was found in RAM, which does not go away.
                let _ = ram.write_obj(code as u8, asker.status);
            }
            each(*number, asker.head, used);
        });
    }

    fn in_flight(&self) -> usize {
        self.executor.in_flight()
    }
}
