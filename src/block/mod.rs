//! Disks: what a block device's requests are done on.
//!
//! A [`Disk`] is opened once from its layers and gives each virtqueue a [`Queue`] of its own. A
//! queue belongs to one thread; queues of one disk share its metadata.

mod bytes;
mod chain;
mod commit;
#[cfg(test)]
mod crash_tests;
mod disk;
mod epoch;
pub mod foreign;
mod host;
#[cfg(test)]
mod hostile_tests;
mod import;
mod layer;
mod merged;
pub mod overlay;
pub mod partitions;
mod qcow2;
mod queue;
mod range_lock;
mod reader;
pub mod signature;
mod state;
mod swap;
#[cfg(test)]
mod swap_tests;

use crate::sys::iobuf::IoBuf;
use crate::sys::seccomp::Allow::{self, Call};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use crate::plan::{DiskFormat, Engine};
pub use bytes::Bytes;
pub use disk::{FileDisk, LayersStatus, open, open_aside};
pub use import::{ImportSource, import_source};
pub use layer::Content;
pub use reader::{Extent, Reader};
pub use swap::{Swap, swap_all};

/// System calls of each thread that works on a disk's files.
pub const CALLS: &[Allow] = &[
    Call(libc::SYS_preadv),      // data, engine sync
    Call(libc::SYS_pwritev),     // data
    Call(libc::SYS_pread64),     // metadata
    Call(libc::SYS_pwrite64),    // data in one piece, metadata
    Call(libc::SYS_fdatasync),   // flush
    Call(libc::SYS_fallocate),   // discard, write-zeroes
    Call(libc::SYS_ftruncate),   // an overlay grows
    Call(libc::SYS_sched_yield), // std's channel to the committing thread, when two meet there
];

/// How long the storage may take to make everything durable that a disk was written.
pub const CLOSING: Duration = Duration::from_secs(60);

/// What a new thread does first: the place to put it into its sandbox. It ends at once if that
/// fails.
pub type ThreadInit = Box<dyn FnOnce() -> crate::error::Result<()> + Send>;

/// What a block device does its requests on; [`FileDisk`] is the one that machines have.
pub trait Disk: Send + Sync {
    /// Size in bytes; a multiple of 512.
    fn size(&self) -> u64;
    /// No write, discard or write-zeroes is accepted.
    fn read_only(&self) -> bool;
    /// Preferred granularity of discards in bytes (the cluster size; 4096 for raw).
    fn discard_granularity(&self) -> u32;
    /// A submission queue with the engine asked for ([`Engine::Auto`] chooses). Any thread may make
    /// it and hand it on; from its first operation on it belongs to one thread. Each virtqueue has
    /// its own.
    ///
    /// # Errors
    /// [`Engine::Uring`] was demanded and the host has or allows no io_uring; no more descriptors.
    fn queue(&self, engine: Engine) -> io::Result<Box<dyn Queue>>;
    /// Write metadata out and sync everything: what a clean end of the VM does. No queue has
    /// anything in flight. It may be called again.
    ///
    /// # Errors
    /// I/O errors, or the host's storage does not answer within [`CLOSING`]. The disk is then as
    /// after a crash: sound, with what earlier flushes made durable.
    fn close(&self) -> io::Result<()> {
        self.close_within(CLOSING)
    }
    /// As [`Disk::close`], with another patience. What the storage holds up goes on without whoever
    /// waited.
    ///
    /// # Errors
    /// As there.
    fn close_within(&self, patience: Duration) -> io::Result<()>;
}

/// One operation. Offsets and lengths are in bytes and multiples of 512; length 0 does nothing.
///
/// A range that is misaligned or not inside the disk completes with `InvalidInput`, a change of a
/// read-only disk with EROFS. Buffers need no alignment in the host's memory: files are read and
/// written through the page cache.
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
    /// The range's content no longer matters; it reads as zeros or as before, and space is given
    /// back.
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
/// Order: operations in flight at one time are unordered among themselves, as virtio-blk allows,
/// but overlapping allocations of one cluster never lose a write.
pub trait Queue: Send {
    /// The engine in use: [`Engine::Uring`] or [`Engine::Sync`].
    fn engine(&self) -> Engine;
    /// Start `op`. Its completion comes from [`Queue::completions`] under `token`, once, perhaps
    /// before the next [`Queue::submit_batch`]. Tokens are the caller's and may repeat.
    fn submit(&mut self, token: u64, op: Op);
    /// Tell the kernel of everything submitted since the last call. Call once a batch.
    ///
    /// # Errors
    /// The host takes no more requests for now; what was submitted stays, and the next call tries
    /// again.
    fn submit_batch(&mut self) -> io::Result<()>;
    /// Readable when more completions are waiting than [`Queue::completions`] handed over when it
    /// was last called, after [`Queue::submit_batch`]; `None` if everything completes inside
    /// [`Queue::submit`].
    fn completion_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Hand over each finished operation once, in no particular order. Call it after each
    /// [`Queue::submit_batch`], and when [`Queue::completion_fd`] is readable.
    fn completions(&mut self, each: &mut dyn FnMut(u64, io::Result<()>));
    /// Operations submitted and not yet handed over.
    fn in_flight(&self) -> usize;
}
