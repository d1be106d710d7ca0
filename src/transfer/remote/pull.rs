//! Copies of images out of remote regions.

use super::chunks::{Unpacker, Unpackers};
use crate::error::{OrFail, Result};
use crate::id::SnapshotId;
use crate::image::catalog;
use crate::kernel::BootFiles;
use crate::plan::DiskFormat;
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::snapshot::copy::Copy;
use crate::snapshot::digest::CHUNK;
use crate::snapshot::{self, Wanted};
use crate::store::{Staging, Store};
use crate::sys::threads;
use crate::transfer::chunk::pack;
use crate::transfer::export::read::{verified, write_file};
use crate::transfer::package::{Chunk, Content, NewImage, Package, malformed};
use crate::transfer::pending::{
    PendingImage, open_data, pending_snapshot, register, seal, unfinished,
};
use crate::transfer::remote::client::{PARALLEL, Remote};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Copy an image of a remote region into a store.
///
/// # Errors
/// There is no such image; what the region has is not what it says (`InvalidManifest`); the region fails: what was
/// copied by then stays for the next attempt.
pub fn image(from: &Remote, text: &str, to: &Store, new: &NewImage) -> Result<Image> {
    let package = from.resolve(text)?;
    let left = unfinished(to, &package, new, &to.lock()?)?.is_some();
    if !left {
        catalog::check_name(to, &new.name)?;
    }
    let boot = boot(from, to, &package)?;
    let mut incoming = PendingImage::begin(to, &package, new, boot)?;
    for (n, disk) in package.disks.iter().enumerate() {
        if let Err(error) = bring(from, disk, &mut incoming, n) {
            return Err(incoming.failed(error));
        }
    }
    incoming.complete()
}

/// Copy a snapshot of a remote region into a store. Nothing stays of one that fails.
///
/// # Errors
/// As [`image`]'s.
pub fn snapshot(from: &Remote, id: &SnapshotId, to: &Store, wanted: Wanted) -> Result<Snapshot> {
    snapshot::check(&wanted)?;
    let package = from.snapshot(id)?;
    let disk = package.disk.ok_or_else(|| malformed("it has no content"))?;
    let (id, description) = (wanted.snapshot_id, wanted.description);
    let mut pending = pending_snapshot(to, id, disk.size_bytes, description, wanted.tags)?;
    let mut work = || {
        let (out, _) = open_data(pending.owned())?;
        let digest = fetch(from, &disk, (&out, false))?;
        verified(&disk, &digest)?;
        seal(&mut pending, DiskFormat::Raw, Vec::new(), &digest)
    };
    match work() {
        Ok(()) => Ok(pending.record.clone()),
        Err(error) => {
            let _ = pending.remove();
            Err(error)
        }
    }
}

fn boot(from: &Remote, to: &Store, package: &Package) -> Result<BootFiles> {
    let staging = Staging::new(to)?;
    let mut boot = BootFiles::default();
    let mut work = || -> Result<()> {
        if let Some(content) = &package.kernel {
            let path = staging.path().join("kernel");
            fetch_file(from, content, &path)?;
            boot.kernel = register(to, &path, content)?;
        }
        if let Some(content) = &package.ramdisk {
            let path = staging.path().join("ramdisk");
            fetch_file(from, content, &path)?;
            boot.ramdisk = register(to, &path, content)?;
        }
        Ok(())
    };
    match work() {
        Ok(()) => Ok(boot),
        Err(error) => {
            boot.undo(to);
            Err(error)
        }
    }
}

fn fetch_file(from: &Remote, content: &Content, path: &Path) -> Result<()> {
    let mut chunks = content.chunks.iter().peekable();
    let mut unpacker = Unpacker::start()?;
    write_file(content, path, &mut |offset| {
        from.context().check()?;
        match chunks.next_if(|chunk| chunk.offset == offset) {
            Some(chunk) => unpacker.unpack(&from.get(chunk)?, content, offset).map(Some),
            None => Ok(None),
        }
    })
}

fn bring(from: &Remote, disk: &Content, incoming: &mut PendingImage<'_>, n: usize) -> Result<()> {
    let Some((out, begun)) = incoming.file(n)? else { return Ok(()) };
    let own = || out.try_clone().or_fail(|| "duplicate a descriptor");
    let mut digest = fetch(from, disk, (&out, begun))?;
    if begun && digest != disk.digest {
        // What an interrupted copy left may be other than what it wrote: a power failure.
        own()?.set_len(0).or_fail(|| "begin the copy again")?;
        digest = fetch(from, disk, (&out, false))?;
    }
    verified(disk, &digest)?;
    incoming.seal(n, &digest)
}

/// Fetch a disk's chunks, several at a time. Gives the digest of what is there then.
fn fetch(from: &Remote, disk: &Content, (out, begun): (&File, bool)) -> Result<String> {
    let progress = from.context().progress(Some(disk.size_bytes));
    let own = out.try_clone().or_fail(|| "duplicate a descriptor")?;
    let copy = if begun { Copy::resume(own) } else { Copy::new(own) };
    let unpackers = Unpackers::start(PARALLEL)?;
    threads::try_each(unpackers.count(), disk.chunks.iter().map(Ok), |chunk| -> Result<()> {
        progress.check()?;
        let there = begun.then(|| has(out, disk, chunk)).flatten();
        let bytes = match there {
            Some(bytes) => bytes,
            None => unpackers.unpack(&from.get(chunk)?, disk, chunk.offset)?,
        };
        for (n, piece) in bytes.chunks(CHUNK).enumerate() {
            copy.chunk(chunk.offset + (n * CHUNK) as u64, piece.to_vec())?;
        }
        progress.at(chunk.offset);
        Ok(())
    })?;
    complete(copy, out, disk, begun)
}

/// The digest of the finished copy: of the file itself if it was not empty in the beginning.
fn complete(copy: Copy, out: &File, disk: &Content, begun: bool) -> Result<String> {
    let digest = copy.finish(disk.size_bytes)?;
    if begun {
        crate::snapshot::digest::file(out, crate::plan::DiskFormat::Raw)
    } else {
        Ok(digest)
    }
}

/// The bytes of a chunk that an interrupted copy has fetched.
fn has(out: &File, disk: &Content, chunk: &Chunk) -> Option<Vec<u8>> {
    let mut bytes = vec![0; disk.chunk_len(chunk.offset)];
    out.read_exact_at(&mut bytes, chunk.offset).ok()?;
    if crate::snapshot::digest::is_zero(&bytes) {
        return None;
    }
    let (there, _) = pack(&bytes, chunk.offset).ok()?;
    (there == *chunk).then_some(bytes)
}
