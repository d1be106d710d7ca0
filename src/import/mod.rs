//! Import: any disk that people have, from a file or standard input, into a raw sparse file of the store.
//!
//! The result is raw whatever came in: the fastest base for overlays, readable by everything, and as
//! sparse as its content.
//!
//! What comes in is read by a process of its own ([`inside`]), which says where the bytes of the disk are; this one copies and
//! digests them ([`receive`]).

pub mod arrival;
pub mod cancel;
pub(crate) mod copy;
mod denied;
pub mod external;
pub mod format;
mod inside;
mod others;
pub(crate) mod progress;
pub(crate) mod receive;
mod room;
pub(crate) mod stream;
pub(crate) mod wire;

pub use format::SourceFormat;
pub(crate) use inside::HELPER;
pub use receive::{Opened, Reading, open};

use crate::block::{self, Content, DiskFormat};
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::record::limits::MAX_SIZE;
use crate::snapshot::digest::CHUNK;
use copy::Copy;
use progress::Progress;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The byte that whoever may write a disk locks. (QEMU's block/file-posix.c, RAW_LOCK_PERM_BASE, and BLK_PERM_WRITE)
const WRITERS_LOCK: u64 = 101;

/// Where a disk comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or block device.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

impl Source {
    /// `-` is standard input.
    pub fn from_argument(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::Path(path) }
    }

    /// Prefixes an error with what it is about.
    fn explain(&self, error: Error) -> Error {
        // A reader may have hidden the cancellation behind an error of its own.
        cancel::check().err().unwrap_or_else(|| match self {
            Self::Path(path) => error.context(path.display()),
            Self::Stdin => error.context("standard input"),
        })
    }

    /// The file, which nobody is seen to write.
    fn file(&self) -> Result<File> {
        let path = match self {
            Self::Path(path) => path,
            Self::Stdin => {
                let input = rustix::io::dup(std::io::stdin().as_fd());
                return Ok(input.or_fail(|| "use standard input")?.into());
            }
        };
        let refused = |why: &str| Err(Error::refused(Code::InvalidParameterValue, why));
        let text = path.to_string_lossy();
        if !path.exists() && (text.starts_with("http://") || text.starts_with("https://")) {
            return refused(
                "it is a URL; download it: curl -L URL | spore image import - --name NAME",
            );
        }
        let file = File::open(path).or_refuse(|| "open it")?;
        let metadata = file.metadata().or_fail(|| "examine it")?;
        if metadata.is_dir() {
            return refused("it is a directory, not a disk");
        }
        if metadata.file_type().is_char_device() {
            return refused(
                "it is a character device, not a disk; give a file, a block device or a pipe",
            );
        }
        if is_being_written(&file) {
            return Err(Error::refused(
                Code::IncorrectState,
                "another process has it open for writing, as QEMU does while a machine runs; shut that machine down first",
            ));
        }
        Ok(file)
    }
}

/// Whether QEMU or a program that keeps its customs says that it may write the file.
fn is_being_written(file: &File) -> bool {
    let mut lock = Flock::from(FlockType::WriteLock);
    (lock.start, lock.length) = (WRITERS_LOCK, 1);
    lock.offset_type = FlockOffsetType::Set;
    matches!(fcntl_getlk(file, &lock), Ok(Some(found)) if found.typ != FlockType::Unlocked)
}

/// How to import.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The format, if it is not to be detected.
    pub format: Option<SourceFormat>,
    /// Show progress on standard error (where that is a terminal).
    pub progress: bool,
}

/// What [`import`] left in [`crate::record::snapshot::DATA`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Always raw.
    pub format: DiskFormat,
    /// Bytes of the disk, a multiple of 512.
    pub size_bytes: u64,
    /// Its [`crate::snapshot::digest`].
    pub digest: String,
}

/// Bring the disk at `source` into `target_dir` as [`crate::record::snapshot::DATA`], complete and synced. On an error the
/// caller removes the directory with whatever is in it.
///
/// # Errors
/// The source can't be read, is damaged, is no disk, refers to other files, needs a program that is not installed,
/// or does not fit; or the import was cancelled ([`cancel`]).
pub fn import(source: &Source, target_dir: &Path, options: &Options) -> Result<Imported> {
    match open(source, target_dir, options)? {
        Opened::Disk(reading) => reading.into_disk(),
        Opened::Exported(_) => Err(source.explain(Error::refused(
            Code::InvalidParameterValue,
            "it is an exported image, which has more than a disk; 'spore image import' takes it",
        ))),
    }
}

fn check_size(size: u64) -> Result<()> {
    match size {
        0 => Err(Error::refused(
            Code::InvalidParameterValue,
            "it is empty; a disk has at least one sector",
        )),
        size if size > MAX_SIZE => Err(Error::refused(
            Code::InvalidParameterValue,
            format!("its disk of {size} bytes is larger than the limit of 16 TiB"),
        )),
        _ => Ok(()),
    }
}

/// Copy the data extents of a disk into an empty file, which is durable then. Gives the digest.
pub(crate) fn copy_extents(
    disk: &dyn block::ImportSource,
    out: File,
    progress: &Progress,
) -> Result<String> {
    copy_extents_with(disk, Copy::new(out), progress)
}

/// As [`copy_extents`], by a [`Copy`] of the caller's.
pub(crate) fn copy_extents_with(
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
