//! An image as one stream of bytes: a file to keep, or a pipe to another machine.
//!
//! It is a tar archive. The first member is the [`Package`]; the kernel's, the ramdisk's and the disks' chunks follow
//! in that order, each compressed by zstd and named by what it belongs to and where in that it begins; what is zeros
//! is left out. An empty member ends it. Digests in the package say whether all has arrived.

pub mod read;

use super::copy;
use super::package::{self, Content, Package};
use crate::block::Content as Kind;
use crate::context::Context;
use crate::disk::Disk;
use crate::error::{Error, OrFail, Result};
use crate::id::random_hex;
use crate::record::image::Image;
use crate::snapshot::digest::{self, CHUNK, ChunkDigest, is_zero};
use crate::store::Store;
use crate::transfer::members::{END, PACKAGE};
use crate::transfer::members::{disk_member, member};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// zstd's own default.
const LEVEL: i32 = 3;

/// Write an image.
///
/// # Errors
/// It is not available, a snapshot has changed, or `out` can't be written.
pub fn write(store: &Store, image: &Image, out: &mut dyn Write) -> Result<()> {
    let package = Package::of(store, image)?;
    let context = store.context();
    let mut tar = Members { tar: tar::Builder::new(out), mtime: 0, context };
    tar.append(PACKAGE, &package.to_json()?)?;
    let kernel = (package::open_kernel(store, image)?, &package.kernel, "kernel");
    let ramdisk = (package::open_ramdisk(store, image)?, &package.ramdisk, "ramdisk");
    for (file, content, name) in [kernel, ramdisk] {
        if let (Some(file), Some(content)) = (file, content) {
            tar.append_file(&file, content, name)?;
        }
    }
    for (n, disk) in package.disks.iter().enumerate() {
        let reader = copy::open(store, &disk.name.parse()?)?;
        tar.append_disk(&reader, disk, &disk_member(n))?;
    }
    tar.append(END, &[])?;
    tar.tar.finish().or_fail(|| "write the exported image")?;
    let out = tar.tar.into_inner().or_fail(|| "write the exported image")?;
    out.flush().or_fail(|| "write the exported image")
}

/// The archive being written.
struct Members<'a, W: Write> {
    tar: tar::Builder<W>,
    mtime: u64,
    context: &'a Context,
}

impl<W: Write> Members<'_, W> {
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.context.check()?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(self.mtime);
        self.tar.append_data(&mut header, name, bytes).or_fail(|| "write the exported image")
    }

    /// A chunk, unless it is zeros.
    fn append_chunk(&mut self, what: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        if is_zero(bytes) {
            return Ok(());
        }
        let packed = zstd::bulk::compress(bytes, LEVEL).or_fail(|| "compress the image")?;
        self.append(&member(what, offset), &packed)
    }

    fn append_file(&mut self, file: &File, content: &Content, what: &str) -> Result<()> {
        let mut offset = 0;
        while offset < content.size_bytes {
            let mut bytes = vec![0; content.chunk_len(offset)];
            file.read_exact_at(&mut bytes, offset).or_fail(|| format!("read the {what}"))?;
            self.append_chunk(what, offset, &bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    fn append_disk(&mut self, disk: &Disk, content: &Content, what: &str) -> Result<()> {
        let progress = self.context.progress(Some(disk.size()));
        each_chunk(disk, content, &mut |offset, bytes| {
            progress.at(offset);
            self.append_chunk(what, offset, bytes)
        })
    }
}

/// Hand each chunk of a disk that has data to `take`, in order, and verify the whole.
///
/// # Errors
/// As `take`'s; the disk can't be read or has changed.
pub(crate) fn each_chunk(
    disk: &Disk,
    content: &Content,
    take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut digests: BTreeMap<u64, ChunkDigest> = BTreeMap::new();
    let doing = || format!("read {}", content.name);
    let mut at = 0;
    while let Some(extent) = disk.extent_at(at).or_fail(doing)? {
        if extent.content == Kind::Zero {
            at += extent.len;
            continue;
        }
        let offset = at / content.chunk_size() * content.chunk_size();
        let mut bytes = vec![0; content.chunk_len(offset)];
        disk.read_exact_at(&mut bytes, offset).or_fail(doing)?;
        for (n, piece) in bytes.chunks(CHUNK).enumerate().filter(|(_, piece)| !is_zero(piece)) {
            digests.insert(offset / CHUNK as u64 + n as u64, digest::chunk(piece));
        }
        take(offset, &bytes)?;
        at = offset + bytes.len() as u64;
    }
    let found = digest::combine(disk.size(), &digests);
    if found == content.digest {
        return Ok(());
    }
    Err(Error::failure(format!(
        "{} has changed: its digest is {found}, recorded was {}",
        content.name, content.digest
    )))
}

/// Write an image to a file, which is there whole or not at all, or to standard output.
///
/// # Errors
/// As [`write`]'s; standard output is a terminal.
pub fn to(store: &Store, image: &Image, path: &Path) -> Result<()> {
    if path.as_os_str() == "-" {
        let out = io::stdout();
        if io::IsTerminal::is_terminal(&out) {
            return Err(Error::usage("an image is not for a terminal: give -o FILE, or a pipe"));
        }
        return write(store, image, &mut out.lock());
    }
    // A pipe or a device takes it as it comes.
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        let file = File::options().write(true).open(path);
        return write(store, image, &mut file.or_fail(|| format!("open {}", path.display()))?);
    }
    let partial = Partial::beside(path)?;
    let doing = || format!("write {}", path.display());
    let file = File::options().write(true).create_new(true).mode(0o600).open(&partial.0);
    let mut file = file.or_fail(doing)?;
    write(store, image, &mut file)?;
    file.sync_all().or_fail(doing)?;
    fs::rename(&partial.0, path).or_fail(doing)
}

/// A file that goes when this does, unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    fn beside(path: &Path) -> Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", random_hex(8)?));
        Ok(Self(path.with_file_name(name)))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
