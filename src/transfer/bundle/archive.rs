//! The archive in a bundle: tar with one member, the disk, in GNU's sparse format (GNU tar manual,
//! "Old GNU Format").

use super::refusal::invalid;
use crate::block::Content;
use crate::context::Context;
use crate::disk::Disk;
use crate::error::{Error, OrFail, Result};
use crate::snapshot::digest::CHUNK;
use std::io::{self, Read, Write};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Most runs of data that are believed.
const MAX_RUNS: usize = 1 << 20;
/// Most of a member that only says something of the next one.
const MAX_EXTENSION: u64 = 1 << 20;

/// A run of data: where it is on the disk, and how much.
type Run = (u64, u64);

/// A number of 12 bytes: octal, or in base 256 where that does not suffice.
fn number(field: &mut [u8; 12], value: u64) {
    if value < 1 << 33 {
        field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    } else {
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
}

fn parse(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().checked_sub(8)?);
        let zero = high.iter().enumerate().all(|(n, b)| if n == 0 { *b == 0x80 } else { *b == 0 });
        return zero.then(|| low.try_into().ok().map(u64::from_be_bytes))?;
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Where the disk has data.
fn runs(disk: &Disk) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    while let Some(extent) = disk.extent_at(at).or_fail(|| "read the disk")? {
        if extent.content == Content::Data {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == at => *len += extent.len,
                _ => runs.push((at, extent.len)),
            }
        }
        at += extent.len;
    }
    // A hole at the end ends in a run of nothing.
    if runs.last().is_none_or(|(start, len)| start + len < disk.size()) {
        runs.push((disk.size(), 0));
    }
    Ok(runs)
}

/// Write a disk as the member `name`.
///
/// # Errors
/// The disk can't be read, or `out` written.
pub(super) fn write(disk: &Disk, name: &str, out: &mut dyn Write, context: &Context) -> Result<()> {
    let doing = || "write the bundle";
    let runs = runs(disk)?;
    let mut header = Header::new_gnu();
    header.set_path(name).or_fail(doing)?;
    header.set_mode(0o600);
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(runs.iter().map(|(_, len)| len).sum());
    let (head, tail) = runs.split_at(runs.len().min(4));
    let gnu = header.as_gnu_mut().ok_or_else(|| Error::failure("tar gives no GNU header"))?;
    fill(&mut gnu.sparse, head);
    number(&mut gnu.realsize, disk.size());
    gnu.isextended[0] = u8::from(!tail.is_empty());
    header.set_cksum();
    out.write_all(header.as_bytes()).or_fail(doing)?;
    let mut rest = tail.chunks(21).peekable();
    while let Some(piece) = rest.next() {
        let mut more = GnuExtSparseHeader::new();
        fill(&mut more.sparse, piece);
        more.isextended[0] = u8::from(rest.peek().is_some());
        out.write_all(more.as_bytes()).or_fail(doing)?;
    }
    let progress = context.progress(Some(disk.size()));
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    for (start, len) in runs {
        let mut at = start;
        while at < start + len {
            progress.check()?;
            progress.at(at);
            let count = (start + len - at).min(CHUNK as u64) as usize;
            disk.read_exact_at(&mut buffer[..count], at).or_fail(|| "read the disk")?;
            out.write_all(&buffer[..count]).or_fail(doing)?;
            at += count as u64;
        }
        total += len;
    }
    // The last block is filled up, two empty ones end the archive.
    let padding = total.next_multiple_of(BLOCK as u64) - total + 2 * BLOCK as u64;
    out.write_all(&vec![0; padding as usize]).or_fail(doing)
}

fn fill(fields: &mut [GnuSparseHeader], runs: &[Run]) {
    for (field, (start, len)) in fields.iter_mut().zip(runs) {
        number(&mut field.offset, *start);
        number(&mut field.numbytes, *len);
    }
}

/// Where the pieces of a disk go, each with its place.
pub(super) type Sink<'a> = &'a mut dyn FnMut(u64, Vec<u8>) -> Result<()>;

/// Read the disk of `size` bytes that is the archive's member, in pieces of at most [`CHUNK`]
/// bytes.
///
/// # Errors
/// `InvalidManifest`: it is something else.
pub(super) fn read(from: &mut dyn Read, size: u64, sink: Sink<'_>) -> Result<()> {
    let (header, runs) = member(from, size)?;
    let mut chunk = Chunk { index: 0, bytes: Vec::new(), size, sink };
    let mut end = 0;
    for (start, len) in runs {
        let fits = start >= end && start.checked_add(len).is_some_and(|end| end <= size);
        if !fits {
            return Err(invalid("the runs of its disk overlap or are too long"));
        }
        end = start + len;
        chunk.take(from, start, len)?;
    }
    chunk.flush()?;
    let _ = header;
    Ok(())
}

/// The member's header, and where it has data.
fn member(from: &mut dyn Read, size: u64) -> Result<(Header, Vec<Run>)> {
    let not = || invalid("what is in it is not a disk in a tar archive");
    let mut header = Header::new_gnu();
    loop {
        from.read_exact(header.as_mut_bytes()).map_err(broken)?;
        let bytes = header.as_bytes();
        let sum: u64 = bytes[..148].iter().chain(&bytes[156..]).map(|b| u64::from(*b)).sum();
        if header.cksum().ok().map(u64::from) != Some(sum + 8 * 32) {
            return Err(not());
        }
        let len = header.entry_size().map_err(|_| not())?;
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if len == size => {
                return Ok((header, vec![(0, size)]));
            }
            EntryType::GNUSparse => {
                let runs = sparse(from, &header, size, len)?;
                return Ok((header, runs));
            }
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName
                if len <= MAX_EXTENSION =>
            {
                let mut text = vec![0; len.next_multiple_of(BLOCK as u64) as usize];
                from.read_exact(&mut text).map_err(broken)?;
                if memchr::memmem::find(&text, b"GNU.sparse").is_some() {
                    return Err(invalid(
                        "its archive is sparse in pax's way; bundle it with --format=gnu",
                    ));
                }
            }
            _ => return Err(not()),
        }
    }
}

fn sparse(from: &mut dyn Read, header: &Header, size: u64, stored: u64) -> Result<Vec<Run>> {
    let bad = || invalid("its archive's map of data is malformed");
    let gnu = header.as_gnu().ok_or_else(bad)?;
    if parse(&gnu.realsize) != Some(size) {
        return Err(invalid("its disk has another size than its manifest says"));
    }
    let mut runs = Vec::new();
    let mut add = |fields: &[GnuSparseHeader]| -> Result<()> {
        for field in fields.iter().filter(|field| field.numbytes[0] != 0) {
            let run = parse(&field.offset).zip(parse(&field.numbytes));
            runs.push(run.ok_or_else(bad)?);
        }
        if runs.len() > MAX_RUNS { Err(bad()) } else { Ok(()) }
    };
    add(&gnu.sparse)?;
    let mut more = gnu.isextended[0] != 0;
    while more {
        let mut next = GnuExtSparseHeader::new();
        from.read_exact(next.as_mut_bytes()).map_err(broken)?;
        add(&next.sparse)?;
        more = next.isextended[0] != 0;
    }
    let total = runs.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
    if total == Some(stored) { Ok(runs) } else { Err(bad()) }
}

/// What reading the stream failed of: our own errors come through as they are.
pub(super) fn broken(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>())
        && let Some(inner) = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok())
    {
        return *inner;
    }
    invalid("what is in it is damaged or cut short")
}

/// The piece of the disk that is being filled.
struct Chunk<'a> {
    index: u64,
    /// Empty, or all of the piece.
    bytes: Vec<u8>,
    size: u64,
    sink: Sink<'a>,
}

impl Chunk<'_> {
    fn take(&mut self, from: &mut dyn Read, start: u64, len: u64) -> Result<()> {
        let mut at = start;
        while at < start + len {
            let index = at / CHUNK as u64;
            if index != self.index {
                self.flush()?;
            }
            self.index = index;
            let base = index * CHUNK as u64;
            if self.bytes.is_empty() {
                self.bytes = vec![0; (self.size - base).min(CHUNK as u64) as usize];
            }
            let within = (at - base) as usize;
            let count = ((start + len - at) as usize).min(self.bytes.len() - within);
            from.read_exact(&mut self.bytes[within..within + count]).map_err(broken)?;
            at += count as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        // A disk has whole sectors.
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        (self.sink)(self.index * CHUNK as u64, bytes)
    }
}
