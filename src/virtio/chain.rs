//! One request: the buffers of a descriptor chain, checked and copied out of the ring once.

use crate::mem::GuestRam;
use smallvec::SmallVec;
use std::fmt;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

/// Bytes of a descriptor. (VIRTIO 1.2, 2.7.5)
pub(crate) const DESC_SIZE: u64 = 16;

/// Buffers: guest address and length of each piece.
pub type Segments = SmallVec<[(GuestAddress, u32); 4]>;

/// A guest broke the rules of virtqueues in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Descriptor `index` of the `table`, as the driver wrote it, read once.
fn descriptor(ram: &GuestRam, table: GuestAddress, index: u16) -> Result<Descriptor, Malformed> {
    let outside = Malformed("a descriptor lies outside guest memory");
    let at = table.checked_add(u64::from(index) * DESC_SIZE).ok_or(outside)?;
    // Of one region, as RAM's regions don't touch: half the way of an access that may span several.
    let slice = ram.get_slice(at, DESC_SIZE as usize).map_err(|_| outside)?;
    slice.read_obj::<RawDescriptor>(0).map(Descriptor::from).map_err(|_| outside)
}

/// Where a chain begins and how long it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The queue's descriptor table.
    pub table: GuestAddress,
    /// Descriptors in it.
    pub size: u16,
    /// The first descriptor.
    pub head: u16,
    /// Most descriptors to follow in an indirect table; `None` if VIRTIO_F_INDIRECT_DESC is not
    /// agreed upon.
    pub indirect: Option<u16>,
}

/// A request's buffers: first what the device reads, then what it writes. (VIRTIO 1.2, 2.7.4)
///
/// The addresses are the guest's and unchecked; every access checks them. The sum of all lengths
/// fits 32 bits.
#[derive(Debug)]
pub struct DescriptorChain {
    ram: GuestRam,
    head: u16,
    readable: Segments,
    writable: Segments,
    readable_len: u32,
    writable_len: u32,
}

impl DescriptorChain {
    /// Follow the chain from its head. Each descriptor is read once, and there is an end to it: at
    /// most `size` direct and `indirect` indirect ones.
    pub(crate) fn read_from(ram: &GuestRam, source: Source) -> Result<Self, Malformed> {
        let mut chain = Self {
            ram: ram.clone(),
            head: source.head,
            readable: Segments::new(),
            writable: Segments::new(),
            readable_len: 0,
            writable_len: 0,
        };
        let Source { mut table, head: mut index, mut indirect, .. } = source;
        let (mut entries, mut left) = (u32::from(source.size), source.size);
        loop {
            if u32::from(index) >= entries {
                return Err(Malformed("a descriptor index lies outside its table"));
            }
            left = left
                .checked_sub(1)
                .ok_or(Malformed("a descriptor chain is a loop or longer than the queue"))?;
            let desc = descriptor(ram, table, index)?;
            if desc.refers_to_indirect_table() {
                // 2.7.5.3.1: not without the feature, not nested, and nothing follows it.
                left = indirect.take().ok_or(Malformed("an unexpected indirect descriptor"))?;
                if desc.has_next() {
                    return Err(Malformed("a descriptor follows an indirect one"));
                }
                if desc.len() == 0 || !u64::from(desc.len()).is_multiple_of(DESC_SIZE) {
                    return Err(Malformed("an indirect table's length is not of descriptors"));
                }
                (table, entries, index) = (desc.addr(), desc.len() / DESC_SIZE as u32, 0);
                continue;
            }
            chain.push(desc)?;
            if !desc.has_next() {
                return Ok(chain);
            }
            // Once inside an indirect table there is no second one; before it, `indirect` still
            // waits.
            index = desc.next();
        }
    }

    fn push(&mut self, desc: Descriptor) -> Result<(), Malformed> {
        let total = self.readable_len.checked_add(self.writable_len);
        // 2.7.5.2: no chain of more than 2^32 bytes.
        if total.and_then(|total| total.checked_add(desc.len())).is_none() {
            return Err(Malformed("a descriptor chain has 4 GiB or more"));
        }
        if desc.addr().checked_add(desc.len().into()).is_none() {
            return Err(Malformed("a buffer wraps around the address space"));
        }
        let (segments, len) = if desc.is_write_only() {
            (&mut self.writable, &mut self.writable_len)
        } else if self.writable.is_empty() {
            (&mut self.readable, &mut self.readable_len)
        } else {
            return Err(Malformed("a readable descriptor follows a writable one"));
        };
        if desc.len() != 0 {
            segments.push((desc.addr(), desc.len()));
            *len += desc.len();
        }
        Ok(())
    }

    /// The index of its first descriptor, by which it is returned.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Guest memory, where its buffers should lie.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Bytes that the device may read.
    pub fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// `len` bytes of the readable part from `offset` on. `None` if it is shorter.
    pub fn readable(&self, offset: u32, len: u32) -> Option<Segments> {
        cut(&self.readable, offset, len)
    }

    /// `len` bytes of the writable part from `offset` on. `None` if it is shorter.
    pub fn writable(&self, offset: u32, len: u32) -> Option<Segments> {
        cut(&self.writable, offset, len)
    }

    /// Copy from the readable part at `offset`. False if it is shorter or not guest memory.
    pub fn read(&self, offset: u32, bytes: &mut [u8]) -> bool {
        let len = u32::try_from(bytes.len()).ok();
        let Some(segments) = len.and_then(|len| self.readable(offset, len)) else { return false };
        let mut rest = bytes;
        for (addr, len) in segments {
            let (piece, after) = rest.split_at_mut(len as usize);
            if self.ram.read_slice(piece, addr).is_err() {
                return false;
            }
            rest = after;
        }
        true
    }

    /// Copy to the writable part at `offset`. False if it is shorter or not guest memory.
    pub fn write(&self, offset: u32, bytes: &[u8]) -> bool {
        let len = u32::try_from(bytes.len()).ok();
        let Some(segments) = len.and_then(|len| self.writable(offset, len)) else { return false };
        let mut rest = bytes;
        for (addr, len) in segments {
            let (piece, after) = rest.split_at(len as usize);
            if self.ram.write_slice(piece, addr).is_err() {
                return false;
            }
            rest = after;
        }
        true
    }
}

/// The bytes `offset..offset + len` of a list of buffers. `None` if it is shorter.
pub(crate) fn cut(segments: &[(GuestAddress, u32)], offset: u32, len: u32) -> Option<Segments> {
    let (mut skip, mut left) = (offset, len);
    let mut out = Segments::new();
    for &(addr, size) in segments {
        if left == 0 {
            break;
        }
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = left.min(size - skip);
        out.push((addr.checked_add(skip.into())?, take));
        (skip, left) = (0, left - take);
    }
    (left == 0).then_some(out)
}
