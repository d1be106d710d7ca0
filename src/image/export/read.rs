//! Taking in an exported image: from anybody, so nothing in it is believed, and memory is bounded by one chunk.
//!
//! Members' names are compared with the only ones that can be there, and never become a path.

use super::{END, PACKAGE, disk_member, member};
use crate::error::{Error, OrFail, Result};
use crate::id::hex;
use crate::image::digest::CHUNK;
use crate::image::import::copy::Copy;
use crate::image::import::stream::Stream;
use crate::image::import::{Source, cancel, stdin};
use crate::image::incoming::{Boot, Incoming};
use crate::image::names;
use crate::image::package::{Content, MAX_PACKAGE, NewImage, Package, largest_blob, malformed};
use crate::image::record::Image;
use crate::store::{Staging, Store, beneath};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tar::{Archive, Entries, Entry};

/// Bytes of a tar header.
const HEADER: usize = 512;

/// What there is to import.
pub enum Input {
    /// An exported image.
    Exported(Stream),
    /// A disk.
    Disk(Source),
}

/// Look at the first bytes of what is to be imported.
///
/// # Errors
/// Standard input can't be read. A file that can't be is left for whoever imports it to say.
pub fn sniff(source: Source) -> Result<Input> {
    match source {
        Source::Path(path) => {
            let regular = path.metadata().is_ok_and(|meta| meta.is_file());
            let Some(file) = regular.then(|| File::open(&path).ok()).flatten() else {
                return Ok(Input::Disk(Source::Path(path)));
            };
            let mut stream = Stream::new(file);
            let exported = is_exported(stream.peek(HEADER).unwrap_or_default());
            Ok(if exported { Input::Exported(stream) } else { Input::Disk(Source::Path(path)) })
        }
        Source::Stdin(_) => {
            let mut stream = Stream::new(stdin()?);
            let head = stream.peek(HEADER).or_fail(|| "read standard input")?.to_vec();
            let exported = is_exported(&head);
            Ok(if exported { Input::Exported(stream) } else { Input::Disk(Source::Stdin(head)) })
        }
    }
}

fn is_exported(head: &[u8]) -> bool {
    // POSIX.1-2017, pax, "ustar Interchange Format": name at 0, magic at 257.
    let name = head.get(..PACKAGE.len() + 1);
    name.is_some_and(|name| name.strip_suffix(b"\0") == Some(PACKAGE.as_bytes()))
        && head.get(257..262) == Some(b"ustar")
}

/// Bring an exported image into the store. Nothing stays if that fails.
///
/// # Errors
/// `InvalidManifest`: it is damaged, cut short or contrived; the name is taken; I/O errors, no space, cancelled.
pub fn import(store: &Store, stream: Stream, new: NewImage) -> Result<Image> {
    let mut archive = Archive::new(stream);
    let entries = archive.entries().or_fail(|| "read the exported image")?;
    // Raw: extensions such as long names are not followed, and so can't ask for memory.
    let mut members = Members { entries: entries.raw(true), next: None };
    receive(store, &mut members, new).map_err(|error| cancel::check().err().unwrap_or(error))
}

fn receive<R: Read>(
    store: &Store,
    members: &mut Members<'_, R>,
    mut new: NewImage,
) -> Result<Image> {
    let package = Package::parse(&members.take(PACKAGE, MAX_PACKAGE)?)?;
    if package.disks.is_empty() {
        return Err(malformed("it is deregistered"));
    }
    if new.name.is_empty() {
        new.name.clone_from(&package.image.name);
    }
    crate::image::catalog::check_name(store, &new.name)?;
    let boot = boot(store, members, &package)?;
    let mut incoming = Incoming::begin(store, &package, &new, boot)?;
    match disks(members, &package, &mut incoming) {
        Ok(()) => incoming.complete(),
        Err(error) => {
            // A stream can't be gone on with.
            incoming.remove();
            Err(error)
        }
    }
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
        cancel::check()?;
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

    /// The chunk at `offset` of `content`; `None` if it is zeros.
    fn chunk(&mut self, what: &str, content: &Content, offset: u64) -> Result<Option<Vec<u8>>> {
        let name = member(what, offset);
        if !self.is_next(&name)? {
            return Ok(None);
        }
        unpack(&self.take(&name, largest_blob(content))?, content, offset).map(Some)
    }
}

/// Decompress a chunk, which has to have exactly what is to be there.
///
/// # Errors
/// `InvalidManifest`.
pub fn unpack(packed: &[u8], content: &Content, offset: u64) -> Result<Vec<u8>> {
    let len = content.chunk_len(offset);
    let bytes = zstd::bulk::decompress(packed, len);
    let bytes = bytes.map_err(|e| malformed(&format!("a chunk can't be decompressed: {e}")))?;
    if bytes.len() == len { Ok(bytes) } else { Err(malformed("a chunk is too short")) }
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

/// Spool the kernel and the ramdisk, and register them.
fn boot<R: Read>(store: &Store, members: &mut Members<'_, R>, package: &Package) -> Result<Boot> {
    let staging = Staging::new(store)?;
    let mut boot = Boot::default();
    let mut work = || -> Result<()> {
        if let Some(content) = &package.kernel {
            let path = staging.path().join("kernel");
            spool(members, "kernel", content, &path)?;
            boot.add_kernel(store, &path, content)?;
        }
        if let Some(content) = &package.ramdisk {
            let path = staging.path().join("ramdisk");
            spool(members, "ramdisk", content, &path)?;
            boot.add_ramdisk(store, &path, content)?;
        }
        Ok(())
    };
    match work() {
        Ok(()) => Ok(boot),
        Err(error) => {
            boot.undo(store);
            Err(error)
        }
    }
}

fn spool<R: Read>(
    members: &mut Members<'_, R>,
    what: &str,
    content: &Content,
    path: &Path,
) -> Result<()> {
    write_file(content, path, &mut |offset| members.chunk(what, content, offset))
}

/// Write a file from its chunks, and verify it. `chunk` gives one; `None` is zeros.
///
/// # Errors
/// As `chunk`'s; its digest is another (`InvalidManifest`); no space.
pub fn write_file(
    content: &Content,
    path: &Path,
    chunk: &mut dyn FnMut(u64) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let file = beneath::create(path, 0o600).or_fail(doing)?;
    let (mut sum, mut offset) = (Sha256::new(), 0);
    while offset < content.size_bytes {
        let bytes = match chunk(offset)? {
            Some(bytes) => bytes,
            None => vec![0; content.chunk_len(offset)],
        };
        sum.update(&bytes);
        file.write_all_at(&bytes, offset).or_fail(doing)?;
        offset += bytes.len() as u64;
    }
    if hex(&sum.finalize()) == content.digest {
        return Ok(());
    }
    let name = names::from_file(&content.name);
    Err(malformed(&format!("the content of '{name}' is not what its digest says")))
}

fn disks<R: Read>(
    members: &mut Members<'_, R>,
    package: &Package,
    incoming: &mut Incoming<'_>,
) -> Result<()> {
    for (n, disk) in package.disks.iter().enumerate() {
        let Some((out, _)) = incoming.file(n)? else { continue };
        let copy = Copy::new(out);
        let mut offset = 0;
        while offset < disk.size_bytes {
            if let Some(bytes) = members.chunk(&disk_member(n), disk, offset)? {
                for (piece, bytes) in bytes.chunks(CHUNK).enumerate() {
                    copy.chunk(offset + (piece * CHUNK) as u64, bytes.to_vec())?;
                }
            }
            offset += disk.chunk_size();
        }
        verified(disk, &copy.finish(disk.size_bytes)?)?;
        incoming.seal(n, &disk.digest)?;
    }
    members.take(END, 0).map(drop)
}

/// # Errors
/// `InvalidManifest`: the digest found is not the content's.
pub fn verified(disk: &Content, found: &str) -> Result<()> {
    if found == disk.digest {
        return Ok(());
    }
    Err(malformed(&format!("the content of {} is not what its digest says", disk.name)))
}
