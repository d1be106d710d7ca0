//! The process that reads root volumes: the helper `__pvgrub`, with a socket and nothing else.
//!
//! It gives everything up before it is asked anything. Each job is done by a fork of it, which
//! gives up even that, and has bounded memory and time: what a job does to its process ends with
//! it. It lives as long as the socket's other end.

use super::volume::{Bytes, Volume};
use super::wire::{self, Answer, Found, Job, Order, PIECE, Range, Tag, Wanted};
use super::{detect, load};
use crate::boot;
use crate::error::{Error, OrFail, Result};
use crate::helper::{Ends, Given, Helper, Syscalls, not_ours};
use crate::id::hex;
use crate::sys::confine;
use crate::sys::process::{Ended, in_fork};
use crate::sys::seccomp::{Allow, Allow::Call, Filter};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

/// Bytes of address space of a job: a kernel, packed and twice unpacked, and an initial ramdisk.
const MEMORY: u64 = 1 << 30;
/// Seconds of processor time of a job; a real menu with its kernel takes 0.2.
const TIME: u64 = 20;

/// Longest text that a guest wrote, in characters.
const LONGEST: usize = 2000;

/// What a job takes. Anything else ends it.
const JOB: &[Allow] = &[
    Call(libc::SYS_read),   // the socket
    Call(libc::SYS_sendto), // the socket
    Call(libc::SYS_write),  // a panic's message
    Call(libc::SYS_close),  // what is left
];

/// What the process that forks for each job takes.
const JOBS: &[Allow] = &[
    Call(libc::SYS_read),            // the socket
    Call(libc::SYS_sendto),          // the socket
    Call(libc::SYS_write),           // a panic's message
    Call(libc::SYS_close),           // what is left
    Call(libc::SYS_clone),           // fork (glibc)
    Call(libc::SYS_fork),            // fork (musl)
    Call(libc::SYS_set_tid_address), // fork (musl)
    Call(libc::SYS_set_robust_list), // fork
    Call(libc::SYS_gettid),          // fork
    Call(libc::SYS_getpid),          // fork
    Call(libc::SYS_wait4),           // its end
    Call(libc::SYS_prlimit64),       // its limits
    Call(libc::SYS_prctl),           // its filter
    Call(libc::SYS_seccomp),         // its filter
];

/// The reader, with a SOCK_SEQPACKET socket.
pub(crate) const HELPER: Helper = Helper {
    word: "__pvgrub",
    syscalls: Syscalls::These(JOBS),
    memory: MEMORY,
    // Each job has its own.
    seconds: None,
    ends: Ends::WithSocket,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(not_ours)?;
    // It is needed until this process ends.
    let socket: &'static File = Box::leak(Box::new(given.file));
    let socket = socket.as_fd();
    serve(socket).inspect_err(|error| {
        let _ = wire::put(socket, Tag::End, error.message().as_bytes());
    })
}

/// Do one job after the other until nobody asks any more.
fn serve(socket: BorrowedFd<'static>) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some((tag, body)) = wire::get(socket, &mut buffer)? {
        // What a job that died was still to be told is of no use any more.
        if tag != Tag::Job {
            continue;
        }
        let order: Order = serde_json::from_slice(body).or_fail(|| "understand a job")?;
        let ended = in_fork(|| match work(socket, &order) {
            Ok(()) => 0,
            Err(_) => 1,
        })?;
        wire::put(socket, Tag::End, end(ended).as_bytes())?;
    }
    Ok(())
}

/// What is said of a job's end; nothing if it is done.
fn end(ended: Ended) -> String {
    let why = match ended {
        Ended::Exit(0) => return String::new(),
        // Whatever it wanted to say has been said.
        Ended::Exit(code) => format!("it ended with {code}"),
        Ended::Signal(libc::SIGKILL | libc::SIGXCPU) => {
            format!("it would take more than {TIME} s of processor time")
        }
        Ended::Signal(libc::SIGABRT) => {
            format!("it would take more than {} MiB of memory", MEMORY >> 20)
        }
        Ended::Signal(number) => format!("it was stopped by signal {number}"),
    };
    format!("reading the root volume was given up: {why}")
}

fn work(socket: BorrowedFd<'static>, order: &Order) -> Result<()> {
    confine::limit(MEMORY, Some(TIME))?;
    Filter::compile(&[JOB, confine::MEMORY_AND_END].concat())?.apply()?;
    let disk: Rc<dyn Bytes> =
        Rc::new(Remote { socket, size: order.size, buffer: RefCell::default() });
    match &order.job {
        Job::Boot(boot) => match load::load(&Volume::open(disk), boot) {
            Ok(loaded) => found(socket, loaded),
            Err(why) => answer(socket, &Answer::Failed(one_line(&why))),
        },
        Job::List(boot) => answer(
            socket,
            &match load::list(&Volume::open(disk), boot) {
                Ok((menu, entries)) => Answer::Listed { menu, entries },
                Err(why) => Answer::Failed(one_line(&why)),
            },
        ),
        Job::Detect => answer(socket, &Answer::Detected(detect::detect(&disk))),
        Job::Unpack => {
            let mut kernel = vec![0; usize::try_from(order.size).or_fail(|| "read a kernel")?];
            disk.read_exact_at(&mut kernel, 0).or_fail(|| "read a kernel")?;
            match boot::unpack::unpack_bytes(&kernel) {
                Ok(unpacked) => {
                    answer(socket, &Answer::Unpacked)?;
                    wire::put_all(socket, Tag::Kernel, &unpacked.elf)
                }
                Err(why) => answer(socket, &Answer::Failed(one_line(why.message()))),
            }
        }
    }
}

fn answer(socket: BorrowedFd<'_>, answer: &Answer) -> Result<()> {
    let json = serde_json::to_vec(answer).or_fail(|| "write JSON")?;
    wire::put_all(socket, Tag::Answer, &json)
}

/// Say what was found, hear what of it is wanted, send that.
fn found(socket: BorrowedFd<'_>, loaded: load::Loaded) -> Result<()> {
    let digest = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    let (index, title) = loaded.entry;
    answer(
        socket,
        &Answer::Found(Found {
            menu: one_line(&loaded.menu),
            index,
            title: one_line(&title),
            kernel_digest: digest(&loaded.kernel),
            ramdisk_digest: loaded.ramdisk.as_deref().map(digest),
            command_line: loaded.command_line,
            skipped: loaded.skipped.iter().map(|why| one_line(why)).collect(),
            saved: loaded.saved,
        }),
    )?;
    let mut buffer = Vec::new();
    let wanted: Wanted = match wire::get(socket, &mut buffer)? {
        Some((Tag::Want, body)) => serde_json::from_slice(body).or_fail(|| "understand a wish")?,
        _ => return Err(wire::nonsense()),
    };
    if wanted.kernel {
        let kernel = if wanted.unpacked {
            match boot::unpack::unpack_bytes(&loaded.kernel) {
                Ok(unpacked) => unpacked.elf,
                Err(why) => return answer(socket, &Answer::Failed(one_line(why.message()))),
            }
        } else {
            loaded.kernel
        };
        wire::put_all(socket, Tag::Kernel, &kernel)?;
    }
    match loaded.ramdisk.filter(|_| wanted.ramdisk) {
        Some(ramdisk) => wire::put_all(socket, Tag::Ramdisk, &ramdisk),
        None => Ok(()),
    }
}

fn one_line(text: &str) -> String {
    crate::helper::one_line(text, LONGEST)
}

/// The disk, on the socket's other end.
struct Remote {
    socket: BorrowedFd<'static>,
    size: u64,
    /// A packet of its answers.
    buffer: RefCell<Vec<u8>>,
}

impl Bytes for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let other = |error: Error| io::Error::other(error.message().to_owned());
        let mut buffer = self.buffer.borrow_mut();
        for (n, piece) in bytes.chunks_mut(PIECE).enumerate() {
            let offset = offset + (n * PIECE) as u64;
            let range = Range { offset, len: piece.len() as u32 };
            wire::put_json(self.socket, Tag::Read, &range).map_err(other)?;
            match wire::get(self.socket, &mut buffer).map_err(other)? {
                Some((Tag::Bytes, found)) if found.len() == piece.len() => {
                    piece.copy_from_slice(found);
                }
                Some((Tag::Fault, why)) => {
                    return Err(io::Error::other(String::from_utf8_lossy(why).into_owned()));
                }
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }
}
