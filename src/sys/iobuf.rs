//! Guest buffers as the host's system calls take them.

use smallvec::SmallVec;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Most segments one request may have: the host's IOV_MAX.
pub const MAX_SEGMENTS: usize = 1024;

/// A scatter-gather list over guest RAM (or, for internal use, over a buffer of our own).
///
/// It holds the mapping, so the pointers stay valid while a kernel operation is in flight. The
/// guest may write the memory meanwhile: never form a Rust reference to it.
pub struct IoBuf {
    iovs: SmallVec<[libc::iovec; 4]>,
    len: usize,
    _ram: Owner,
}

enum Owner {
    Guest { _ram: Arc<GuestMemoryMmap> },
    Host { bytes: Box<[u8]> },
}

// SAFETY: the pointers lead into a mapping (or box) that the value itself keeps alive, and which
// has no thread affinity.
unsafe impl Send for IoBuf {}
// SAFETY: no method forms a reference to the bytes but `into_bytes`, which takes the value; what
// two threads store through `&self` mixes as the guest's own racing stores do.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    /// The buffer made of these (guest address, length) pieces. `None` if one is not wholly guest
    /// RAM, the list is longer than [`MAX_SEGMENTS`] or the sum does not fit 32 bits.
    pub fn guest(ram: &Arc<GuestMemoryMmap>, segments: &[(GuestAddress, u32)]) -> Option<Self> {
        let mut iovs = SmallVec::new();
        let mut len = 0u32;
        for &(address, size) in segments {
            len = len.checked_add(size)?;
            if size == 0 {
                continue;
            }
            // A segment may straddle two regions; get_slices cuts it there.
            for slice in ram.get_slices(address, size as usize) {
                let slice = slice.ok()?;
                let base = slice.ptr_guard_mut().as_ptr().cast();
                iovs.push(libc::iovec { iov_base: base, iov_len: slice.len() });
            }
            if iovs.len() > MAX_SEGMENTS {
                return None;
            }
        }
        Some(Self { iovs, len: len as usize, _ram: Owner::Guest { _ram: ram.clone() } })
    }

    /// A zeroed buffer of our own, for copy-on-write and for tests.
    pub fn host(len: usize) -> Self {
        Self::from_bytes(vec![0; len].into_boxed_slice())
    }

    /// A buffer of our own with this content.
    pub fn from_bytes(mut bytes: Box<[u8]>) -> Self {
        let len = bytes.len();
        let iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
        Self { iovs: smallvec::smallvec![iov], len, _ram: Owner::Host { bytes } }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The list for readv(2), writev(2) or io_uring.
    pub fn iovecs(&self) -> &[libc::iovec] {
        &self.iovs
    }

    /// The bytes from `start` on, `len` of them, as a list over the same memory. The caller keeps
    /// `self` alive. `None` if the range is not inside.
    pub fn range(&self, start: usize, len: usize) -> Option<SmallVec<[libc::iovec; 4]>> {
        let end = start.checked_add(len)?;
        if end > self.len {
            return None;
        }
        let mut out = SmallVec::new();
        let mut at = 0usize;
        for iov in &self.iovs {
            let (from, to) = (start.max(at), end.min(at + iov.iov_len));
            if from < to {
                let base = iov.iov_base.cast::<u8>().wrapping_add(from - at).cast();
                out.push(libc::iovec { iov_base: base, iov_len: to - from });
            }
            at += iov.iov_len;
        }
        Some(out)
    }

    /// Fill `len` bytes from `start` with zeros (what unallocated clusters read as). False if out
    /// of range.
    pub fn zero(&self, start: usize, len: usize) -> bool {
        let Some(pieces) = self.range(start, len) else { return false };
        for iov in pieces {
            // SAFETY: the piece is inside a live mapping owned by `self`; plain byte stores through
            // a raw pointer are what a racing guest may observe.
            unsafe { std::ptr::write_bytes(iov.iov_base.cast::<u8>(), 0, iov.iov_len) };
        }
        true
    }

    /// Copy `bytes` in at `start`. False if out of range.
    pub fn copy_in(&self, start: usize, bytes: &[u8]) -> bool {
        let Some(pieces) = self.range(start, bytes.len()) else { return false };
        let mut from = bytes;
        for iov in pieces {
            // SAFETY: as in `zero`; source and destination cannot overlap, `bytes` being host
            // memory.
            unsafe {
                std::ptr::copy_nonoverlapping(from.as_ptr(), iov.iov_base.cast(), iov.iov_len);
            }
            from = &from[iov.iov_len..];
        }
        true
    }

    /// Copy `bytes.len()` bytes out from `start`. False if out of range.
    pub fn copy_out(&self, start: usize, bytes: &mut [u8]) -> bool {
        let Some(pieces) = self.range(start, bytes.len()) else { return false };
        let mut at = 0;
        for iov in pieces {
            let to = &mut bytes[at..at + iov.iov_len];
            // SAFETY: as in `copy_in`, the other way.
            unsafe {
                std::ptr::copy_nonoverlapping(iov.iov_base.cast(), to.as_mut_ptr(), iov.iov_len);
            }
            at += iov.iov_len;
        }
        true
    }

    /// The content of a buffer of our own; `None` for guest memory.
    pub fn into_bytes(self) -> Option<Box<[u8]>> {
        match self._ram {
            Owner::Host { bytes } => Some(bytes),
            Owner::Guest { .. } => None,
        }
    }
}
