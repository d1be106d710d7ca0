//! Packets over Unix sockets, with descriptors beside them. (SCM_RIGHTS, unix(7))

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most descriptors that go with a packet.
pub const MAX_FDS: usize = 64;

/// Sends a packet with descriptors; how many of its bytes went, which over a stream may be fewer
/// than all.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, packet, fds, SendFlags::NOSIGNAL)
}

/// As [`send`], and nothing is waited for.
///
/// # Errors
/// Those of sendmsg(2): there is no room (WouldBlock).
pub fn send_at_once(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, packet, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

fn send_with(
    socket: impl AsFd,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let rights = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(rights) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(packet)], &mut control, flags))
        .map_err(Into::into)
}

/// Receives a packet of at most `longest` bytes and its descriptors. Nothing: the other end is
/// closed.
///
/// # Errors
/// Those of recvmsg(2); the packet is longer or comes with more descriptors.
pub fn receive(socket: impl AsFd, longest: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = vec![0; longest];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is too long"));
    }
    packet.truncate(received.bytes);
    Ok((packet, fds))
}
