//! What goes over the socket between the process that reads a volume and whoever holds its other
//! end.
//!
//! The socket keeps packets apart (SOCK_SEQPACKET, unix(7)). A packet's first byte says what it is.
//! The child is not trusted: what it says is bounded, and a packet out of turn is the end of the
//! conversation.

use super::detect::Disk;
use super::menu::Listed;
use crate::error::{Error, OrFail, Result};
use crate::plan::{PvBoot, SavedEnvironment};
use rustix::net::{SendFlags, send};
use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;

/// Most bytes of data in a packet.
pub const PIECE: usize = 64 << 10;
/// The longest packet: a tag and a piece. Bytes.
const LONGEST: usize = PIECE + 1;
/// Longest answer without its files.
pub const MAX_ANSWER: u64 = 1 << 20;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// To the child: a [`Job`].
    Job = b'j',
    /// From it: a [`Range`] of the disk is wanted.
    Read = b'r',
    /// To it: these bytes.
    Bytes = b'b',
    /// To it: they can't be read.
    Fault = b'f',
    /// From it: an [`Answer`], in pieces; then its end.
    Answer = b'a',
    /// To it: the files that are [`Wanted`].
    Want = b'w',
    /// From it: a piece of the kernel; an empty one is its end.
    Kernel = b'k',
    /// From it: a piece of the initial ramdisk; an empty one is its end.
    Ramdisk = b'i',
    /// From it, whatever happened: the job is over. With text, it was not done.
    End = b'e',
}

impl Tag {
    const ALL: [Self; 9] = [
        Self::Job,
        Self::Read,
        Self::Bytes,
        Self::Fault,
        Self::Answer,
        Self::Want,
        Self::Kernel,
        Self::Ramdisk,
        Self::End,
    ];
}

/// What the child is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Choose and load what boots from the disk.
    Boot(PvBoot),
    /// List the entries of the disk's menu.
    List(PvBoot),
    /// Tell what of the disk matters for booting it.
    Detect,
    /// Unpack the kernel file that the "disk" is; `size` is its size in bytes.
    Unpack,
}

/// A job, and the size in bytes of what it is to be done on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What to do.
    pub job: Job,
    /// Bytes of the disk.
    pub size: u64,
}

/// A range of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes, at most [`PIECE`].
    pub len: u32,
}

/// Which of the found files are to be sent, as they are or, the kernel, unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The kernel file.
    pub kernel: bool,
    /// Unpacked.
    pub unpacked: bool,
    /// The initial ramdisk.
    pub ramdisk: bool,
}

/// What the child found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What boots.
    Found(Found),
    /// The entries.
    Listed {
        /// The menu's path and file system.
        menu: String,
        /// Its entries.
        entries: Vec<Listed>,
    },
    /// What there is.
    Detected(Disk),
    /// The kernel comes.
    Unpacked,
    /// Nothing can be booted; one line.
    Failed(String),
}

/// What boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The menu's path and file system.
    pub menu: String,
    /// The entry's index.
    pub index: String,
    /// Its title.
    pub title: String,
    /// SHA-256 of the kernel file, in hexadecimal.
    pub kernel_digest: String,
    /// Of the initial ramdisk.
    pub ramdisk_digest: Option<String>,
    /// The whole kernel command line.
    pub command_line: String,
    /// Entries that could not be loaded before it, and why.
    pub skipped: Vec<String>,
    /// What the next boot is to remember.
    #[serde(default)]
    pub saved: Option<SavedEnvironment>,
}

/// Send a packet.
///
/// # Errors
/// The other end is gone, or does not take it in time.
pub fn put(socket: BorrowedFd<'_>, tag: Tag, body: &[u8]) -> Result<()> {
    let mut packet = Vec::with_capacity(body.len() + 1);
    packet.push(tag as u8);
    packet.extend_from_slice(body);
    let sent = rustix::io::retry_on_intr(|| send(socket, &packet, SendFlags::NOSIGNAL));
    sent.map(|_| ()).or_fail(|| "talk with the process that reads a root volume")
}

/// Send a packet of JSON.
///
/// # Errors
/// As [`put`].
pub fn put_json(socket: BorrowedFd<'_>, tag: Tag, value: &impl Serialize) -> Result<()> {
    let body = serde_json::to_vec(value).or_fail(|| "write JSON")?;
    put(socket, tag, &body)
}

/// Send `bytes` in pieces, and their end.
///
/// # Errors
/// As [`put`].
pub fn put_all(socket: BorrowedFd<'_>, tag: Tag, bytes: &[u8]) -> Result<()> {
    bytes.chunks(PIECE).try_for_each(|piece| put(socket, tag, piece))?;
    put(socket, tag, &[])
}

/// A packet: what it is and what it has. `None` when the other end is gone.
///
/// # Errors
/// It is none that is known, or did not come in time.
pub fn get<'a>(socket: BorrowedFd<'_>, buffer: &'a mut Vec<u8>) -> Result<Option<(Tag, &'a [u8])>> {
    // One byte more than the longest has. The event thread has this call anyway, and not recv(2).
    buffer.resize(LONGEST + 1, 0);
    let got = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut buffer[..]));
    let count = got.or_fail(|| "hear from the process that reads a root volume")?;
    if count > LONGEST {
        return Err(nonsense());
    }
    let Some((first, body)) = buffer.get(..count).and_then(|packet| packet.split_first()) else {
        return if count == 0 { Ok(None) } else { Err(nonsense()) };
    };
    let tag = Tag::ALL.into_iter().find(|tag| *tag as u8 == *first).ok_or_else(nonsense)?;
    Ok(Some((tag, body)))
}

/// The error for a conversation that is none.
pub fn nonsense() -> Error {
    Error::failure("the process that reads a root volume said nonsense")
}
