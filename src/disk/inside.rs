//! The process that has a disk's layers: confined first, then reading their tables.

use crate::block::overlay::format_name;
use crate::block::{Content, DiskFormat, Reader};
use crate::error::{OrFail, Result};
use crate::helper::{Ends, Given, Helper, Syscalls, not_ours, one_line};
use crate::sys::seccomp::{Allow, Allow::Call};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Questions, 17 bytes each: what, offset and length in bytes, 64 bits little-endian. An answer
/// begins with the same byte.
pub(super) const READ: u8 = b'r';
/// What there is from `offset` on, within `length`. The answer: 1 for data or 0 for zeros, a byte;
/// how far, 64 bits.
pub(super) const EXTENT: u8 = b'e';
/// Begins an answer of bytes, and the first of all answers: the disk's size.
pub(super) const BYTES: u8 = b'b';
/// Begins an answer that can't be given: the length of the reason (32 bits), and the reason.
pub(super) const WHY: u8 = b'w';
/// Most bytes that are asked for at once.
pub(super) const PIECE: usize = 1 << 20;
/// Bytes of a reason at most.
pub(super) const MAX_WHY: u32 = 2000;

/// Bytes of address space: tables, of which some are held, and a compressed cluster.
const MEMORY: u64 = 1 << 30;
/// Bytes that are looked through at most for where an extent ends: tables may say the same for
/// petabytes.
const LOOK: u64 = 64 << 30;

/// What reading takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),    // questions
    Call(libc::SYS_pread64), // the layers
    Call(libc::SYS_preadv),  // the layers
    Call(libc::SYS_lseek),   // holes of the layers
    Call(libc::SYS_statx),   // their size
    Call(libc::SYS_fstat),   // the same
    Call(libc::SYS_write),   // answers
    Call(libc::SYS_close),   // what is left
    Call(libc::SYS_fcntl),   // std looks at what it closes
];

/// The reader, with a socket for questions and the disk's layers, each noted with its format.
pub(crate) const HELPER: Helper = Helper {
    word: "__disk",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    // A disk may be large: each answer has its time, and whoever waits ends this.
    seconds: None,
    ends: Ends::WithSocket,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let mut files = files.into_iter();
    let mut questions = files.next().ok_or_else(not_ours)?.file;
    let layer = |given: Given| {
        let format = parse_format(given.text()?)?;
        Ok((given.file, format))
    };
    let layers = files.map(layer).collect::<Result<Vec<(File, DiskFormat)>>>()?;
    let disk = match Reader::open(layers) {
        Ok(disk) => disk,
        Err(why) => return say(&[&reason(&why)]),
    };
    say(&[&[BYTES], &disk.size().to_le_bytes()])?;
    let (mut question, mut bytes) = ([0; 17], Vec::new());
    while questions.read_exact(&mut question).is_ok() {
        let number =
            |at: usize| u64::from_le_bytes(question[at..at + 8].try_into().unwrap_or_default());
        let (offset, len) = (number(1), number(9));
        match question[0] {
            READ if len <= PIECE as u64 => {
                bytes.resize(len as usize, 0);
                match disk.read_exact_at(&mut bytes, offset) {
                    Ok(()) => say(&[&[BYTES], &bytes])?,
                    Err(why) => say(&[&reason(&why)])?,
                }
            }
            EXTENT => match disk.extent_within(offset, len.min(LOOK)) {
                Ok(Some(extent)) => {
                    let data = u8::from(extent.content == Content::Data);
                    say(&[&[EXTENT, data], &extent.len.to_le_bytes()])?;
                }
                Ok(None) => return Err(not_ours()),
                Err(why) => say(&[&reason(&why)])?,
            },
            _ => return Err(not_ours()),
        }
    }
    Ok(())
}

fn say(parts: &[&[u8]]) -> Result<()> {
    let mut out = io::stdout().lock();
    let said = parts.iter().try_for_each(|part| out.write_all(part));
    said.and_then(|()| out.flush()).or_fail(|| "answer")
}

fn reason(why: &io::Error) -> Vec<u8> {
    let text = one_line(&why.to_string(), MAX_WHY as usize / 4);
    let len = (text.len() as u32).to_le_bytes();
    [&[WHY][..], &len, text.as_bytes()].concat()
}

/// Layers as a helper is given them, each noted with its format.
pub(crate) fn given(layers: &[(File, DiskFormat)]) -> Vec<(BorrowedFd<'_>, &'static OsStr)> {
    layers.iter().map(|(file, format)| (file.as_fd(), OsStr::new(format_name(*format)))).collect()
}

/// The format that has this name.
///
/// # Errors
/// There is none.
pub(crate) fn parse_format(text: &str) -> Result<DiskFormat> {
    [DiskFormat::Raw, DiskFormat::Qcow2]
        .into_iter()
        .find(|format| format_name(*format) == text)
        .ok_or_else(not_ours)
}
