//! Opening a disk, and what its queues share.

use super::chain::{Chain, Layer};
use super::qcow2::writer::Writer;
use super::queue::DiskQueue;
use super::{Begin, Disk, DiskFormat, Engine, Queue};
use crate::error::{OrFail, Result};
use crate::sys::iobuf::IoBuf;
use crate::sys::pio::Part;
use crate::sys::uring::Ring;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, Weak};
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
    let chain = Chain::open(layers).or_fail(|| "open the disk")?;
    let writer = match chain.layers.first() {
        Some(Layer::Qcow2(image)) if !read_only => {
            Some(Writer::open(image).or_fail(|| "open the disk for writing")?)
        }
        _ => None,
    };
    let shared = Arc::new(Shared { chain, writer, read_only, committer: OnceLock::new() });
    Ok(Arc::new(FileDisk { shared }))
}

/// What all queues of a disk use.
pub(crate) struct Shared {
    pub chain: Chain,
    /// The changer of a qcow2 top; none for raw and for reading.
    pub writer: Option<Writer>,
    pub read_only: bool,
    /// The way to the thread that writes metadata out, if it was begun.
    pub committer: OnceLock<Sender<CommitRequest>>,
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

struct FileDisk {
    shared: Arc<Shared>,
}

/// Serve flushes until the disk and all of its queues are gone.
fn commit_loop(shared: &Weak<Shared>, requests: &Receiver<CommitRequest>) {
    while let Ok(first) = requests.recv() {
        let Some(shared) = shared.upgrade() else { return };
        // One commit answers all that had asked before it began.
        let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
        let result = shared.flush();
        for CommitRequest { token, answers } in batch {
            let mut done = answers.done.lock().unwrap();
            done.push((token, copy(&result)));
            // The counter can't overflow: it is read whenever the queue's thread wakes.
            let _ = answers.event.write(1);
        }
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
        self.shared.chain.size()
    }

    fn read_only(&self) -> bool {
        self.shared.read_only
    }

    fn discard_granularity(&self) -> u32 {
        match &self.shared.chain.layers[0] {
            Layer::Raw { .. } => 4096,
            Layer::Qcow2(image) => image.header.cluster_size() as u32,
        }
    }

    fn queue(&self, engine: Engine) -> io::Result<Box<dyn Queue>> {
        let ring = match engine {
            Engine::Sync => None,
            Engine::Uring => Some(Ring::new(RING_ENTRIES)?),
            Engine::Auto => Ring::new(RING_ENTRIES).ok(),
        };
        Ok(Box::new(DiskQueue::new(self.shared.clone(), ring)?))
    }

    fn flush_aside(&self, begin: Begin) -> io::Result<()> {
        if self.shared.writer.is_none() {
            return Ok(());
        }
        let (sender, requests) = channel();
        if self.shared.committer.set(sender).is_err() {
            return Ok(());
        }
        let shared = Arc::downgrade(&self.shared);
        let main = move || {
            if begin().is_ok() {
                commit_loop(&shared, &requests);
            }
        };
        let thread = std::thread::Builder::new().name("block-commit".into());
        thread.stack_size(COMMIT_STACK).spawn(main).map(drop)
    }

    fn close(&self) -> io::Result<()> {
        match &self.shared.writer {
            _ if self.shared.read_only => Ok(()),
            Some(writer) => writer.close(&self.shared.chain),
            None => self.shared.chain.layers[0].host().sync(),
        }
    }
}

impl Shared {
    /// Make everything durable that was completed before.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match &self.writer {
            _ if self.read_only => Ok(()),
            Some(writer) if writer.needs_commit() => writer.commit(&self.chain),
            _ => self.chain.layers[0].host().sync(),
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
