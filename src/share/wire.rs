//! What goes between a share's device and its server: a packet a request and a packet an answer,
//! over a socket that keeps them apart. An answer may come with a file that was opened.

use crate::sys::passing;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most bytes of a request behind FUSE's header: two names, or a name and the target of a symbolic
/// link (PATH_MAX), and some numbers.
pub const MAX_BODY: usize = 8 << 10;
/// Most bytes of an answer behind FUSE's header: a part of a directory.
pub const MAX_PAYLOAD: usize = 32 << 10;
/// Most bytes of FUSE's data in a request, READ and WRITE, which the device does itself.
pub const MAX_DATA: u32 = 1 << 20;
/// The number of what the server says first of all: nothing, or why it can't serve.
pub const HELLO: u64 = u64::MAX;

/// Bytes of a packet's head.
const HEAD: usize = 24;

/// A request of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The device's number for it.
    pub number: u64,
    /// The node that it is about.
    pub node: u64,
    /// What it asks for. (enum fuse_opcode in linux/fuse.h)
    pub opcode: u32,
    /// Bytes that the guest has room for, behind FUSE's header.
    pub room: u32,
    /// What is behind FUSE's header, in at most [`MAX_BODY`] bytes.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Sends it, if that is possible at once.
    ///
    /// # Errors
    /// There is no room now (WouldBlock); the server is gone.
    pub fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let mut packet = Vec::with_capacity(HEAD + self.body.len());
        packet.extend_from_slice(&self.number.to_le_bytes());
        packet.extend_from_slice(&self.node.to_le_bytes());
        packet.extend_from_slice(&self.opcode.to_le_bytes());
        packet.extend_from_slice(&self.room.to_le_bytes());
        packet.extend_from_slice(self.body);
        passing::send_at_once(socket, &packet, &[])
    }

    /// The request of a packet; `None` if it is none.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (head, body) = packet.split_at_checked(HEAD)?;
        Some(Self {
            number: u64::from_le_bytes(head[..8].try_into().ok()?),
            node: u64::from_le_bytes(head[8..16].try_into().ok()?),
            opcode: u32::from_le_bytes(head[16..20].try_into().ok()?),
            room: u32::from_le_bytes(head[20..].try_into().ok()?),
            body,
        })
    }
}

/// A packet of the other end's, and the file that came with it.
///
/// # Errors
/// Nothing is there (WouldBlock); the other end is gone (UnexpectedEof) or no end of ours.
pub fn receive(socket: impl AsFd, longest: usize) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (packet, mut files) = passing::receive(socket, HEAD + longest)?;
    match packet.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok((packet, files.pop())),
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The request's number.
    pub number: u64,
    /// The handle of what was opened, and 0 otherwise. With that of a regular file comes the file.
    pub handle: u64,
    /// 0, or the errno.
    pub errno: i32,
    /// What goes behind FUSE's header, in at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Answer {
    /// Sends it, with the file that was opened.
    ///
    /// # Errors
    /// The device is gone.
    pub fn send(&self, socket: impl AsFd, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut packet = Vec::with_capacity(HEAD + self.payload.len());
        packet.extend_from_slice(&self.number.to_le_bytes());
        packet.extend_from_slice(&self.handle.to_le_bytes());
        packet.extend_from_slice(&self.errno.to_le_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&self.payload);
        passing::send(socket, &packet, file.as_slice()).map(drop)
    }

    /// The answer of a packet; `None` if it is none.
    pub fn parse(mut packet: Vec<u8>) -> Option<Self> {
        let head = packet.get(..HEAD)?;
        let number = u64::from_le_bytes(head[..8].try_into().ok()?);
        let handle = u64::from_le_bytes(head[8..16].try_into().ok()?);
        let errno = i32::from_le_bytes(head[16..20].try_into().ok()?);
        packet.drain(..HEAD);
        Some(Self { number, handle, errno, payload: packet })
    }
}
