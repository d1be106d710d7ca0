//! What is left to be begun of a request, in steps that are soon over: between two of them its
//! queue looks for orders.

use super::request::{Doing, Ranges, Request};
use crate::block::Op;
use crate::mem::GuestRam;
use crate::sys::iobuf::IoBuf;
use crate::virtio::chain::{Segments, cut};

/// Most bytes of a step. Steps end at multiples of it, so that no cluster of a disk (up to 1 MiB, a
/// power of two) is in two.
pub(super) const STEP: u64 = 1 << 20;

/// The rest of a request.
pub(crate) enum Work {
    /// All is begun.
    Nothing,
    /// All of it in one step, of so many bytes.
    One(Op, u32),
    /// Data from or to these buffers.
    Data {
        /// To the disk.
        write: bool,
        /// Byte offset on the disk.
        offset: u64,
        /// What is left of the buffers.
        data: Segments,
        /// Their bytes.
        len: u32,
    },
    /// Ranges, the last first.
    Ranges {
        /// Discards, or write-zeroes.
        discard: bool,
        /// What is left of them.
        ranges: Ranges,
    },
}

impl Work {
    /// What the host has to do for `request`, and how many bytes of data it has. `None`: a buffer
    /// is not guest memory.
    pub fn of(request: Request, ram: &GuestRam) -> Option<(Self, Doing, u32)> {
        let data = |write, doing, offset, data: Segments, len: u32| {
            let whole = IoBuf::guest(ram, &data)?;
            let one = step_len(offset, len.into()) == u64::from(len);
            let work = if one {
                Self::One(transfer(write, offset, whole), len)
            } else {
                Self::Data { write, offset, data, len }
            };
            Some((work, doing, len))
        };
        let ranges = |discard, doing, mut ranges: Ranges| {
            ranges.retain(|range| range.len > 0);
            ranges.reverse();
            Some((Self::Ranges { discard, ranges }, doing, 0))
        };
        match request {
            Request::Read { offset, len, data: to } => data(false, Doing::Read, offset, to, len),
            Request::Write { offset, len, data: from } => {
                data(true, Doing::Write, offset, from, len)
            }
            Request::Flush | Request::GetId => Some((Self::One(Op::Flush, 0), Doing::Flush, 0)),
            Request::Discard(all) => ranges(true, Doing::Discard, all),
            Request::WriteZeroes(all) => ranges(false, Doing::WriteZeroes, all),
        }
    }

    /// Nothing is left.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::One(..) => false,
            Self::Data { len, .. } => *len == 0,
            Self::Ranges { ranges, .. } => ranges.is_empty(),
        }
    }

    /// Bytes that the next step transfers: none, if it only changes what is mapped.
    pub fn next_len(&self) -> u32 {
        match self {
            Self::One(_, len) => *len,
            Self::Data { offset, len, .. } => step_len(*offset, (*len).into()) as u32,
            Self::Nothing | Self::Ranges { .. } => 0,
        }
    }

    /// The next step, with its weight in bytes; `None` if nothing is left.
    pub fn step(&mut self, ram: &GuestRam) -> Option<(Op, u32)> {
        match self {
            Self::Nothing | Self::One(..) => match std::mem::replace(self, Self::Nothing) {
                Self::One(op, len) => Some((op, len)),
                _ => None,
            },
            Self::Data { len: 0, .. } => None,
            Self::Data { write, offset, data, len } => {
                let (at, step) = (*offset, step_len(*offset, (*len).into()) as u32);
                // All of them were looked at before, and guest memory does not go away.
                let buf = IoBuf::guest(ram, &cut(data, 0, step)?)?;
                *data = cut(data, step, *len - step)?;
                (*offset, *len) = (at + u64::from(step), *len - step);
                Some((transfer(*write, at, buf), step))
            }
            Self::Ranges { discard, ranges } => {
                let range = ranges.last_mut()?;
                let (offset, len, unmap) =
                    (range.offset, step_len(range.offset, range.len), range.unmap);
                (range.offset, range.len) = (offset + len, range.len - len);
                if range.len == 0 {
                    ranges.pop();
                }
                let op = if *discard {
                    Op::Discard { offset, len }
                } else {
                    Op::WriteZeroes { offset, len, unmap }
                };
                Some((op, len as u32))
            }
        }
    }
}

fn transfer(write: bool, offset: u64, buf: IoBuf) -> Op {
    if write { Op::Write { offset, buf } } else { Op::Read { offset, buf } }
}

/// Bytes of the step that begins at `offset` with `left` bytes left.
fn step_len(offset: u64, left: u64) -> u64 {
    left.min(STEP - offset % STEP)
}

#[cfg(test)]
mod tests {
    use super::super::request::Range;
    use super::*;
    use crate::virtio::testing::{BUFFERS, ram};
    use smallvec::smallvec;
    use vm_memory::GuestAddress;

    /// Offset and length of each step.
    fn steps(mut work: Work, ram: &GuestRam) -> Vec<(u64, u64)> {
        let mut found = vec![];
        while let Some((op, weight)) = work.step(ram) {
            let (offset, len) = match op {
                Op::Read { offset, buf } | Op::Write { offset, buf } => (offset, buf.len() as u64),
                Op::Discard { offset, len } | Op::WriteZeroes { offset, len, .. } => (offset, len),
                Op::Flush => (0, 0),
            };
            assert_eq!(len, u64::from(weight));
            found.push((offset, len));
        }
        assert!(work.is_over());
        found
    }

    #[test]
    fn a_request_is_done_in_steps_of_a_mebibyte() {
        let ram = ram();
        // The same 4 KiB again and again, as a guest that does its worst would have it.
        let data: Segments = (0..600).map(|_| (GuestAddress(BUFFERS), 4096)).collect();
        let request = Request::Read { offset: STEP - 512, len: 600 * 4096, data: data.clone() };
        let (work, doing, len) = Work::of(request, &ram).unwrap();
        assert_eq!((doing, len), (Doing::Read, 600 * 4096));
        let rest = 600 * 4096 - 512 - 2 * STEP;
        let expected = [(STEP - 512, 512), (STEP, STEP), (2 * STEP, STEP), (3 * STEP, rest)];
        assert_eq!(steps(work, &ram), expected);
        let small = Request::Write {
            offset: 512,
            len: 4096,
            data: smallvec![(GuestAddress(BUFFERS), 4096)],
        };
        assert_eq!(steps(Work::of(small, &ram).unwrap().0, &ram), [(512, 4096)]);
        // One buffer that is none spoils all of it, before anything is done.
        let mut data = data;
        data.push((GuestAddress(1 << 40), 4096));
        assert!(Work::of(Request::Write { offset: 0, len: 601 * 4096, data }, &ram).is_none());
    }

    #[test]
    fn ranges_are_done_one_after_the_other() {
        let range = |offset, len| Range { offset, len, unmap: false };
        let ranges = smallvec![range(0, 0), range(512, STEP), range(1 << 30, 1024)];
        let (work, _, _) = Work::of(Request::Discard(ranges), &ram()).unwrap();
        assert_eq!(steps(work, &ram()), [(512, STEP - 512), (STEP, 512), (1 << 30, 1024)]);
        let (work, _, _) = Work::of(Request::WriteZeroes(smallvec![range(0, 0)]), &ram()).unwrap();
        assert!(work.is_over());
    }
}
