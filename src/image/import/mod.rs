//! Import: any disk that people have, from a file or standard input, into a raw sparse file of the store.
//!
//! The result is raw whatever came in: the fastest base for overlays, readable by everything, and as
//! sparse as its content.

pub mod cancel;
pub(super) mod copy;
mod denied;
pub mod external;
pub mod format;
pub(super) mod progress;
mod room;
pub(super) mod stream;

pub use format::SourceFormat;

use crate::block::{self, Content, DiskFormat};
use crate::error::{Error, OrFail, OrRefuse, Result};
use crate::image::digest::{self, CHUNK};
use crate::store::beneath::{self, Owned};
use copy::Copy;
use progress::Progress;
use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use stream::{Stream, unreadable};

/// Largest disk: EC2's limit for a volume, 16 TiB.
pub const MAX_SIZE: u64 = 16 << 40;
/// Name of the imported disk in the target directory.
pub const DATA: &str = "data";

/// Where a disk comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or block device.
    Path(PathBuf),
    /// Standard input; what has been read of it already.
    Stdin(Vec<u8>),
}

impl Source {
    /// `-` is standard input.
    pub fn from_argument(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin(Vec::new()) } else { Self::Path(path) }
    }
}

/// How to import.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The format, if it is not to be detected.
    pub format: Option<SourceFormat>,
    /// Show progress on standard error (where that is a terminal).
    pub progress: bool,
}

/// What [`import`] left in [`DATA`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Always raw.
    pub format: DiskFormat,
    /// Bytes of the disk, a multiple of 512.
    pub size_bytes: u64,
    /// Its [`digest`].
    pub digest: String,
}

/// Bring the disk at `source` into `target_dir` as [`DATA`], complete and synced. On an error the
/// caller removes the directory with whatever is in it.
///
/// # Errors
/// The source can't be read, is damaged, refers to other files, needs a program that is not installed,
/// or does not fit; or the import was cancelled ([`cancel`]).
pub fn import(source: &Source, target_dir: &Path, options: &Options) -> Result<Imported> {
    import_from(source, target_dir, options).map_err(|error| {
        // A reader may have hidden the cancellation behind an error of its own.
        cancel::check().err().unwrap_or_else(|| match source {
            Source::Path(path) => error.context(path.display()),
            Source::Stdin(_) => error.context("standard input"),
        })
    })
}

fn import_from(source: &Source, target_dir: &Path, options: &Options) -> Result<Imported> {
    let path = match source {
        Source::Path(path) => path,
        Source::Stdin(seen) => {
            return import_stream(Stream::after(seen.clone(), stdin()?), target_dir, options);
        }
    };
    let mut file = File::open(path).or_refuse(|| "open it")?;
    let metadata = file.metadata().or_fail(|| "examine it")?;
    if metadata.is_dir() {
        return Err(Error::refused("InvalidParameterValue", "it is a directory, not a disk"));
    }
    if metadata.file_type().is_char_device() {
        return Err(Error::refused(
            "InvalidParameterValue",
            "it is a character device, not a disk; give a file, a block device or a pipe",
        ));
    }
    // A pipe has no end to seek to.
    let Ok(size) = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size)) else {
        return import_stream(Stream::new(file), target_dir, options);
    };
    let (head, _) = format::ends(&file, size).or_fail(|| "read it")?;
    if options.format.is_none() && format::compression(&head)?.is_some() {
        // Unpacked it is not less.
        room::check_bytes(size, target_dir)?;
        return import_stream(Stream::new(file), target_dir, options);
    }
    import_file(path, file, target_dir, options)
}

/// Standard input, as a descriptor of its own.
pub(super) fn stdin() -> Result<File> {
    let input = rustix::io::dup(std::io::stdin().as_fd()).or_fail(|| "use standard input")?;
    Ok(input.into())
}

/// A disk that can be read at any place.
fn import_file(path: &Path, mut file: File, dir: &Path, options: &Options) -> Result<Imported> {
    let size = file.seek(SeekFrom::End(0)).or_fail(|| "find its size")?;
    let (head, tail) = format::ends(&file, size).or_fail(|| "read it")?;
    let format = match options.format {
        Some(format) => format,
        None => format::detect(&head, tail.as_ref())?,
    };
    let out = create(dir, DATA)?;
    match format {
        SourceFormat::Raw if !size.is_multiple_of(512) => {
            // Half a sector at the end is made whole with zeros, as qemu-img does.
            file.rewind().or_fail(|| "read it")?;
            copy_stream(Stream::new(file), out, options, Some(size))
        }
        SourceFormat::Raw => copy_disk(file, DiskFormat::Raw, (dir, out), options),
        SourceFormat::Qcow2 => copy_disk(file, DiskFormat::Qcow2, (dir, out), options),
        SourceFormat::Vmdk | SourceFormat::Vpc | SourceFormat::Vhdx => {
            drop(out);
            let path = path.canonicalize().or_fail(|| "find it")?;
            let dir = dir.canonicalize().or_fail(|| "find the store")?;
            let target = dir.join(DATA);
            external::convert(&path, format, &target)?;
            adopt(&dir)
        }
    }
}

/// Bytes that come in order. Formats that must be read back and forth are spooled first.
fn import_stream(mut stream: Stream, dir: &Path, options: &Options) -> Result<Imported> {
    let head = stream.peek(format::HEAD).or_fail(|| "read it")?;
    if let Some(compression) = format::compression(head)? {
        stream = stream.decompressed(compression).or_fail(|| "decompress it")?;
    }
    let head = stream.peek(format::HEAD).map_err(unreadable)?;
    let format = match options.format {
        Some(format) => format,
        None => format::detect(head, None)?,
    };
    if format == SourceFormat::Raw {
        return copy_stream(stream, create(dir, DATA)?, options, None);
    }
    let spool = "spool";
    copy_stream(stream, create(dir, spool)?, options, None)?;
    let owned = beneath::owned(dir)?;
    let file = owned.file(spool).or_fail(|| "open the spooled disk")?;
    let path = dir.join(spool);
    let imported = import_file(&path, file, dir, &Options { format: Some(format), ..*options })?;
    owned.remove(spool).or_fail(|| "remove the spooled disk")?;
    Ok(imported)
}

fn create(dir: &Path, name: &str) -> Result<File> {
    let created = Owned::open(dir).and_then(|dir| dir.create_anew(name, 0o600));
    created.or_fail(|| format!("create {}", dir.join(name).display()))
}

fn check_size(size: u64) -> Result<()> {
    match size {
        0 => Err(Error::refused(
            "InvalidParameterValue",
            "it is empty; a disk has at least one sector",
        )),
        size if size > MAX_SIZE => Err(Error::refused(
            "InvalidParameterValue",
            format!("its disk of {size} bytes is larger than the limit of 16 TiB"),
        )),
        _ => Ok(()),
    }
}

/// Copy the data extents of a disk that can be read at any place.
fn copy_disk(
    file: File,
    format: DiskFormat,
    (dir, out): (&Path, File),
    options: &Options,
) -> Result<Imported> {
    let disk = block::import_source(file, format).map_err(|cause| {
        let why = format!("it can't be imported: {cause}");
        let error = Error::refused("InvalidParameterValue", why);
        match cause.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                error.remedy("check it with 'qemu-img check', or fetch it again")
            }
            _ => error,
        }
    })?;
    check_size(disk.size())?;
    room::check(&*disk, dir)?;
    let progress = Progress::new(Some(disk.size()), options.progress);
    let digest = copy_extents(&*disk, out, &progress)?;
    Ok(Imported { format: DiskFormat::Raw, size_bytes: disk.size(), digest })
}

/// Copy the data extents of a disk into an empty file, which is durable then. Gives the digest.
pub(super) fn copy_extents(
    disk: &dyn block::ImportSource,
    out: File,
    progress: &Progress,
) -> Result<String> {
    copy_extents_with(disk, Copy::new(out), progress)
}

/// As [`copy_extents`], by a [`Copy`] of the caller's.
pub(super) fn copy_extents_with(
    disk: &dyn block::ImportSource,
    copy: Copy,
    progress: &Progress,
) -> Result<String> {
    let (size, mut at) = (disk.size(), 0);
    while let Some(extent) = disk.extent_at(at).or_fail(|| "read its metadata")? {
        cancel::check()?;
        progress.at(at);
        if extent.content == Content::Zero {
            at += extent.len;
            continue;
        }
        let start = at / CHUNK as u64 * CHUNK as u64;
        let mut bytes = vec![0; (size - start).min(CHUNK as u64) as usize];
        disk.read_exact_at(&mut bytes, start).or_fail(|| format!("read it at byte {start}"))?;
        at = start + bytes.len() as u64;
        copy.chunk(start, bytes)?;
    }
    copy.finish(size)
}

fn copy_stream(
    mut stream: Stream,
    out: File,
    options: &Options,
    size: Option<u64>,
) -> Result<Imported> {
    let (progress, copy) = (Progress::new(size, options.progress), Copy::new(out));
    let mut at = 0;
    loop {
        cancel::check()?;
        progress.at(at);
        let mut bytes = vec![0; CHUNK];
        let count = stream.fill(&mut bytes).map_err(unreadable)?;
        at += count as u64;
        if at > MAX_SIZE {
            check_size(at)?;
        }
        bytes.truncate(count.next_multiple_of(512));
        let last = count < CHUNK;
        if count > 0 {
            copy.chunk((at - count as u64) / CHUNK as u64 * CHUNK as u64, bytes)?;
        }
        if last {
            break;
        }
    }
    check_size(at)?;
    let size = at.next_multiple_of(512);
    Ok(Imported { format: DiskFormat::Raw, size_bytes: size, digest: copy.finish(size)? })
}

/// Take what qemu-img wrote: make it durable and digest it.
fn adopt(dir: &Path) -> Result<Imported> {
    let file = Owned::open(dir).and_then(|dir| dir.writable(DATA));
    let file = file.or_fail(|| "open the converted disk")?;
    let size = file.metadata().or_fail(|| "examine the converted disk")?.len();
    check_size(size)?;
    let size_bytes = size.next_multiple_of(512);
    file.set_len(size_bytes).or_fail(|| "set the size of the converted disk")?;
    let digest = digest::file(&file, DiskFormat::Raw)?;
    file.sync_all().or_fail(|| "sync the converted disk")?;
    Ok(Imported { format: DiskFormat::Raw, size_bytes, digest })
}

#[cfg(test)]
mod tests;
