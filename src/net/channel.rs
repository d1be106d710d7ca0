//! How the processes of a network talk: packets of JSON, with descriptors beside them.

use crate::sys::passing::{receive, send};
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest request of the worker's, in bytes.
pub const MAX_ASK: usize = 8 << 20;

/// What the worker asks its supervisor for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The network namespace comes with this; it has a way out if `out`.
    Namespace {
        /// Whether pasta is to be started.
        out: bool,
    },
    /// The host's resolvers.
    Resolvers,
    /// pasta has made another interface than it was asked for: it is to try again.
    OtherWayOut,
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// The host's resolvers, three at most. (resolv.conf(5), MAXNS)
    Resolvers(Vec<IpAddr>),
}

/// A packet as it goes over a stream: its length before it, of four bytes.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], packet].concat()
}

/// Sends a packet over a stream.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_framed(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = framed(packet);
    let (head, mut rest) = bytes.split_at(4);
    send(&socket, head, fds)?;
    while !rest.is_empty() {
        let sent =
            rustix::io::retry_on_intr(|| rustix::net::send(&socket, rest, SendFlags::NOSIGNAL))?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Receives what [`send_framed`] has sent, of at most `longest` bytes. Nothing: the other end is
/// closed.
///
/// # Errors
/// Those of recvmsg(2); it is longer; it ends halfway.
pub fn receive_framed(socket: impl AsFd, longest: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (head, fds) = receive(&socket, 4)?;
    if head.is_empty() {
        return Ok((head, fds));
    }
    let length: [u8; 4] = head.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > longest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is too long"));
    }
    let (mut packet, mut filled) = (vec![0; length], 0);
    while filled < length {
        let (count, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&socket, &mut packet[filled..], RecvFlags::empty())
        })?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
    }
    Ok((packet, fds))
}
