//! One packet a call, between a descriptor that keeps packets apart and [`IoBuf`]s: readv(2),
//! writev(2).

use super::iobuf::{IoBuf, MAX_SEGMENTS};
use smallvec::SmallVec;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes a packet: its bytes fill `bufs` one after the other, and what is left of it goes to
/// `spill`. Gives the bytes in all; a packet that is longer than all of them has lost its end.
///
/// # Errors
/// Those of readv(2), EINTR excepted; `InvalidInput` where there are more than [`MAX_SEGMENTS`]
/// pieces.
pub fn receive(fd: BorrowedFd<'_>, bufs: &[&IoBuf], spill: &mut [u8]) -> io::Result<usize> {
    let mut iovs = SmallVec::<[libc::iovec; 64]>::new();
    bufs.iter().for_each(|buf| iovs.extend_from_slice(buf.iovecs()));
    iovs.push(libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() });
    let count = count(&iovs)?;
    // SAFETY: the list describes memory that the buffers keep mapped, and `spill`, which is
    // borrowed for the length of the call.
    again(|| unsafe { libc::readv(fd.as_raw_fd(), iovs.as_ptr(), count) })
}

/// Hands over a packet of `head` and the bytes of `body` behind it. Gives the bytes taken.
///
/// # Errors
/// As [`receive`], of writev(2).
pub fn send(fd: BorrowedFd<'_>, head: &[u8], body: &IoBuf) -> io::Result<usize> {
    let mut iovs = SmallVec::<[libc::iovec; 64]>::new();
    iovs.push(libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() });
    iovs.extend_from_slice(body.iovecs());
    let count = count(&iovs)?;
    // SAFETY: as in `receive`; writev(2) only reads.
    again(|| unsafe { libc::writev(fd.as_raw_fd(), iovs.as_ptr(), count) })
}

fn count(iovs: &[libc::iovec]) -> io::Result<libc::c_int> {
    if iovs.len() > MAX_SEGMENTS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet has too many pieces"));
    }
    Ok(iovs.len() as libc::c_int)
}

fn again(call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn a_packet_goes_and_comes_in_pieces() {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut spill = [0; 8];
        let empty = receive(other.as_fd(), &[], &mut spill).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let body = IoBuf::from_bytes(b"body".to_vec().into());
        assert_eq!(send(one.as_fd(), b"head", &body).unwrap(), 8);
        assert_eq!(send(one.as_fd(), b"next", &IoBuf::host(0)).unwrap(), 4);
        let (first, second) = (IoBuf::host(3), IoBuf::host(2));
        assert_eq!(receive(other.as_fd(), &[&first, &second], &mut spill).unwrap(), 8);
        assert_eq!((&*first.into_bytes().unwrap(), &spill[..3]), (&b"hea"[..], &b"ody"[..]));
        assert_eq!(&*second.into_bytes().unwrap(), b"db");
        assert_eq!(receive(other.as_fd(), &[], &mut spill).unwrap(), 4, "one packet a call");
        let many: Vec<IoBuf> = (0..MAX_SEGMENTS).map(|_| IoBuf::host(1)).collect();
        let many: Vec<&IoBuf> = many.iter().collect();
        let error = receive(other.as_fd(), &many, &mut spill).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
