//! Descriptors: claiming what the launcher left open, and the few kinds that we make ourselves.

use crate::error::{Error, OrFail, Result};
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Descriptors already claimed, so that a plan that names one twice is refused instead of closing
/// it twice.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Claim a descriptor that the plan names ([`crate::plan::PlanFd`]). Each can be claimed once in a
/// process.
///
/// # Errors
/// It is a standard stream, was claimed before, or is not open.
pub fn take(fd: impl Into<RawFd>) -> Result<OwnedFd> {
    let number = fd.into();
    let mut taken = TAKEN.lock().unwrap_or_else(|e| e.into_inner());
    if number <= 2 || taken.contains(&number) {
        return Err(Error::failure(format!(
            "the plan's descriptor {number} is reserved or named twice; the launcher must pass each once"
        )));
    }
    // SAFETY: F_GETFD takes no pointer.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(Error::failure(format!(
            "the plan's descriptor {number} is not open; the launcher must pass it"
        )));
    }
    taken.push(number);
    // SAFETY: it is open, and the list above makes this the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// [`take`] as a file.
///
/// # Errors
/// As [`take`].
pub fn take_file(fd: impl Into<RawFd>) -> Result<File> {
    take(fd).map(File::from)
}

/// Blocks until one of the descriptors is ready, a signal comes or `timeout` is over. (poll(2))
///
/// # Errors
/// There are too many descriptors, or no memory.
pub fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Close every descriptor above the standard streams but `keep`, so that nothing leaks in from the
/// launcher. Call it before anything else is opened.
pub fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    keep.extend([0, 1, 2]);
    keep.sort_unstable();
    keep.dedup();
    for pair in keep.windows(2) {
        if pair[1] - pair[0] > 1 {
            close_range(pair[0] + 1, pair[1] - 1);
        }
    }
    close_range(keep[keep.len() - 1] + 1, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: no pointers; nothing of ours owns a descriptor in the range yet (the caller's duty).
    // A kernel without close_range(2), before 5.9, leaves them open, which harms nobody but
    // tidiness.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// An anonymous memory file (memfd_create(2)), close-on-exec.
///
/// # Errors
/// The kernel has no room for it.
pub fn memfd(name: &str) -> Result<File> {
    rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .or_fail(|| format!("create memory file {name}"))
}

/// The bytes in an open file. std asks by statx(2), which takes paths, too, and which no confined
/// thread may call.
///
/// # Errors
/// Those of fstat(2).
pub fn len(file: &File) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0))
}

/// A descriptor that tokio waits for.
///
/// # Errors
/// It can't be waited for (epoll(7)); this is no task of tokio's.
pub fn awaited(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what owns a descriptor gives the same one, open, until it is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// `/dev/null`, for reading and writing.
///
/// # Errors
/// It is not there; too many open files.
pub fn null() -> Result<File> {
    File::options().read(true).write(true).open("/dev/null").or_fail(|| "open /dev/null")
}

/// A pipe, (reader, writer), both close-on-exec.
///
/// # Errors
/// Too many open files.
pub fn pipe() -> Result<(File, File)> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_fail(|| "create a pipe")?;
    Ok((reader.into(), writer.into()))
}

/// A non-blocking eventfd(2) of vmm-sys-util's type, which kvm-ioctls takes.
///
/// # Errors
/// Too many open files.
pub fn eventfd() -> io::Result<vmm_sys_util::eventfd::EventFd> {
    vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

/// A signalfd(2) for these signals, which are blocked in the calling thread and those it starts
/// later.
///
/// # Errors
/// Too many open files.
pub fn signalfd(signals: &[i32]) -> Result<File> {
    // SAFETY: the set is initialised by sigemptyset before use and lives on this stack throughout.
    let fd = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(Error::io("create a signalfd", io::Error::last_os_error()));
    }
    // SAFETY: fresh from the kernel, ours alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// End the process now: no destructors, no unmapping on our time. What must be said has been said.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_descriptor_is_claimed_once() {
        let (_reader, writer) = pipe().unwrap();
        let fd = writer.into_raw_fd();
        let owned = take(fd).unwrap();
        assert!(take(fd).unwrap_err().message().contains("named twice"));
        assert_eq!(owned.as_raw_fd(), fd);
    }

    #[test]
    fn a_closed_or_standard_descriptor_is_refused() {
        assert!(take(1).is_err());
        assert!(take(-1).is_err());
        assert!(take(1_000_000).unwrap_err().message().contains("not open"));
    }

    #[test]
    fn a_pipe_carries_bytes() {
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}
