//! io_uring(7) for whole transfers between [`IoBuf`]s and files.
//!
//! The ring owns what the kernel reads and writes: buffers, lists and files live in its table until
//! their completion has been seen, and dropping the ring waits for them.
//!
//! A seccomp filter sees io_uring_enter(2) and not what is in the ring, which whoever has taken a
//! thread over writes as it likes. So the kernel itself keeps the ring to reads, writes and syncs
//! of the files that it was made for (IORING_REGISTER_RESTRICTIONS): nothing opens, connects or
//! executes, and no later registration changes that.

use super::iobuf::IoBuf;
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

/// What to do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Fill the piece of the buffer; zeros beyond the end of the file.
    Read,
    /// Write the piece of the buffer.
    Write,
    /// fdatasync(2); the piece is ignored.
    Sync,
}

/// One transfer.
pub struct Request {
    /// Given back with the completion.
    pub user: u64,
    /// What.
    pub transfer: Transfer,
    /// The file.
    pub file: Arc<File>,
    /// Its offset in bytes.
    pub offset: u64,
    /// The buffer.
    pub buf: Arc<IoBuf>,
    /// First byte of the piece of the buffer.
    pub start: usize,
    /// Bytes of the piece.
    pub len: usize,
}

/// A request in the kernel's hands, and the list that the kernel may still read.
struct Flight {
    request: Request,
    file: types::Fixed,
    iovs: Box<[libc::iovec]>,
}

// SAFETY: the list's pointers lead into `request.buf`, which the flight keeps alive; it has no
// thread affinity.
unsafe impl Send for Flight {}

/// A ring for one thread at a time.
pub struct Ring {
    ring: IoUring,
    /// What it may work on, in the order that the kernel has them.
    files: Vec<Arc<File>>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    finished: Vec<(usize, i32)>,
    queued: bool,
}

impl Ring {
    /// A ring for transfers of these files and nothing else, with room for `entries` submissions at
    /// once; more may be in flight.
    ///
    /// # Errors
    /// Those of io_uring_setup(2) and io_uring_register(2): ENOSYS, EPERM (a sysctl or a seccomp
    /// filter), ENOMEM, and EINVAL from a kernel before 5.10, whose rings can't be restricted.
    pub fn new(entries: u32, files: Vec<Arc<File>>) -> io::Result<Self> {
        let ring = IoUring::builder().setup_clamp().setup_r_disabled().build(entries)?;
        let submitter = ring.submitter();
        let fds: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        submitter.register_files(&fds)?;
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Read::CODE),
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Write::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
            Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()),
        ])?;
        // From here on the restrictions hold. No registration is among what they allow.
        submitter.register_enable_rings()?;
        Ok(Self {
            ring,
            files,
            flights: Vec::new(),
            free: Vec::new(),
            finished: Vec::new(),
            queued: false,
        })
    }

    /// Whether it was made for this file.
    pub fn knows(&self, file: &Arc<File>) -> bool {
        self.index(file).is_some()
    }

    fn index(&self, file: &Arc<File>) -> Option<u32> {
        self.files.iter().position(|known| Arc::ptr_eq(known, file)).map(|index| index as u32)
    }

    /// Requests whose completion has not been seen.
    pub fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Queue a request; [`Ring::submit`] makes the kernel see it.
    ///
    /// # Errors
    /// `InvalidInput` if the piece leaves its buffer or the ring does not know the file; errors of
    /// io_uring_enter(2) if the ring was full.
    pub fn push(&mut self, request: Request) -> io::Result<()> {
        let index = self.index(&request.file).ok_or(io::ErrorKind::InvalidInput)?;
        let iovs = match request.transfer {
            Transfer::Sync => Box::default(),
            _ => match request.buf.range(request.start, request.len) {
                Some(list) => list.into_vec().into_boxed_slice(),
                None => return Err(io::ErrorKind::InvalidInput.into()),
            },
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.flights[slot] = Some(Flight { request, file: types::Fixed(index), iovs });
        self.start(slot)
    }

    /// Hand flight `slot` to the submission queue.
    fn start(&mut self, slot: usize) -> io::Result<()> {
        let Some(flight) = &self.flights[slot] else { return Ok(()) };
        let entry = entry(flight).user_data(slot as u64);
        loop {
            // SAFETY: all that the entry points to is in `flights` (boxed, so it does not move)
            // until its completion.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.queued = true;
                return Ok(());
            }
            if let Err(e) = self.submit() {
                self.flights[slot] = None;
                self.free.push(slot);
                return Err(e);
            }
        }
    }

    /// Make the kernel see what was pushed.
    ///
    /// # Errors
    /// Those of io_uring_enter(2), EINTR and EBUSY excepted, which a later call makes good.
    pub fn submit(&mut self) -> io::Result<()> {
        while self.queued {
            match self.ring.submit() {
                Ok(_) => self.queued = !self.ring.submission().is_empty(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The completion queue is full: make room, without handing over yet.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => self.reap(),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Wait until something has finished.
    ///
    /// # Errors
    /// `NotFound` if nothing is in flight; those of io_uring_enter(2), EINTR and EBUSY excepted.
    pub fn wait(&mut self) -> io::Result<()> {
        if self.in_flight() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        match self.ring.submit_and_wait(1) {
            Err(e)
                if e.kind() != io::ErrorKind::Interrupted
                    && e.raw_os_error() != Some(libc::EBUSY) =>
            {
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// Take what the completion queue holds. What did not fit into it the kernel keeps until it is
    /// entered again (io_uring_setup(2), IORING_FEAT_NODROP).
    fn reap(&mut self) {
        loop {
            let Self { ring, finished, .. } = self;
            finished.extend(ring.completion().map(|c| (c.user_data() as usize, c.result())));
            if !ring.submission().cq_overflow() || ring.submit().is_err() {
                return;
            }
        }
    }

    /// Hand over what has finished. Transfers cut short are continued.
    pub fn completions(&mut self, each: &mut dyn FnMut(u64, io::Result<()>)) {
        self.reap();
        for (slot, result) in std::mem::take(&mut self.finished) {
            let Some(flight) = &mut self.flights[slot] else { continue };
            let user = flight.request.user;
            let outcome = match advance(flight, result) {
                Some(outcome) => outcome,
                None => match self.start(slot) {
                    Ok(()) => continue,
                    // `start` has let the slot go.
                    Err(e) => {
                        each(user, Err(e));
                        continue;
                    }
                },
            };
            self.flights[slot] = None;
            self.free.push(slot);
            each(user, outcome);
        }
        // What was continued must not wait for the caller's next batch.
        let _ = self.submit();
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as `self`, and the borrow ends before.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may write to the buffers until the last completion.
        let _ = self.submit();
        while self.in_flight() > 0 {
            if self.wait().is_err() {
                // Never free what the kernel may still write.
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            self.completions(&mut |_, _| {});
        }
    }
}

fn entry(flight: &Flight) -> squeue::Entry {
    let Flight { request, file, iovs } = flight;
    let fd = *file;
    let count = iovs.len() as u32;
    match (request.transfer, &**iovs) {
        (Transfer::Read, [one]) => opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32)
            .offset(request.offset)
            .build(),
        (Transfer::Read, list) => {
            opcode::Readv::new(fd, list.as_ptr(), count).offset(request.offset).build()
        }
        (Transfer::Write, [one]) => opcode::Write::new(fd, one.iov_base.cast(), one.iov_len as u32)
            .offset(request.offset)
            .build(),
        (Transfer::Write, list) => {
            opcode::Writev::new(fd, list.as_ptr(), count).offset(request.offset).build()
        }
        (Transfer::Sync, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

/// Take note of a result; `None` if the rest must be started.
fn advance(flight: &mut Flight, result: i32) -> Option<io::Result<()>> {
    let request = &mut flight.request;
    let done = match usize::try_from(result) {
        Ok(done) => done,
        Err(_) if [-libc::EINTR, -libc::EAGAIN].contains(&result) => 0,
        Err(_) => return Some(Err(io::Error::from_raw_os_error(-result))),
    };
    match request.transfer {
        Transfer::Sync => return (result >= 0).then_some(Ok(())),
        _ if done >= request.len => return Some(Ok(())),
        Transfer::Read if result == 0 => {
            request.buf.zero(request.start, request.len);
            return Some(Ok(()));
        }
        Transfer::Write if result == 0 => return Some(Err(io::ErrorKind::WriteZero.into())),
        _ => {}
    }
    request.start += done;
    request.len -= done;
    request.offset += done as u64;
    let rest = request.buf.range(request.start, request.len);
    flight.iovs = rest.map(|list| list.into_vec().into_boxed_slice()).unwrap_or_default();
    None
}

#[cfg(test)]
impl Ring {
    /// What somebody tries who has taken over the thread that the ring belongs to, each with the
    /// kernel's answer.
    pub fn attempts(&mut self) -> Vec<(&'static str, i32)> {
        let (outside, inside) = (types::Fd(self.files[0].as_raw_fd()), types::Fixed(0));
        let address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
        let address = (&raw const address).cast();
        let mut byte = 0u8;
        let path = c"/etc/passwd".as_ptr();
        let entries = [
            ("socket", opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build()),
            ("connect", opcode::Connect::new(outside, address, 110).build()),
            ("connect a file of its own", opcode::Connect::new(inside, address, 110).build()),
            ("openat", opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path).build()),
            ("send", opcode::Send::new(inside, &raw const byte, 1).build()),
            ("close", opcode::Close::new(outside).build()),
            ("change its files", opcode::FilesUpdate::new(&raw const outside.0, 1).build()),
            ("nothing", opcode::Nop::new().build()),
            ("read by descriptor", opcode::Read::new(outside, &raw mut byte, 1).build()),
        ];
        let attempt = |ring: &mut IoUring, entry: &squeue::Entry| {
            // SAFETY: what the entry points to outlives the wait for its completion.
            unsafe { ring.submission().push(entry) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            ring.completion().next().unwrap().result()
        };
        entries.iter().map(|(what, entry)| (*what, attempt(&mut self.ring, entry))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_whole_and_zero_beyond_the_end() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let other = Arc::new(tempfile::tempfile().unwrap());
        let Ok(mut ring) = Ring::new(4, vec![other, file.clone()]) else {
            println!("skipped: transfers_are_whole_and_zero_beyond_the_end: no io_uring here");
            return;
        };
        let push = |ring: &mut Ring, user, transfer, offset, buf: &Arc<IoBuf>| {
            let (file, len, buf) = (file.clone(), buf.len(), buf.clone());
            ring.push(Request { user, transfer, file, offset, buf, start: 0, len }).unwrap();
        };
        let wait = |ring: &mut Ring| {
            let mut users = Vec::new();
            while ring.in_flight() > 0 {
                ring.wait().unwrap();
                ring.completions(&mut |user, result| {
                    result.unwrap();
                    users.push(user);
                });
            }
            users.sort();
            users
        };
        for n in 0..20u64 {
            let bytes = Arc::new(IoBuf::from_bytes(vec![n as u8 + 1; 1000].into()));
            push(&mut ring, n, Transfer::Write, n * 1000, &bytes);
        }
        assert_eq!(wait(&mut ring), (0..20).collect::<Vec<_>>());
        let buf = Arc::new(IoBuf::from_bytes(vec![0xff; 4000].into()));
        push(&mut ring, 7, Transfer::Read, 18_000, &buf);
        push(&mut ring, 8, Transfer::Sync, 0, &Arc::new(IoBuf::host(0)));
        assert_eq!(wait(&mut ring), [7, 8]);
        let mut bytes = vec![1; 4000];
        buf.copy_out(0, &mut bytes);
        assert!(bytes[..1000].iter().all(|b| *b == 19));
        assert!(bytes[1000..2000].iter().all(|b| *b == 20));
        assert!(bytes[2000..].iter().all(|b| *b == 0));
    }
}
