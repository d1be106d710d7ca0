//! Where a disk comes from, and how it is brought in.

use super::stream;
use crate::block::DiskFormat;
use crate::context::{Cancel, Context};
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::import::SourceFormat;
use crate::record::limits::MAX_SIZE;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The byte that whoever may write a disk locks. (QEMU's block/file-posix.c, RAW_LOCK_PERM_BASE,
/// and BLK_PERM_WRITE)
const WRITERS_LOCK: u64 = 101;

/// Where a disk comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file or block device.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// A file that came from elsewhere.
    Fetched {
        /// It, open for reading.
        file: Arc<File>,
        /// Where it is.
        path: PathBuf,
        /// Where it came from.
        from: String,
    },
}

impl Source {
    /// `-` is standard input.
    pub fn from_argument(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::Path(path) }
    }

    /// Prefixes an error with what it is about.
    pub(super) fn explain(&self, context: &Context, error: Error) -> Error {
        // A reader may have hidden the cancellation behind an error of its own.
        context.check().err().unwrap_or_else(|| match self {
            Self::Path(path) => error.context(path.display()),
            Self::Stdin => error.context("standard input"),
            Self::Fetched { from, .. } => error.context(from),
        })
    }

    /// The file, which nobody is seen to write.
    pub(super) fn file(&self, cancel: &Cancel) -> Result<File> {
        let path = match self {
            Self::Path(path) => path,
            Self::Stdin => {
                let input = rustix::io::dup(std::io::stdin().as_fd());
                return Ok(input.or_fail(|| "use standard input")?.into());
            }
            Self::Fetched { file, .. } => return file.try_clone().or_fail(|| "use it"),
        };
        let refused = |why: &str| Err(Error::refused(Code::InvalidParameterValue, why));
        let text = path.to_string_lossy();
        if !path.exists() && is_address(&text) {
            return refused(
                "it is an address: 'spore image pull' takes those of https, http, s3, oci and file",
            );
        }
        let file = open(path, cancel)?;
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

/// Whether a text begins with a scheme and two slashes. (RFC 3986 3.1)
fn is_address(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once("://") else { return false };
    let rest = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(rest)
}

/// Opens a file. Of a named pipe that is when somebody writes to it: that is waited for, and may be
/// cancelled, as an open(2) that signals can't end would not be.
fn open(path: &Path, cancel: &Cancel) -> Result<File> {
    let doing = || "open it";
    let mut options = File::options();
    let at_once = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(at_once).open(path).or_refuse(doing)?;
    let flags = rustix::fs::fcntl_getfl(&file).or_fail(doing)?;
    rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK).or_fail(doing)?;
    if file.metadata().or_fail(doing)?.file_type().is_fifo() {
        // Readable, or at its end, as soon as there is a writer. (fifo(7), poll(2))
        stream::until_readable(&file, cancel).or_refuse(doing)?;
    }
    Ok(file)
}

/// Whether QEMU or a program that keeps its customs says that it may write the file.
fn is_being_written(file: &File) -> bool {
    let mut lock = Flock::from(FlockType::WriteLock);
    (lock.start, lock.length) = (WRITERS_LOCK, 1);
    lock.offset_type = FlockOffsetType::Set;
    matches!(fcntl_getlk(file, &lock), Ok(Some(found)) if found.typ != FlockType::Unlocked)
}

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format, if it is not to be detected.
    pub format: Option<SourceFormat>,
    /// Who hears of its progress and its warnings, and what stops it.
    pub context: Context,
}

/// What an import left in [`crate::record::snapshot::DATA`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Always raw.
    pub format: DiskFormat,
    /// Bytes of the disk, a multiple of 512.
    pub size_bytes: u64,
    /// Its [`crate::snapshot::digest`].
    pub digest: String,
}

/// # Errors
/// It is no disk's.
pub(super) fn check_size(size: u64) -> Result<()> {
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
