//! For unit tests: the guest's side of a virtqueue, and a disk in memory.

use crate::block::{Disk, Engine, Op, Queue};
use crate::mem::GuestRam;
use crate::virtio::Notices;
use crate::virtio::queue::QueueState;
use crate::virtio::transport::pci::{Message, MsiRouting};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Test guests' RAM.
pub const RAM: u64 = 1 << 20;
/// Where test guests have their buffers; rings are below.
pub const BUFFERS: u64 = 0x2_0000;

/// One region of zeroed RAM.
pub fn ram() -> GuestRam {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap())
}

/// Notices into a list.
pub fn notices() -> (Notices, Arc<Mutex<Vec<String>>>) {
    let list: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = list.clone();
    (Notices::new(Arc::new(move |line: &str| sink.lock().unwrap().push(line.into()))), list)
}

/// The driver of one queue.
pub struct Driver {
    pub ram: GuestRam,
    pub state: QueueState,
    avail: u16,
    used_seen: u16,
}

impl Driver {
    /// A queue whose rings begin at `base`, one behind the other. (VIRTIO 1.2, 2.7)
    pub fn new(ram: &GuestRam, base: u64, size: u16) -> Self {
        let avail = base + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let state =
            QueueState { size, ready: true, desc: base, avail, used, ..QueueState::default() };
        Self { ram: ram.clone(), state, avail: 0, used_seen: 0 }
    }

    /// The same driver in a machine that has gone on with other memory.
    pub fn moved(&self, ram: &GuestRam) -> Self {
        Self { ram: ram.clone(), ..*self }
    }

    /// Write descriptor `index` of a table.
    pub fn desc_at(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let words = [addr, u64::from(next) << 48 | u64::from(flags) << 32 | u64::from(len)];
        self.ram.write_obj(words, GuestAddress(table + u64::from(index) * 16)).unwrap();
    }

    /// Write descriptor `index`.
    pub fn desc(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.desc_at(self.state.desc, index, addr, len, flags, next);
    }

    /// Descriptors `first..` as one chain of (address, length, writable).
    pub fn chain(&self, first: u16, pieces: &[(u64, u32, bool)]) {
        for (index, &(addr, len, writable)) in (first..).zip(pieces) {
            let last = usize::from(index - first) + 1 == pieces.len();
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.desc(index, addr, len, flags, index + 1);
        }
    }

    /// Make the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.avail % self.state.size);
        self.ram.write_obj(head, GuestAddress(self.state.avail + 4 + 2 * slot)).unwrap();
        self.set_avail(self.avail.wrapping_add(1));
    }

    /// Set the available index to anything.
    pub fn set_avail(&mut self, index: u16) {
        self.avail = index;
        self.ram.write_obj(index, GuestAddress(self.state.avail + 2)).unwrap();
    }

    /// Ask for an interrupt at the next chain given back (used_event).
    pub fn want_interrupt(&self) {
        let at = self.state.avail + 4 + 2 * u64::from(self.state.size);
        self.ram.store(self.used_seen, GuestAddress(at), Ordering::SeqCst).unwrap();
        fence(Ordering::SeqCst);
    }

    /// Chains given back since the last call: (head, bytes written).
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let at = GuestAddress(self.state.used + 2);
        let index: u16 = self.ram.load(at, Ordering::Acquire).unwrap();
        let mut used = Vec::new();
        while self.used_seen != index {
            let slot = u64::from(self.used_seen % self.state.size);
            let element: [u32; 2] =
                self.ram.read_obj(GuestAddress(self.state.used + 4 + 8 * slot)).unwrap();
            used.push((element[0], element[1]));
            self.used_seen = self.used_seen.wrapping_add(1);
        }
        used
    }
}

/// A disk in memory.
#[derive(Clone)]
pub struct MemDisk {
    pub bytes: Arc<Mutex<Vec<u8>>>,
    pub read_only: bool,
    /// Operations finish in another thread, and by a descriptor.
    pub deferred: bool,
    /// What operations fail with (errno).
    pub error: Arc<Mutex<Option<i32>>>,
    /// Names of the operations done.
    pub log: Arc<Mutex<Vec<&'static str>>>,
}

impl MemDisk {
    pub fn new(size: usize) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(vec![0; size])),
            read_only: false,
            deferred: false,
            error: Arc::default(),
            log: Arc::default(),
        }
    }
}

impl Disk for MemDisk {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn discard_granularity(&self) -> u32 {
        65536
    }

    fn queue(&self, engine: Engine) -> io::Result<Box<dyn Queue>> {
        if engine == Engine::Uring {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (sender, done) = channel();
        let (jobs, inbox) = channel::<(u64, Op)>();
        let event = EventFd::new(EFD_NONBLOCK)?;
        let worker = Doer {
            bytes: self.bytes.clone(),
            error: self.error.clone(),
            log: self.log.clone(),
            done: sender,
        };
        let mut queue = MemQueue { event, done, jobs: None, doer: None, in_flight: 0 };
        if self.deferred {
            let event = queue.event.try_clone()?;
            std::thread::spawn(move || {
                for (token, op) in inbox {
                    worker.run(token, op);
                    event.write(1).unwrap();
                }
            });
            queue.jobs = Some(jobs);
        } else {
            queue.doer = Some(worker);
        }
        Ok(Box::new(queue))
    }

    fn close_within(&self, _: std::time::Duration) -> io::Result<()> {
        Ok(())
    }
}

type Done = (u64, io::Result<()>);

struct Doer {
    bytes: Arc<Mutex<Vec<u8>>>,
    error: Arc<Mutex<Option<i32>>>,
    log: Arc<Mutex<Vec<&'static str>>>,
    done: Sender<Done>,
}

impl Doer {
    fn run(&self, token: u64, op: Op) {
        let result = match *self.error.lock().unwrap() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                self.apply(op);
                Ok(())
            }
        };
        let _ = self.done.send((token, result));
    }

    fn apply(&self, op: Op) {
        let mut bytes = self.bytes.lock().unwrap();
        let mut zero = |offset: u64, len: u64| bytes[offset as usize..][..len as usize].fill(0);
        let name = match op {
            Op::Read { offset, buf } => {
                assert!(buf.copy_in(0, &bytes[offset as usize..][..buf.len()]));
                "read"
            }
            Op::Write { offset, buf } => {
                let len = buf.len();
                assert!(buf.copy_out(0, &mut bytes[offset as usize..][..len]));
                "write"
            }
            Op::Flush => "flush",
            Op::Discard { offset, len } => {
                zero(offset, len);
                "discard"
            }
            Op::WriteZeroes { offset, len, unmap } => {
                zero(offset, len);
                if unmap { "write-zeroes unmap" } else { "write-zeroes" }
            }
        };
        self.log.lock().unwrap().push(name);
    }
}

struct MemQueue {
    event: EventFd,
    done: Receiver<Done>,
    jobs: Option<Sender<(u64, Op)>>,
    doer: Option<Doer>,
    in_flight: usize,
}

impl Queue for MemQueue {
    fn engine(&self) -> Engine {
        Engine::Sync
    }

    fn submit(&mut self, token: u64, op: Op) {
        self.in_flight += 1;
        match (&self.jobs, &self.doer) {
            (Some(jobs), _) => jobs.send((token, op)).unwrap(),
            (None, Some(doer)) => doer.run(token, op),
            (None, None) => unreachable!(),
        }
    }

    fn submit_batch(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        self.jobs.is_some().then(|| crate::sys::eventfd::as_fd(&self.event))
    }

    fn completions(&mut self, each: &mut dyn FnMut(u64, io::Result<()>)) {
        let _ = self.event.read();
        for (token, result) in self.done.try_iter() {
            self.in_flight -= 1;
            each(token, result);
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// A host that takes every route.
pub struct Host;

impl MsiRouting for Host {
    fn route(&self, _gsi: u32, _message: Option<Message>) -> io::Result<()> {
        Ok(())
    }
    fn doorbell(&self, _address: u64, _event: &EventFd, _on: bool) -> io::Result<()> {
        Ok(())
    }
}
