//! An exported image as it comes: from anybody, so nothing in it is believed, and memory is bounded
//! by one chunk.
//!
//! Members' names are compared with the only ones that can be there, and never become a path.

use super::super::stream::Stream;
use super::super::wire::{Frame, Sender};
use crate::error::{Error, OrFail, Result};
use crate::transfer::members::{END, PACKAGE, disk_member, member};
use crate::transfer::package::{Content, MAX_PACKAGE, Package, largest_blob, malformed};
use std::io::{self, Read, Write};
use tar::{Archive, Entries, Entry};

/// Says the package, and every chunk of the kernel, the ramdisk and the disks, in this order.
///
/// # Errors
/// `InvalidManifest`: it is damaged, cut short or contrived. I/O errors.
pub(super) fn send<W: Write>(
    stream: Stream<'_>,
    out: &mut Sender<W>,
    size: &mut Option<u64>,
) -> Result<()> {
    let mut archive = Archive::new(stream);
    let entries = archive.entries().or_fail(|| "read the exported image")?;
    // Raw: extensions such as long names are not followed, and so can't ask for memory.
    let mut members = Members { entries: entries.raw(true), next: None };
    let json = members.take(PACKAGE, MAX_PACKAGE)?;
    let package = Package::parse(&json)?;
    out.send(&Frame::Package(json.len() as u64), &json)?;
    for (number, content) in [(0, &package.kernel), (1, &package.ramdisk)] {
        let what = if number == 0 { "kernel" } else { "ramdisk" };
        if let Some(content) = content {
            members.send(out, (number, what), content)?;
        }
    }
    for (number, disk) in (0..).zip(&package.disks) {
        members.send(out, (number + 2, &disk_member(number as usize)), disk)?;
    }
    members.take(END, 0)?;
    *size = Some(0);
    Ok(())
}

/// The archive being read.
struct Members<'a, R: Read> {
    entries: Entries<'a, R>,
    /// Looked at and not taken.
    next: Option<Entry<'a, R>>,
}

impl<R: Read> Members<'_, R> {
    /// Whether the next member has this name.
    fn is_next(&mut self, name: &str) -> Result<bool> {
        if self.next.is_none() {
            let entry = self.entries.next().ok_or_else(cut_short)?;
            self.next = Some(entry.map_err(|e| broken(&e))?);
        }
        Ok(self.next.as_ref().is_some_and(|entry| *entry.path_bytes() == *name.as_bytes()))
    }

    /// The next member, which has to be this one, with at most `limit` bytes.
    fn take(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        if !self.is_next(name)? {
            let found = self.next.as_ref().map(|entry| entry.path_bytes().into_owned());
            let shown: String = String::from_utf8_lossy(&found.unwrap_or_default())
                .escape_debug()
                .take(100)
                .collect();
            return Err(malformed(&format!("it has '{shown}' where '{name}' should be")));
        }
        let mut entry = self.next.take().ok_or_else(cut_short)?;
        let size = entry.header().entry_size().map_err(|e| broken(&e))?;
        if size > limit {
            return Err(malformed(&format!("its '{name}' has {size} bytes")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        entry.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
        if bytes.len() as u64 != size {
            return Err(cut_short());
        }
        Ok(bytes)
    }

    /// Says all chunks of a content; those that are not there are zeros.
    fn send<W: Write>(
        &mut self,
        out: &mut Sender<W>,
        (number, what): (u64, &str),
        content: &Content,
    ) -> Result<()> {
        let mut offset = 0;
        while offset < content.size_bytes {
            let name = member(what, offset);
            if self.is_next(&name)? {
                let bytes = unpack(&self.take(&name, largest_blob(content))?, content, offset)?;
                let frame = Frame::Chunk { content: number, at: offset, len: bytes.len() as u64 };
                out.send(&frame, &bytes)?;
            }
            offset += content.chunk_size();
        }
        Ok(())
    }
}

fn cut_short() -> Error {
    malformed("it is cut short")
}

fn broken(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_short(),
        _ => malformed(&error.to_string()),
    }
}

/// Decompress a chunk, which has to have exactly what is to be there.
///
/// # Errors
/// `InvalidManifest`.
fn unpack(packed: &[u8], content: &Content, offset: u64) -> Result<Vec<u8>> {
    let len = content.chunk_len(offset);
    let bytes = zstd::bulk::decompress(packed, len);
    let bytes = bytes.map_err(|e| malformed(&format!("a chunk can't be decompressed: {e}")))?;
    if bytes.len() == len { Ok(bytes) } else { Err(malformed("a chunk is too short")) }
}
