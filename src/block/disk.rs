//! Opening a disk, and what its queues share.

use super::chain::{Chain, Layer};
use super::qcow2::writer::Writer;
use super::queue::DiskQueue;
use super::swap::Swap;
use super::{Begin, Disk, DiskFormat, Engine, LayersStatus, Queue};
use crate::error::{OrFail, Result};
use crate::sys::iobuf::IoBuf;
use crate::sys::pio::Part;
use crate::sys::uring::Ring;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// Submissions that fit a ring at once: virtio-blk's queue size.
const RING_ENTRIES: u32 = 256;
/// Address space for the stack of the thread that writes metadata out.
const COMMIT_STACK: usize = 128 << 10;

/// Open a disk from its layers, the top first, each in its declared format.
///
/// Unless `read_only`, the first is changed: raw in place, qcow2 if it is an overlay of
/// [`super::overlay::create`]'s kind. Nothing in any layer makes another file be opened.
///
/// # Errors
/// A layer that can't be believed, or a first layer that can't be written.
pub fn open(layers: Vec<(File, DiskFormat)>, read_only: bool) -> Result<Arc<dyn Disk>> {
    Ok(Arc::new(FileDisk { current: Arc::new(Current::open(layers, read_only)?) }))
}

/// As [`open`], on a new thread, which does `begin` first. It stays to make flushes durable while queues go on; without it,
/// a flush is done where it is submitted, and its queue waits.
///
/// # Errors
/// As [`open`]'s, `begin`'s, or the host has no thread for us.
pub fn open_aside(
    layers: Vec<(File, DiskFormat)>,
    read_only: bool,
    begin: Begin,
) -> Result<Arc<dyn Disk>> {
    let (answer, opened) = channel();
    let main = move || {
        let current = begin().and_then(|()| Current::open(layers, read_only)).map(Arc::new);
        let (sender, work) = channel();
        let weak = match &current {
            Ok(current) if current.hold().writer.is_some() => {
                let _ = current.committer.set(sender);
                Arc::downgrade(current)
            }
            _ => Weak::new(),
        };
        if answer.send(current).is_ok() {
            commit_loop(&weak, &work);
        }
    };
    let thread = std::thread::Builder::new().name("block-commit".into());
    let doing = || "start the thread that flushes the disk";
    thread.stack_size(COMMIT_STACK).spawn(main).or_fail(doing)?;
    let current = opened.recv().or_fail(doing)??;
    Ok(Arc::new(FileDisk { current }))
}

/// A disk's layers, and what changes the top one. Replaced as a whole when the layers change.
pub(crate) struct Shared {
    pub chain: Chain,
    /// The changer of a qcow2 top; none for raw and for reading.
    pub writer: Option<Arc<Writer>>,
    pub read_only: bool,
    /// What the disk was before its top was swapped, until that is whole on its own; and why it can't be.
    pub previous: Mutex<Option<(Arc<Shared>, Option<WriteFailure>)>>,
}

/// Why a write failed: its kind and its text, since an [`io::Error`] can't be told twice.
pub(crate) type WriteFailure = (io::ErrorKind, String);

/// The disk's state at present.
///
/// Who changes the disk holds this for reading while doing so; who replaces it holds it for writing. So a
/// change is wholly in the old layers or wholly in the new.
pub(crate) struct Current {
    pub(super) shared: RwLock<Arc<Shared>>,
    /// The way to the thread that writes metadata out, if it was begun.
    pub(super) committer: OnceLock<Sender<Work>>,
}

impl Current {
    fn open(layers: Vec<(File, DiskFormat)>, read_only: bool) -> Result<Self> {
        let chain = Chain::open(layers).or_fail(|| "open the disk")?;
        let shared = Shared::new(chain, read_only).or_fail(|| "open the disk for writing")?;
        let shared = RwLock::new(Arc::new(shared));
        Ok(Self { shared, committer: OnceLock::new() })
    }

    /// The state, for what does not change the disk.
    pub(crate) fn get(&self) -> Arc<Shared> {
        self.hold().clone()
    }

    /// The state, which stays while this is held.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, Arc<Shared>> {
        self.shared.read().unwrap()
    }

    /// Have the committing thread do it; false if there is none.
    pub(crate) fn commit_aside(&self, work: Work) -> bool {
        self.committer.get().is_some_and(|committer| committer.send(work).is_ok())
    }
}

/// A flush that a queue waits for.
pub(crate) struct CommitRequest {
    pub token: u64,
    pub answers: Arc<Answers>,
}

/// Where a queue finds its flushes' results.
pub(crate) struct Answers {
    pub done: Mutex<Vec<(u64, io::Result<()>)>>,
    pub event: EventFd,
}

/// What the committing thread is for.
pub(crate) enum Work {
    /// Answer a flush.
    Flush(CommitRequest),
    /// Bring what was the top before the last swap to its end.
    Seal,
}

pub(super) struct FileDisk {
    pub(super) current: Arc<Current>,
}

/// Serve flushes until the disk and all of its queues are gone.
fn commit_loop(current: &Weak<Current>, work: &Receiver<Work>) {
    while let Ok(first) = work.recv() {
        let Some(current) = current.upgrade() else { return };
        // One commit answers all that had asked before it began.
        let batch: Vec<_> = std::iter::once(first).chain(work.try_iter()).collect();
        let shared = current.get();
        if batch.iter().any(|work| matches!(work, Work::Flush(_))) {
            let result = shared.flush();
            for work in batch {
                let Work::Flush(CommitRequest { token, answers }) = work else { continue };
                let mut done = answers.done.lock().unwrap();
                done.push((token, copy(&result)));
                // The counter can't overflow: it is read whenever the queue's thread wakes.
                let _ = answers.event.write(1);
            }
        }
        // What failed before is tried again with each flush.
        shared.seal_previous();
    }
}

/// `io::Error` can't be cloned; its number and text can.
fn copy(result: &io::Result<()>) -> io::Result<()> {
    result.as_ref().map(|_| ()).map_err(|e| match e.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(e.kind(), e.to_string()),
    })
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.current.hold().chain.size()
    }

    fn read_only(&self) -> bool {
        self.current.hold().read_only
    }

    fn discard_granularity(&self) -> u32 {
        match &*self.current.hold().chain.layers[0] {
            Layer::Raw { .. } => 4096,
            Layer::Qcow2(image) => image.header.cluster_size() as u32,
        }
    }

    fn queue(&self, engine: Engine) -> io::Result<Box<dyn Queue>> {
        let shared = self.current.get();
        let layers =
            || shared.chain.layers.iter().map(|layer| layer.host().file().clone()).collect();
        let ring = match engine {
            Engine::Sync => None,
            Engine::Uring => Some(Ring::new(RING_ENTRIES, layers())?),
            Engine::Auto => Ring::new(RING_ENTRIES, layers()).ok(),
        };
        Ok(Box::new(DiskQueue::new(self.current.clone(), ring)?))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.current.get().chain.read_at(bytes, offset)
    }

    fn close(&self) -> io::Result<()> {
        let shared = self.current.get();
        shared.seal_previous();
        let left = shared.previous.lock().unwrap().as_ref().and_then(|(_, why)| why.clone());
        shared.close()?;
        left.map_or(Ok(()), |(kind, why)| Err(io::Error::new(kind, why)))
    }

    fn layers(&self) -> io::Result<LayersStatus> {
        let shared = self.current.get();
        let top = rustix::fs::fstat(&**shared.chain.layers[0].host().file())?.st_ino;
        let sealed = match &*shared.previous.lock().unwrap() {
            None => Ok(true),
            Some((_, None)) => Ok(false),
            Some((_, Some((_, why)))) => Err(why.clone()),
        };
        Ok(LayersStatus { top, layers: shared.chain.layers.len(), sealed })
    }

    fn prepare_swap(&self, top: File) -> io::Result<Swap<'_>> {
        Swap::prepare(self, top)
    }

    fn rebase(&self, base: File, format: DiskFormat) -> io::Result<()> {
        super::swap::rebase(self, base, format)
    }
}

impl Shared {
    pub(super) fn new(chain: Chain, read_only: bool) -> io::Result<Self> {
        let writer = match chain.layers.first().map(|layer| &**layer) {
            Some(Layer::Qcow2(image)) if !read_only => Some(Arc::new(Writer::open(image)?)),
            _ => None,
        };
        Ok(Self { chain, writer, read_only, previous: Mutex::default() })
    }

    /// A flush needs more than a sync of the top's file.
    pub(crate) fn needs_commit(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.needs_commit())
            || self.previous.lock().unwrap().is_some()
    }

    /// Make everything durable that was completed before.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let previous = self.previous.lock().unwrap().as_ref().map(|(shared, _)| shared.clone());
        if let Some(previous) = previous {
            // First what is below: a crash between the two leaves what a crash before this would.
            previous.flush()?;
        }
        match &self.writer {
            _ if self.read_only => Ok(()),
            Some(writer) if writer.needs_commit() => writer.commit(&self.chain),
            _ => self.chain.layers[0].host().sync(),
        }
    }

    /// Bring the state before the last swap to its end, as a clean end of the VM does.
    pub(super) fn seal_previous(&self) {
        let previous = self.previous.lock().unwrap().as_ref().map(|(shared, _)| shared.clone());
        let Some(previous) = previous else { return };
        let mut outcome = previous.close();
        while let Ok(false) = outcome {
            // Operations from before the swap are still in flight.
            // Not a sleep, which would be a system call more that its thread may make.
            std::thread::park_timeout(Duration::from_millis(1));
            outcome = previous.close();
        }
        *self.previous.lock().unwrap() =
            outcome.err().map(|e| (previous, Some((e.kind(), e.to_string()))));
    }

    /// True if nothing is left to do.
    fn close(&self) -> io::Result<bool> {
        match &self.writer {
            _ if self.read_only => Ok(true),
            Some(writer) => writer.close(&self.chain),
            None => self.chain.layers[0].host().sync().map(|()| true),
        }
    }

    /// Write metadata out if much of it waits.
    pub(crate) fn relieve(&self) {
        if let Some(writer) = &self.writer {
            writer.relieve(&self.chain);
        }
    }

    /// Write synchronously, allocating where need be.
    pub(crate) fn write(&self, offset: u64, part: Part<'_>) -> io::Result<()> {
        match &self.writer {
            Some(writer) => writer.write(&self.chain, offset, part),
            None => self.chain.layers[0].host().write_parts(&[part], offset),
        }
    }

    /// Let the range's content go.
    pub(crate) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.writer {
            Some(writer) => writer.zero(&self.chain, offset, len, false, true),
            None => {
                // Best effort: a file system without holes keeps the space.
                let _ = self.chain.layers[0].host().punch(offset, len);
                Ok(())
            }
        }
    }

    /// Make the range read as zeros.
    pub(crate) fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let Some(writer) = &self.writer else {
            let host = self.chain.layers[0].host();
            return match unmap.then(|| host.punch(offset, len)) {
                Some(Ok(())) => Ok(()),
                _ => host.zero_range(offset, len),
            };
        };
        writer.zero(&self.chain, offset, len, true, unmap)
    }

    /// Fill a piece of a buffer with what compressed data or zeros say; see [`super::chain::Source`].
    pub(crate) fn unpack(
        &self,
        layer: usize,
        offset: u64,
        buf: &IoBuf,
        start: usize,
        len: usize,
    ) -> io::Result<()> {
        self.chain.unpack_into(layer, offset, buf, start, len)
    }
}
