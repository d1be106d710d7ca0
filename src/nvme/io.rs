//! The thread of an I/O submission queue: it fetches commands, has them carried out, and posts
//! their completions. (NVM Express 1.4, 6)

use super::command::{Command, Completion, Status};
use super::prp;
use super::queue::{MAX_ENTRIES, Submission};
use super::shared::{NAMESPACE, Shared};
use crate::block::Queue;
use crate::sys::eventfd::as_fd;
use crate::sys::fds::wait;
use crate::virtio::blk::executor::{Executor, New};
use crate::virtio::blk::request::{Doing, Range, Ranges, Request};
use crate::virtio::blk::shared::{Geometry, MAX_RANGE_SECTORS, MAX_RANGES, SECTOR};
use crate::virtio::blk::work::Work;
use crate::virtio::command;
use crate::virtio::device::{PollFds, ThreadStart};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Opcodes. (6, figure 346)
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
/// Every namespace, as a flush may mean.
const ALL_NAMESPACES: u32 = !0;
/// Of dword 12: Force Unit Access, and Deallocate of Write Zeroes. (6.15, 6.16)
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// Of dword 11 of Dataset Management: Deallocate. (6.7)
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;
/// Bytes of a range of Dataset Management.
const RANGE_LEN: usize = 16;

/// What a command asks for.
#[derive(Debug)]
pub struct Asked {
    /// Nothing, if there is nothing to do.
    pub request: Option<Request>,
    /// It has to be durable when it completes.
    pub durable: bool,
}

/// Read a command, once, and check it against the disk.
///
/// # Errors
/// It is refused.
pub fn parse(command: &Command, shared: &Shared, disk: Geometry) -> Result<Asked, Status> {
    let (opcode, namespace) = (command.opcode(), command.namespace());
    if !command.is_plain() {
        return Err(Status::INVALID_FIELD);
    }
    if namespace != NAMESPACE && !(opcode == FLUSH && namespace == ALL_NAMESPACES) {
        return Err(Status::INVALID_NAMESPACE);
    }
    let changes = matches!(opcode, WRITE | WRITE_ZEROES | DATASET_MANAGEMENT);
    if changes && disk.read_only {
        return Err(Status::NAMESPACE_WRITE_PROTECTED);
    }
    let blocks = (command.dword(12) & 0xffff) + 1;
    let asked = |request| Asked { request: Some(request), durable: shared.write_through() };
    match opcode {
        FLUSH => Ok(Asked { request: Some(Request::Flush), durable: false }),
        READ | WRITE => {
            let len = blocks * SECTOR as u32;
            if len > prp::MAX_DATA {
                return Err(Status::INVALID_FIELD);
            }
            let offset = inside(command.pair(10), blocks.into(), disk)?;
            let data = prp::segments(&shared.ram, command.prps(), len)?;
            if opcode == READ {
                return Ok(Asked {
                    request: Some(Request::Read { offset, len, data }),
                    durable: false,
                });
            }
            let durable = command.dword(12) & FORCE_UNIT_ACCESS != 0 || shared.write_through();
            Ok(Asked { request: Some(Request::Write { offset, len, data }), durable })
        }
        WRITE_ZEROES => {
            let len = u64::from(blocks) * SECTOR;
            let offset = inside(command.pair(10), blocks.into(), disk)?;
            let unmap = command.dword(12) & DEALLOCATE != 0;
            let mut asked =
                asked(Request::WriteZeroes(Ranges::from_buf([Range { offset, len, unmap }])));
            asked.durable |= command.dword(12) & FORCE_UNIT_ACCESS != 0;
            Ok(asked)
        }
        DATASET_MANAGEMENT => {
            let ranges = ranges(command, shared, disk)?;
            if command.dword(11) & ATTRIBUTE_DEALLOCATE == 0 || ranges.is_empty() {
                // Hints that nobody has a use for.
                return Ok(Asked { request: None, durable: false });
            }
            Ok(asked(Request::Discard(ranges)))
        }
        _ => Err(Status::INVALID_OPCODE),
    }
}

/// The byte offset of so many blocks, if they are inside the disk.
fn inside(block: u64, blocks: u64, disk: Geometry) -> Result<u64, Status> {
    let end = block.checked_add(blocks).ok_or(Status::LBA_OUT_OF_RANGE)?;
    if end > disk.size / SECTOR {
        return Err(Status::LBA_OUT_OF_RANGE);
    }
    Ok(block * SECTOR)
}

/// The ranges of Dataset Management. No more are deallocated than the controller says that it
/// takes (Identify with CNS 6), as it may: the command is a hint.
fn ranges(command: &Command, shared: &Shared, disk: Geometry) -> Result<Ranges, Status> {
    let count = (command.dword(10) & 0xff) as usize + 1;
    let mut bytes = vec![0; count * RANGE_LEN];
    prp::read(&shared.ram, command.prps(), &mut bytes)?;
    let mut ranges = Ranges::new();
    for raw in bytes.chunks_exact(RANGE_LEN) {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        let (blocks, block) = (number(&raw[4..8]), number(&raw[8..16]));
        let offset = inside(block, blocks, disk)?;
        let len = blocks.min(MAX_RANGE_SECTORS.into()) * SECTOR;
        if len > 0 && ranges.len() < MAX_RANGES as usize {
            ranges.push(Range { offset, len, unmap: false });
        }
    }
    Ok(ranges)
}

/// How a command fails whose request the host could not do.
fn host_status(doing: Doing, error: &io::Error) -> Status {
    match (doing, error.kind()) {
        (Doing::Read, _) => Status::READ_ERROR,
        (_, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Status::CAPACITY_EXCEEDED,
        _ => Status::WRITE_FAULT,
    }
}

/// What the thread owns.
pub struct IoThread {
    orders: Arc<command::Shared<Submission>>,
    shared: Arc<Shared>,
    /// By the command's id.
    executor: Executor<u16>,
}

impl Drop for IoThread {
    /// However the thread ends, by panic too, nobody waits for it in vain.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.stop("its worker thread panicked, which is a bug of Spore");
        }
        self.orders.ended();
    }
}

impl IoThread {
    /// That which follows `orders`, and works through `queue`.
    pub fn new(
        orders: Arc<command::Shared<Submission>>,
        shared: Arc<Shared>,
        queue: Box<dyn Queue>,
    ) -> Self {
        let executor = Executor::new(shared.disk.clone(), queue);
        Self { orders, shared, executor }
    }

    /// Serves one queue after the other, until it is commanded to end.
    pub fn main(mut self, on_start: ThreadStart) {
        if let Err(error) = on_start(&super::TYPE) {
            self.shared.stop(&format!("its worker thread could not start: {error}"));
            return;
        }
        drop(on_start);
        while let Some((mut queue, _)) = self.orders.next_job() {
            self.executor.start(self.orders.cease.clone());
            if let Err(error) = self.serve(&mut queue) {
                self.shared.stop(&error.to_string());
            }
            self.finish(&mut queue);
            self.orders.hand_back(queue, self.shared.stopped());
        }
    }

    /// Serves until another command comes, or the controller stops.
    fn serve(&mut self, queue: &mut Submission) -> io::Result<()> {
        // What woke us last time. A command since then is seen by `interrupted`.
        let _ = self.orders.wake.read();
        while !self.interrupted() {
            while self.turn(queue)? {}
            if self.interrupted() {
                break;
            }
            let mut fds = PollFds::new();
            fds.push(readable(as_fd(&self.orders.notify)));
            fds.push(readable(as_fd(&self.orders.wake)));
            self.executor.wake_on(&mut fds);
            wait(&mut fds, self.executor.due())?;
            if !fds[0].revents().is_empty() {
                // Before the tail is looked at, so that a later doorbell is not lost.
                let _ = self.orders.notify.read();
            }
        }
        Ok(())
    }

    /// Takes what waits, a queue's worth at most, so that a guest that never stops is answered
    /// nonetheless. Whether there is more to do at once.
    fn turn(&mut self, queue: &mut Submission) -> io::Result<bool> {
        let mut took = false;
        for _ in 0..queue.size {
            if self.interrupted() || !self.takes_more(queue) {
                break;
            }
            let Some(command) = queue.fetch(&self.shared.ram, self.shared.tail(queue.id)) else {
                break;
            };
            took = true;
            self.begin(&command, queue);
        }
        self.executor.submit_batch()?;
        let posted = self.complete(queue);
        Ok((took || posted) && !self.interrupted())
    }

    /// Neither more at a time than a queue has entries, nor while the driver takes no completions:
    /// what was refused in this turn waits for its end.
    fn takes_more(&self, queue: &Submission) -> bool {
        let under_way = self.executor.in_flight() + queue.backlog.len();
        self.executor.is_ready() && under_way < MAX_ENTRIES as usize
    }

    fn begin(&mut self, command: &Command, queue: &mut Submission) {
        let mut answer = |status: Status| {
            let refused = status != Status::SUCCESS;
            if refused {
                self.shared.disk.errors.fetch_add(1, Ordering::Relaxed);
            }
            queue.backlog.push_back(Completion { id: command.id(), status, result: 0 });
        };
        let asked = match parse(command, &self.shared, self.shared.disk.geometry()) {
            Ok(asked) => asked,
            Err(status) => return answer(status),
        };
        let Some(request) = asked.request else { return answer(Status::SUCCESS) };
        let Some((work, doing, len)) = Work::of(request, &self.shared.ram) else {
            return answer(Status::DATA_TRANSFER_ERROR);
        };
        let new = New { asker: command.id(), work, doing, len, write_through: asked.durable };
        self.executor.begin(new, &self.shared.ram);
    }

    /// Gives the driver what is finished. True if there was something, and room for it.
    fn complete(&mut self, queue: &mut Submission) -> bool {
        self.executor.completions(&mut |id, doing, error| {
            let status = error.map_or(Status::SUCCESS, |error| host_status(doing, &error));
            queue.backlog.push_back(Completion { id, status, result: 0 });
        });
        self.shared.post(queue)
    }

    /// Waits for what is in flight, so that no host operation touches guest memory afterwards.
    fn finish(&mut self, queue: &mut Submission) {
        loop {
            let begun = self.executor.submit_batch();
            self.complete(queue);
            if begun.is_err() || self.executor.in_flight() == 0 {
                return;
            }
            let (mut fds, due) = (PollFds::new(), self.executor.due());
            self.executor.wake_on(&mut fds);
            if fds.is_empty() && due.is_none() {
                return;
            }
            // A command to give up what this waits for wakes it.
            fds.push(readable(as_fd(&self.orders.wake)));
            if wait(&mut fds, due).is_err() {
                return;
            }
            let _ = self.orders.wake.read();
        }
    }

    fn interrupted(&self) -> bool {
        self.orders.has_command() || self.shared.stopped()
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}
