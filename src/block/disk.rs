//! Opening a disk of files.

use super::commit;
use super::layer::Layer;
use super::queue::DiskQueue;
use super::state::{Current, Work};
use super::swap::Swap;
use super::{Disk, DiskFormat, Engine, Queue, ThreadInit};
use crate::error::{OrFail, Result};
use crate::sys::process::not_started;
use crate::sys::uring::Ring;
use std::fs::File;
use std::io;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

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
pub fn open(layers: Vec<(File, DiskFormat)>, read_only: bool) -> Result<Arc<FileDisk>> {
    Ok(Arc::new(FileDisk { current: Arc::new(Current::open(layers, read_only)?) }))
}

/// As [`open`], on a new thread, which does `begin` first. It stays to make flushes durable while
/// queues go on; without it, a flush is done where it is submitted, and its queue waits.
///
/// # Errors
/// As [`open`]'s, `begin`'s, or the host has no thread for us.
pub fn open_aside(
    layers: Vec<(File, DiskFormat)>,
    read_only: bool,
    begin: ThreadInit,
) -> Result<Arc<FileDisk>> {
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
            commit::serve(&weak, &work);
        }
    };
    let thread = std::thread::Builder::new().name("block-commit".into());
    let doing = || "start the thread that flushes the disk";
    let started = thread.stack_size(COMMIT_STACK).spawn(main);
    started.map_err(|cause| not_started(doing(), cause))?;
    let current = opened.recv().or_fail(doing)??;
    Ok(Arc::new(FileDisk { current }))
}

/// A disk made of files: raw, or a qcow2 overlay over a chain of them.
pub struct FileDisk {
    current: Arc<Current>,
}

impl FileDisk {
    /// Fill `bytes` from byte `offset` on, on the calling thread, with what has been written until
    /// now.
    ///
    /// # Errors
    /// `UnexpectedEof` if the range is not inside the disk; I/O errors; `InvalidData` for bad
    /// metadata.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.current.get().chain.read_at(bytes, offset)
    }

    /// What its files are now.
    ///
    /// # Errors
    /// The host can't tell.
    pub fn layers(&self) -> io::Result<LayersStatus> {
        let shared = self.current.get();
        let top = rustix::fs::fstat(&**shared.chain.layers[0].host().file())?.st_ino;
        let sealed = match &*shared.previous.lock().unwrap() {
            None => Ok(true),
            Some((_, None)) => Ok(false),
            Some((_, Some((_, why)))) => Err(why.clone()),
        };
        Ok(LayersStatus { top, layers: shared.chain.layers.len(), sealed })
    }

    /// Prepare to have all writes go to `top` from some moment on: an empty overlay of the disk's
    /// size, or larger. What is the top now becomes a layer that nobody writes.
    /// [`super::swap_all`] does it.
    ///
    /// # Errors
    /// `InvalidInput` if the disk has no overlay to write to, or `top` is not an empty one of its
    /// size; `WouldBlock` if the top before this one is not sealed yet.
    pub fn prepare_swap(&self, top: File) -> io::Result<Swap<'_>> {
        Swap::prepare(&self.current, top)
    }

    /// Read all that is below the top from `base` from now on, which reads the same.
    ///
    /// # Errors
    /// As [`FileDisk::prepare_swap`]'s, or `base` can't be opened.
    pub fn rebase(&self, base: File, format: DiskFormat) -> io::Result<()> {
        super::swap::rebase(&self.current, base, format)
    }
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

    fn close_within(&self, patience: Duration) -> io::Result<()> {
        // A thread that waits for a storage that does not answer can't be ended: it is not this
        // one.
        let (answer, closed) = sync_channel(1);
        if !self.current.commit_aside(Work::Close(answer)) {
            return self.current.get().close();
        }
        closed.recv_timeout(patience).unwrap_or_else(|_| {
            let why = format!("the host's storage does not answer for {} s", patience.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}

/// What a disk's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayersStatus {
    /// Inode number of the top.
    pub top: u64,
    /// How many there are.
    pub layers: usize,
    /// What was the top before the last swap is whole on its own, durably. If it can't be, why.
    pub sealed: std::result::Result<bool, String>,
}

#[cfg(test)]
mod tests {
    use super::super::overlay;
    use super::*;

    #[test]
    fn a_storage_that_does_not_answer_holds_up_nobody_for_ever() {
        let file = tempfile::tempfile().unwrap();
        overlay::create(&file, 8 << 20, None).unwrap();
        let layers = vec![(file, DiskFormat::Qcow2)];
        let disk = open_aside(layers, false, Box::new(|| Ok(()))).unwrap();
        let shared = disk.current.get();
        // Whoever closes gets no further, as in fdatasync(2) of a file system that hangs.
        let hangs = shared.previous.lock().unwrap();
        let error = disk.close_within(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("does not answer"), "{error}");
        drop(hangs);
        disk.close().unwrap();
    }
}
