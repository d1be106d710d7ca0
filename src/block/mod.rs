//! Disks: what a block device's requests are done on.
//!
//! A [`Disk`] is opened once from its layers and gives each virtqueue a [`Queue`] of its own. A queue
//! belongs to one thread; queues of one disk share its metadata.

mod bytes;
mod chain;
#[cfg(test)]
mod crash_tests;
mod disk;
pub mod foreign;
mod guard;
mod host;
#[cfg(test)]
mod hostile_tests;
mod import;
mod merged;
pub mod overlay;
pub mod partitions;
mod qcow2;
mod queue;
mod reader;
pub mod signature;
mod swap;
#[cfg(test)]
mod swap_tests;

use crate::sys::iobuf::IoBuf;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

pub use crate::plan::{DiskFormat, Engine};
pub use bytes::Bytes;
pub use disk::{open, open_aside};
pub use import::{ImportSource, import_source};
pub use reader::{Content, Extent, Reader};
pub use swap::{Swap, swap_all};

/// What a new thread does first: the place to put it into its sandbox. It ends at once if that fails.
pub type Begin = Box<dyn FnOnce() -> crate::error::Result<()> + Send>;

/// A disk: raw file, qcow2 image or qcow2 overlay over a chain of them.
pub trait Disk: Send + Sync {
    /// Size in bytes; a multiple of 512.
    fn size(&self) -> u64;
    /// No write, discard or write-zeroes is accepted.
    fn read_only(&self) -> bool;
    /// Preferred granularity of discards in bytes (the cluster size; 4096 for raw).
    fn discard_granularity(&self) -> u32;
    /// A submission queue for one thread, with the engine asked for ([`Engine::Auto`] chooses).
    ///
    /// # Errors
    /// [`Engine::Uring`] was demanded and the host has or allows no io_uring.
    fn queue(&self, engine: Engine) -> io::Result<Box<dyn Queue>>;
    /// Fill `bytes` from `offset`, where the caller stands and with what has been written until now.
    ///
    /// # Errors
    /// The range is not inside the disk; I/O errors.
    fn read_exact_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Write metadata out and sync everything: what a clean end of the VM does.
    fn close(&self) -> io::Result<()>;
    /// What its files are now.
    ///
    /// # Errors
    /// The host can't tell.
    fn layers(&self) -> io::Result<LayersStatus> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Prepare to have all writes go to `top` from some moment on: an empty overlay of the disk's size. What is
    /// the top now becomes a layer that nobody writes. [`swap_all`] does it.
    ///
    /// # Errors
    /// The disk has no overlay to write to, the one before is not sealed yet, or `top` is not one.
    fn prepare_swap(&self, _top: File) -> io::Result<Swap<'_>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Read all that is below the top from `base` from now on, which reads the same.
    ///
    /// # Errors
    /// The disk has no overlay, what was the top before is not sealed yet, or `base` can't be opened.
    fn rebase(&self, _base: File, _format: DiskFormat) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
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
    pub sealed: Result<bool, String>,
}

/// One operation. Offsets and lengths are in bytes and multiples of 512, inside the disk (checked again).
pub enum Op {
    /// Fill the buffer from `offset`.
    Read {
        /// Byte offset on the disk.
        offset: u64,
        /// Where to.
        buf: IoBuf,
    },
    /// Write the buffer at `offset`.
    Write {
        /// Byte offset on the disk.
        offset: u64,
        /// Where from.
        buf: IoBuf,
    },
    /// All writes completed before this are durable once it completes.
    Flush,
    /// The range's content no longer matters; it reads as zeros or as before, and space is given back.
    Discard {
        /// Byte offset on the disk.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// The range reads as zeros afterwards.
    WriteZeroes {
        /// Byte offset on the disk.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Space may be given back (VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP).
        unmap: bool,
    },
}

/// A submission queue of a [`Disk`], owned by one thread.
///
/// Order: operations in flight at one time are unordered among themselves, as virtio-blk allows, but
/// overlapping allocations of one cluster never lose a write.
pub trait Queue: Send {
    /// The engine in use (never [`Engine::Auto`]).
    fn engine(&self) -> Engine;
    /// Start `op`; its completion comes from [`Queue::completions`] under `token`, possibly at once.
    fn submit(&mut self, token: u64, op: Op);
    /// Tell the kernel of everything submitted since the last call. Call once a batch.
    fn kick(&mut self) -> io::Result<()>;
    /// Readable when more completions are waiting than [`Queue::completions`] handed over when it was last called, after
    /// [`Queue::kick`]; `None` if everything completes inside [`Queue::submit`].
    fn completion_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Hand over each finished operation once. Call it after each [`Queue::kick`], and when [`Queue::completion_fd`]
    /// is readable.
    fn completions(&mut self, each: &mut dyn FnMut(u64, io::Result<()>));
    /// Operations submitted and not yet handed over.
    fn in_flight(&self) -> usize;
}
