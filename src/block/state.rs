//! The state of a disk that its queues and its committing thread share.

use super::DiskFormat;
use super::chain::LayerChain;
use super::layer::Layer;
use super::qcow2::writer::Writer;
use crate::error::{OrFail, Result};
use crate::sys::file_io::Part;
use crate::sys::iobuf::IoBuf;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// A disk's layers, and what changes the top one. Replaced as a whole when the layers change.
pub(crate) struct Shared {
    pub chain: LayerChain,
    /// The changer of a qcow2 top; none for raw and for reading.
    pub writer: Option<Arc<Writer>>,
    pub read_only: bool,
    /// What the disk was before its top was swapped, until that is whole on its own; and why it
    /// can't be.
    pub previous: Mutex<Option<(Arc<Shared>, Option<WriteFailure>)>>,
}

/// Why a write failed: its kind and its text, since an [`io::Error`] can't be told twice.
pub(crate) type WriteFailure = (io::ErrorKind, String);

impl Shared {
    pub(super) fn new(chain: LayerChain, read_only: bool) -> io::Result<Self> {
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
        let mut outcome = previous.close_top();
        while let Ok(false) = outcome {
            // Operations from before the swap are still in flight.
            // Not a sleep, which would be a system call more that its thread may make.
            std::thread::park_timeout(Duration::from_millis(1));
            outcome = previous.close_top();
        }
        *self.previous.lock().unwrap() =
            outcome.err().map(|e| (previous, Some((e.kind(), e.to_string()))));
    }

    /// What a clean end of the VM does, for the top and what was the top before it.
    pub(super) fn close(&self) -> io::Result<()> {
        self.seal_previous();
        let left = self.previous.lock().unwrap().as_ref().and_then(|(_, why)| why.clone());
        self.close_top()?;
        left.map_or(Ok(()), |(kind, why)| Err(io::Error::new(kind, why)))
    }

    /// True if nothing is left to do.
    fn close_top(&self) -> io::Result<bool> {
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

    /// Fill a piece of a buffer with what compressed data or zeros say; see
    /// [`super::layer::Source`].
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

/// The disk's state at present.
///
/// Who changes the disk holds this for reading while doing so; who replaces it holds it for
/// writing. So a change is wholly in the old layers or wholly in the new.
pub(crate) struct Current {
    pub(super) shared: RwLock<Arc<Shared>>,
    /// The way to the thread that writes metadata out, if it was begun.
    pub(super) committer: OnceLock<Sender<Work>>,
}

impl Current {
    pub(super) fn open(layers: Vec<(File, DiskFormat)>, read_only: bool) -> Result<Self> {
        let chain = LayerChain::open(layers).or_fail(|| "open the disk")?;
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
    /// Write everything out, and say how that went.
    Close(SyncSender<io::Result<()>>),
}
